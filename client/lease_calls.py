"""Leases by their ids: for tools, and for leases that outlive the process that made them.

Programs hold a lease with `Client.lease`, which renews it and ends their work in time. What is here renews nothing by
itself. A lease lives in one group; a key tells which.
"""

import asyncio
import math
from collections.abc import AsyncGenerator
from typing import final

from isochrone.client.answers import expect
from isochrone.client.leases import Caller
from isochrone.errors import InvalidRequest
from isochrone.wire.leases import (
    LeaseGrant,
    LeaseGrantResult,
    LeaseKeepAlive,
    LeaseKeepAliveResult,
    LeaseList,
    LeaseListResult,
    LeaseRevoke,
    LeaseTimeToLive,
    LeaseTimeToLiveResult,
)


@final
class Leases:
    """The leases of a cluster; `Client.leases` is one. Calls raise what `Client` says."""

    def __init__(self, caller: Caller) -> None:
        """Made by the client."""
        self._caller = caller

    async def grant(
        self, key: bytes | str, ttl_s: float, *, lease: int = 0, timeout_s: float | None = None
    ) -> LeaseGrantResult:
        """Make a lease; the group chooses its id unless one is given. It may be given a longer life than asked for.

        Raises:
            LeaseExists: a lease of that id exists.
            InvalidRequest: the time to live is not above 0, or too large.
        """
        if not 0 < ttl_s < math.inf:
            raise InvalidRequest(f"a time to live of {ttl_s} s; a finite time above 0 is needed")
        operation = LeaseGrant(lease, round(ttl_s * 1000))
        return expect(LeaseGrantResult, (await self._caller.execute(key, operation, timeout_s=timeout_s)).result)

    async def revoke(self, key: bytes | str, lease: int, *, timeout_s: float | None = None) -> None:
        """End a lease with its keys and locks. Raises `LeaseNotFound`."""
        await self._caller.execute(key, LeaseRevoke(lease), timeout_s=timeout_s)

    async def renew(self, key: bytes | str, lease: int, *, timeout_s: float | None = None) -> LeaseKeepAliveResult:
        """Let a lease live its whole time from some moment after this call began. Raises `LeaseNotFound`."""
        answer = await self._caller.query(key, LeaseKeepAlive(lease), timeout_s=timeout_s)
        return expect(LeaseKeepAliveResult, answer.result)

    async def keep_alive(self, key: bytes | str, lease: int) -> AsyncGenerator[LeaseKeepAliveResult, None]:
        """Renew a lease now and at each third of its time to live, while the caller asks for more.

        A renewal is tried until the lease must have ended by the client's knowledge.

        Raises:
            LeaseNotFound: it has ended.
            Unavailable, DeadlineExceeded: it could not be renewed in time.
        """
        renewed = await self.renew(key, lease)
        while True:
            yield renewed
            await asyncio.sleep(renewed.ttl_ms / 3000)
            renewed = await self.renew(key, lease, timeout_s=renewed.ttl_ms * 2 / 3000)

    async def time_to_live(
        self, key: bytes | str, lease: int, *, keys: bool = False, timeout_s: float | None = None
    ) -> LeaseTimeToLiveResult:
        """How much of its time a lease has left, and with `keys` what hangs on it. An unknown one is no error."""
        answer = await self._caller.query(key, LeaseTimeToLive(lease, keys), timeout_s=timeout_s)
        return expect(LeaseTimeToLiveResult, answer.result)

    async def list(self, key: bytes | str, *, timeout_s: float | None = None) -> tuple[int, ...]:
        """The ids of all leases in the group of `key`."""
        return expect(LeaseListResult, (await self._caller.query(key, LeaseList(), timeout_s=timeout_s)).result).leases
