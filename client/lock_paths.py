"""Locks in a hierarchy: `database > table > row`, intentions on the way down, given up on the way up.

::

    async with client.session("app/", ttl_s=10) as session:
        async with session.lock_path("app/db/orders/7"):                     # X; IX on app/db and app/db/orders
            ...
        async with session.lock_path("app/db/orders", mode=LockMode.S):      # no row of it changes; IS on app/db
            ...

A level is what stands between slashes, below the prefix of the keyspace. Every level is a hierarchical lock, so the
group itself enforces the order: it grants none without the one above in a mode that covers it, and lets go of none
before those below.

Paths of one session have one owner, so they do not exclude each other, and share levels: the first that needs one takes
it, one that needs it stronger converts it, and the last to leave gives it up. Until then it stays as strong as it was
ever needed.
"""

import asyncio
import math
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from types import TracebackType
from typing import Self, final

from isochrone.client.answers import shown
from isochrone.client.leases import Body, Lease
from isochrone.client.locks import Lock
from isochrone.errors import InvalidRequest, LockHeld
from isochrone.wire.locks import LockMode

MakeLock = Callable[[bytes, LockMode, float], Lock]
"""Makes the hierarchical lock of a level in the session's lease, from its name, mode, and how long to wait for it."""


class _Level:
    """A level that paths of the session use."""

    def __init__(self) -> None:
        self.lock: Lock | None = None
        self.users = 0
        """Those that wait for their turn among them."""
        self.turn = asyncio.Lock()
        """One at a time takes, converts or gives up: a lease waits for a name once."""


@final
class Levels:
    """The levels that a session holds."""

    def __init__(self, make: MakeLock) -> None:
        self._make = make
        self._levels: dict[bytes, _Level] = {}

    @asynccontextmanager
    async def held(self, name: bytes, mode: LockMode, left_s: Callable[[], float]) -> AsyncIterator[Lock]:
        """Hold a level at least in a mode while the block lasts."""
        level = self._levels.setdefault(name, _Level())
        level.users += 1
        try:
            await _take_turn(level, name, left_s())
            try:
                if level.lock is None:
                    lock = self._make(name, mode, left_s())
                    await lock.take()
                    level.lock = lock
                elif level.lock.mode not in (mode, LockMode.X):
                    await level.lock.convert(mode, wait_s=left_s())
            finally:
                level.turn.release()
            yield level.lock
        finally:
            # At once: who is cancelled while it waits for its turn has left, too; who has the turn then gives it up.
            level.users -= 1
            async with level.turn:
                if not level.users and level.lock is not None:
                    lock, level.lock = level.lock, None
                    await lock.give_up()
            if not level.users and self._levels.get(name) is level:
                del self._levels[name]


async def _take_turn(level: _Level, name: bytes, left_s: float) -> None:
    try:
        async with asyncio.timeout(None if math.isinf(left_s) else left_s):
            await level.turn.acquire()
    except TimeoutError:
        raise LockHeld(f"another path of this session waited for lock {shown(name)} for {left_s:g} s") from None


@final
class PathLock:
    """A lock and the intentions above it while `async with` lasts; `HeldSession.lock_path` makes one. Enter it once.

    Entering raises what entering a `Lock` raises, and leaves nothing behind then.
    """

    def __init__(self, levels: Levels, lease: Lease, prefix: bytes, name: bytes, mode: LockMode, wait_s: float) -> None:
        self._levels = levels
        self._lease = lease
        self._names = _path(prefix, name)
        self._mode = mode
        self._wait_s = wait_s
        self._stack = AsyncExitStack()
        self._guard: Body | None = None
        self._lock: Lock | None = None

    @property
    def token(self) -> int:
        """The fencing token of the lock itself, without those above; 0 before it is entered."""
        return self._lock.token if self._lock else 0

    @property
    def lease(self) -> Lease:
        """The session's lease."""
        return self._lease

    @property
    def remaining_s(self) -> float:
        """Time for which it is sure to be held."""
        return self._lease.remaining_s

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        until = loop.time() + self._wait_s
        above = LockMode.IS if self._mode in (LockMode.IS, LockMode.S) else LockMode.IX
        self._guard = self._lease.guard()
        try:
            async with AsyncExitStack() as stack:
                for name in self._names:
                    mode = self._mode if name == self._names[-1] else above
                    held = self._levels.held(name, mode, lambda: max(0.0, until - loop.time()))
                    self._lock = await stack.enter_async_context(held)
                self._stack = stack.pop_all()
        except BaseException as error:
            self._lease.unguard(self._guard, type(error))
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        try:
            self._lease.unguard(self._guard, kind)
        finally:
            await self._stack.__aexit__(kind, error, traceback)
        return None


def _path(prefix: bytes, name: bytes) -> tuple[bytes, ...]:
    """The levels from the root to the name."""
    parts = name[len(prefix) :].split(b"/")
    if not all(parts):
        raise InvalidRequest(f"lock {shown(name)} has an empty level below the keyspace {shown(prefix)}")
    return tuple(prefix + b"/".join(parts[: count + 1]) for count in range(len(parts)))
