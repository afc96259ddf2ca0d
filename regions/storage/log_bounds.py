"""What a batch does to a group's log bounds, and what no batch may do.

Every store keeps a `StoredGroup` per group in memory and moves it on with `advance` before it writes anything, so a
batch that breaks a rule leaves the store as it was. The rules, whose breach is always the caller's fault:

1. entries are contiguous, encoded, of terms that never fall, and begin at most one after the last one held: no hole;
2. nothing committed or truncated is replaced;
3. the term never falls, a vote is not changed within a term, `commit` never falls and stays within the log;
4. truncation stays within the log;
5. `applied` never falls and stays within the log;
6. where there are rows, nothing is truncated that they do not reflect: no restart could replay it. (A witness has none:
   it never applied anything.)
7. a chunk of a snapshot continues what is staged or begins another snapshot, its checksum matches, and the last one
   brings more than is committed here (`snapshot_bounds`).

The configurations of a group move with its log: an entry that holds one adds it, a replaced suffix takes its own along,
and a truncated prefix leaves its last one as the group's first.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from isochrone.errors import InvariantViolation, StorageError, check
from isochrone.ids import GroupId, LogIndex, Term
from isochrone.ports import LoggedConfiguration, LogWrite, StoredGroup, TermRun, WriteBatch
from isochrone.regions.storage.snapshot_bounds import stage, switch
from isochrone.wire.configurations import decode_configuration
from isochrone.wire.messages import Configuration, Entry, EntryKind, HardState, SnapshotChunk


def empty_group(configuration: Configuration) -> StoredGroup:
    """A group as it is right after it was made."""
    return StoredGroup(configuration, HardState(), LogIndex(0), Term(0), LogIndex(0), (), LogIndex(0))


def lacks_entries(group: StoredGroup) -> bool:
    """Whether entries are gone that the group's rows do not reflect."""
    return 0 < group.applied < group.truncated_index


def check_creation(groups: Mapping[GroupId, StoredGroup], group: GroupId, configuration: Configuration) -> bool:
    """Whether `group` is still to be made with `configuration`. Raises `StorageError` if it is held as another."""
    if group not in groups:
        return True
    held = groups[group]
    if held.truncated_index or held.configuration != configuration:
        raise StorageError(f"this store holds a replica of group {group} already, made with another configuration")
    return False


def commit_at_start(group: StoredGroup) -> StoredGroup:
    """The group with `commit` raised to `applied`: what was applied was committed, whatever the hard state says."""
    if group.hard_state.commit >= group.applied:
        return group
    return replace(group, hard_state=replace(group.hard_state, commit=group.applied))


def advance(groups: Mapping[GroupId, StoredGroup], batch: WriteBatch) -> dict[GroupId, StoredGroup]:
    """The groups that `batch` changes, as they are after it.

    Raises:
        InvariantViolation: the batch breaks a rule of this module; a fault of the caller.
    """
    changed: dict[GroupId, StoredGroup] = {}
    replaced = [log.group for log in batch.logs if log.chunk is not None and log.chunk.last]
    for log in batch.logs:
        check(log.group in groups, f"write to group {log.group}, which this store does not hold")
        changed[log.group] = advance_log(changed.get(log.group) or groups[log.group], log)
    for name, applied in batch.applied.items():
        check(name in groups, f"applied index of group {name}, which this store does not hold")
        group = changed.get(name) or groups[name]
        check(name not in replaced, f"{name}: a snapshot brings an applied index of its own")
        check(applied >= group.applied, f"{name}: applied index falls from {group.applied} to {applied}")
        check(applied <= group.last_index, f"{name}: applied {applied} is beyond the last entry {group.last_index}")
        changed[name] = replace(group, applied=applied)
    for name, group in changed.items():
        if lacks_entries(group):
            text = f"{name}: entries up to {group.truncated_index} go, but {group.applied} is applied"
            raise InvariantViolation(text)
    for name in dict.fromkeys([row.group for row in batch.rows]):
        check(name in groups, f"row of group {name}, which this store does not hold")
        check(name not in replaced, f"row of group {name}, whose rows a snapshot replaces in this batch")
    return changed


def advance_log(group: StoredGroup, write: LogWrite) -> StoredGroup:
    """The group after one log write: a snapshot's chunk first, then entries, truncation, and hard state."""
    group = stage(group, write)
    if write.chunk is not None and write.chunk.last:
        group = _install(group, write.group, write.chunk)
    if write.entries:
        group = _append(group, write)
    if write.truncate_to is not None and write.truncate_to > group.truncated_index:
        group = _truncate(group, write.group, write.truncate_to)
    if write.hard_state is not None:
        _check_hard_state(group, write.group, write.hard_state)
        group = replace(group, hard_state=write.hard_state)
    return group


def configuration_at(group: StoredGroup, index: LogIndex) -> Configuration:
    """The configuration as of an entry held, or of the one before the first."""
    logged = [logged.configuration for logged in group.configurations if logged.index <= index]
    return logged[-1] if logged else group.configuration


def term_at(group: StoredGroup, index: LogIndex) -> Term:
    """Term of an entry held, or of the one before the first."""
    if index == group.truncated_index:
        return group.truncated_term
    check(group.truncated_index < index <= group.last_index, f"entry {index} is not held")
    return next(run.term for run in reversed(group.term_runs) if run.first <= index)


