"""Results of a group's state as etcd's answers.

Every answer begins with a header that says who answers, and the group's revision when the answer was made.
"""

import hashlib
from dataclasses import dataclass

from isochrone.errors import InvariantViolation
from isochrone.wire.commands import Result
from isochrone.wire.etcd.generated import kv_pb2, rpc_pb2
from isochrone.wire.kv import CompactResult, DeleteResult, KvResult, PutResult, RangeResult, TxnResult
from isochrone.wire.leases import (
    LeaseGrantResult,
    LeaseKeepAliveResult,
    LeaseListResult,
    LeaseRevokeResult,
    LeaseTimeToLiveResult,
)
from isochrone.wire.records import (
    KeyValue,
    record_is_live,
    record_key,
    record_lease,
    record_revision,
    record_value,
    record_versions,
)

MS_PER_S = 1_000
_EVENTS_TAG = bytes([rpc_pb2.WatchResponse.EVENTS_FIELD_NUMBER << 3 | 2])
_VARINT_MORE = 0x80


def numeric_id(name: str) -> int:
    """The number by which etcd's clients know a cluster or member that we know by a name. Never 0."""
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest()) or 1


@dataclass(frozen=True, slots=True)
class Speaker:
    """Who answers."""

    cluster_id: int
    member_id: int

    def header(self, revision: int, term: int) -> rpc_pb2.ResponseHeader:
        """The header of an answer."""
        return rpc_pb2.ResponseHeader(
            cluster_id=self.cluster_id, member_id=self.member_id, revision=revision, raft_term=term
        )


Answer = (
    rpc_pb2.RangeResponse
    | rpc_pb2.PutResponse
    | rpc_pb2.DeleteRangeResponse
    | rpc_pb2.TxnResponse
    | rpc_pb2.CompactionResponse
    | rpc_pb2.LeaseGrantResponse
    | rpc_pb2.LeaseRevokeResponse
    | rpc_pb2.LeaseKeepAliveResponse
    | rpc_pb2.LeaseTimeToLiveResponse
    | rpc_pb2.LeaseLeasesResponse
)


def answer_of(result: Result, header: rpc_pb2.ResponseHeader) -> Answer:
    """The answer to whoever asked for what had this result."""
    match result:
        case PutResult() | DeleteResult() | RangeResult() | TxnResult():
            return _kv_answer(result, header)
        case CompactResult():
            return rpc_pb2.CompactionResponse(header=header)
        case LeaseGrantResult():
            return rpc_pb2.LeaseGrantResponse(header=header, ID=result.lease, TTL=result.ttl_ms // MS_PER_S)
        case LeaseRevokeResult():
            return rpc_pb2.LeaseRevokeResponse(header=header)
        case LeaseKeepAliveResult():
            return rpc_pb2.LeaseKeepAliveResponse(header=header, ID=result.lease, TTL=result.ttl_ms // MS_PER_S)
        case LeaseTimeToLiveResult():
            there = result.remaining_ms >= 0
            return rpc_pb2.LeaseTimeToLiveResponse(
                header=header,
                ID=result.lease,
                TTL=result.remaining_ms // MS_PER_S if there else -1,
                grantedTTL=result.ttl_ms // MS_PER_S,
                keys=result.keys,
            )
        case LeaseListResult():
            leases = [rpc_pb2.LeaseStatus(ID=lease) for lease in result.leases]
            return rpc_pb2.LeaseLeasesResponse(header=header, leases=leases)
        case _:
            raise InvariantViolation(f"no call of etcd's API has a {type(result).__name__}")


def _kv_answer(
    result: KvResult, header: rpc_pb2.ResponseHeader
) -> rpc_pb2.PutResponse | rpc_pb2.DeleteRangeResponse | rpc_pb2.RangeResponse | rpc_pb2.TxnResponse:
    match result:
        case PutResult(previous=None):
            return rpc_pb2.PutResponse(header=header)
        case PutResult(previous=KeyValue() as previous):
            return rpc_pb2.PutResponse(header=header, prev_kv=key_value(previous))
        case DeleteResult():
            return rpc_pb2.DeleteRangeResponse(
                header=header, deleted=result.deleted, prev_kvs=[key_value(item) for item in result.previous]
            )
        case RangeResult():
            return rpc_pb2.RangeResponse(
                header=header,
                kvs=[key_value(item) for item in result.items],
                more=result.more,
                count=result.count,
            )
        case TxnResult():
            return rpc_pb2.TxnResponse(
                header=header, succeeded=result.succeeded, responses=[_part(each) for each in result.results]
            )
        case _:
            raise InvariantViolation(f"no operation of etcd's has a {type(result).__name__}")


def _part(result: KvResult) -> rpc_pb2.ResponseOp:
    """The answer to one operation of a transaction; of its header only the revision is set."""
    answer = _kv_answer(result, rpc_pb2.ResponseHeader(revision=result.revision))
    match answer:
        case rpc_pb2.PutResponse():
            return rpc_pb2.ResponseOp(response_put=answer)
        case rpc_pb2.DeleteRangeResponse():
            return rpc_pb2.ResponseOp(response_delete_range=answer)
        case rpc_pb2.RangeResponse():
            return rpc_pb2.ResponseOp(response_range=answer)
        case _:
            answer.header.CopyFrom(rpc_pb2.ResponseHeader())
            return rpc_pb2.ResponseOp(response_txn=answer)


def key_value(item: KeyValue) -> kv_pb2.KeyValue:
    """One version of a key."""
    return kv_pb2.KeyValue(
        key=item.key,
        create_revision=item.create_revision,
        mod_revision=item.mod_revision,
        version=item.version,
        value=item.value,
        lease=item.lease,
    )


# ---- events of watches


def watch_id_field(number: int) -> bytes:
    """A watcher's number as it stands in a `WatchResponse`."""
    return rpc_pb2.WatchResponse(watch_id=number).SerializeToString()


def encoded_event(record: bytes, previous: bytes | None) -> bytes:
    """One event as it stands in a `WatchResponse`, with tag and length; `previous` is the record before, if told."""
    kind = kv_pb2.Event.PUT if record_is_live(record) else kv_pb2.Event.DELETE
    told = previous if previous is not None and record_is_live(previous) else None
    event = kv_pb2.Event(
        type=kind, kv=recorded(record), prev_kv=None if told is None else recorded(told)
    ).SerializeToString()
    return _EVENTS_TAG + varint(len(event)) + event


def recorded(record: bytes) -> kv_pb2.KeyValue:
    """One version of a key, from its record."""
    if not record_is_live(record):
        return kv_pb2.KeyValue(key=record_key(record), mod_revision=record_revision(record))
    created, modified, version = record_versions(record)
    return kv_pb2.KeyValue(
        key=record_key(record),
        create_revision=created,
        mod_revision=modified,
        version=version,
        value=record_value(record),
        lease=record_lease(record),
    )


def varint(number: int) -> bytes:
    """A number, not below 0, as protobuf writes it."""
    encoded = bytearray()
    while number >= _VARINT_MORE:
        encoded.append(number & 0x7F | _VARINT_MORE)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)
