"""Followers: watchers that listen through the SDK, slowly, fall silent for a while, and resume where they were."""

import asyncio
import random
from dataclasses import dataclass, field

from isochrone.client import Client
from isochrone.client.watches import WatchGap
from isochrone.drills.checkers.watch_order import Gap, WatchStory
from isochrone.ids import GroupId
from isochrone.probes import probe
from isochrone.wire.kv import prefix_end
from isochrone.wire.records import KeyValue

SLOW_ODDS = 0.03
SLOW_S_MAX = 1.5
"""So often, and at most so long, a follower is busy with what it was told, and takes nothing."""


@dataclass(slots=True)
class Follower:
    """Watches one keyspace, as one client; every time that it resumes begins a story."""

    client: Client
    name: str
    keyspace: str
    group: GroupId
    rng: random.Random
    stories: list[WatchStory] = field(default_factory=list)
    told: list[KeyValue | Gap] = field(default_factory=list)
    start_revision: int = 1

    def knows(self, item: KeyValue) -> bool:
        """Whether the last that it was told is this, or a gap that covers it."""
        if not self.told:
            return False
        last = self.told[-1]
        return last.revision >= item.mod_revision if isinstance(last, Gap) else last == item

    @property
    def last_revision(self) -> int:
        """Of what it was told last."""
        return _revision(self.told[-1]) if self.told else self.start_revision - 1

    async def run(self, end_s: float) -> None:
        """Listen, and resume now and then until `end_s`; after that, listen until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            left_s = end_s - loop.time()
            try:
                async with asyncio.timeout(self.rng.uniform(1.0, 8.0) if left_s > 0 else None):
                    await self._listen()
            except TimeoutError:
                self._close_story()
                await asyncio.sleep(self.rng.choice((0.0, 0.5, 3.0)))

    async def _listen(self) -> None:
        watched = self.client.watch(self.keyspace, prefix=True, start_revision=self.start_revision)
        async with watched:
            async for told in watched:
                if isinstance(told, WatchGap):
                    probe("followers.gap")
                    self.told.append(Gap(told.revision, told.items))
                else:
                    self.told.append(told.item)
                if self.rng.random() < SLOW_ODDS:
                    await asyncio.sleep(self.rng.uniform(0.0, SLOW_S_MAX))

    def _close_story(self) -> None:
        self.stories.append(self._story(reached_end=False))
        # What was written at the last revision may have been told only in part: it is asked for again.
        self.start_revision = self.last_revision if self.told else self.start_revision
        self.told = []

    def _story(self, *, reached_end: bool) -> WatchStory:
        return WatchStory(
            name=self.name,
            group=self.group,
            key=self.keyspace.encode(),
            range_end=prefix_end(self.keyspace.encode()),
            start_revision=self.start_revision,
            told=tuple(self.told),
            reached_end=reached_end,
        )

    def told_so_far(self, *, reached_end: bool) -> list[WatchStory]:
        """All that it was told; `reached_end`: it had the time to be told everything."""
        return [*self.stories, self._story(reached_end=reached_end)]


def _revision(told: KeyValue | Gap) -> int:
    return told.revision if isinstance(told, Gap) else told.mod_revision