def _append(group: StoredGroup, write: LogWrite) -> StoredGroup:
    name, first = write.group, write.entries[0].index
    check(first <= group.last_index + 1, f"{name}: entry {first} would leave a hole after {group.last_index}")
    check(first > group.truncated_index, f"{name}: entry {first} is already truncated")
    check(first > group.hard_state.commit, f"{name}: entry {first} would replace a committed one")
    runs = group.term_runs
    if first <= group.last_index:
        runs = tuple(run for run in runs if run.first < first)
    term = term_at(group, LogIndex(first - 1))
    new_runs, last = _runs_of(name, write.entries, term, is_log_empty=not runs)
    return replace(
        group,
        last_index=last,
        term_runs=runs + new_runs if new_runs else runs,
        configurations=_with_configurations_of(group.configurations, write.entries),
    )


def _with_configurations_of(
    held: tuple[LoggedConfiguration, ...], entries: tuple[Entry, ...]
) -> tuple[LoggedConfiguration, ...]:
    new = tuple(logged_configuration(entry) for entry in entries if entry.kind is EntryKind.CONFIGURATION)
    if not new and (not held or held[-1].index < entries[0].index):
        return held
    return tuple(logged for logged in held if logged.index < entries[0].index) + new


def logged_configuration(entry: Entry) -> LoggedConfiguration:
    """The configuration that an entry holds. What comes from peers has been checked to hold one."""
    try:
        return LoggedConfiguration(entry.index, decode_configuration(entry.data))
    except ValueError as error:
        raise InvariantViolation(f"entry {entry.index} should hold a configuration") from error


def _runs_of(
    name: GroupId, entries: tuple[Entry, ...], term: Term, *, is_log_empty: bool
) -> tuple[tuple[TermRun, ...], LogIndex]:
    """Runs that begin within `entries`, which follow an entry of `term`; and the last index."""
    runs: list[TermRun] = []
    expected = entries[0].index
    for entry in entries:
        check(entry.index == expected, f"{name}: entry {entry.index} follows {expected - 1}")
        check(bool(entry.encoded), f"{name}: entry {entry.index} is not encoded")
        if entry.term != term or is_log_empty:
            check(entry.term >= term, f"{name}: term falls from {term} to {entry.term} at entry {entry.index}")
            runs.append(TermRun(entry.index, entry.term))
            term, is_log_empty = entry.term, False
        expected = LogIndex(expected + 1)
    return tuple(runs), entries[-1].index


def _truncate(group: StoredGroup, name: GroupId, index: LogIndex) -> StoredGroup:
    check(index <= group.last_index, f"{name}: truncation at {index} is beyond the last entry {group.last_index}")
    term = term_at(group, index)
    later = tuple(run for run in group.term_runs if run.first > index + 1)
    if index < group.last_index:
        first = LogIndex(index + 1)
        later = (TermRun(first, term_at(group, first)), *later)
    gone = [logged.configuration for logged in group.configurations if logged.index <= index]
    return replace(
        group,
        configuration=gone[-1] if gone else group.configuration,
        truncated_index=index,
        truncated_term=term,
        term_runs=later,
        configurations=group.configurations[len(gone) :],
    )


def _install(group: StoredGroup, name: GroupId, chunk: SnapshotChunk) -> StoredGroup:
    kept = _keeps_suffix(group, chunk)
    if kept:
        group = _truncate(group, name, chunk.id.index)
    return switch(group, name, chunk, keeps_suffix=kept)


def _keeps_suffix(group: StoredGroup, chunk: SnapshotChunk) -> bool:
    index = chunk.id.index
    return group.truncated_index < index <= group.last_index and term_at(group, index) == chunk.id.index_term


@dataclass(frozen=True, slots=True)
class ChunkEffect:
    """What a store has to do for one chunk."""

    generation: int
    """Under which its rows are kept."""
    keeps_suffix: bool
    """If it is the last one: whether the log above the snapshot's index stays."""


def chunk_effects(groups: Mapping[GroupId, StoredGroup], batch: WriteBatch) -> dict[int, ChunkEffect]:
    """The effect of each chunk in a batch that `advance` allowed, by the place of its write among the batch's logs.

    `groups` are as before the batch.
    """
    effects: dict[int, ChunkEffect] = {}
    walked = {log.group: groups[log.group] for log in batch.logs if log.chunk is not None}
    for place, log in enumerate(batch.logs):
        group = walked.get(log.group)
        if group is None:
            continue
        staged = stage(group, log).staged
        if log.chunk is not None and staged is not None:
            effects[place] = ChunkEffect(staged.generation, _keeps_suffix(group, log.chunk))
        walked[log.group] = advance_log(group, log)
    return effects


def _check_hard_state(group: StoredGroup, name: GroupId, new: HardState) -> None:
    old = group.hard_state
    check(new.term >= old.term, f"{name}: term falls from {old.term} to {new.term}")
    same_vote = new.term > old.term or old.vote is None or new.vote == old.vote
    check(same_vote, f"{name}: vote in term {new.term} changes from {old.vote} to {new.vote}")
    check(new.commit >= old.commit, f"{name}: commit falls from {old.commit} to {new.commit}")
    check(new.commit <= group.last_index, f"{name}: commit {new.commit} is beyond the last entry {group.last_index}")
