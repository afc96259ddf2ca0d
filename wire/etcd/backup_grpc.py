"""A group's keys and leases at one revision, as a database file of etcd's.

What stands in the file is what etcd 3.4 keeps there: each key's newest version under its revision, the leases, and the
mark that everything before the revision is compacted. So `etcdctl snapshot status` reads it and `etcdctl snapshot
restore` makes a member of etcd's from it, with the same revision, versions and leases. Older versions are left out, and
so are removed keys, but for one that the last write removed: the last write tells the revision.
"""

from collections.abc import Iterable, Iterator, Mapping

from isochrone.wire.etcd.answers_grpc import MS_PER_S, recorded, varint
from isochrone.wire.etcd.bolt import BucketPlan, FilePlan, Item, bucket_pages
from isochrone.wire.records import ORDER_BYTES, record_is_live

_KEYS, _LEASES, _META = b"key", b"lease", b"meta"
_EMPTY = (b"alarm", b"auth", b"authRoles", b"authUsers", b"cluster", b"members", b"members_removed")
"""Buckets that etcd expects to find."""
_COMPACTED = b"finishedCompactRev"
_TOMBSTONE = b"t"
_ID_BYTES = 8
_REVISION_BYTES = 8


def key_item(record: bytes) -> Item:
    """A version of a key, from its record."""
    place = int.from_bytes(record[_REVISION_BYTES:ORDER_BYTES], "big")
    mark = b"" if record_is_live(record) else _TOMBSTONE
    return _revision(record[:_REVISION_BYTES], place) + mark, recorded(record).SerializeToString()


def _revision(revision: bytes, place: int) -> bytes:
    return revision + b"_" + place.to_bytes(8, "big")


class Backup:
    """The file of one group. Plan all keys with `add`, in order of their records, before anything else."""

    def __init__(self, revision: int, leases: Mapping[int, int]) -> None:
        """`leases`: times to live in milliseconds, by id."""
        self._keys = BucketPlan(_KEYS)
        compacted = revision.to_bytes(_REVISION_BYTES, "big")
        self._small = {
            _LEASES: [_lease_item(lease, leases[lease]) for lease in sorted(leases)],
            _META: [(_COMPACTED, _revision(compacted, 0))],
            **{name: [] for name in _EMPTY},
        }

    def add(self, record: bytes) -> None:
        """A version of a key that is to be in the file."""
        key, value = key_item(record)
        self._keys.add(key, len(value))

    def plan(self) -> FilePlan:
        """The file's plan, once all keys are known."""
        buckets = [self._keys]
        for name, items in self._small.items():
            bucket = BucketPlan(name)
            for key, value in items:
                bucket.add(key, len(value))
            buckets.append(bucket)
        return FilePlan(buckets)

    def pages(self, plan: FilePlan, records: Iterable[bytes]) -> Iterator[bytes]:
        """The file, page by page; `records` are those that were added, in the same order."""
        yield plan.head()
        for bucket in plan.buckets:
            items = map(key_item, records) if bucket.name == _KEYS else iter(self._small[bucket.name])
            yield from bucket_pages(bucket, items)


def _lease_item(lease: int, ttl_ms: int) -> Item:
    # etcd counts in seconds. A message of two numbers: id and time to live.
    value = b"\x08" + varint(lease) + b"\x10" + varint(-(-ttl_ms // MS_PER_S))
    return lease.to_bytes(_ID_BYTES, "big"), value
