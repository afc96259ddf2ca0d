"""The shaper with its real thread."""

import asyncio
import random
import threading
import time
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

import pytest
from wire_nodes import until

from isochrone.ids import ZoneId
from isochrone.wire.shaper_os import Shaper
from isochrone.wire.shaping import LinkShape

A, B = ZoneId("a"), ZoneId("b")


def with_shaper(scenario: Callable[[Shaper], Coroutine[Any, Any, None]]) -> None:
    async def run() -> None:
        shaper = Shaper(random.Random(7))
        try:
            await scenario(shaper)
        finally:
            shaper.close()

    asyncio.run(run())
    assert "link-shaper" not in [thread.name for thread in threading.enumerate()]


def test_frames_keep_their_order_under_jitter() -> None:
    async def scenario(shaper: Shaper) -> None:
        shaper.set_links({(A, B): LinkShape(delay_ms=1, jitter_ms=4), (B, A): LinkShape(delay_ms=2)})
        there: list[int] = []
        back: list[int] = []
        for number in range(500):
            shaper.submit(A, B, partial(there.append, number))
            shaper.submit(B, A, partial(back.append, number))
            if number % 50 == 0:
                await asyncio.sleep(0.001)
        await until(lambda: len(there) == len(back) == 500)
        assert there == back == list(range(500))

    with_shaper(scenario)


def test_a_frame_arrives_after_its_delay_and_lateness_is_reported() -> None:
    async def scenario(shaper: Shaper) -> None:
        shaper.set_links({(A, B): LinkShape(delay_ms=20)})
        arrived: list[float] = []
        sent = time.monotonic()
        shaper.submit(A, B, lambda: arrived.append(time.monotonic()))
        await until(lambda: bool(arrived))
        assert arrived[0] - sent >= 0.020
        counters = shaper.counters()
        assert counters["shaper_frames_passed"] == 1
        lateness_s = arrived[0] - sent - 0.020
        assert 0 < counters["shaper_lateness_us_max"] <= lateness_s * 1e6 + 1
        assert counters["shaper_lateness_us_mean"] == counters["shaper_lateness_us_max"]

    with_shaper(scenario)


def test_a_later_frame_of_a_faster_link_overtakes() -> None:
    async def scenario(shaper: Shaper) -> None:
        shaper.set_links({(A, B): LinkShape(delay_ms=40), (B, A): LinkShape(delay_ms=2)})
        arrived: list[str] = []
        shaper.submit(A, B, partial(arrived.append, "slow"))
        await asyncio.sleep(0.005)
        shaper.submit(B, A, partial(arrived.append, "fast"))
        await until(lambda: len(arrived) == 2)
        assert arrived == ["fast", "slow"]

    with_shaper(scenario)


def test_links_without_delay_pass_at_once_and_without_a_thread() -> None:
    async def scenario(shaper: Shaper) -> None:
        shaper.set_links({(A, B): LinkShape(), (A, A): LinkShape(delay_ms=1000)})
        arrived: list[str] = []
        for link in ((A, B), (B, A), (A, A)):
            shaper.submit(*link, partial(arrived.append, "frame"))
        assert len(arrived) == 3
        assert "link-shaper" not in [thread.name for thread in threading.enumerate()]

    with_shaper(scenario)


def test_a_frame_never_overtakes_when_the_delay_is_taken_away() -> None:
    async def scenario(shaper: Shaper) -> None:
        shaper.set_links({(A, B): LinkShape(delay_ms=10)})
        arrived: list[str] = []
        shaper.submit(A, B, partial(arrived.append, "first"))
        shaper.set_links({(A, B): LinkShape()})
        shaper.submit(A, B, partial(arrived.append, "second"))
        # The loop is held until both are overdue but not delivered: a third one must still queue behind them.
        held_until = time.monotonic() + 0.03
        while time.monotonic() < held_until:
            pass
        shaper.submit(A, B, partial(arrived.append, "third"))
        assert arrived == []
        await until(lambda: len(arrived) == 3)
        assert arrived == ["first", "second", "third"]
        shaper.submit(A, B, partial(arrived.append, "fourth"))
        assert arrived[-1] == "fourth"

    with_shaper(scenario)


