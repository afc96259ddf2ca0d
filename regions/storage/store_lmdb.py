"""The durable store of a node: one LMDB environment and the one thread that touches it.

**Theory of operation.** Calls put requests into a queue. The thread takes whatever has gathered while its previous
commit was being synced: neighbouring writes are joined into one transaction and so one sync, in the order of the
calls; reads run between commits. Results go back to the loop in one `call_soon_threadsafe` for each commit. Nothing is
acknowledged before `commit()` has returned; LMDB then has synced the data pages and has written the meta page through a
descriptor opened with `O_DSYNC`.

**Failure.** There are two kinds. A write that is *refused* (the map is full; the batch breaks a rule of `log_bounds`)
was never part of a commit, and every write called before its caller could know of it is refused too, so that nothing
overtakes it. Everything else is *fatal*: the transaction may or may not be on disk, so nothing is tried again and
every later call raises. (On Linux a failed fsync may mark dirty pages clean; a second one then succeeds with the data
lost: Rebello et al., "Can Applications Recover from fsync Failures?", USENIX ATC 2020.)

HAZARD: CPython gives the GIL back to a thread that returns from a system call only after the switch interval (5 ms
unless set) while another thread computes. A process that is busy in its loop should lower it
(`sys.setswitchinterval`), or each commit costs 5 ms.
"""

import asyncio
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from queue import Empty, SimpleQueue
from time import monotonic_ns
from typing import TypeVar

import lmdb

from isochrone.errors import InvariantViolation, StorageError
from isochrone.histograms import Histogram
from isochrone.ids import GroupId, Incarnation, LogIndex, NodeId
from isochrone.ports import Row, SnapshotReader, StoredGroup, StoreIdentity, WriteBatch, WriteDone
from isochrone.regions.storage import image_lmdb
from isochrone.regions.storage.image_lmdb import Image, Transaction
from isochrone.regions.storage.log_bounds import advance, check_creation, configuration_at, term_at
from isochrone.regions.storage.snapshot_lmdb import Snapshot
from isochrone.wire.messages import Configuration, Entry

JOINED_WRITES_MAX = 256
"""Most writes in one commit; with the bound on each batch it bounds the transaction."""

Commit = Callable[[Transaction], None]
_T = TypeVar("_T")
_Step = tuple[WriteBatch, dict[GroupId, StoredGroup]]


def commit_transaction(txn: Transaction) -> None:
    """Commit: when this returns, the transaction is durable."""
    txn.commit()


@dataclass(frozen=True, slots=True)
class _Write:
    batch: WriteBatch
    refusals: int
    """How many refusals the caller could know of."""
    done: WriteDone


@dataclass(frozen=True, slots=True)
class _Read:
    function: Callable[[], object]
    done: asyncio.Future[object]


@dataclass(frozen=True, slots=True)
class _Creation:
    group: GroupId
    configuration: Configuration
    done: asyncio.Future[None]


@dataclass(frozen=True, slots=True)
class _Close:
    done: asyncio.Future[None]


_Request = _Write | _Read | _Creation | _Close
_Outcome = Callable[[], None]
"""Tells whoever has asked, in the loop."""


class _Reader:
    """A `ports.SnapshotReader`."""

    def __init__(self, store: "LmdbStore", snapshot: Snapshot) -> None:
        self._store = store
        self._snapshot = snapshot
        self.index = snapshot.bounds.applied
        self.index_term = term_at(snapshot.bounds, self.index)
        self.configuration = configuration_at(snapshot.bounds, self.index)

    async def read(self, bytes_max: int) -> tuple[bytes, bool] | None:
        return await self._store.read_snapshot(self._snapshot, bytes_max)

    def close(self) -> None:
        self._store.close_snapshot(self._snapshot)


