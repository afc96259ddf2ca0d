"""What a chunk of a snapshot does to a group's bounds, in every store. Pure; see `log_bounds` for how it is used.

A snapshot is staged as rows of a *generation* of their own, a number that no snapshot of the group had before. So the
last chunk switches by changing records only: the rows in force are those of the group's generation. The rows of the
generation before it, and those of an attempt that came to nothing, are dead; a store deletes them at its leisure.
"""

from dataclasses import replace

import google_crc32c

from isochrone.errors import InvariantViolation, check
from isochrone.ids import GroupId
from isochrone.ports import LogWrite, StagedSnapshot, StoredGroup
from isochrone.wire.messages import SnapshotChunk


def living_generations(group: StoredGroup) -> tuple[int, ...]:
    """The generations whose rows are in force or staged."""
    return (group.generation,) if group.staged is None else (group.generation, group.staged.generation)


def stage(group: StoredGroup, write: LogWrite) -> StoredGroup:
    """The group after the chunk of a write is staged, or after what was staged is given up. No switch yet.

    Raises:
        InvariantViolation: the chunk does not follow what is staged; a fault of the caller.
    """
    check(not write.discard_staged or write.chunk is None, f"{write.group}: a chunk is to be staged and discarded")
    if write.discard_staged:
        group = replace(group, staged=None)
    if write.chunk is None:
        return group
    staged = _staged_with(group, write.group, write.chunk)
    return replace(group, staged=staged, generations=max(group.generations, staged.generation))


def _staged_with(group: StoredGroup, name: GroupId, chunk: SnapshotChunk) -> StagedSnapshot:
    """What is staged, with a chunk that continues it or begins another snapshot."""
    staged = group.staged
    if chunk.position == 0:
        staged = StagedSnapshot(chunk.id, 0, 0, group.generations + 1)
    if staged is None or (staged.id, staged.position) != (chunk.id, chunk.position):
        raise InvariantViolation(f"{name}: the chunk at byte {chunk.position} of {chunk.id} does not follow {staged}")
    checksum = int(google_crc32c.extend(staged.checksum, chunk.data))
    check(checksum == chunk.checksum, f"{name}: the snapshot up to byte {chunk.end} does not match its checksum")
    return replace(staged, position=chunk.end, checksum=checksum)


def switch(group: StoredGroup, name: GroupId, chunk: SnapshotChunk, *, keeps_suffix: bool) -> StoredGroup:
    """The group after the staged snapshot, whose last chunk this is, has taken the place of rows and log.

    `keeps_suffix`: the log holds the very entry at the snapshot's index, and the caller cuts it there.
    """
    index, staged = chunk.id.index, group.staged
    check(
        index > group.hard_state.commit, f"{name}: a snapshot at {index} comes after commit {group.hard_state.commit}"
    )
    if staged is None:
        raise InvariantViolation(f"{name}: no snapshot is staged")
    if not keeps_suffix:
        group = replace(group, last_index=index, term_runs=(), configurations=())
    return replace(
        group,
        configuration=chunk.configuration,
        truncated_index=index,
        truncated_term=chunk.id.index_term,
        base_timestamp=max(group.base_timestamp, chunk.timestamp),
        applied=index if chunk.with_state else group.applied,
        staged=None,
        generation=staged.generation if chunk.with_state else group.generation,
    )
