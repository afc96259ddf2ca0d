"""What a simulated process does and knows while it holds locks, and what befalls it then.

It writes to what the locks guard, some of it late; it is stopped in the midst of its work, for longer than its leases
live, and goes on as if nothing had happened; it is cut off. (See `drills.guarded` for what it writes to.)
"""

import asyncio
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, final

from isochrone.client import Client
from isochrone.client.leases import Lease
from isochrone.drills.checkers.exclusion import Hold
from isochrone.drills.guarded import Resource, guarded_put
from isochrone.drills.sim.clock import HolderClock
from isochrone.drills.sim.loop import Group, SimLoop
from isochrone.drills.sim.network import Link
from isochrone.ids import NS_PER_S
from isochrone.wire.locks import LockMode

PAUSE_ODDS = 0.12
OFFLINE_ODDS = 0.12
LATE_ODDS = 0.15
GATE_TIMEOUT_S = 2.0


class Held(Protocol):
    """What one process has alone, or shares, until it gives it up or its lease ends: a lock, a seat, a claim."""

    @property
    def token(self) -> int:
        """The fencing token of this grant."""

    @property
    def lease(self) -> Lease:
        """On which it hangs."""

    @property
    def remaining_s(self) -> float:
        """Time for which it is sure to be held."""


@final
@dataclass(slots=True, eq=False)
class Grant:
    """A lock that is held."""

    lock: Held
    name: str
    mode: LockMode
    token: int
    asked_ns: int
    granted_ns: int
    sure_ns: int
    """Until then its holder was sure of it, when he looked last."""
    delayed: bool
    gated: bool
    """The store has a gate for what it guards."""


@final
class Holder:
    """See the module. One of each process."""

    def __init__(
        self,
        loop: SimLoop,
        name: str,
        group: Group,
        resource: Resource,
        clock: HolderClock,
        rng: random.Random,
        links: Callable[[], Sequence[Link]],
    ) -> None:
        """`group` and `links` are those of the process."""
        self.name = name
        self.holds: list[Hold] = []
        """What it held, as it knew it."""
        self._loop = loop
        self._group = group
        self._resource = resource
        self._clock = clock
        self._rng = rng
        self._links = links
        self._grants: list[Grant] = []

    def now_ns(self) -> int:
        """True time, in nanoseconds."""
        return round(self._loop.now_s * NS_PER_S)

    def granted(
        self,
        lock: Held,
        name: str,
        asked_ns: int,
        *,
        mode: LockMode = LockMode.X,
        delayed: bool = False,
        gated: bool = True,
    ) -> Grant:
        """A lock was granted, or converted, to a question of `asked_ns`. Ends with `given_up`."""
        now_ns = self.now_ns()
        grant = Grant(lock, name, mode, lock.token, asked_ns, now_ns, now_ns, delayed, gated)
        self._grants.append(grant)
        return grant

    def given_up(self, grant: Grant) -> None:
        """The lock is used no more, whatever it was converted to."""
        ended_ns = self.now_ns()
        for each in [each for each in self._grants if each.lock is grant.lock]:
            self._grants.remove(each)
            sure_ns = ended_ns if each.lock.remaining_s else min(ended_ns, each.sure_ns)
            self.holds.append(
                Hold(
                    lock=each.name,
                    holder=self.name,
                    lease=each.lock.lease.identity,
                    token=each.token,
                    mode=each.mode,
                    asked_ns=each.asked_ns,
                    granted_ns=each.granted_ns,
                    sure_until_ns=sure_ns,
                    delayed=each.delayed,
                )
            )

    async def use(self, client: Client) -> None:
        """Write to what is held exclusively, and let things happen."""
        rng = self._rng
        for _ in range(rng.randrange(1, 4)):
            exclusive = [grant for grant in self._grants if grant.mode is LockMode.X]
            writes = [(grant.name, self.name, grant.token) for grant in exclusive]
            for write in writes:
                self._resource.write(write)
            for grant in self._grants:
                if remaining_s := grant.lock.remaining_s:  # Else its task is about to end, and was sure no longer.
                    grant.sure_ns = self.now_ns() + self._clock.true_ns(remaining_s)
            for write in writes:
                if rng.random() < LATE_ODDS:
                    self._loop.at(self._loop.now_s + rng.uniform(0.1, 5.0), self._resource.write, write)
            if rng.random() < PAUSE_ODDS:
                self._loop.pause(self._group)
                self._loop.at(self._loop.now_s + rng.uniform(0.2, 6.0), self._loop.resume, self._group)
                await asyncio.sleep(0)
                for write in writes:
                    self._resource.write(write)
            if rng.random() < OFFLINE_ODDS:
                self._go_offline(rng.uniform(0.5, 6.0))
                await asyncio.sleep(rng.uniform(0.0, 5.0))
            for name, token in [(grant.name, grant.token) for grant in exclusive if grant.gated]:
                await client.execute(name, guarded_put(name, self.name, token), timeout_s=GATE_TIMEOUT_S)
            await asyncio.sleep(rng.uniform(0.0, 0.8))

    def _go_offline(self, duration_s: float) -> None:
        """Nothing reaches or leaves this process for a while; it runs on, until its leases' deadlines end its work."""
        for link in self._links():
            link.cut()
            self._loop.at(self._loop.now_s + duration_s, _mend, link)


def _mend(link: Link) -> None:
    if link.cuts:  # Else all cuts were ended meanwhile.
        link.mend()
