"""When sockets send what has gathered."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from isochrone.wire.http2.departures_os import Departures


def in_loop(test: Callable[[Departures, list[str]], Awaitable[None]]) -> list[str]:
    log: list[str] = []
    asyncio.run(test(Departures(), log))  # type: ignore[arg-type]  # a coroutine
    return log


def test_what_is_sent_outside_of_work_leaves_in_the_next_turn_of_the_loop() -> None:
    async def test(departures: Departures, log: list[str]) -> None:
        departures.soon(lambda: log.append("left"))
        log.append("sent")
        await asyncio.sleep(0)

    assert in_loop(test) == ["sent", "left"]


def test_what_is_sent_during_work_leaves_at_its_end_in_order_and_once() -> None:
    async def test(departures: Departures, log: list[str]) -> None:
        def work() -> int:
            departures.soon(lambda: log.append("first"))
            departures.soon(lambda: log.append("second"))
            log.append("work")
            return 7

        assert departures.together(work) == 7
        log.append("over")
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    assert in_loop(test) == ["work", "first", "second", "over"]


def test_what_a_departure_sends_leaves_in_the_next_turn_of_the_loop() -> None:
    async def test(departures: Departures, log: list[str]) -> None:
        def flush() -> None:
            log.append("first")
            departures.soon(lambda: log.append("second"))

        departures.together(lambda: departures.soon(flush))
        log.append("over")
        await asyncio.sleep(0)

    assert in_loop(test) == ["first", "over", "second"]


def test_work_that_fails_sends_what_it_had() -> None:
    async def test(departures: Departures, log: list[str]) -> None:
        def work() -> None:
            departures.soon(lambda: log.append("left"))
            raise ValueError("work")

        with pytest.raises(ValueError, match="work"):
            departures.together(work)
        departures.soon(lambda: log.append("next"))
        log.append("over")
        await asyncio.sleep(0)

    assert in_loop(test) == ["left", "over", "next"]


def test_a_socket_that_cannot_send_keeps_neither_the_others_from_it_nor_fails_the_work() -> None:
    async def test(departures: Departures, log: list[str]) -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: log.append(str(context["exception"])))

        def broken() -> None:
            raise ValueError("broken")

        def work() -> str:
            departures.soon(broken)
            departures.soon(lambda: log.append("left"))
            return "done"

        log.append(departures.together(work))

    assert in_loop(test) == ["broken", "left", "done"]
