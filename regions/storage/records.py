"""The records of a group in the `meta` database: what a store remembers of it besides entries and rows. Pure."""

from collections.abc import Mapping
from dataclasses import replace
from typing import cast

from isochrone.errors import StorageError
from isochrone.ids import GroupId, LogIndex, NodeId, Term, Timestamp
from isochrone.ports import LoggedConfiguration, StagedSnapshot, StoredGroup, TermRun
from isochrone.regions.storage import layout
from isochrone.wire.configurations import configuration_from_plain, configuration_to_plain
from isochrone.wire.messages import Configuration, HardState, SnapshotId

Changes = dict[bytes, bytes | None]
"""Values to put by key; None deletes."""


def group_from_records(number: int, group: StoredGroup, records: Mapping[bytes, object]) -> StoredGroup:
    """A group as its records describe it; `_complete_groups` completes it."""
    hard_state, applied, truncated = group.hard_state, group.applied, (group.truncated_index, group.truncated_term)
    if found := records.get(layout.hard_state_key(number)):
        term, vote, commit = cast("tuple[int, str | None, int]", found)
        hard_state = HardState(Term(term), None if vote is None else NodeId(vote), LogIndex(commit))
    if found := records.get(layout.applied_key(number)):
        applied = LogIndex(cast("int", found))
    if found := records.get(layout.truncated_key(number)):
        index, term = cast("tuple[int, int]", found)
        truncated = (LogIndex(index), Term(term))
    if found := records.get(layout.generation_key(number)):
        generation, generations, timestamp = cast("tuple[int, int, int]", found)
        group = replace(group, generation=generation, generations=generations, base_timestamp=Timestamp(timestamp))
    if found := records.get(layout.staged_key(number)):
        group = replace(group, staged=_staged(found))
    prefix = layout.run_prefix(number)
    runs = tuple(
        TermRun(layout.index_of(key[len(prefix) :]), Term(cast("int", value)))
        for key, value in records.items()
        if key.startswith(prefix)
    )
    prefix = layout.configuration_prefix(number)
    configurations = tuple(
        LoggedConfiguration(layout.index_of(key[len(prefix) :]), configuration_of(key, value))
        for key, value in records.items()
        if key.startswith(prefix)
    )
    return replace(
        group,
        hard_state=hard_state,
        applied=applied,
        truncated_index=truncated[0],
        truncated_term=truncated[1],
        term_runs=runs,
        configurations=configurations,
    )


def _staged(plain: object) -> StagedSnapshot:
    numbers = cast("tuple[int, int, int, int, int, int, int]", plain)
    term, attempt, index, index_term, position, checksum, generation = numbers
    name = SnapshotId(Term(term), attempt, LogIndex(index), Term(index_term))
    return StagedSnapshot(name, position, checksum, generation)


def configuration_of(key: bytes, plain: object) -> Configuration:
    """The configuration in the record under `key`. Raises `StorageError`."""
    try:
        return configuration_from_plain(plain)
    except ValueError as error:
        raise StorageError(f"record {key!r} does not hold a configuration") from error


def collect_group(records: Changes, number: int, name: GroupId, before: StoredGroup, after: StoredGroup) -> None:
    """Add the records that differ between two states of a group."""
    if after.configuration is not before.configuration:
        collect(records, layout.group_key(number), (name, configuration_to_plain(after.configuration)))
    if after.configurations is not before.configurations:
        for logged in before.configurations:
            records[layout.configuration_key(number, logged.index)] = None
        for logged in after.configurations:
            key = layout.configuration_key(number, logged.index)
            collect(records, key, configuration_to_plain(logged.configuration))
    if after.hard_state != before.hard_state:
        hard_state = after.hard_state
        collect(records, layout.hard_state_key(number), (hard_state.term, hard_state.vote, hard_state.commit))
    if (after.generation, after.generations, after.base_timestamp) != (
        before.generation,
        before.generations,
        before.base_timestamp,
    ):
        value = (after.generation, after.generations, after.base_timestamp)
        collect(records, layout.generation_key(number), value)
    if after.staged != before.staged:
        records[layout.staged_key(number)] = None
        if (staged := after.staged) is not None:
            name_of = (staged.id.term, staged.id.attempt, staged.id.index, staged.id.index_term)
            collect(records, layout.staged_key(number), (*name_of, staged.position, staged.checksum, staged.generation))
    if after.applied != before.applied:
        collect(records, layout.applied_key(number), after.applied)
    if after.truncated_index != before.truncated_index:
        collect(records, layout.truncated_key(number), (after.truncated_index, after.truncated_term))
    if after.term_runs is not before.term_runs:
        for gone in set(before.term_runs).difference(after.term_runs):
            records[layout.run_key(number, gone.first)] = None
        for run in set(after.term_runs).difference(before.term_runs):
            collect(records, layout.run_key(number, run.first), run.term)


def collect(records: Changes, key: bytes, value: object) -> None:
    """Add one record."""
    records[key] = layout.encode_record(key, value)
