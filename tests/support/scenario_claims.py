"""What must hold at every step of a scenario, whatever its trace says. A breach is an `AssertionError`.

Checked against the disks, not against what the cores believe: a message whose claim is not durable at its sender, a
commit that no quorum of disks holds, two leaders or two votes of one voter in a term, entries applied out of order or
differently, a read that misses an acknowledged write.
"""

from collections.abc import Callable

from isochrone.errors import InvariantViolation
from isochrone.ids import LogIndex, NodeId, ReplicaRole, StoreId, Term
from isochrone.ports import StoredGroup
from isochrone.regions.raft.changes import all_members
from isochrone.regions.raft.quorum import voter_halves
from isochrone.regions.storage.log_bounds import term_at
from isochrone.wire.messages import (
    AppendRequest,
    AppendResponse,
    Configuration,
    Entry,
    Heartbeat,
    RaftMessage,
    VoteRequest,
    VoteResponse,
)

DiskOf = Callable[[NodeId], tuple[StoreId, StoredGroup]]
"""A node's store, and what it holds durably."""


class Claims:
    """See the module. Collects what was promised so far."""

    def __init__(self, disk_of: DiskOf, store_of: Callable[[NodeId], StoreId]) -> None:
        """`store_of` names the store that a node was added with."""
        self._disk_of = disk_of
        self._store_of = store_of
        self._votes: dict[tuple[Term, NodeId, StoreId], NodeId] = {}
        self._leaders: dict[Term, NodeId] = {}
        self.chain: list[Entry] = []
        """Everything applied anywhere, in order."""
        self._proposed: set[tuple[LogIndex, Term, bytes]] = set()
        self.acknowledged: dict[LogIndex, bytes] = {}
        """Proposals that were applied somewhere, so may have been answered."""
        self._reads: dict[int, LogIndex] = {}
        self.forgetful: set[NodeId] = set()
        """Nodes whose disk has lost what it promised to hold: what others believe of them need not be so."""

    def leads(self, node: NodeId, term: Term) -> None:
        """A node became leader."""
        assert self._leaders.setdefault(term, node) == node, f"two leaders in term {term}"

    def proposed(self, index: LogIndex, term: Term, data: bytes) -> None:
        """A leader took a proposal."""
        self._proposed.add((index, term, data))

    def asks(self, context: int) -> None:
        """A read begins: whatever is acknowledged now it must see."""
        self._reads[context] = max(self.acknowledged, default=LogIndex(0))

    def answers(self, context: int, index: LogIndex) -> None:
        """A read may be answered from state up to `index`."""
        assert index >= self._reads[context], f"read {context} misses an acknowledged write"

    def applies(self, entry: Entry, expected: LogIndex) -> None:
        """A node applies an entry; `expected` is the index that follows what it has applied."""
        assert entry.index == expected, f"entry {entry.index} is applied where {expected} is due"
        if len(self.chain) < entry.index:
            self.chain.append(entry)
        assert self.chain[entry.index - 1] == entry, f"replicas apply different entries at {entry.index}"
        if (entry.index, entry.term, entry.data) in self._proposed:
            self.acknowledged[entry.index] = entry.data

    def sends(self, source: NodeId, target: NodeId, message: RaftMessage, configuration: Configuration) -> None:
        """A message leaves: what it claims of its sender is on the sender's disk."""
        store, disk = self._disk_of(source)
        match message:
            case VoteRequest():
                claim = (message.last_index, message.last_term)
                assert (disk.last_index, _term_at(disk, disk.last_index)) == claim, (
                    "a log is claimed that is not durable"
                )
                if message.pre:
                    return
                self._check_vote(message.term, source, store, disk, source)
            case VoteResponse() if message.granted and message.pre:
                return
            case VoteResponse() if message.granted:
                self._check_vote(message.term, source, store, disk, target)
            case AppendResponse() if message.accepted:
                assert disk.last_index >= message.index, "entries are acknowledged before they are durable"
            case AppendRequest():
                self._check_truncation(message.truncate_to, message.commit, configuration)
            case Heartbeat():
                peer_store, peer = self._disk_of(target)
                known = peer_store == self._store_of(target) and target not in self.forgetful
                assert not known or peer.last_index >= message.commit, f"{target} is told of a commit beyond its log"
                self._check_truncation(message.truncate_to, message.truncate_to, configuration)
            case _:
                pass
        assert disk.hard_state.term >= message.term, "a term leaves before it is durable"

    def _check_vote(self, term: Term, voter: NodeId, store: StoreId, disk: StoredGroup, candidate: NodeId) -> None:
        assert (disk.hard_state.term, disk.hard_state.vote) == (term, candidate), "a vote leaves before it is durable"
        first = self._votes.setdefault((term, voter, store), candidate)
        assert first == candidate, f"{voter} votes for {first} and {candidate} in term {term}"

    def _check_truncation(self, truncate_to: int, commit: int, configuration: Configuration) -> None:
        full = [
            self._disk_of(node)[1].last_index
            for node, each in all_members(configuration).items()
            if each.role is ReplicaRole.FULL and node not in self.forgetful
        ]
        assert truncate_to <= min(commit, *full), "a full voter may need what is dropped"

    def commits(self, configuration: Configuration, commit: LogIndex) -> None:
        """A leader calls `commit` committed: a quorum of each half holds it durably, a full replica among it."""
        full = {member.node for member in all_members(configuration).values() if member.role is ReplicaRole.FULL}
        for half in voter_halves(configuration):
            disks = {node: self._disk_of(node)[1] for node in half.voters}
            terms = [term for disk in disks.values() if (term := _term_at(disk, commit)) is not None]
            term = max(terms, key=terms.count, default=Term(0))  # no entry has term 0
            holders = [
                n for n, disk in disks.items() if disk.truncated_index > commit or _term_at(disk, commit) == term
            ]
            text = f"entry {commit} is committed, but only {len(holders)} of {half.voters} hold it"
            assert len(holders) >= half.quorums.commit and full & set(holders), text


def _term_at(disk: StoredGroup, index: int) -> Term | None:
    try:
        return term_at(disk, LogIndex(index))
    except InvariantViolation:
        return None
