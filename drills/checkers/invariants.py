"""Continuous checks: what must hold in every group at every moment, checked while a simulation runs.

**Theory of operation.** The simulation reports what becomes durable, who leads, what is applied, what is sent and what
is answered, each where it happens. `Invariants` keeps a model of every disk from that, and compares each report
with everything before it. A breach is noted as a `Violation` with its evidence; nothing is raised, so that the
simulation decides when to stop.

Log matching needs no comparison of whole logs. For each (index, term) that ever stood on a disk, the first entry seen
there and the term before it are kept. While every disk agrees with that, equal (index, term) implies, by induction,
equal prefixes. The other checks build on it: leader completeness looks only at the highest committed entry.

Order of the reports: those of one node in the order in which things happened there; `wrote` when a batch is on the
disk, also when its writer was never told; `led` before the new leader's first entry is on any disk; `applied` and `led`
of all nodes in the order of virtual time.

Cost: a few dictionary look-ups for each report and entry. Memory grows with the log.
"""

from dataclasses import dataclass, field
from enum import StrEnum
from itertools import pairwise

from isochrone.ids import GroupId, LogIndex, NodeId, ReplicaRole, Term
from isochrone.ports import LogWrite, StoredGroup
from isochrone.wire.messages import (
    AppendResponse,
    Entry,
    EntryKind,
    HardState,
    RaftMessage,
    SnapshotChunk,
    VoteRequest,
    VoteResponse,
)


class Invariant(StrEnum):
    """What can be broken."""

    ONE_LEADER_PER_TERM = "one leader per term"
    LEADER_APPEND_ONLY = "a leader only appends"
    LOG_MATCHING = "log matching"
    LEADER_COMPLETENESS = "leader completeness"
    APPLIED_PREFIX = "equal applied prefixes"
    EQUAL_STATE = "equal states at equal index"
    COMMIT_NEVER_FALLS = "a commit index never falls"
    TERM_NEVER_FALLS = "a term never falls"
    ONE_VOTE_PER_TERM = "one vote per term"
    RISING_TIMESTAMPS = "timestamps rise along the log"
    DURABLE_BEFORE_SENT = "durable before sent"
    DISK_KEEPS_WHAT_IT_HOLDS = "a disk keeps what it holds"
    WITNESS_NEVER_SERVES = "a witness never serves"
    LEARNER_NEVER_LEADS = "a learner never leads"


@dataclass(frozen=True, slots=True)
class Violation:
    """An invariant that does not hold, with the evidence."""

    invariant: Invariant
    group: GroupId
    node: NodeId
    """Where it was noticed."""
    evidence: str

    def __str__(self) -> str:
        return f"{self.invariant}: group {self.group}, node {self.node}: {self.evidence}"


@dataclass(slots=True)
class _Disk:
    """What is durable of one group on one node."""

    hard_state: HardState = field(default_factory=HardState)
    truncated_index: int = 0
    truncated_term: int = 0
    terms: list[int] = field(default_factory=list)
    """Of the entries held, from `truncated_index + 1` on."""

    @property
    def last_index(self) -> int:
        return self.truncated_index + len(self.terms)

    def term_at(self, index: int) -> int | None:
        if self.truncated_index < index <= self.last_index:
            return self.terms[index - self.truncated_index - 1]
        return self.truncated_term if index == self.truncated_index else None

    def holds(self, index: int, term: int) -> bool:
        """Whether the entry is held, or was truncated, which only committed entries are."""
        return index < self.truncated_index or self.term_at(index) == term

    @property
    def last_term(self) -> int:
        return self.terms[-1] if self.terms else self.truncated_term


@dataclass(slots=True)
class _Life:
    """One process of one node, from a start to the next."""

    term: int
    commit: int
    applied: int


