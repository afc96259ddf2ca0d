"""The conversation that compares servers: drawn from a seed alone, and it notices what it should."""

import random

import pytest
from etcd_conversation import Exchange, Watcher, differences, text_of
from etcd_requests import Call, CancelWatch, Request, random_requests

from isochrone.wire.etcd.generated import kv_pb2
from isochrone.wire.etcd.generated import rpc_pb2 as pb


def written(requests: list[Request]) -> list[str]:
    return [
        text_of(each.request) if not isinstance(each, CancelWatch) else f"cancel {each.watch_id}" for each in requests
    ]


def event(key: bytes, revision: int, kind: "kv_pb2.Event.EventType" = kv_pb2.Event.PUT) -> kv_pb2.Event:
    return kv_pb2.Event(type=kind, kv=kv_pb2.KeyValue(key=key, mod_revision=revision))


def watcher(told: list[kv_pb2.Event], expected: list[kv_pb2.Event]) -> Watcher:
    made = Watcher(pb.WatchCreateRequest(key=b"b", range_end=b"d", filters=[pb.WatchCreateRequest.NODELETE]), since=5)
    made.events, made.expected = told, expected
    return made


def test_the_same_seed_gives_the_same_conversation() -> None:
    one, again, other = (written(random_requests(random.Random(seed), 300)) for seed in (1, 1, 2))
    assert one == again != other


def test_every_kind_of_request_is_drawn() -> None:
    requests = random_requests(random.Random(3), 1000)
    paths = {request.path.rpartition("/")[2] for request in requests if isinstance(request, Call)}
    assert paths == {
        *("Put", "Range", "DeleteRange", "Txn", "Compact"),
        *("LeaseGrant", "LeaseRevoke", "LeaseKeepAlive", "LeaseTimeToLive", "LeaseLeases"),
    }
    assert sum(isinstance(request, Call) for request in requests) < 1000


def test_a_conversation_can_be_kept_to_its_prefix() -> None:
    requests = random_requests(random.Random(4), 1000, whole_store=False)
    assert not [text for text in written(requests) if 'range_end: "\\000"' in text]


def test_transcripts_are_compared_to_the_end() -> None:
    said = [Exchange("put", "revision 2"), Exchange("put", "revision 3", ["watcher 1: b"])]
    assert list(differences(said, list(said))) == []
    assert len(list(differences(said, said[:1]))) == 1
    (found,) = differences(said, [said[0], Exchange("put", "revision 3")])
    assert found.startswith("request 1:\n> put\n< revision 3\n  watcher 1: b\n--- and\n")


def test_a_watcher_expects_what_lies_in_its_range_and_passes_its_filters_from_its_revision_on() -> None:
    made = watcher([], [])
    made.expect([event(b"b", 4), event(b"a", 5), event(b"b", 5), event(b"c", 6, kv_pb2.Event.DELETE), event(b"d", 7)])
    assert made.expected == [event(b"b", 5)]
    made.expect([event(b"c", 8)])
    assert made.expected == [event(b"b", 5), event(b"c", 8)]
    assert not made.is_up_to_date()


@pytest.mark.parametrize(
    "told",
    [
        [],
        [event(b"b", 5)],
        [event(b"b", 6), event(b"b", 5)],
        [event(b"b", 5), event(b"b", 5)],
        [event(b"b", 5), event(b"b", 6), event(b"b", 7)],
    ],
)
def test_a_watcher_that_is_told_too_little_too_much_or_in_another_order_is_noticed(told: list[kv_pb2.Event]) -> None:
    expected = [event(b"b", 5), event(b"b", 6)]
    watcher(list(expected), expected).check()
    with pytest.raises(AssertionError, match="was told"):
        watcher(told, expected).check()
