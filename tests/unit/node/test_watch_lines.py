"""Watches of one session that want the same are told in one message, and each what it would have been told alone."""

from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from host_cluster import GROUP, HostCluster
from virtual_time import run_virtual

from isochrone.client.client import Client
from isochrone.ids import NodeId, ReplicaRole
from isochrone.node.session_watches import BACKLOG_BYTES_MAX, SessionWatches
from isochrone.node.turnstile import Turnstile
from isochrone.node.watch_lines import Line, Lines
from isochrone.regions.host import Host
from isochrone.regions.watch_hub import WatchRequest
from isochrone.wire.records import record_value
from isochrone.wire.session import SessionMessage, WatchCancel, WatchCreate, WatchEvents, WatchProgress


class Session:
    """A client that is told things, and may be slow."""

    def __init__(self) -> None:
        self.sent: list[SessionMessage] = []
        self.backlog_bytes = 0
        self._resume: Callable[[], None] = lambda: None

    def send(self, message: SessionMessage) -> None:
        self.sent.append(message)

    def call_when_drained(self, resume: Callable[[], None]) -> None:
        self._resume = resume

    def drain(self) -> None:
        self.backlog_bytes = 0
        self._resume()

    @property
    def batches(self) -> list[WatchEvents]:
        return [message for message in self.sent if isinstance(message, WatchEvents)]

    def told(self, number: int) -> list[tuple[int, bytes]]:
        """Every batch of a watch: its number among those of the watch, and the values."""
        return [
            (sequence, b"".join(map(record_value, batch.records)))
            for batch in self.batches
            for watch, sequence in batch.watches
            if watch == number
        ]


def create(number: int, key: bytes = b"k/x", start: int = 0) -> WatchCreate:
    return WatchCreate(number, GROUP, key, b"", start, False, True, True)


def on_one_node(main: Callable[[Host, Client], Coroutine[Any, Any, None]]) -> None:
    async def run() -> None:
        cluster = HostCluster({"a": ReplicaRole.FULL})
        await cluster.start_all()
        await cluster.until(lambda: cluster.leader() is not None)
        host = cluster.processes[NodeId("a")].host
        assert host is not None
        await main(host, await cluster.client())
        await cluster.stop_all()

    run_virtual(run())


def watchers_of(host: Host) -> int:
    return len(host.replicas[GROUP].service._watches.hub)


def test_watches_of_one_key_are_told_in_one_message() -> None:
    async def main(host: Host, client: Client) -> None:
        session = Session()
        watches = SessionWatches(session, Turnstile())
        for number in (1, 2):
            watches.create(host, create(number))
        watches.create(host, create(3, b"k/y"))
        await client.put("k/x", "a")
        watches.create(host, create(4))
        await client.put("k/x", "b")
        await client.put("k/y", "c")
        assert [batch.watches for batch in session.batches] == [
            ((1, 1), (2, 1)),
            ((1, 2), (2, 2), (4, 1)),
            ((3, 1),),
        ]
        assert watchers_of(host) == 2
        assert session.told(4) == [(1, b"b")]

    on_one_node(main)


def test_who_comes_while_the_client_is_slow_is_not_told_what_was_before() -> None:
    async def main(host: Host, client: Client) -> None:
        session = Session()
        watches = SessionWatches(session, Turnstile())
        watches.create(host, create(1))
        session.backlog_bytes = BACKLOG_BYTES_MAX + 1
        await client.put("k/x", "a")
        watches.create(host, create(2))
        await client.put("k/x", "b")
        session.drain()
        assert session.told(1) == [(1, b"ab")]
        assert session.told(2) == [(1, b"b")]

    on_one_node(main)


@pytest.mark.parametrize(("start", "told"), [(2, [(1, b"ab")]), (3, [(1, b"b")]), (4, []), (5, [])])
def test_a_watch_that_starts_elsewhere_is_told_from_its_start(start: int, told: list[tuple[int, bytes]]) -> None:
    async def main(host: Host, client: Client) -> None:
        session = Session()
        watches = SessionWatches(session, Turnstile())
        await client.put("k/x", "a")
        await client.put("k/x", "b")
        watches.create(host, create(1))
        watches.create(host, create(2, start=start))
        assert session.told(2) == told
        await client.put("k/x", "c")
        assert session.told(1) == [(1, b"c")]
        assert session.told(2) == [*told, (len(told) + 1, b"c")] if start < 5 else not session.told(2)
        assert watchers_of(host) == (1 if start == 4 else 2), "from the next revision on is from now on"

    on_one_node(main)


def test_a_watch_that_ends_leaves_the_others() -> None:
    async def main(host: Host, client: Client) -> None:
        session = Session()
        watches = SessionWatches(session, Turnstile())
        for number in (1, 2, 3):
            watches.create(host, create(number))
        watches.cancel(WatchCancel(2))
        await client.put("k/x", "a")
        assert [session.told(number) for number in (1, 2, 3)] == [[(1, b"a")], [], [(1, b"a")]]
        watches.tell_progress(host)
        progress = [message for message in session.sent if isinstance(message, WatchProgress)][-2:]
        assert [(message.watch, message.sequence) for message in progress] == [(1, 1), (3, 1)]
        watches.close()
        assert watchers_of(host) == 0
        watches.create(host, create(4))
        assert watchers_of(host) == 1, "a line that has ended is not joined"

    on_one_node(main)


def test_a_line_whose_members_were_not_all_told_is_not_joined() -> None:
    """A stream that tells one member after the other has the batch in hand, and the host has nothing more."""

    async def main(host: Host, client: Client) -> None:
        taken: list[Line] = []
        lines = Lines(taken.append)
        request = WatchRequest(b"k/x")
        line = lines.join(host, GROUP, request, 1)
        await client.put("k/x", "a")
        assert taken == [line]
        line.batch = line.watch.take()
        line.untold.append(1)
        assert line.watch.take() is None
        other = lines.join(host, GROUP, request, 2)
        assert other is not line
        line.untold.clear()
        assert lines.join(host, GROUP, request, 3) is line
        line.untold.extend((1, 3))
        assert lines.leave(3) is line
        assert list(line.untold) == [1]
        assert list(lines) == [line, other]
        assert len(lines) == 2

    on_one_node(main)
