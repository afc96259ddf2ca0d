"""The LMDB environment of one node: made at bootstrap, opened, checked, read and changed. No threads here.

**Size.** The data file is kept as long as the map (a sparse file; `du` tells what it really takes), and LMDB's first
pages hold the size of the map. So a file cut short is noticed before anything is read through the map, where it would
end the process with a bus error. The map doubles up to a limit.

**Locks.** LMDB's own lock file is not used: the caller holds the lock of the data directory, and every transaction of
an environment begins and ends in one thread.

HAZARD: LMDB trusts the pages of its tree. Checksums cover entries, rows and records; damage to the tree's inner pages
may still end the process. It then fails to start, which is what a damaged store should do.
"""

import os
from array import array
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from operator import attrgetter
from pathlib import Path
from typing import TypeAlias, cast

import lmdb

from isochrone.errors import StorageError
from isochrone.ids import ClusterId, GroupId, Incarnation, KeyspaceId, LogIndex, NodeId, StoreId
from isochrone.ports import Row, StoredGroup, StoreIdentity, WriteBatch
from isochrone.regions.storage import layout
from isochrone.regions.storage.log_bounds import ChunkEffect, chunk_effects, commit_at_start, empty_group, lacks_entries
from isochrone.regions.storage.records import Changes, collect, collect_group, configuration_of, group_from_records
from isochrone.regions.storage.snapshot_bounds import living_generations
from isochrone.regions.storage.snapshot_lmdb import DeadRows, Snapshot
from isochrone.wire.configurations import configuration_to_plain
from isochrone.wire.entries import CorruptEntry, decode_entry
from isochrone.wire.messages import Configuration, Entry, SnapshotChunk
from isochrone.wire.rows import decode_rows

DATA_FILE = "data.mdb"
MAP_BYTES_FIRST = 64 << 20
GROUPS_MAX = 1000
"""Most groups of one node: each has a database of its own for its log."""

Medium = tuple[int, int, int]
"""What holds the data file: file system, inode and generation of the inode."""

Transaction: TypeAlias = "lmdb.Transaction[bytes]"
Database: TypeAlias = "lmdb._Database"  # the class has no public name


@dataclass(slots=True)
class Image:
    """An open environment and, in memory, the bounds of each group."""

    path: Path
    environment: lmdb.Environment
    meta: Database
    rows: Database
    identity: StoreIdentity
    medium: Medium
    groups: dict[GroupId, StoredGroup] = field(default_factory=dict)
    numbers: dict[GroupId, int] = field(default_factory=dict)
    logs: dict[GroupId, Database] = field(default_factory=dict)
    incarnations: dict[NodeId, Incarnation] = field(default_factory=dict)
    snapshots: list[Snapshot] = field(default_factory=list)
    """Those that are being read."""
    dead_rows: DeadRows = field(default_factory=DeadRows)


@contextmanager
def _lmdb_errors(action: str) -> Iterator[None]:
    try:
        yield
    except (lmdb.Error, OSError) as error:
        raise StorageError(f"{action}: {error}") from error


def create_image(
    directory: Path,
    identity: StoreIdentity,
    groups: Mapping[GroupId, Configuration],
    medium_of: Callable[[Path], Medium],
) -> None:
    """Create the environment of a new store in an existing directory. Not durable before its directory is synced.

    Raises:
        StorageError: it could not be made; what was written stays for inspection.
    """
    if len(groups) > GROUPS_MAX:
        raise StorageError(f"{len(groups)} groups for one node; at most {GROUPS_MAX} are allowed")
    with _lmdb_errors(f"cannot create a store in {directory}"):
        environment = _open_environment(directory, MAP_BYTES_FIRST)
        try:
            _extend_file(directory / DATA_FILE, MAP_BYTES_FIRST)
            meta = environment.open_db(b"meta")
            environment.open_db(b"rows")
            records = _identity_records(identity, medium_of(directory / DATA_FILE))
            for number, name in enumerate(sorted(groups)):
                environment.open_db(layout.log_name(number))
                records[layout.group_key(number)] = (name, configuration_to_plain(groups[name]))
            with environment.begin(write=True, db=meta) as txn:
                for key, value in records.items():
                    txn.put(key, layout.encode_record(key, value))
        finally:
            environment.close()


def open_image(directory: Path) -> Image:
    """Open the environment of an existing store and check it.

    Raises:
        StorageError: there is none, or it is damaged; says what was found.
    """
    path = directory / DATA_FILE
    with _lmdb_errors(f"cannot open the store {path}"):
        environment = _open_environment(directory, 0)
    try:
        with _lmdb_errors(f"cannot read the store {path}"):
            map_bytes, file_bytes = environment.info()["map_size"], path.stat().st_size
            if file_bytes < map_bytes:
                raise StorageError(f"{path} is truncated: it has {file_bytes} bytes of {map_bytes}")
            image = _open_databases(path, environment)
            _complete_groups(image)
            _find_dead_rows(image)
    except BaseException:
        environment.close()
        raise
    return image


