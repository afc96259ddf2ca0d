"""Observers: clients that follow who leads an election, and begin anew when a fault ends that."""

import asyncio
from dataclasses import dataclass, field

from isochrone.client import Client, Leader
from isochrone.errors import Indeterminate, Rejected

AGAIN_S = 0.5


@dataclass(slots=True)
class Observer:
    """Follows one election, as one client."""

    client: Client
    name: str
    election: str
    observations: list[list[Leader | None]] = field(default_factory=list)
    """What it saw, each time that it began."""

    async def run(self) -> None:
        """Observe until cancelled."""
        while True:
            seen: list[Leader | None] = []
            self.observations.append(seen)
            try:
                async for leader in self.client.observe(self.election):
                    seen.append(leader)
            except (Rejected, Indeterminate):
                await asyncio.sleep(AGAIN_S)
