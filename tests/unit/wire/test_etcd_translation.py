"""etcd's requests as operations of a group, and results as etcd's answers."""

import pytest

from isochrone.errors import InvariantViolation
from isochrone.ids import Revision, Timestamp
from isochrone.wire.commands import SessionResult
from isochrone.wire.etcd.answers_grpc import Speaker, answer_of, encoded_event, numeric_id
from isochrone.wire.etcd.generated import kv_pb2
from isochrone.wire.etcd.generated import rpc_pb2 as pb
from isochrone.wire.etcd.requests_grpc import (
    ALWAYS,
    EXISTS,
    NEVER,
    delete_of,
    grant_of,
    put_of,
    range_of,
    ranges_of,
    txn_of,
)
from isochrone.wire.kv import (
    CompactResult,
    Compare,
    DeleteRange,
    DeleteResult,
    Put,
    PutResult,
    Range,
    RangeResult,
    Relation,
    SortOrder,
    SortTarget,
    Target,
    Txn,
    TxnResult,
)
from isochrone.wire.leases import LeaseGrant, LeaseKeepAliveResult, LeaseListResult, LeaseTimeToLiveResult
from isochrone.wire.records import KeyValue, set_record, tombstone_record

AT = (Revision(7), Timestamp(70))
HEADER = Speaker(1, 2).header(7, 3)
ITEM = KeyValue(b"k", b"v", Revision(2), Revision(5), 3, Timestamp(50), lease=9)
TOLD = kv_pb2.KeyValue(key=b"k", value=b"v", create_revision=2, mod_revision=5, version=3, lease=9)


def test_a_range_with_all_its_options() -> None:
    request = pb.RangeRequest(
        key=b"a",
        range_end=b"z",
        limit=3,
        revision=4,
        sort_order=pb.RangeRequest.DESCEND,
        sort_target=pb.RangeRequest.MOD,
        keys_only=True,
        count_only=True,
        min_mod_revision=5,
        max_mod_revision=6,
        min_create_revision=7,
        max_create_revision=8,
    )
    assert range_of(request) == Range(b"a", b"z", 3, 4, 0, SortOrder.DESCEND, SortTarget.MOD, True, True, 5, 6, 7, 8)


def test_numbers_that_etcd_takes_for_none() -> None:
    assert range_of(pb.RangeRequest(key=b"a", limit=-1, revision=-5)) == Range(b"a")
    for order in (17, -1):  # then nothing is sorted, whatever the target
        assert range_of(pb.RangeRequest(key=b"a", sort_order=order, sort_target=2)) == Range(b"a")  # type: ignore[arg-type]
    assert grant_of(pb.LeaseGrantRequest(TTL=-3)) == LeaseGrant(0, 1_000)
    assert grant_of(pb.LeaseGrantRequest(TTL=60, ID=5)) == LeaseGrant(5, 60_000)


def test_puts_and_deletions() -> None:
    put = pb.PutRequest(key=b"k", value=b"v", lease=4, prev_kv=True, ignore_value=True, ignore_lease=True)
    assert put_of(put) == Put(b"k", b"v", 4, prev_kv=True, ignore_value=True, ignore_lease=True)
    assert delete_of(pb.DeleteRangeRequest(key=b"a", range_end=b"b", prev_kv=True)) == DeleteRange(b"a", b"b", True)


@pytest.mark.parametrize(
    ("compare", "ours"),
    [
        (pb.Compare(key=b"k", version=4), Compare(b"k", Target.VERSION, Relation.EQUAL, 4)),
        (
            pb.Compare(key=b"k", target=pb.Compare.MOD, mod_revision=4, result=pb.Compare.LESS),
            Compare(b"k", Target.MOD, Relation.LESS, 4),
        ),
        (
            pb.Compare(key=b"k", target=pb.Compare.CREATE, create_revision=4, result=pb.Compare.GREATER),
            Compare(b"k", Target.CREATE, Relation.GREATER, 4),
        ),
        (
            pb.Compare(key=b"k", target=pb.Compare.VALUE, value=b"v", result=pb.Compare.NOT_EQUAL, range_end=b"z"),
            Compare(b"k", Target.VALUE, Relation.NOT_EQUAL, value=b"v", range_end=b"z"),
        ),
        (pb.Compare(key=b"k", target=pb.Compare.LEASE, lease=4), Compare(b"k", Target.LEASE, Relation.EQUAL, 4)),
        # Of two that differ the target counts: the number of another one is as none.
        (pb.Compare(key=b"k", target=pb.Compare.MOD, version=4), Compare(b"k", Target.MOD, Relation.EQUAL, 0)),
        # Our own targets and relations have no place in etcd's API, which says what becomes of those that it lacks.
        (pb.Compare(key=b"k", target=6, result=4, version=4), Compare(b"k", Target.VERSION, *ALWAYS)),  # type: ignore[arg-type]
        (pb.Compare(key=b"k", target=-1, range_end=b"z"), Compare(b"k", Target.VERSION, *ALWAYS, range_end=b"z")),  # type: ignore[arg-type]
        (pb.Compare(key=b"k", target=99, result=pb.Compare.LESS), Compare(b"k", Target.VERSION, *NEVER)),  # type: ignore[arg-type]
        (pb.Compare(key=b"k", result=-1), Compare(b"k", Target.VERSION, *ALWAYS)),  # type: ignore[arg-type]
        (pb.Compare(key=b"k", target=pb.Compare.VALUE, result=9), Compare(b"k", Target.VERSION, *EXISTS)),  # type: ignore[arg-type]
    ],
)
def test_comparisons(compare: pb.Compare, ours: Compare) -> None:
    assert txn_of(pb.TxnRequest(compare=[compare])).compares == (ours,)