def write_identity(image: Image, identity: StoreIdentity, medium: Medium) -> None:
    """Durably change incarnation and medium."""
    with _lmdb_errors(f"cannot write to the store {image.path}"), image.environment.begin(write=True) as txn:
        for key, value in _identity_records(identity, medium).items():
            txn.put(key, layout.encode_record(key, value), db=image.meta)
    image.identity, image.medium = identity, medium


def put_group(image: Image, txn: Transaction, *, group: GroupId, configuration: Configuration) -> None:
    """Put an empty group into a transaction; `add_group` follows when it is committed."""
    number = _next_number(image)
    key = layout.group_key(number)
    image.environment.open_db(layout.log_name(number), txn=txn)
    txn.put(key, layout.encode_record(key, (group, configuration_to_plain(configuration))), db=image.meta)


def add_group(image: Image, group: GroupId, configuration: Configuration) -> None:
    """Serve a group that was put and committed."""
    number = _next_number(image)
    image.logs[group] = image.environment.open_db(layout.log_name(number), create=False)
    # Replaced rather than changed: the names of the groups are read in another thread.
    image.numbers = {**image.numbers, group: number}
    image.groups = {**image.groups, group: empty_group(configuration)}


def _next_number(image: Image) -> int:
    return max(image.numbers.values(), default=-1) + 1


def grow_map(image: Image, map_bytes_max: int) -> bool:
    """Double the map; False when it is at its maximum. No transaction may be under way."""
    map_bytes = image.environment.info()["map_size"]
    grown_bytes = min(2 * map_bytes, map_bytes_max)
    if grown_bytes <= map_bytes:
        return False
    _extend_file(image.path, grown_bytes)  # the file first: it may be longer than the map, never shorter
    image.environment.set_mapsize(grown_bytes)
    return True


def put_batches(image: Image, txn: Transaction, *, steps: list[tuple[WriteBatch, dict[GroupId, StoredGroup]]]) -> None:
    """Put batches, each with the groups that it changes as they are after it, into one transaction."""
    before = dict(image.groups)
    records: Changes = {}
    rows: Changes = {}
    for batch, changed in steps:
        effects = chunk_effects(before, batch)
        for place, log in enumerate(batch.logs):
            if log.chunk is not None:
                _put_chunk(image, txn, rows, log.group, log.chunk, effects[place])
            if log.entries:
                _put_entries(txn, image.logs[log.group], log.entries)
            if log.truncate_to is not None:
                _delete_prefix(txn, image.logs[log.group], log.truncate_to)
        for name, group in changed.items():
            collect_group(records, image.numbers[name], name, before[name], group)
            before[name] = group
        _encode_rows(image, batch.rows, before, rows)
        for node, incarnation in batch.incarnations.items():
            collect(records, layout.peer_key(node), incarnation)
    _put_changes(txn, image.meta, records)
    for snapshot in image.snapshots:
        snapshot.save(txn, image.rows, rows)
    _put_changes(txn, image.rows, rows)
    image.dead_rows.sweep(txn, image.rows)


def _encode_rows(image: Image, rows: tuple[Row, ...], groups: Mapping[GroupId, StoredGroup], changes: Changes) -> None:
    """Add rows to `changes`, which hold the last one of each key."""
    table: tuple[GroupId, KeyspaceId, int] | None = None
    prefix = b""
    for row in rows:
        if table is None or row.table != table[2] or row.keyspace != table[1] or row.group != table[0]:
            table = (row.group, row.keyspace, row.table)
            generation = layout.rows_prefix(image.numbers[row.group], groups[row.group].generation)
            prefix = layout.table_prefix(generation, row.keyspace, row.table)
        key, value = prefix + row.key, row.value
        changes[layout.stored_row_key(key)] = None if value is None else layout.encode_row(key, value)


def read_entries(image: Image, group: GroupId, first: LogIndex, last: LogIndex, bytes_max: int) -> tuple[Entry, ...]:
    """Entries `first..last` as `ports.Store.read_entries` promises."""
    bounds = group_of(image, group)
    if not bounds.truncated_index < first <= bounds.last_index:
        raise StorageError(f"group {group} holds no entry {first}")
    entries: list[Entry] = []
    total_bytes = 0
    with image.environment.begin(db=image.logs[group]) as txn, txn.cursor() as cursor:
        cursor.set_range(layout.index_key(first))
        for index, (key, encoded) in zip(range(first, min(last, bounds.last_index) + 1), cursor, strict=False):
            total_bytes += len(encoded)
            if entries and total_bytes > bytes_max:
                break
            entries.append(_decode(group, LogIndex(index), key, encoded))
    return tuple(entries)


