"""A connection whose other end is gone without a word, in virtual time."""

import asyncio

from virtual_time import run_virtual

from isochrone.wire.http2.keepalive import Keepalive


class Watched:
    """A connection, and what its keepalive did and when."""

    def __init__(self, *, answers: bool) -> None:
        self.answers = answers
        self.pings: list[float] = []
        self.lost: list[float] = []
        self.loop = asyncio.get_running_loop()
        self.began = self.loop.time()
        self.keepalive = Keepalive(10, self._ping, lambda: self.lost.append(self.now))
        self.keepalive.start()

    @property
    def now(self) -> float:
        return round(self.loop.time() - self.began, 3)

    def _ping(self) -> None:
        self.pings.append(self.now)
        if self.answers:
            self.loop.call_later(0.2, self.keepalive.heard)


def test_who_does_not_answer_a_ping_is_lost_and_told_once() -> None:
    async def scenario() -> None:
        watched = Watched(answers=False)
        await asyncio.sleep(4)
        watched.keepalive.heard()
        await asyncio.sleep(100)
        assert (watched.pings, watched.lost) == ([14.0], [24.0])

    run_virtual(scenario())


def test_who_answers_is_pinged_again_only_when_it_is_quiet_again() -> None:
    async def scenario() -> None:
        watched = Watched(answers=True)
        await asyncio.sleep(35)
        assert (watched.pings, watched.lost) == ([10.0, 20.2, 30.4], [])
        watched.answers = False
        await asyncio.sleep(100)
        assert (watched.pings, watched.lost) == ([10.0, 20.2, 30.4, 40.6], [50.6])

    run_virtual(scenario())


def test_a_busy_connection_is_not_pinged_and_a_closed_one_not_watched() -> None:
    async def scenario() -> None:
        watched = Watched(answers=False)
        for _ in range(20):
            await asyncio.sleep(9)
            watched.keepalive.heard()
        assert watched.pings == []
        watched.keepalive.stop()
        await asyncio.sleep(100)
        assert (watched.pings, watched.lost) == ([], [])

    run_virtual(scenario())