def test_transactions_inside_transactions_and_the_keys_that_they_name() -> None:
    inner = pb.TxnRequest(
        compare=[pb.Compare(key=b"c")],
        failure=[pb.RequestOp(request_delete_range=pb.DeleteRangeRequest(key=b"d", range_end=b"e"))],
    )
    outer = pb.TxnRequest(
        success=[
            pb.RequestOp(request_put=pb.PutRequest(key=b"a")),
            pb.RequestOp(request_txn=inner),
            pb.RequestOp(request_range=pb.RangeRequest(key=b"r", range_end=b"s")),
        ]
    )
    compare = Compare(b"c", Target.VERSION, Relation.EQUAL, 0)
    ours = Txn(success=(Put(b"a", b""), Txn((compare,), (), (DeleteRange(b"d", b"e"),)), Range(b"r", b"s")))
    assert txn_of(outer) == ours
    assert list(ranges_of(ours)) == [(b"a", b""), (b"c", b""), (b"d", b"e"), (b"r", b"s")]


def test_answers_of_keys() -> None:
    assert answer_of(PutResult(*AT), HEADER) == pb.PutResponse(header=HEADER)
    assert answer_of(PutResult(*AT, ITEM), HEADER) == pb.PutResponse(header=HEADER, prev_kv=TOLD)
    deleted = pb.DeleteRangeResponse(header=HEADER, deleted=2, prev_kvs=[TOLD])
    assert answer_of(DeleteResult(*AT, 2, (ITEM,)), HEADER) == deleted
    found = pb.RangeResponse(header=HEADER, kvs=[TOLD], more=True, count=4)
    assert answer_of(RangeResult(*AT, 4, True, (ITEM,)), HEADER) == found
    assert answer_of(CompactResult(*AT), HEADER) == pb.CompactionResponse(header=HEADER)


def test_answers_of_transactions() -> None:
    result = TxnResult(*AT, True, (PutResult(*AT), TxnResult(*AT, False, (DeleteResult(*AT, 1),))))
    own = pb.ResponseHeader(revision=7)
    inner = pb.TxnResponse(
        header=pb.ResponseHeader(),
        responses=[pb.ResponseOp(response_delete_range=pb.DeleteRangeResponse(header=own, deleted=1))],
    )
    assert answer_of(result, HEADER) == pb.TxnResponse(
        header=HEADER,
        succeeded=True,
        responses=[pb.ResponseOp(response_put=pb.PutResponse(header=own)), pb.ResponseOp(response_txn=inner)],
    )


def test_answers_of_leases() -> None:
    assert answer_of(LeaseKeepAliveResult(*AT, 5, 60_000), HEADER) == pb.LeaseKeepAliveResponse(
        header=HEADER, ID=5, TTL=60
    )
    assert answer_of(LeaseTimeToLiveResult(*AT, 5, 60_000, 59_999, (b"k",)), HEADER) == pb.LeaseTimeToLiveResponse(
        header=HEADER, ID=5, TTL=59, grantedTTL=60, keys=[b"k"]
    )
    gone = pb.LeaseTimeToLiveResponse(header=HEADER, ID=5, TTL=-1)
    assert answer_of(LeaseTimeToLiveResult(*AT, 5, 0, -1, ()), HEADER) == gone
    listed = pb.LeaseLeasesResponse(header=HEADER, leases=[pb.LeaseStatus(ID=5), pb.LeaseStatus(ID=6)])
    assert answer_of(LeaseListResult(*AT, (5, 6)), HEADER) == listed


def test_what_no_call_asks_for_has_no_answer() -> None:
    with pytest.raises(InvariantViolation, match="SessionResult"):
        answer_of(SessionResult(*AT, 1), HEADER)


def test_events_stand_in_a_watch_response_as_protobuf_would_write_them() -> None:
    record = set_record(b"k", b"v" * 300, revision=5, place=0, created=2, version=3, timestamp=50, lease=9)
    gone = tombstone_record(b"k", revision=6, place=1, timestamp=60)
    head = pb.WatchResponse(header=HEADER, watch_id=3).SerializeToString()
    told = kv_pb2.KeyValue(key=b"k", value=b"v" * 300, create_revision=2, mod_revision=5, version=3, lease=9)
    read = pb.WatchResponse.FromString(head + encoded_event(record, None) + encoded_event(gone, record))
    assert read == pb.WatchResponse(
        header=HEADER,
        watch_id=3,
        events=[
            kv_pb2.Event(kv=told),
            kv_pb2.Event(type=kv_pb2.Event.DELETE, kv=kv_pb2.KeyValue(key=b"k", mod_revision=6), prev_kv=told),
        ],
    )
    # A key that was not there before has no previous version, though its tombstone is a record.
    assert encoded_event(record, gone) == encoded_event(record, None)


def test_ids_are_the_same_in_every_process() -> None:
    assert numeric_id("us-east-1a-1") == 14001787426922763657
