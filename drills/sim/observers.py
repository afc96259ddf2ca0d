"""Observers: clients that follow who leads an election, and begin anew when a fault ends that."""

import asyncio
from dataclasses import dataclass, field

from isochrone.client import Client
from isochrone.drills.checkers.elections import Announced
from isochrone.errors import Indeterminate, Rejected

AGAIN_S = 0.5


@dataclass(slots=True)
class Observer:
    """Follows one election, as one client."""

    client: Client
    name: str
    election: str
    observations: list[list[Announced | None]] = field(default_factory=list)
    """What it saw, each time that it began."""

    async def run(self) -> None:
        """Observe until cancelled."""
        while True:
            self.observations.append([])
            try:
                async for leader in self.client.observe(self.election):
                    told = None if leader is None else Announced(leader.value, leader.lease, leader.revision)
                    self.observations[-1].append(told)
            except (Rejected, Indeterminate):
                await asyncio.sleep(AGAIN_S)