def load_group(image: Image, group: GroupId) -> StoredGroup:
    """Bounds of a group and the sizes of its entries, which LMDB keeps beside the keys."""
    bounds = group_of(image, group)
    with image.environment.begin(db=image.logs[group], buffers=True) as txn, txn.cursor() as cursor:
        return replace(bounds, entry_bytes=array("Q", map(len, cursor.iternext(keys=False))))


def group_of(image: Image, group: GroupId) -> StoredGroup:
    """Bounds of a group; `StorageError` if the store does not hold it."""
    if group not in image.groups:
        raise StorageError(f"this store does not hold group {group}")
    return image.groups[group]


def read_rows(image: Image, group: GroupId) -> list[Row]:
    """All rows of a group, ordered by keyspace, table and key."""
    group_of(image, group)
    prefix = layout.rows_prefix(image.numbers[group], image.groups[group].generation)
    with image.environment.begin(db=image.rows) as txn:
        found = list(layout.decode_rows(group, _items(txn, prefix)))
    found.sort(key=attrgetter("keyspace", "table", "key"))
    return found


def _extend_file(path: Path, size_bytes: int) -> None:
    """Durably extend a file with a hole."""
    with path.open("r+b") as file:
        file.truncate(size_bytes)
        os.fsync(file.fileno())


def _open_environment(directory: Path, map_bytes: int) -> lmdb.Environment:
    return lmdb.Environment(
        str(directory),
        map_size=map_bytes,
        max_dbs=GROUPS_MAX + 2,
        sync=True,
        metasync=True,
        writemap=False,
        lock=False,
    )


def _open_databases(path: Path, environment: lmdb.Environment) -> Image:
    def database(name: bytes) -> Database:
        try:
            return environment.open_db(name, create=False)
        except lmdb.NotFoundError:
            raise StorageError(f"{path} lacks {name.decode()!r}: its bootstrap was not finished") from None

    meta, rows = database(b"meta"), database(b"rows")
    records = _read_records(environment, meta)
    if layout.STORE_KEY not in records:
        raise StorageError(f"{path} has no identity: its bootstrap was not finished")
    version, cluster, node, store, *medium = cast("tuple[int, str, str, str, int, int, int]", records[layout.STORE_KEY])
    if version != layout.FORMAT_VERSION:
        raise StorageError(f"{path} has format {version}; this release reads {layout.FORMAT_VERSION}")
    incarnation = Incarnation(cast("int", records[layout.INCARNATION_KEY]))
    identity = StoreIdentity(ClusterId(cluster), NodeId(node), StoreId(store), incarnation)
    image = Image(path, environment, meta, rows, identity, (medium[0], medium[1], medium[2]))
    for key, value in records.items():
        if key.startswith(b"group/"):
            number = layout.number_of(key)
            name, configuration = cast("tuple[str, object]", value)
            group = empty_group(configuration_of(key, configuration))
            image.groups[GroupId(name)] = group_from_records(number, group, records)
            image.numbers[GroupId(name)] = number
            image.logs[GroupId(name)] = database(layout.log_name(number))
        elif key.startswith(b"peer/"):
            image.incarnations[NodeId(key[5:].decode())] = Incarnation(cast("int", value))
    return image


def _read_records(environment: lmdb.Environment, meta: Database) -> dict[bytes, object]:
    with environment.begin(db=meta) as txn:
        return {key: layout.decode_record(key, stored) for key, stored in _items(txn, b"")}


def _complete_groups(image: Image) -> None:
    """Find where each log ends and check that it has no hole, without reading it: the ends and a count suffice."""
    for name, group in image.groups.items():
        with image.environment.begin(db=image.logs[name]) as txn, txn.cursor() as cursor:
            first = last = group.truncated_index
            count = txn.stat(image.logs[name])["entries"]
            if cursor.first():
                first = LogIndex(layout.index_of(cursor.key()) - 1)
                cursor.last()
                last = layout.index_of(cursor.key())
        if first != group.truncated_index or last - first != count:
            raise StorageError(
                f"group {name}: the log holds {count} entries from {first + 1} to {last}; "
                f"it should begin at {group.truncated_index + 1} and have no hole"
            )
        if max(group.applied, group.hard_state.commit) > last:
            raise StorageError(
                f"group {name}: the log ends at {last}, before commit {group.hard_state.commit} "
                f"or applied {group.applied}"
            )
        if any(not first < logged.index <= last for logged in group.configurations):
            raise StorageError(f"group {name}: a configuration belongs to an entry outside of {first + 1} to {last}")
        if lacks_entries(group):
            raise StorageError(
                f"group {name}: the log begins at {group.truncated_index + 1}, its rows reflect only {group.applied}"
            )
        image.groups[name] = commit_at_start(replace(group, last_index=last))