@dataclass(slots=True)
class _Group:
    disks: dict[NodeId, _Disk] = field(default_factory=dict)
    lives: dict[NodeId, _Life] = field(default_factory=dict)
    leaders: dict[int, tuple[NodeId, ReplicaRole]] = field(default_factory=dict)
    last_led: int = 0
    """The highest term that had a leader."""
    votes: dict[tuple[int, NodeId], NodeId] = field(default_factory=dict)
    entries: dict[tuple[int, int], tuple[Entry, int]] = field(default_factory=dict)
    """The entry at each (index, term) that was ever on a disk, and the term of the entry before it."""
    chain: list[tuple[Entry, int]] = field(default_factory=list)
    """What was applied first at each index, and the term in which it was known to be committed."""
    states: dict[int, tuple[int, NodeId]] = field(default_factory=dict)
    """The first digest reported at each index, and by whom."""


class Invariants:
    """See the module. One object watches all groups of one run."""

    def __init__(self) -> None:
        """Nothing has been seen yet."""
        self.violations: list[Violation] = []
        """In the order in which they were noticed; what follows a first one may be a consequence of it."""
        self._groups: dict[GroupId, _Group] = {}

    # ---- disks

    def restarted(self, group: GroupId, node: NodeId, stored: StoredGroup) -> None:
        """A node starts, for the first time or again, from what its store holds of a group."""
        state = self._group(group)
        found = _Disk(stored.hard_state, stored.truncated_index, stored.truncated_term, _terms(stored))
        known = state.disks.get(node)
        if known is not None:
            self._check_kept(group, node, known, found)
        state.disks[node] = found
        state.lives[node] = _Life(stored.hard_state.term, stored.hard_state.commit, stored.applied)

    def replaced(self, group: GroupId, node: NodeId) -> None:
        """The node comes back with another store, so as another voter: what is known of its disk is forgotten."""
        state = self._group(group)
        state.disks.pop(node, None)
        state.lives.pop(node, None)
        for term, voter in [key for key in state.votes if key[1] == node]:
            del state.votes[term, voter]

    def wrote(self, group: GroupId, node: NodeId, log: LogWrite) -> None:
        """A change to a group's log is on the node's disk."""
        state = self._group(group)
        disk = state.disks.get(node)
        if disk is None:
            disk = state.disks[node] = _Disk()
        if log.chunk is not None and log.chunk.last:
            self._install(group, node, disk, log.chunk)
        if log.hard_state is not None:
            self._check_hard_state(group, node, disk.hard_state, log.hard_state)
            disk.hard_state = log.hard_state
        if log.entries:
            self._write_entries(group, node, disk, log.entries)
        if log.truncate_to is not None:
            self._truncate(group, node, disk, log.truncate_to)

    def _check_hard_state(self, group: GroupId, node: NodeId, old: HardState, new: HardState) -> None:
        if new.term < old.term:
            self._note(Invariant.TERM_NEVER_FALLS, group, node, f"the stored term fell from {old.term} to {new.term}")
        elif new.term == old.term and old.vote is not None and new.vote != old.vote:
            text = f"the stored vote of term {old.term} changed from {old.vote} to {new.vote}"
            self._note(Invariant.ONE_VOTE_PER_TERM, group, node, text)
        if new.commit < old.commit:
            text = f"the stored commit index fell from {old.commit} to {new.commit}"
            self._note(Invariant.COMMIT_NEVER_FALLS, group, node, text)
        if new.vote is not None:
            first = self._group(group).votes.setdefault((new.term, node), new.vote)
            if first != new.vote:
                text = f"it voted for {first} and for {new.vote} in term {new.term}"
                self._note(Invariant.ONE_VOTE_PER_TERM, group, node, text)

    def _write_entries(self, group: GroupId, node: NodeId, disk: _Disk, entries: tuple[Entry, ...]) -> None:
        state = self._group(group)
        first = entries[0].index
        kept = first - disk.truncated_index - 1
        if not 0 <= kept <= len(disk.terms):
            text = f"entry {first} was written to a log that holds {disk.truncated_index + 1} to {disk.last_index}"
            self._note(Invariant.DISK_KEEPS_WHAT_IT_HOLDS, group, node, text)
            return
        if kept < len(disk.terms):
            leader = state.leaders.get(disk.hard_state.term)
            if leader is not None and leader[0] == node:
                text = f"it leads term {disk.hard_state.term} and replaced its entries {first} to {disk.last_index}"
                self._note(Invariant.LEADER_APPEND_ONLY, group, node, text)
            del disk.terms[kept:]
        previous_term = disk.terms[-1] if disk.terms else disk.truncated_term
        for entry in entries:
            self._check_entry(group, node, state, entry, previous_term)
            disk.terms.append(entry.term)
            previous_term = entry.term

    def _check_entry(self, group: GroupId, node: NodeId, state: _Group, entry: Entry, previous_term: int) -> None:
        known = state.entries.setdefault((entry.index, entry.term), (entry, previous_term))
        if known[0] is not entry and known[0] != entry:
            text = f"two entries at index {entry.index} of term {entry.term}: {_name(known[0])}, and {_name(entry)}"
            self._note(Invariant.LOG_MATCHING, group, node, text)
        if known[1] != previous_term:
            text = f"entry {entry.index} of term {entry.term} follows term {known[1]} elsewhere, {previous_term} here"
            self._note(Invariant.LOG_MATCHING, group, node, text)
        if entry.kind in (EntryKind.COMMANDS, EntryKind.HOUSEKEEPING):
            leader = state.leaders.get(entry.term)
            if leader is not None and leader[1] is ReplicaRole.WITNESS:
                text = f"the witness {leader[0]}, relay of term {entry.term}, took the commands of entry {entry.index}"
                self._note(Invariant.WITNESS_NEVER_SERVES, group, node, text)

    def _truncate(self, group: GroupId, node: NodeId, disk: _Disk, index: LogIndex) -> None:
        term = disk.term_at(index)
        if term is None:
            text = f"a log that holds {disk.truncated_index + 1} to {disk.last_index} was truncated to {index}"
            self._note(Invariant.DISK_KEEPS_WHAT_IT_HOLDS, group, node, text)
            return
        if index > disk.hard_state.commit:
            text = f"entries up to {index} were dropped, but only those up to {disk.hard_state.commit} are committed"
            self._note(Invariant.DISK_KEEPS_WHAT_IT_HOLDS, group, node, text)
        del disk.terms[: index - disk.truncated_index]
        disk.truncated_index, disk.truncated_term = index, term

    def _install(self, group: GroupId, node: NodeId, disk: _Disk, chunk: SnapshotChunk) -> None:
        """A snapshot takes the place of state and log; what follows in the log stays only after the very same entry."""
        index, term, chain = chunk.id.index, chunk.id.index_term, self._group(group).chain
        known = chain[index - 1][0].term if index <= len(chain) else None
        if known != term and (known is not None or chunk.with_state):
            text = f"a snapshot up to entry {index} of term {term} was installed; applied there was one of term {known}"
            self._note(Invariant.APPLIED_PREFIX, group, node, text)
        if index <= disk.hard_state.commit:
            text = f"a snapshot up to entry {index} was installed, and {disk.hard_state.commit} was committed already"
            self._note(Invariant.DISK_KEEPS_WHAT_IT_HOLDS, group, node, text)
        if disk.truncated_index < index and disk.term_at(index) == term:
            del disk.terms[: index - disk.truncated_index]
        else:
            disk.terms.clear()
        disk.truncated_index, disk.truncated_term = index, term
        if chunk.with_state:
            self._life(group, node).applied = index

    def _check_kept(self, group: GroupId, node: NodeId, known: _Disk, found: _Disk) -> None:
        """A restart must find what the disk holds. The commit index may be raised to what is applied."""
        old, new = known.hard_state, found.hard_state
        if new.term < old.term:
            text = f"term {old.term} was durable, and after the restart it is {new.term}"
            self._note(Invariant.TERM_NEVER_FALLS, group, node, text)
        elif new.term == old.term and new.vote != old.vote:
            text = f"the vote of term {old.term} was {old.vote}, and after the restart it is {new.vote}"
            self._note(Invariant.ONE_VOTE_PER_TERM, group, node, text)
        if new.commit < old.commit:
            text = f"commit index {old.commit} was durable, and after the restart it is {new.commit}"
            self._note(Invariant.COMMIT_NEVER_FALLS, group, node, text)
        log, log_found = [(disk.truncated_index, disk.truncated_term, disk.terms) for disk in (known, found)]
        if log != log_found:
            text = f"{_bounds(known)} was durable, and after the restart it is {_bounds(found)}"
            self._note(Invariant.DISK_KEEPS_WHAT_IT_HOLDS, group, node, text)

    # ---- leaders and commits

    def led(self, group: GroupId, node: NodeId, role: ReplicaRole, term: Term) -> None:
        """The node became leader of the term."""
        state = self._group(group)
        first = state.leaders.setdefault(term, (node, role))
        if first[0] != node:
            text = f"it leads term {term}, which {first[0]} leads too"
            self._note(Invariant.ONE_LEADER_PER_TERM, group, node, text)
        if role is ReplicaRole.LEARNER:
            self._note(Invariant.LEARNER_NEVER_LEADS, group, node, f"a learner leads term {term}")
        state.last_led = max(state.last_led, term)
        # What was committed in this term or later is nothing that this leader must have had.
        committed = next((entry for entry, in_term in reversed(state.chain) if in_term < term), None)
        if committed is not None:
            self._check_complete(group, node, state, term, committed)

    def _check_complete(self, group: GroupId, node: NodeId, state: _Group, term: int, committed: Entry) -> None:
        disk = state.disks.get(node)
        if disk is not None and not disk.holds(committed.index, committed.term):
            text = f"it leads term {term} with {_bounds(disk)}, without {_name(committed)}, which is committed"
            self._note(Invariant.LEADER_COMPLETENESS, group, node, text)

    def observed(self, group: GroupId, node: NodeId, term: Term, commit: LogIndex) -> None:
        """A replica's present term and commit index, as often as the simulation likes to tell them."""
        life = self._life(group, node)
        if term < life.term:
            self._note(Invariant.TERM_NEVER_FALLS, group, node, f"its term fell from {life.term} to {term}")
        if commit < life.commit:
            text = f"its commit index fell from {life.commit} to {commit}"
            self._note(Invariant.COMMIT_NEVER_FALLS, group, node, text)
        life.term, life.commit = term, commit

    def applied(self, group: GroupId, node: NodeId, term: Term, entry: Entry) -> None:
        """A replica in `term` applies an entry: it takes it as committed."""
        state, life = self._group(group), self._life(group, node)
        index = entry.index
        if index != life.applied + 1:
            text = f"entry {index} was applied after entry {life.applied}"
            self._note(Invariant.APPLIED_PREFIX, group, node, text)
        life.applied = index
        chain = state.chain
        if index <= len(chain):
            if chain[index - 1][0] is not entry and chain[index - 1][0] != entry:
                text = f"it applied {_name(entry)} where another replica applied {_name(chain[index - 1][0])}"
                self._note(Invariant.APPLIED_PREFIX, group, node, text)
            return
        if chain and chain[-1][0].last_timestamp >= entry.timestamp:
            text = f"entry {index} has timestamp {entry.timestamp}, after {chain[-1][0].last_timestamp} before it"
            self._note(Invariant.RISING_TIMESTAMPS, group, node, text)
        if index == len(chain) + 1:
            chain.append((entry, term))
        if state.last_led > term:
            # It was committed before that leader was elected, and is known only now.
            self._check_complete(group, state.leaders[state.last_led][0], state, state.last_led, entry)

    def state_at(self, group: GroupId, node: NodeId, index: LogIndex, digest: int) -> None:
        """A replica's state, by a digest, after it has applied the log up to `index`; also after a restart."""
        first = self._group(group).states.setdefault(index, (digest, node))
        if first[0] != digest:
            text = f"its state at index {index} differs from that of {first[1]}: digest {digest} and {first[0]}"
            self._note(Invariant.EQUAL_STATE, group, node, text)

    # ---- what others are told

    def sent(self, group: GroupId, node: NodeId, to: NodeId, message: RaftMessage) -> None:
        """A message leaves: what it claims of its sender must be on the sender's disk.

        A message waits for the write that makes it true. When the disk is slow, or many messages are handled at once,
        the same write may go on to replace what the message tells of, in a later term; the message then leaves as late
        as the network might have delivered it. So of a log that was replaced since, nothing can be asked.
        """
        state = self._groups.get(group) or self._group(group)
        disk = state.disks.get(node) or _Disk()
        stored = disk.hard_state
        match message:
            case VoteRequest():
                if disk.last_term <= message.last_term and not disk.holds(message.last_index, message.last_term):
                    claim = (
                        f"it claims entry {message.last_index} of term {message.last_term}; it holds {_bounds(disk)}"
                    )
                    self._note(Invariant.DURABLE_BEFORE_SENT, group, node, claim)
                if not message.pre:
                    self._check_vote(group, node, stored, message.term, node)
                return
            case VoteResponse(granted=True):
                if not message.pre:
                    self._check_vote(group, node, stored, message.term, to)
                return
            case AppendResponse(accepted=True) if message.term >= stored.term and message.index > disk.last_index:
                text = f"it acknowledges entry {message.index} to {to}; it holds {_bounds(disk)}"
                self._note(Invariant.DURABLE_BEFORE_SENT, group, node, text)
            case _:
                pass
        if message.term > stored.term:
            text = f"a {type(message).__name__} of term {message.term} leaves while term {stored.term} is durable"
            self._note(Invariant.DURABLE_BEFORE_SENT, group, node, text)

    def _check_vote(self, group: GroupId, node: NodeId, stored: HardState, term: int, candidate: NodeId) -> None:
        # A later vote may be durable already when an earlier one leaves.
        if stored.term < term or (stored.term == term and stored.vote != candidate):
            text = f"its vote for {candidate} in term {term} leaves while {_vote(stored)} is durable"
            self._note(Invariant.DURABLE_BEFORE_SENT, group, node, text)

    def served(self, group: GroupId, node: NodeId, role: ReplicaRole, request: str) -> None:
        """A client's request (`read`, `write`) was answered with a result, not with an error."""
        if role is ReplicaRole.WITNESS:
            self._note(Invariant.WITNESS_NEVER_SERVES, group, node, f"a witness answered a {request}")

    # ---- bookkeeping

    def _group(self, group: GroupId) -> _Group:
        state = self._groups.get(group)
        if state is None:
            state = self._groups[group] = _Group()
        return state

    def _life(self, group: GroupId, node: NodeId) -> _Life:
        lives = self._group(group).lives
        life = lives.get(node)
        if life is None:
            life = lives[node] = _Life(0, 0, 0)
        return life

    def _note(self, invariant: Invariant, group: GroupId, node: NodeId, evidence: str) -> None:
        self.violations.append(Violation(invariant, group, node, evidence))


def _terms(stored: StoredGroup) -> list[int]:
    """The term of every entry held."""
    bounds = pairwise([*(run.first for run in stored.term_runs), LogIndex(stored.last_index + 1)])
    return [run.term for run, (first, end) in zip(stored.term_runs, bounds, strict=True) for _ in range(first, end)]


def _name(entry: Entry) -> str:
    return f"entry {entry.index} of term {entry.term} ({entry.kind.name.lower()}, {len(entry.data)} bytes)"


def _vote(stored: HardState) -> str:
    return f"term {stored.term} with a vote for {stored.vote or 'nobody'}"


def _bounds(disk: _Disk) -> str:
    """The log as runs of terms, such as `entries 1-4 of term 1, 5-9 of term 3`."""
    first = disk.truncated_index + 1
    starts = [0, *(n + 1 for n, (a, b) in enumerate(pairwise(disk.terms)) if a != b), len(disk.terms)]
    runs = [f"{first + a}-{first + b - 1} of term {disk.terms[a]}" for a, b in pairwise(starts) if a < b]
    return f"a log from {first} with " + (", ".join(runs[-4:]) or "no entry")
