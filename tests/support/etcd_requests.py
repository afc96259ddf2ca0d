"""Random requests of etcd's API, the same from the same seed: what a conversation with a store is made of.

Requests draw from few keys, leases and revisions, so that they meet: ranges that overlap what was deleted, transactions
about the same keys, revisions that were compacted or are yet to come, leases that exist twice or not at all. Some
requests are wrong on purpose. Nothing depends on time: times to live are too long to pass.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass

from google.protobuf.message import Message

from isochrone.wire.etcd.generated import rpc_pb2 as pb

PREFIX = b"us/"
KEYS = [PREFIX + name for name in (b"a", b"a/1", b"a/2", b"b", b"b/1", b"c", b"\xff\xfe", b"d")]
VALUES = [b"", b"1", b"2", b"a longer value", bytes(range(256))]
LEASES = (1, 2, 3, 7_777_777)
"""Leases whose ids the client chooses."""
CHOSEN_BY_SERVER = (-1, -2)
"""Stand for the first and the second lease whose id the server chose; see `etcd_conversation`."""
TTLS = (600, 600, 601, 3600, 9_000_000_000, 9_000_000_001)
REQUEST_BYTES_TOO_LARGE = 1_800_000
"""Above etcd's limit of 1.5 MiB, and below that of its gRPC server, which would answer in other words."""
OPERATIONS_MAX = 128
EVERYTHING = (b"\0", b"\0")


@dataclass(frozen=True, slots=True)
class Call:
    """A call with one request and one answer."""

    path: str
    request: Message


@dataclass(frozen=True, slots=True)
class CreateWatch:
    """Create a watcher on the conversation's watch stream."""

    request: pb.WatchCreateRequest


@dataclass(frozen=True, slots=True)
class CancelWatch:
    """Cancel a watcher of that stream, or one that does not exist."""

    watch_id: int


Request = Call | CreateWatch | CancelWatch


def random_requests(rng: random.Random, count: int, *, whole_store: bool = True) -> list[Request]:
    """A conversation. `whole_store`: also ranges that leave the prefix of all keys."""
    return _Requests(rng, whole_store).make(count)