def test_a_cut_takes_the_frames_on_their_way_and_no_others() -> None:
    async def scenario(shaper: Shaper) -> None:
        shaper.set_links({(A, B): LinkShape(delay_ms=5), (B, A): LinkShape(delay_ms=5)})
        arrived: list[str] = []
        shaper.submit(A, B, partial(arrived.append, "on its way"))
        shaper.submit(B, A, partial(arrived.append, "other direction"))
        shaper.set_links({(A, B): LinkShape(delay_ms=5, cut=True)})
        shaper.submit(A, B, partial(arrived.append, "during the cut"))
        shaper.set_links({(A, B): LinkShape(delay_ms=5)})
        shaper.submit(A, B, partial(arrived.append, "after the cut"))
        await until(lambda: len(arrived) == 2)
        assert arrived == ["other direction", "after the cut"]
        assert shaper.counters()["shaper_frames_cut"] == 2
        assert shaper.counters()["shaper_frames_passed"] == 2

    with_shaper(scenario)


def test_a_cut_takes_a_frame_whose_time_has_come_but_which_the_loop_has_not_run() -> None:
    async def scenario(shaper: Shaper) -> None:
        shaper.set_links({(A, B): LinkShape(delay_ms=1)})
        arrived: list[str] = []
        shaper.submit(A, B, partial(arrived.append, "overdue"))
        held_until = time.monotonic() + 0.02
        while time.monotonic() < held_until:
            pass
        shaper.set_links({(A, B): LinkShape(delay_ms=1, cut=True)})
        await until(lambda: shaper.counters()["shaper_frames_cut"] == 1)
        assert arrived == []

    with_shaper(scenario)


def test_lost_frames_are_counted() -> None:
    async def scenario(shaper: Shaper) -> None:
        shaper.set_links({(A, B): LinkShape(loss=0.5)})
        arrived: list[int] = []
        for number in range(1000):
            shaper.submit(A, B, partial(arrived.append, number))
        assert 400 < len(arrived) < 600
        assert shaper.counters()["shaper_frames_lost"] == 1000 - len(arrived)
        assert shaper.counters()["shaper_frames_passed"] == len(arrived)

    with_shaper(scenario)


def test_links_that_are_not_named_stay_as_they_are() -> None:
    async def scenario(shaper: Shaper) -> None:
        shaper.set_links({(A, B): LinkShape(5), (B, A): LinkShape(6)})
        shaper.set_links({(B, A): LinkShape(6, cut=True)})
        assert shaper.links() == {(A, B): LinkShape(5), (B, A): LinkShape(6, cut=True)}

    with_shaper(scenario)


def test_close_forgets_what_is_on_its_way() -> None:
    async def scenario(shaper: Shaper) -> None:
        shaper.set_links({(A, B): LinkShape(delay_ms=5)})
        arrived: list[str] = []
        shaper.submit(A, B, partial(arrived.append, "frame"))
        shaper.close()
        shaper.submit(A, B, partial(arrived.append, "frame"))
        await asyncio.sleep(0.02)
        assert arrived == []

    with_shaper(scenario)


def test_the_thread_ends_when_the_loop_is_closed_under_it(caplog: pytest.LogCaptureFixture) -> None:
    async def run() -> None:
        shaper = Shaper(random.Random(7))
        shaper.set_links({(A, B): LinkShape(delay_ms=30)})
        shaper.submit(A, B, lambda: None)

    asyncio.run(run())
    for thread in threading.enumerate():
        if thread.name == "link-shaper":
            thread.join(timeout=10)
            assert not thread.is_alive()
    assert "the event loop was closed before the link shaper; 1 frames are dropped" in caplog.text
