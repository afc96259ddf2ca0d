"""Natural batching: what waits together leaves together, in order and within bounds."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from isochrone.wire.codec import FRAME_BYTES_MAX
from isochrone.wire.streams_grpc import DRAINED_BYTES, FRAME_BYTES_TARGET, WRITE_BYTES_TARGET, Outbox, run_until_first


class Stream:
    """A stream that takes each write only when it is told to."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.permits = asyncio.Semaphore(0)

    async def write(self, data: bytes) -> None:
        self.written.append(data)
        await self.permits.acquire()


def immediately(deliver: Callable[[], None]) -> None:
    deliver()


def outbox(
    *, ship: Callable[[Callable[[], None]], None] = immediately, bytes_max: int = 1 << 40, overflows: list[int]
) -> Outbox[bytes]:
    box: Outbox[bytes] = Outbox(
        encode=lambda messages: b"[" + b"".join(messages) + b"]",
        size_of=len,
        ship=ship,
        bytes_max=bytes_max,
        overflow=lambda: overflows.append(box.bytes_waiting),
    )
    return box


async def turns(count: int = 5) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


def run_with_stream(scenario: Callable[[Stream], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(with_stream(scenario))


async def with_stream(scenario: Callable[[Stream], Coroutine[Any, Any, None]]) -> None:
    await scenario(Stream())


def test_one_turn_makes_one_frame_and_waiting_frames_make_one_write() -> None:
    async def scenario(stream: Stream) -> None:
        box = outbox(overflows=[])
        writer = asyncio.create_task(box.write_to(stream.write))
        box.put([b"a", b"b"])
        box.put([b"c"])
        await turns()
        assert stream.written == [b"[abc]"]
        for message in (b"d", b"e", b"f"):
            box.put([message])
            await turns()
        assert stream.written == [b"[abc]"]
        stream.permits.release()
        await turns()
        assert stream.written == [b"[abc]", b"[d][e][f]"]
        assert (box.writes, box.messages_written, box.bytes_waiting) == (2, 3, 0)
        writer.cancel()

    run_with_stream(scenario)


def test_large_messages_are_spread_over_frames_and_writes() -> None:
    async def scenario(stream: Stream) -> None:
        shipped: list[Callable[[], None]] = []
        box = outbox(ship=shipped.append, overflows=[])
        box.put([bytes(FRAME_BYTES_TARGET // 2)] * 12)
        await turns()
        assert len(shipped) == 6
        for deliver in shipped:
            deliver()
        for _ in range(9):
            stream.permits.release()
        writer = asyncio.create_task(box.write_to(stream.write))
        await turns(10)
        assert all(len(data) <= WRITE_BYTES_TARGET for data in stream.written)
        assert [len(data) // FRAME_BYTES_TARGET for data in stream.written] == [3, 3]
        assert (box.messages_written, box.bytes_waiting) == (12, 0)
        writer.cancel()

    run_with_stream(scenario)


def test_a_message_that_no_stream_can_carry_is_dropped_and_counted() -> None:
    async def scenario(stream: Stream) -> None:
        box = outbox(overflows=[])
        box.put([bytes(FRAME_BYTES_MAX), b"small"])
        await turns()
        writer = asyncio.create_task(box.write_to(stream.write))
        await turns()
        assert stream.written == [b"[small]"]
        assert box.messages_dropped == 1
        writer.cancel()

    run_with_stream(scenario)


def test_beyond_the_bound_the_oldest_can_be_dropped() -> None:
    async def scenario(stream: Stream) -> None:
        overflows: list[int] = []
        box = outbox(bytes_max=20, overflows=overflows)
        for number in range(5):
            box.put([b"%04d" % number])
            await turns()
        assert overflows == [24, 30]
        box.drop_oldest()
        assert (box.bytes_waiting, box.messages_dropped) == (18, 2)
        writer = asyncio.create_task(box.write_to(stream.write))
        await turns()
        assert stream.written == [b"[0002][0003][0004]"]
        writer.cancel()

    run_with_stream(scenario)


def test_clear_drops_what_waits() -> None:
    async def scenario(stream: Stream) -> None:
        box = outbox(overflows=[])
        box.put([b"a", b"b"])
        await turns()
        box.clear()
        assert (box.bytes_waiting, box.messages_dropped) == (0, 2)
        box.put([b"c"])
        writer = asyncio.create_task(box.write_to(stream.write))
        await turns()
        assert stream.written == [b"[c]"]
        writer.cancel()

    run_with_stream(scenario)


def test_the_first_to_end_ends_the_others_and_its_error_is_raised() -> None:
    cancelled: list[bool] = []

    async def forever() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.append(True)

    async def fails() -> None:
        await asyncio.sleep(0)
        raise ValueError("the first")

    async def scenario(_: Stream) -> None:
        with pytest.raises(ValueError, match="the first"):
            await run_until_first(forever(), fails(), forever())
        assert cancelled == [True, True]
        await run_until_first(forever(), asyncio.sleep(0))
        assert cancelled == [True] * 3
        outer = asyncio.create_task(run_until_first(forever()))
        await turns()
        outer.cancel()
        with pytest.raises(asyncio.CancelledError):
            await outer
        assert cancelled == [True] * 4

    run_with_stream(scenario)


def test_who_waits_for_an_outbox_to_drain_is_called_once() -> None:
    async def scenario(stream: Stream) -> None:
        box = outbox(overflows=[])
        drained: list[int] = []
        writer = asyncio.create_task(box.write_to(stream.write))
        for _ in range(3):
            box.put([bytes(WRITE_BYTES_TARGET)])
            await turns()
        box.when_drained = lambda: drained.append(box.backlog_bytes)
        stream.permits.release()
        await turns()
        assert drained == [], "too much waits still"
        for _ in range(4):
            stream.permits.release()
            await turns()
        assert len(drained) == 1 and drained[0] <= DRAINED_BYTES and box.when_drained is None
        writer.cancel()

    run_with_stream(scenario)
