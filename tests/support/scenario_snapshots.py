"""How a node of a scenario keeps, sends and loads its state: as a host does, with one row for each entry applied."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from scenario_site import KEYSPACE, Site, finish

from isochrone.ids import GroupId, LogIndex
from isochrone.ports import LogWrite, Row, WriteBatch
from isochrone.regions.raft.node import RaftNode
from isochrone.regions.raft.ready import AppendWork, Ready, SnapshotPart
from isochrone.wire.entries import decode_entry
from isochrone.wire.messages import Entry

if TYPE_CHECKING:
    from scenario_world import World

TABLE = 1


def row_of(group: GroupId, entry: Entry) -> Row:
    """The row that an entry leaves in the state."""
    return Row(group, KEYSPACE, TABLE, b"%08d" % entry.index, entry.encoded)


def batch_of(site: Site, work: AppendWork, group: GroupId) -> WriteBatch:
    """What a host would store for this work: with it the rows of all that was applied since the last time."""
    chunk = work.chunk
    site.loading |= chunk is not None and chunk.last and chunk.with_state
    if not (work.hard_state or work.entries or chunk or work.truncate_to is not None or work.discard_staged):
        return WriteBatch()
    log = LogWrite(group, work.hard_state, work.entries, work.truncate_to, chunk, work.discard_staged)
    if site.loading or not site.keeps_state:
        return WriteBatch((log,))
    rows = tuple(row_of(group, entry) for entry in site.applied[site.rows_queued :])
    site.rows_queued = len(site.applied)
    return WriteBatch((log,), rows, {group: LogIndex(len(site.applied))})


def state_on_disk(site: Site, group: GroupId) -> list[Entry]:
    """What the rows on a node's disk say was applied, in order."""
    return [decode_entry(row.value) for row in finish(site.store.read_rows(group)) if row.value is not None]


def take_snapshots(world: "World", site: Site, core: RaftNode, ready: Ready, group: GroupId) -> None:
    """Read for peers what they are to get, free what they need no more, load what has been installed."""
    for read in ready.snapshot_reads:
        reader = site.snapshots.get(read.attempt)
        if reader is None:
            reader = site.snapshots[read.attempt] = finish(site.store.open_snapshot(group))
        found = None if site.loses_snapshots else finish(reader.read(read.bytes_max))
        world.note(f"  reads snapshot {read.attempt}{' in vain' * (found is None)}")
        part = found and SnapshotPart(reader.index, reader.index_term, reader.configuration, *found)
        core.snapshot_read(read.attempt, part, world.now)
    _close(world, site, ready.snapshot_ends)
    if ready.load:
        site.applied[:] = state_on_disk(site, group)
        site.rows_queued, site.loading = len(site.applied), False
        world.note(f"  loads the state up to {len(site.applied)}")
        assert site.applied == world.claims.chain[: len(site.applied)], "a snapshot brings what was never applied"
        core.snapshot_loaded(finish(site.store.load(group)).applied)


def _close(world: "World", site: Site, attempts: Iterable[int]) -> None:
    for attempt in attempts:
        reader = site.snapshots.pop(attempt, None)
        if reader is not None:
            reader.close()
            world.note(f"  closes snapshot {attempt}")