def _find_dead_rows(image: Image) -> None:
    """Rows of generations that are neither in force nor staged: a crash came before they were deleted."""
    living = {
        (image.numbers[name], generation)
        for name, group in image.groups.items()
        for generation in living_generations(group)
    }
    with image.environment.begin(db=image.rows) as txn, txn.cursor() as cursor:
        found = cursor.first()
        while found:
            number, generation = layout.generation_of(cursor.key())
            if (number, generation) not in living:
                image.dead_rows.add(layout.rows_prefix(number, generation))
            found = cursor.set_range(layout.rows_prefix(number, generation + 1))


def note_changes(image: Image, groups: dict[GroupId, StoredGroup]) -> None:
    """A commit has taken place: these are the groups now. What it left behind dead is to be deleted."""
    before, image.groups = image.groups, groups
    for name, group in groups.items():
        old = before[name]
        if group.generation == old.generation and group.staged == old.staged:
            continue
        begun = range(old.generations + 1, group.generations + 1)
        for generation in sorted({*living_generations(old), *begun}.difference(living_generations(group))):
            image.dead_rows.add(layout.rows_prefix(image.numbers[name], generation))


def open_snapshot(image: Image, group: GroupId) -> Snapshot:
    """Begin to read a group's rows as they are now; `close_snapshot` ends it."""
    bounds = group_of(image, group)
    snapshot = Snapshot(group, bounds, layout.rows_prefix(image.numbers[group], bounds.generation))
    image.snapshots.append(snapshot)
    return snapshot


def read_snapshot(image: Image, snapshot: Snapshot, bytes_max: int) -> tuple[bytes, bool] | None:
    """The next rows of a snapshot, as `ports.SnapshotReader.read` promises."""
    if snapshot.lost or image.groups[snapshot.group].generation != snapshot.bounds.generation:
        return None
    with image.environment.begin(db=image.rows) as txn:
        return snapshot.read(txn, bytes_max)


def close_snapshot(image: Image, snapshot: Snapshot) -> None:
    """Nobody reads it any more."""
    if snapshot in image.snapshots:
        image.snapshots.remove(snapshot)


def _items(txn: Transaction, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
    with txn.cursor() as cursor:
        cursor.set_range(prefix)
        for key, stored in cursor:
            if not key.startswith(prefix):
                return
            yield key, stored


def _decode(group: GroupId, index: LogIndex, key: bytes, encoded: bytes) -> Entry:
    try:
        entry = decode_entry(encoded)
    except CorruptEntry as error:
        raise StorageError(f"group {group}: entry {index} is damaged: {error}") from error
    if entry.index != index or layout.index_of(key) != index:
        raise StorageError(f"group {group}: entry {entry.index} stands where entry {index} should be")
    return entry


def _put_chunk(
    image: Image, txn: Transaction, rows: Changes, group: GroupId, chunk: SnapshotChunk, effect: ChunkEffect
) -> None:
    prefix = layout.rows_prefix(image.numbers[group], effect.generation)
    for keyspace, table, row_key, value in decode_rows(chunk.data):
        key = layout.row_key(prefix, keyspace, table, row_key)
        rows[layout.stored_row_key(key)] = layout.encode_row(key, value)
    if chunk.last and effect.keeps_suffix:
        _delete_prefix(txn, image.logs[group], chunk.id.index)
    elif chunk.last:
        txn.drop(image.logs[group], delete=False)


def _put_entries(txn: Transaction, log: Database, entries: tuple[Entry, ...]) -> None:
    items = [(layout.index_key(entry.index), entry.encoded) for entry in entries]
    with txn.cursor(log) as cursor:
        if cursor.set_range(items[0][0]):
            while cursor.delete():
                pass
        cursor.putmulti(items, append=True)


def _delete_prefix(txn: Transaction, log: Database, truncate_to: LogIndex) -> None:
    limit = layout.index_key(truncate_to)
    with txn.cursor(log) as cursor:
        if cursor.first():
            while cursor.key() and cursor.key() <= limit:
                cursor.delete()


def _put_changes(txn: Transaction, database: Database, changes: Changes) -> None:
    gone = [key for key, stored in changes.items() if stored is None]
    for key in gone:
        txn.delete(key, db=database)
    if len(gone) < len(changes):
        with txn.cursor(database) as cursor:
            cursor.putmulti([(key, stored) for key, stored in changes.items() if stored is not None])


def _identity_records(identity: StoreIdentity, medium: Medium) -> dict[bytes, object]:
    store = (layout.FORMAT_VERSION, identity.cluster, identity.node, identity.store, *medium)
    return {layout.STORE_KEY: store, layout.INCARNATION_KEY: identity.incarnation}
