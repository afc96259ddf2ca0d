"""What begins in one turn travels together, within the limits of a request."""

import asyncio
from typing import cast

import pytest

from isochrone.client import gathering
from isochrone.client.gathering import COMMANDS_MIN, REQUESTS_OVERLAPPING, Gathering, WriteCommand, rounded_down
from isochrone.client.links import Link
from isochrone.ids import GroupId, KeyspaceId
from isochrone.wire.session import WRITE_COMMANDS_MAX, SessionMessage, WriteRequest
from isochrone.wire.session_codec import decode_session_frames, encode_session_frame

GROUP, OTHER = GroupId("g"), GroupId("h")


class Sent:
    """A link that only keeps what it is to send."""

    def __init__(self) -> None:
        self.messages: list[SessionMessage] = []

    def send(self, message: SessionMessage) -> None:
        self.messages.append(message)

    @property
    def requests(self) -> list[tuple[int, ...]]:
        return [message.requests for message in self.messages if isinstance(message, WriteRequest)]


def gather(*begun: tuple[Sent, GroupId, int, WriteCommand], under_way: int = 1_000_000) -> list[int]:
    """Begin calls in one turn, numbered from 1; returns how many requests had left after each."""
    left: list[int] = []

    async def main() -> None:
        gathered = Gathering()
        for number, (link, group, timeout_ms, write) in enumerate(begun, 1):
            gathered.add(cast("Link", link), group, number, timeout_ms, write, under_way)
            left.append(len(link.messages))
        await asyncio.sleep(0)

    asyncio.run(main())
    return left


def command(data: bytes = b"c", keyspace: str = "k/", trace: bytes = b"") -> WriteCommand:
    return WriteCommand(KeyspaceId(keyspace), trace, data)


def test_commands_of_one_turn_are_one_request_with_the_first_trace_that_one_has() -> None:
    link = Sent()
    gather((link, GROUP, 9_000, command(b"a")), (link, GROUP, 9_001, command(b"b", trace=b"t")))
    assert link.messages == [WriteRequest((1, 2), GROUP, KeyspaceId("k/"), rounded_down(9_000), b"t", (b"a", b"b"))]


def test_links_groups_keyspaces_and_deadlines_are_kept_apart() -> None:
    link, other = Sent(), Sent()
    gather(
        (link, GROUP, 9_000, command()),
        (other, GROUP, 9_000, command()),
        (link, OTHER, 9_000, command()),
        (link, GROUP, 9_000, command(keyspace="m/")),
        (link, GROUP, 20, command()),
        (link, GROUP, 9_000, command()),
    )
    assert link.requests == [(1, 6), (3,), (4,), (5,)] and other.requests == [(2,)]


def test_a_request_has_at_most_so_many_bytes_or_one_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gathering, "WRITE_BYTES_MAX", 10)
    link = Sent()
    sizes = [1, 1, 1, 9, 1, 20, 5, 5]
    gather(*[(link, GROUP, 9_000, command(bytes(size))) for size in sizes])
    assert link.requests == [(1, 2, 3), (4, 5), (6,), (7, 8)]


def test_no_request_has_more_commands_than_a_node_takes() -> None:
    """However many are under way: a node cuts off who sends more."""
    link = Sent()
    gather(*[(link, GROUP, 9_000, command())] * (2 * WRITE_COMMANDS_MAX + 1))
    assert [len(request) for request in link.requests] == [WRITE_COMMANDS_MAX, WRITE_COMMANDS_MAX, 1]
    frame = encode_session_frame(link.messages)
    assert decode_session_frames(frame) == link.messages


def test_a_request_with_its_share_of_what_is_under_way_leaves_before_the_turn_is_over() -> None:
    share = 2 * COMMANDS_MIN
    link = Sent()
    begun = [(link, GROUP, 9_000, command())] * (2 * share)
    left = gather(*begun, under_way=share * REQUESTS_OVERLAPPING)
    assert left == [0] * (share - 1) + [1] * share + [2]
    assert link.requests == [tuple(range(1, share + 1)), tuple(range(share + 1, 2 * share + 1))]


def test_few_commands_wait_for_the_end_of_the_turn() -> None:
    link = Sent()
    left = gather(*[(link, GROUP, 9_000, command())] * (COMMANDS_MIN - 1), under_way=1)
    assert left[-1] == 0 and [len(request) for request in link.requests] == [COMMANDS_MIN - 1]


def test_a_request_states_the_deadline_of_each_of_its_commands_rounded_down() -> None:
    link = Sent()
    timeouts_ms = [*range(1, 3_000), *range(3_000, 0, -7), 10_000, 10_239, 10_240, 9_999]
    gather(*[(link, GROUP, timeout_ms, command()) for timeout_ms in timeouts_ms])
    stated = {
        request: message.timeout_ms
        for message in link.messages
        if isinstance(message, WriteRequest)
        for request in message.requests
    }
    assert stated == {number: rounded_down(timeout_ms) for number, timeout_ms in enumerate(timeouts_ms, 1)}
    assert len(link.messages) == len(set(stated.values())), "those of one deadline travel together"


@pytest.mark.parametrize("timeout_ms", [1, 31, 32, 33, 100, 9_999, 10_000, 3_600_000])
def test_a_deadline_is_shortened_by_less_than_a_sixteenth_and_never_to_nothing(timeout_ms: int) -> None:
    assert 0 < rounded_down(timeout_ms) <= timeout_ms
    assert timeout_ms - rounded_down(timeout_ms) < timeout_ms / 16
