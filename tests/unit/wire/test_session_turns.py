"""A client that says much at once: others get their turn, and what it may say meanwhile is bounded by its window."""

import asyncio
import random
from collections.abc import Coroutine
from typing import Any

from http2_client import Client, prefixed
from virtual_time import run_virtual
from wire_nodes import EchoSessions

from isochrone.ids import ClusterId, GroupId, KeyspaceId, NodeId
from isochrone.wire.budget import Budget
from isochrone.wire.http2 import frames
from isochrone.wire.http2.frames import Code
from isochrone.wire.http2.limits import Limits
from isochrone.wire.messages import PROTOCOL_VERSION
from isochrone.wire.session import ClientHello, NodeHello, WriteRequest
from isochrone.wire.session_codec import encode_session_frame
from isochrone.wire.sessions_grpc import MESSAGE_BYTES, MESSAGES_AT_A_TIME, SessionService
from isochrone.wire.shaper_os import Shaper
from isochrone.wire.streams_grpc import SESSION_METHOD

NODE = NodeHello(PROTOCOL_VERSION, ClusterId("c"), NodeId("a"), "r", "z")
HELLO = ClientHello(PROTOCOL_VERSION, "r", "z", "talker")
WINDOW_BYTES = 1 << 17
COUNT = 3 * MESSAGES_AT_A_TIME + 1


def requests(count: int, command: bytes = b"command") -> bytes:
    one = WriteRequest((1,), GroupId("g"), KeyspaceId("k"), 1000, b"", (command,))
    return prefixed(encode_session_frame([one] * count))


class Talker:
    """A session in memory."""

    def __init__(self, copies: int = 1, budget: Budget | None = None) -> None:
        self.sessions = EchoSessions(NODE.node, copies)
        service = SessionService(NODE, Shaper(random.Random(1)), self.sessions, budget or Budget())
        limits = Limits(stream_window_bytes=WINDOW_BYTES)
        self.client = Client({SESSION_METHOD: service.method()}, limits, message_bytes_max=1 << 20)
        self.stream = self.client.open(SESSION_METHOD)
        self.say(prefixed(encode_session_frame([HELLO])))

    def say(self, data: bytes) -> None:
        for at in range(0, len(data), frames.FRAME_BYTES_MAX):
            self.client.data(self.stream, data[at : at + frames.FRAME_BYTES_MAX])

    def grants(self) -> int:
        updates = [each for each in self.client.read() if each.kind == frames.WINDOW_UPDATE]
        return sum(frames.parse_word(each.payload) for each in updates if each.stream == self.stream)


def run(scenario: Coroutine[Any, Any, None]) -> None:
    asyncio.run(scenario)


def test_what_is_said_at_once_is_handled_some_at_a_time_and_in_order() -> None:
    async def scenario() -> None:
        talker = Talker()
        talker.say(requests(COUNT) + requests(1))
        handled = [talker.sessions.received_count]
        while handled[-1] < COUNT + 1:
            await asyncio.sleep(0)
            handled.append(talker.sessions.received_count)
        assert handled == [MESSAGES_AT_A_TIME * turn for turn in (1, 2, 3)] + [COUNT + 1]

    run(scenario())


def test_a_client_whose_turn_is_over_may_send_its_window_and_no_more() -> None:
    async def scenario() -> None:
        talker = Talker()
        talker.say(requests(COUNT))
        said = 0
        while said < WINDOW_BYTES - (64 << 10):
            data = requests(50)
            talker.say(data)
            said += len(data)
        assert talker.grants() == 0, "it rests"
        for _ in range(1_000):
            await asyncio.sleep(0)
        assert talker.grants() > WINDOW_BYTES // 2, "it goes on"
        talker.say(requests(COUNT))
        for _ in range(2 * WINDOW_BYTES // len(requests(50))):
            talker.say(requests(50))
        assert talker.client.refusal()[0] == Code.FLOW_CONTROL_ERROR
        assert talker.sessions.closed_count == 1

    run(scenario())


def test_what_waits_for_its_turn_counts_and_the_most_of_it_is_cut_off() -> None:
    async def scenario() -> None:
        budget = Budget(2 * COUNT * MESSAGE_BYTES)
        few, many = Talker(budget=budget), Talker(budget=budget)
        few.say(requests(MESSAGES_AT_A_TIME + 1))
        assert budget.kept_bytes == MESSAGE_BYTES
        many.say(requests(COUNT) + requests(COUNT) + requests(COUNT))
        await asyncio.sleep(0)
        assert budget.cut_off == many.sessions.closed_count == 1
        await asyncio.sleep(0)
        assert budget.kept_bytes == 0
        assert few.sessions.closed_count == 0 and few.sessions.received_count == MESSAGES_AT_A_TIME + 1
        assert many.sessions.received_count == MESSAGES_AT_A_TIME

    run(scenario())


def test_a_session_that_is_over_keeps_nothing_of_what_it_is_sent() -> None:
    """Requests of it are answered yet, and hold on to it until then."""

    async def scenario() -> None:
        talker = Talker(copies=40)
        (session,) = talker.sessions.open
        for _ in range(3):
            talker.say(requests(1, bytes(50_000)))
            talker.client.read()
            await asyncio.sleep(0)
        assert session.outbox.bytes_waiting > 1_000_000
        talker.client.send(frames.RST_STREAM, 0, talker.stream, bytes(4))
        for _ in range(3):
            talker.sessions.received(session, WriteRequest((1,), GroupId("g"), KeyspaceId("k"), 1000, b"", (b"late",)))
            await asyncio.sleep(0)
        assert session.backlog_bytes == 0

    run(scenario())


def test_a_session_that_is_over_handles_nothing_of_what_was_said() -> None:
    async def scenario() -> None:
        talker = Talker()
        talker.say(requests(COUNT))
        talker.client.send(frames.RST_STREAM, 0, talker.stream, bytes(4))
        assert talker.sessions.closed_count == 1
        for _ in range(10):
            await asyncio.sleep(0)
        assert talker.sessions.received_count == MESSAGES_AT_A_TIME

    run(scenario())


def test_a_client_that_takes_nothing_is_told_why_if_it_goes_on_within_a_second_and_is_reset_then() -> None:
    async def scenario() -> None:
        talkers = [Talker(copies=100), Talker(copies=100)]
        for talker in talkers:
            talker.client.read()
            for _ in range(4):
                talker.say(requests(1, bytes(100_000)))
                talker.client.read()
                assert talker.sessions.closed_count == 0
            await asyncio.sleep(0)
            assert talker.sessions.closed_count == 1
        late, gone = talkers
        await asyncio.sleep(0.9)
        for stream in (0, late.stream):
            late.client.send(frames.WINDOW_UPDATE, 0, stream, (64 << 20).to_bytes(4, "big"))
        trailers = late.client.fields([each for each in late.client.read() if each.kind == frames.HEADERS][-1])
        assert trailers["grpc-status"] == "8" and "reads too slowly" in trailers["grpc-message"]
        assert gone.client.read() == []
        await asyncio.sleep(0.2)
        assert [each.kind for each in gone.client.read()] == [frames.RST_STREAM]
        assert late.client.read() == [] and gone.client.connection.backlog_bytes == 0

    run_virtual(scenario())