class LmdbStore:
    """A `ports.Store`. All calls come from one event loop. Made by `directory_os.open_store`."""

    def __init__(
        self,
        image: Image,
        *,
        map_bytes_max: int,
        release: Callable[[], None],
        commit: Commit = commit_transaction,
    ) -> None:
        """Take over an open image.

        Args:
            image: what to serve; closed by `close`.
            map_bytes_max: where the map stops growing.
            release: gives up the data directory; called once, after the environment is closed.
            commit: how a transaction is committed; runs in the storage thread.
        """
        self._image = image
        self._map_bytes_max = map_bytes_max
        self._release = release
        self._commit = commit
        self._incarnations = dict(image.incarnations)
        self._loop: asyncio.AbstractEventLoop | None = None
        """The one that calls come from."""
        self._requests: SimpleQueue[_Request] = SimpleQueue()
        self._refusals = 0
        """Refusals so far; belongs to the thread."""
        self._refusals_told = 0
        """Refusals of which callers know; belongs to the loop."""
        self._failure: str | None = None
        self._closed = False
        self._commits = 0
        self.commit_ns = Histogram()
        """How long commits took that wrote what hosts wanted, with their sync. Filled by the thread."""
        # A daemon, so that a process that failed without closing the store can end. A commit under way then is not
        # acknowledged to anybody.
        self._thread = threading.Thread(target=self._run, name="storage", daemon=True)
        self._thread.start()

    @property
    def identity(self) -> StoreIdentity:
        """Whose data this is."""
        return self._image.identity

    @property
    def groups(self) -> tuple[GroupId, ...]:
        """The groups held, in order of name."""
        return tuple(sorted(self._image.numbers))

    @property
    def incarnations(self) -> Mapping[NodeId, Incarnation]:
        """Highest incarnation of each peer when the store was opened."""
        return self._incarnations

    @property
    def commits(self) -> int:
        """How many commits have returned since the store was opened."""
        return self._commits

    @property
    def size_bytes(self) -> int:
        """What the pages in use take, those included that LMDB has freed and will use again."""
        environment = self._image.environment
        pages: int = environment.info()["last_pgno"] + 1
        return pages * int(environment.stat()["psize"])

    @property
    def size_bytes_max(self) -> int:
        """Where the store is full."""
        return self._map_bytes_max

    async def load(self, group: GroupId) -> StoredGroup:
        """A group's log bounds, hard state and sizes of entries."""
        return await self._read(lambda: image_lmdb.load_group(self._image, group))

    async def read_entries(self, group: GroupId, first: LogIndex, last: LogIndex, bytes_max: int) -> tuple[Entry, ...]:
        """Entries `first..last`, as many as fit."""
        return await self._read(lambda: image_lmdb.read_entries(self._image, group, first, last, bytes_max))

    async def read_rows(self, group: GroupId) -> Sequence[Row]:
        """All rows of a group, in order."""
        return await self._read(lambda: image_lmdb.read_rows(self._image, group))

    async def open_snapshot(self, group: GroupId) -> SnapshotReader:
        """Begin to read a group's state as it is now."""
        return _Reader(self, await self._read(lambda: image_lmdb.open_snapshot(self._image, group)))

    async def read_snapshot(self, snapshot: Snapshot, bytes_max: int) -> tuple[bytes, bool] | None:
        """The next rows of a snapshot."""
        return await self._read(lambda: image_lmdb.read_snapshot(self._image, snapshot, bytes_max))

    def close_snapshot(self, snapshot: Snapshot) -> None:
        """Nobody reads it any more. Harmless when the store is closed."""
        if not self._closed:
            done: asyncio.Future[object] = self._running_loop().create_future()
            self._requests.put(_Read(lambda: image_lmdb.close_snapshot(self._image, snapshot), done))

    def write(self, batch: WriteBatch, done: WriteDone) -> None:
        """Make a batch durable."""
        try:
            self._check_usable()
        except StorageError as error:
            done(error)
            return
        self._running_loop()
        self._requests.put(_Write(batch, self._refusals_told, done))

    async def create_group(self, group: GroupId, configuration: Configuration) -> None:
        """Make an empty replica of a group, in a commit of its own."""
        self._check_usable()
        done: asyncio.Future[None] = self._running_loop().create_future()
        self._requests.put(_Creation(group, configuration, done))
        await done

    async def close(self) -> None:
        """Wait for writes under way, then close the environment and release the data directory."""
        if self._closed:
            return
        self._closed = True
        done: asyncio.Future[None] = self._running_loop().create_future()
        self._requests.put(_Close(done))
        await done
        self._thread.join()  # it has nothing left to do

    async def _read(self, function: Callable[[], _T]) -> _T:
        self._check_usable()
        done: asyncio.Future[_T] = self._running_loop().create_future()
        self._requests.put(_Read(function, done))  # type: ignore[arg-type]  # a future of the function's own type
        return await done

    def _running_loop(self) -> asyncio.AbstractEventLoop:
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
        return self._loop

    def _check_usable(self) -> None:
        if self._closed:
            raise StorageError("the store is closed")
        if self._failure is not None:
            raise StorageError(f"the store has failed: {self._failure}")

    # The storage thread.

    def _run(self) -> None:
        while True:
            writes: list[_Write] = []
            for request in self._take():
                if isinstance(request, _Write):
                    writes.append(request)
                    continue
                self._write_all(writes)
                writes = []
                if isinstance(request, _Close):
                    self._shut(request)
                    return
                outcome = self._create(request) if isinstance(request, _Creation) else self._answer(request)
                self._tell([outcome])
            self._write_all(writes)

    def _take(self) -> list[_Request]:
        """What has gathered; waits for the first."""
        requests = [self._requests.get()]
        try:
            while len(requests) < JOINED_WRITES_MAX:
                requests.append(self._requests.get_nowait())
        except Empty:
            pass  # everything is taken
        return requests

    def _answer(self, request: _Read) -> _Outcome:
        if self._failure is not None:
            return partial(_settle, request.done, None, StorageError(f"the store has failed: {self._failure}"))
        try:
            return partial(_settle, request.done, request.function(), None)
        except StorageError as error:
            return partial(_settle, request.done, None, error)
        except Exception as error:
            failure = StorageError(f"cannot read the store: {error}")
            failure.__cause__ = error
            return partial(_settle, request.done, None, failure)

    def _create(self, request: _Creation) -> _Outcome:
        group, configuration = request.group, request.configuration
        if self._failure is not None:
            return partial(_settle, request.done, None, StorageError(f"the store has failed: {self._failure}"))
        try:
            if check_creation(self._image.groups, group, configuration):
                if len(self._image.numbers) >= image_lmdb.GROUPS_MAX:
                    raise StorageError(f"the store holds {image_lmdb.GROUPS_MAX} groups, the most that are allowed")
                put = partial(image_lmdb.put_group, self._image, group=group, configuration=configuration)
                while not self._try_commit(put):
                    if not image_lmdb.grow_map(self._image, self._map_bytes_max):
                        raise StorageError(f"the store is full: its map has {self._map_bytes_max} bytes")
                image_lmdb.add_group(self._image, group, configuration)
                self._commits += 1
        except StorageError as refusal:
            return partial(_settle, request.done, None, refusal)
        except Exception as error:
            self._failure = f"commit failed: {error}"
            failure = StorageError(self._failure)
            failure.__cause__ = error
            return partial(_settle, request.done, None, failure)
        return partial(_settle, request.done, None, None)

    def _write_all(self, writes: list[_Write]) -> None:
        """Commit writes in order, joined, and tell their callers."""
        if not writes:
            return
        if self._failure is not None:
            self._reject(writes, StorageError(f"the store has failed: {self._failure}"))
            return
        current = [write for write in writes if write.refusals == self._refusals]
        if len(current) < len(writes):
            stale = [write for write in writes if write.refusals != self._refusals]
            self._reject(stale, StorageError("an earlier write was refused"))
        accepted, groups, violation = self._plan(current)
        if accepted and not self._commit_writes(current[: len(accepted)], accepted, groups):
            violation = None  # what follows is refused or has failed with what came before
            self._reject(current[len(accepted) :], StorageError("an earlier write was refused or has failed"))
        if violation is not None:
            self._refuse(current[len(accepted) :], violation)

    def _plan(self, writes: list[_Write]) -> tuple[list[_Step], dict[GroupId, StoredGroup], InvariantViolation | None]:
        """The steps of the writes up to the first that breaks a rule, the groups after them, and that breach."""
        groups = dict(self._image.groups)
        steps: list[_Step] = []
        try:
            for write in writes:
                changed = advance(groups, write.batch)
                groups.update(changed)
                steps.append((write.batch, changed))
        except InvariantViolation as violation:
            return steps, groups, violation
        return steps, groups, None

    def _commit_writes(self, writes: list[_Write], steps: list[_Step], groups: dict[GroupId, StoredGroup]) -> bool:
        """Make planned writes durable in one commit and say so; or refuse or fail them all."""
        begun = monotonic_ns()
        try:
            put = partial(image_lmdb.put_batches, self._image, steps=steps)
            while not self._try_commit(put):
                if not image_lmdb.grow_map(self._image, self._map_bytes_max):
                    self._refuse(writes, StorageError(f"the store is full: its map has {self._map_bytes_max} bytes"))
                    return False
        except Exception as error:
            self._failure = f"commit failed: {error}"
            failure = StorageError(self._failure)
            failure.__cause__ = error
            self._reject(writes, failure)
            return False
        image_lmdb.note_changes(self._image, groups)
        self._commits += 1
        self.commit_ns.record(monotonic_ns() - begun)
        self._tell([partial(write.done, None) for write in writes])
        return True

    def _try_commit(self, put: Callable[[Transaction], None]) -> bool:
        """One transaction with what `put` puts into it. False: the map was full and nothing was written.

        LMDB finds that the map is full while it puts rows or, in `commit`, while it saves its list of free pages, and
        both come before it writes the first page (`mdb_txn_commit` in mdb.c).
        """
        txn = self._image.environment.begin(write=True)
        try:
            put(txn)
            self._commit(txn)
        except lmdb.MapFullError:
            return False
        finally:
            txn.abort()  # does nothing after a commit
        return True

    def _refuse(self, writes: list[_Write], error: Exception) -> None:
        """Refuse writes that are in no commit, and with them all whose callers cannot know of it yet."""
        self._refusals += 1
        self._reject(writes, error)

    def _reject(self, writes: list[_Write], error: Exception) -> None:
        """Tell the first caller `error`, and the others that they came after it."""
        followers = StorageError(f"an earlier write was refused or has failed: {error}")
        self._tell([partial(write.done, followers if position else error) for position, write in enumerate(writes)])

    def _shut(self, request: _Close) -> None:
        try:
            self._image.environment.close()
        finally:
            self._release()
        self._tell([partial(_settle, request.done, None, None)])

    def _tell(self, outcomes: list[_Outcome]) -> None:
        if outcomes:
            assert self._loop is not None, "whoever asks notes the loop"
            self._loop.call_soon_threadsafe(self._deliver, outcomes, self._refusals)

    def _deliver(self, outcomes: list[_Outcome], refusals: int) -> None:
        """In the loop: hand results to those who asked."""
        self._refusals_told = refusals
        for tell in outcomes:
            tell()


def _settle(future: asyncio.Future[_T], result: _T, error: Exception | None) -> None:
    if future.done():  # the caller was cancelled
        return
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)