class _Requests:
    def __init__(self, rng: random.Random, whole_store: bool) -> None:
        self._rng = rng
        self._whole_store = whole_store
        self._made = 0

    def make(self, count: int) -> list[Request]:
        kinds: list[tuple[int, Callable[[], Request]]] = [
            (30, lambda: Call("/etcdserverpb.KV/Put", self._put())),
            (20, lambda: Call("/etcdserverpb.KV/Range", self._range())),
            (10, lambda: Call("/etcdserverpb.KV/DeleteRange", self._delete())),
            (20, lambda: Call("/etcdserverpb.KV/Txn", self._transaction(depth=0))),
            (2, self._compact),
            (6, self._grant),
            (2, lambda: Call("/etcdserverpb.Lease/LeaseRevoke", pb.LeaseRevokeRequest(ID=self._lease()))),
            (3, lambda: Call("/etcdserverpb.Lease/LeaseKeepAlive", pb.LeaseKeepAliveRequest(ID=self._lease()))),
            (3, self._time_to_live),
            (1, lambda: Call("/etcdserverpb.Lease/LeaseLeases", pb.LeaseLeasesRequest())),
            (5, lambda: CreateWatch(self._watch())),
            (2, lambda: CancelWatch(self._rng.randrange(6))),
            (1, self._too_much),
        ]
        weights = [weight for weight, _ in kinds]
        requests: list[Request] = []
        for number in range(count):
            self._made = number
            (kind,) = self._rng.choices(kinds, weights)
            requests.append(kind[1]())
        return requests

    def _put(self) -> pb.PutRequest:
        ignore_value, ignore_lease = self._chance(0.08), self._chance(0.08)
        return pb.PutRequest(
            key=self._key(),
            value=b"" if ignore_value and self._chance(0.8) else self._rng.choice(VALUES),
            lease=0 if self._chance(0.9 if ignore_lease else 0.6) else self._lease(),
            prev_kv=self._chance(0.3),
            ignore_value=ignore_value,
            ignore_lease=ignore_lease,
        )

    def _range(self) -> pb.RangeRequest:
        key, range_end = self._keys()
        bounds = {
            name: self._rng.randrange(self._made + 2)
            for name in ("min_mod_revision", "max_mod_revision", "min_create_revision", "max_create_revision")
            if self._chance(0.1)
        }
        return pb.RangeRequest(
            key=key,
            range_end=range_end,
            limit=self._rng.choice((0, 0, 0, 1, 2, 3, 100, -1)),
            revision=self._revision() if self._chance(0.4) else 0,
            sort_order=self._rng.choice((pb.RangeRequest.NONE, pb.RangeRequest.ASCEND, pb.RangeRequest.DESCEND)),
            sort_target=self._rng.choice(pb.RangeRequest.SortTarget.keys()),
            serializable=self._chance(0.2),
            keys_only=self._chance(0.15),
            count_only=self._chance(0.1),
            **bounds,
        )

    def _delete(self) -> pb.DeleteRangeRequest:
        key, range_end = self._keys() if self._chance(0.4) else (self._key(), b"")
        return pb.DeleteRangeRequest(key=key, range_end=range_end, prev_kv=self._chance(0.5))

    def _transaction(self, depth: int) -> pb.TxnRequest:
        return pb.TxnRequest(
            compare=[self._compare() for _ in range(self._rng.choice((0, 1, 1, 2)))],
            success=[self._operation(depth) for _ in range(self._rng.choice((0, 1, 2, 3)))],
            failure=[self._operation(depth) for _ in range(self._rng.choice((0, 1, 2)))],
        )

    def _operation(self, depth: int) -> pb.RequestOp:
        match self._rng.choices(
            ("put", "range", "delete", "transaction", "none"), (8, 6, 4, 2 if depth < 2 else 0, 0.3)
        ):
            case ["put"]:
                return pb.RequestOp(request_put=self._put())
            case ["range"]:
                return pb.RequestOp(request_range=self._range())
            case ["delete"]:
                return pb.RequestOp(request_delete_range=self._delete())
            case ["transaction"]:
                return pb.RequestOp(request_txn=self._transaction(depth + 1))
        return pb.RequestOp()

    def _compare(self) -> pb.Compare:
        key, range_end = self._keys() if self._chance(0.2) else (self._key(), b"")
        made = pb.Compare(key=key, range_end=range_end, result=self._rng.choice(pb.Compare.CompareResult.keys()))
        match self._rng.randrange(6):
            case 0:
                made.target, made.version = pb.Compare.VERSION, self._rng.randrange(4)
            case 1:
                made.target, made.create_revision = pb.Compare.CREATE, self._revision()
            case 2:
                made.target, made.mod_revision = pb.Compare.MOD, self._revision()
            case 3:
                made.target, made.value = pb.Compare.VALUE, self._rng.choice(VALUES)
            case 4:
                made.target, made.lease = pb.Compare.LEASE, self._rng.choice((0, 1, 2))
            case _:  # an operand that is absent counts as zero or empty
                made.target = self._rng.choice((pb.Compare.VERSION, pb.Compare.CREATE, pb.Compare.MOD))
        return made

    def _compact(self) -> Request:
        # Far behind as a rule, so that there remains something to read at old revisions.
        revision = self._rng.choice((self._revision(), self._rng.randrange(1 + self._made // 2)))
        return Call("/etcdserverpb.KV/Compact", pb.CompactionRequest(revision=revision, physical=self._chance(0.5)))

    def _grant(self) -> Request:
        request = pb.LeaseGrantRequest(TTL=self._rng.choice(TTLS), ID=self._rng.choice((0, *LEASES)))
        return Call("/etcdserverpb.Lease/LeaseGrant", request)

    def _time_to_live(self) -> Request:
        request = pb.LeaseTimeToLiveRequest(ID=self._lease(), keys=self._chance(0.7))
        return Call("/etcdserverpb.Lease/LeaseTimeToLive", request)

    def _watch(self) -> pb.WatchCreateRequest:
        key, range_end = self._keys()
        filters = [name for name, _ in pb.WatchCreateRequest.FilterType.items() if self._chance(0.15)]
        return pb.WatchCreateRequest(
            key=key,
            range_end=range_end,
            # Never negative: etcd 3.4 then loses, by chance, what happens until the watcher has caught up.
            start_revision=max(0, self._revision()) if self._chance(0.5) else 0,
            filters=filters,
            prev_kv=self._chance(0.4),
            progress_notify=self._chance(0.2),
            fragment=self._chance(0.2),
            watch_id=self._rng.choice((0, 0, 3, 5, -2)),
        )

    def _too_much(self) -> Request:
        if self._chance(0.5):
            value = bytes(REQUEST_BYTES_TOO_LARGE)
            return Call("/etcdserverpb.KV/Put", pb.PutRequest(key=self._key(), value=value))
        operations = [pb.RequestOp(request_range=self._range()) for _ in range(OPERATIONS_MAX + 1)]
        return Call("/etcdserverpb.KV/Txn", pb.TxnRequest(success=operations))

    def _key(self) -> bytes:
        return b"" if self._chance(0.01) else self._rng.choice(KEYS)

    def _keys(self) -> tuple[bytes, bytes]:
        """A key and the end of its range: one key, an interval (sometimes empty), a prefix, all from a key on, all."""
        key = self._key()
        match self._rng.randrange(6 if self._whole_store else 4):
            case 0:
                return key, b""
            case 1:
                return key, self._rng.choice(KEYS)
            case 2:
                return key, key[:-1] + bytes((key[-1] + 1,)) if key and key[-1] < 255 else PREFIX + b"\xff\xff"
            case 3:
                return PREFIX, PREFIX[:-1] + bytes((PREFIX[-1] + 1,))
            case 4:
                return key, b"\0"
        return EVERYTHING

    def _lease(self) -> int:
        return self._rng.choice((*LEASES, *CHOSEN_BY_SERVER))

    def _revision(self) -> int:
        """Near what the store has by now; at times in its future, or not a revision at all."""
        return self._rng.choice((self._rng.randrange(1, self._made + 3), self._rng.randrange(-1, 3)))

    def _chance(self, share: float) -> bool:
        return self._rng.random() < share
