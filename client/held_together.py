"""A session: one lease for all that a process holds together, its locks, leaderships and keys.

::

    async with client.session("app/", ttl_s=10) as session:
        await session.put("app/workers/7", "10.0.0.7:80")
        async with session.lock("app/report"), session.lock_path("app/orders/7"):
            ...

All of it is renewed by one message, and lost together: then the body is cancelled (`leases`), and the keys go. Locks
of one session have one owner, so a cycle of waits among sessions is found, and a hierarchy can be kept.

The session of `writer`, which makes writes take effect once, is another thing; users never see it.
"""

from types import TracebackType
from typing import Protocol, Self, final

from isochrone.client.answers import as_bytes, expect
from isochrone.client.elections import Election
from isochrone.client.leases import Caller, Lease
from isochrone.client.lock_paths import Levels, PathLock
from isochrone.client.locks import Lock
from isochrone.wire.kv import Put, PutResult
from isochrone.wire.locks import KeyResult, LockMode, PutSequential


class Maker(Caller, Protocol):
    """What a session needs of a client."""

    def wait_limit_s(self, wait_s: float | None) -> float:
        """See `answers.wait_limit_s`."""

    def keyspace_of(self, key: bytes | str) -> bytes:
        """See `Client.keyspace_of`."""

    def lock(
        self,
        name: bytes | str,
        *,
        lease: Lease,
        wait_s: float | None,
        mode: LockMode,
        delay_s: float,
        hierarchical: bool,
    ) -> Lock:
        """See `Client.lock`."""

    def election(self, name: bytes | str, value: bytes | str, *, lease: Lease, wait_s: float | None) -> Election:
        """See `Client.election`."""


@final
class HeldSession:
    """A session while its `async with` lasts; see the module. Everything in it lies in one group."""

    def __init__(self, client: Maker, lease: Lease) -> None:
        """Made by `Client.session`."""
        self._client = client
        self._levels = Levels(self._level)
        self.lease = lease
        """Its `lost` tells when the body is told to end."""

    @property
    def remaining_s(self) -> float:
        """Time for which the session is sure to live."""
        return self.lease.remaining_s

    def lock(
        self,
        name: bytes | str,
        *,
        wait_s: float | None = None,
        mode: LockMode = LockMode.X,
        delay_s: float = 0.0,
        hierarchical: bool = False,
    ) -> Lock:
        """A lock of this session; see `Client.lock`."""
        return self._client.lock(
            name, lease=self.lease, wait_s=wait_s, mode=mode, delay_s=delay_s, hierarchical=hierarchical
        )

    def lock_path(self, name: bytes | str, *, wait_s: float | None = None, mode: LockMode = LockMode.X) -> PathLock:
        """A lock of a hierarchy and the intentions above it; see `lock_paths`. `wait_s` is for all of them together."""
        name = as_bytes(name)
        limit_s = self._client.wait_limit_s(wait_s)
        return PathLock(self._levels, self.lease, self._client.keyspace_of(name), name, mode, limit_s)

    def _level(self, name: bytes, mode: LockMode, wait_s: float) -> Lock:
        return self.lock(name, mode=mode, wait_s=wait_s, hierarchical=True)

    def election(self, name: bytes | str, value: bytes | str, *, wait_s: float | None = None) -> Election:
        """A candidacy of this session; see `Client.election`."""
        return self._client.election(name, value, lease=self.lease, wait_s=wait_s)

    async def put(self, key: bytes | str, value: bytes | str, *, timeout_s: float | None = None) -> PutResult:
        """Set a key that goes with the session."""
        operation = Put(as_bytes(key), as_bytes(value), self.lease.identity)
        return expect(PutResult, (await self._client.execute(key, operation, timeout_s=timeout_s)).result)

    async def create_sequential(
        self, prefix: bytes | str, value: bytes | str, *, timeout_s: float | None = None
    ) -> bytes:
        """Make a key that goes with the session; see `Kv.create_sequential`."""
        operation = PutSequential(as_bytes(prefix), as_bytes(value), self.lease.identity)
        made = expect(KeyResult, (await self._client.execute(prefix, operation, timeout_s=timeout_s)).result)
        return made.key or b""

    async def __aenter__(self) -> Self:
        await self.lease.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        return await self.lease.__aexit__(kind, error, traceback)
