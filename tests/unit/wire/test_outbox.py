"""Natural batching: what waits together leaves together, in order and within bounds."""

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any

from isochrone.wire.codec import FRAME_BYTES_MAX
from isochrone.wire.streams_grpc import (
    DRAINED_BYTES,
    EARLY_BYTES,
    FRAME_BYTES_TARGET,
    STREAM_DRAINED_BYTES,
    WRITE_BYTES_TARGET,
    Outbox,
)


class Stream:
    """A stream whose other end takes each message only when it is told to."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.taken = 0
        self.waiting: deque[Callable[[], None]] = deque()

    @property
    def backlog_bytes(self) -> int:
        return STREAM_DRAINED_BYTES + 1 if len(self.written) > self.taken else 0

    def send(self, message: bytes) -> None:
        self.written.append(message)

    def call_when_drained(self, callback: Callable[[], None]) -> None:
        self.waiting.append(callback)

    def call_before_output(self, callback: Callable[[], None]) -> bool:
        asyncio.get_running_loop().call_soon(callback)
        return True

    def take(self) -> None:
        self.taken += 1
        for _ in range(len(self.waiting)):
            self.waiting.popleft()()


def immediately(deliver: Callable[[], None]) -> None:
    deliver()


def outbox(
    *,
    ship: Callable[[Callable[[], None]], None] = immediately,
    bytes_max: int = 1 << 40,
    overflows: list[int],
    kept: Callable[[int], None] | None = None,
) -> Outbox[bytes]:
    box: Outbox[bytes] = Outbox(
        encode=lambda messages: b"[" + b"".join(messages) + b"]",
        size_of=len,
        ship=ship,
        bytes_max=bytes_max,
        overflow=lambda: overflows.append(box.bytes_waiting),
        kept=kept,
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
        box.open(stream)
        box.put([b"a", b"b"])
        box.put([b"c"])
        await turns()
        assert stream.written == [b"[abc]"]
        for message in (b"d", b"e", b"f"):
            box.put([message])
            await turns()
        assert stream.written == [b"[abc]"]
        stream.take()
        await turns()
        assert stream.written == [b"[abc]", b"[d][e][f]"]
        assert (box.writes, box.messages_written, box.bytes_waiting) == (2, 6, 0)

    run_with_stream(scenario)


def test_what_is_worth_a_write_leaves_before_the_turn_is_over() -> None:
    large = bytes(EARLY_BYTES)

    async def scenario(stream: Stream) -> None:
        box = outbox(overflows=[])
        box.open(stream)
        box.put([b"a"])
        assert stream.written == []
        box.put([large])
        assert stream.written == [b"[a" + large + b"]"]
        box.put([b"b"])
        stream.take()
        await turns()
        assert stream.written == [b"[a" + large + b"]", b"[b]"] and box.backlog_bytes == 0

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
            stream.take()
        box.open(stream)
        await turns(10)
        assert all(len(data) <= WRITE_BYTES_TARGET for data in stream.written)
        assert [len(data) // FRAME_BYTES_TARGET for data in stream.written] == [3, 3]
        assert (box.messages_written, box.bytes_waiting) == (12, 0)

    run_with_stream(scenario)


def test_a_message_that_no_stream_can_carry_is_dropped_and_counted() -> None:
    async def scenario(stream: Stream) -> None:
        box = outbox(overflows=[])
        box.put([bytes(FRAME_BYTES_MAX), b"small"])
        await turns()
        box.open(stream)
        await turns()
        assert stream.written == [b"[small]"]
        assert box.messages_dropped == 1

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
        box.open(stream)
        await turns()
        assert stream.written == [b"[0002][0003][0004]"]

    run_with_stream(scenario)


def test_clear_drops_what_waits() -> None:
    async def scenario(stream: Stream) -> None:
        box = outbox(overflows=[])
        box.put([b"a", b"b"])
        await turns()
        box.clear()
        assert (box.bytes_waiting, box.messages_dropped) == (0, 2)
        box.put([b"c"])
        box.open(stream)
        await turns()
        assert stream.written == [b"[c]"]

    run_with_stream(scenario)


def test_a_stream_that_was_left_is_fed_no_more_and_the_next_gets_what_waits() -> None:
    async def scenario(stream: Stream) -> None:
        box = outbox(overflows=[])
        box.open(stream)
        for message in (b"a", b"b"):
            box.put([message])
            await turns()
        box.close()
        stream.take()
        await turns()
        assert stream.written == [b"[a]"]
        later = Stream()
        box.open(later)
        stream.take()
        assert (stream.written, later.written) == ([b"[a]"], [b"[b]"])

    run_with_stream(scenario)


def test_what_waits_is_told_whenever_it_is_another_amount() -> None:
    async def scenario(stream: Stream) -> None:
        kept: list[int] = []
        box = outbox(overflows=[], kept=kept.append)
        box.open(stream)
        box.put([b"a"])
        await turns()
        assert kept == [], "it went at once"
        for message in (b"b", b"c"):
            box.put([message])
            await turns()
        stream.take()
        assert kept == [3, 6, 0]
        box.put([b"d"])
        await turns()
        box.clear()
        assert kept == [3, 6, 0, 3, 0]

    run_with_stream(scenario)


def test_who_waits_for_an_outbox_to_drain_is_called_once() -> None:
    async def scenario(stream: Stream) -> None:
        box = outbox(overflows=[])
        drained: list[int] = []
        box.open(stream)
        for _ in range(3):
            box.put([bytes(WRITE_BYTES_TARGET)])
            await turns()
        box.when_drained = lambda: drained.append(box.backlog_bytes)
        stream.take()
        await turns()
        assert drained == [], "too much waits still"
        for _ in range(4):
            stream.take()
            await turns()
        assert len(drained) == 1 and drained[0] <= DRAINED_BYTES and box.when_drained is None

    run_with_stream(scenario)
