"""What a stream of etcd's watchers says, and when it rests."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from host_cluster import GROUP, HostCluster
from http2_client import Client as Http2Client
from http2_client import prefixed
from virtual_time import run_virtual

from isochrone.client.client import Client
from isochrone.errors import Indeterminate
from isochrone.ids import KeyspaceId, NodeId, ReplicaRole
from isochrone.node import etcd_watches_grpc
from isochrone.node.etcd_group import GroupAccess
from isochrone.node.etcd_watches_grpc import BACKLOG_BYTES_MAX, PATH, watch_method
from isochrone.regions import watch_hub
from isochrone.regions.host import Host
from isochrone.regions.requests import always_serves
from isochrone.regions.watch_hub import WatchRequest
from isochrone.wire.etcd.answers_grpc import Speaker
from isochrone.wire.etcd.generated import rpc_pb2 as pb
from isochrone.wire.http2 import frames
from isochrone.wire.kv import Compact

GRANT = (1 << 30).to_bytes(4, "big")


async def never() -> Client:
    raise AssertionError("nobody else is asked")


class Stream:
    """One stream of watchers, with a client that reads."""

    def __init__(self, host: Host, *, reads: bool = True) -> None:
        access = GroupAccess(host, NodeId("a"), GROUP, [(b"k/", KeyspaceId("k/"))], never)
        self._client = Http2Client({PATH: watch_method(access, Speaker(1, 2))})
        self._stream = self._client.open(PATH)
        if reads:
            self.read_on()
        self._arrived = b""

    def read_on(self) -> None:
        for stream in (0, self._stream):
            self._client.send(frames.WINDOW_UPDATE, 0, stream, GRANT)

    @property
    def backlog_bytes(self) -> int:
        return self._client.connection.backlog_bytes

    def say(self, request: pb.WatchRequest) -> list[pb.WatchResponse]:
        self._client.data(self._stream, prefixed(request.SerializeToString()))
        return self.told()

    def create(self, **fields: Any) -> list[pb.WatchResponse]:
        request = pb.WatchCreateRequest(**{"key": b"k/", "range_end": b"k0", **fields})
        return self.say(pb.WatchRequest(create_request=request))

    def cancel(self, number: int) -> list[pb.WatchResponse]:
        return self.say(pb.WatchRequest(cancel_request=pb.WatchCancelRequest(watch_id=number)))

    def progress(self) -> list[pb.WatchResponse]:
        return self.say(pb.WatchRequest(progress_request=pb.WatchProgressRequest()))

    def told(self) -> list[pb.WatchResponse]:
        found: list[pb.WatchResponse] = []
        data = [frame.payload for frame in self._client.read() if frame.kind == frames.DATA]
        self._arrived += b"".join(data)
        while len(self._arrived) >= 5:
            end = 5 + int.from_bytes(self._arrived[1:5], "big")
            if len(self._arrived) < end:
                break
            found.append(pb.WatchResponse.FromString(self._arrived[5:end]))
            self._arrived = self._arrived[end:]
        return found


def on_one_node(main: Callable[[Host, Client, HostCluster], Coroutine[Any, Any, None]]) -> None:
    async def run() -> None:
        cluster = HostCluster({"a": ReplicaRole.FULL})
        await cluster.start_all()
        await cluster.until(lambda: cluster.leader() is not None)
        host = cluster.processes[NodeId("a")].host
        assert host is not None
        await main(host, await cluster.client(), cluster)
        await cluster.stop_all()

    run_virtual(run())


def revisions(answers: list[pb.WatchResponse]) -> list[int]:
    return [event.kv.mod_revision for answer in answers for event in answer.events]


def test_ids_are_chosen_or_given_out_and_stay_taken_after_a_compaction_until_they_are_cancelled() -> None:
    async def main(host: Host, client: Client, _: HostCluster) -> None:
        for value in "abc":
            await client.put("k/x", value)
        await client.execute(b"k/x", Compact(4))
        stream = Stream(host)
        assert [each.watch_id for each in stream.create()] == [0]
        assert [each.watch_id for each in stream.create(watch_id=2)] == [2]
        assert [each.watch_id for each in stream.create()] == [1]
        (refused,) = stream.create(watch_id=2)
        assert (refused.watch_id, refused.created, refused.canceled) == (-1, True, True)
        assert refused.cancel_reason == "mvcc: duplicate watch ID provided on the WatchStream"

        created, ended = stream.create(start_revision=2)
        assert (created.watch_id, ended.watch_id, ended.canceled, ended.compact_revision) == (3, 3, True, 4)
        assert ended.header.revision == 0
        (refused,) = stream.create(watch_id=3)
        assert refused.canceled
        assert [(each.watch_id, each.canceled) for each in stream.cancel(3)] == [(3, True)]
        assert stream.cancel(3) == []
        (created,) = stream.create(watch_id=3)
        assert created.created and not created.canceled

    on_one_node(main)


def test_a_client_that_does_not_read_makes_its_watchers_rest_and_misses_nothing() -> None:
    async def main(host: Host, client: Client, cluster: HostCluster) -> None:
        stream = Stream(host, reads=False)
        stream.create()
        for number in range(20):
            await client.put(f"k/{number}", bytes(500_000))
        await cluster.until(lambda: stream.backlog_bytes > BACKLOG_BYTES_MAX)
        assert stream.backlog_bytes < BACKLOG_BYTES_MAX + 2_000_000, "the rest waits in the history"
        asked = stream.progress()
        assert not any(each.watch_id == -1 for each in asked), "nobody is told that it is up to date"
        stream.read_on()
        answers: list[pb.WatchResponse] = []

        def all_told() -> bool:
            answers.extend(stream.told())
            return len(revisions(answers)) == 20 and answers[-1].watch_id == -1

        await cluster.until(all_told)
        assert revisions(answers) == list(range(2, 22))
        assert answers[-1].header.revision == 21

    on_one_node(main)


def test_a_watcher_with_a_long_past_of_others_gives_way_and_is_told_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch_hub, "SCAN_RECORDS_MAX", 2)

    async def main(host: Host, client: Client, cluster: HostCluster) -> None:
        for number in range(20):
            await client.put(f"k/other/{number}", "")
        await client.put("k/own", "")
        stream = Stream(host)
        answers = stream.create(key=b"k/own", range_end=b"", start_revision=1)
        assert [each.created for each in answers] == [True], "it has looked at a piece of the history only"

        def told() -> bool:
            answers.extend(stream.told())
            return bool(revisions(answers))

        await cluster.until(told)
        assert revisions(answers) == [22]

    on_one_node(main)


def test_who_asked_for_notices_hears_how_far_it_is_while_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    interval_s = 10.0
    monkeypatch.setattr(etcd_watches_grpc, "PROGRESS_INTERVAL_S", interval_s)

    async def main(host: Host, client: Client, _: HostCluster) -> None:
        stream = Stream(host)
        stream.create(progress_notify=True)
        stream.create()
        await client.put("k/x", "a")
        assert revisions(stream.told()) == [2, 2]
        await asyncio.sleep(1.1 * interval_s)
        assert stream.told() == [], "it was told something since"
        await asyncio.sleep(interval_s)
        assert [(each.watch_id, each.header.revision, len(each.events)) for each in stream.told()] == [(0, 2, 0)]

    on_one_node(main)


def test_a_stream_that_is_refused_while_an_entry_is_told_takes_its_other_watchers_along_and_nobody_else() -> None:
    """The entry matters to two watches of the stream: the first one's end ends the second."""

    async def main(host: Host, client: Client, _: HostCluster) -> None:
        refused, told = Stream(host), list[str]()
        refused.create()
        refused.create(key=b"k/x", range_end=b"")
        kept = host.watch(GROUP, WatchRequest(b"k/x"), lambda: told.append("something"))
        replica = host.replicas[GROUP]
        before = replica.revision
        replica._region_lease = lambda *_: replica.revision == before
        with pytest.raises(Indeterminate):
            await client.put("k/x", "a", timeout_s=1.0)
        replica._region_lease = always_serves
        assert len(replica.service.watch_hub) == 1 and told == ["something"] and kept.take() is not None
        assert (await client.put("k/x", "b")).succeeded

    on_one_node(main)
