"""Files in the format of bbolt, read back by the rules of its pages."""

import random
import struct
from collections.abc import Iterator

import pytest

from isochrone.errors import InvariantViolation
from isochrone.wire.etcd.bolt import PAGE_BYTES, BucketPlan, FilePlan, Item, bucket_pages

BRANCH, LEAF, META, FREE = 1, 2, 4, 16


def written(buckets: dict[bytes, list[Item]]) -> bytes:
    plans = []
    for name, items in buckets.items():
        plan = BucketPlan(name)
        for key, value in items:
            plan.add(key, len(value))
        plans.append(plan)
    plan = FilePlan(plans)
    pages = [page for bucket in plan.buckets for page in bucket_pages(bucket, iter(buckets[bucket.name]))]
    file = plan.head() + b"".join(pages)
    assert len(file) == plan.size_bytes
    return file


class Reader:
    """Walks a file from its meta page, and notes each page that it meets."""

    def __init__(self, file: bytes) -> None:
        self.file = file
        self.met: list[int] = []
        for number in (0, 1):
            self.page(number, META)
            at = number * PAGE_BYTES + 16
            magic, version, page_bytes, _, root, _, free, pages, transaction = struct.unpack_from(
                "<IIIIQQQQQ", file, at
            )
            assert (magic, version, page_bytes, transaction) == (0xED0CDAED, 2, PAGE_BYTES, number)
        assert pages * PAGE_BYTES == len(file)
        assert self.page(free, FREE)[1] == 0
        self.buckets = {name: struct.unpack("<QQ", value)[0] for name, value in self.items(root, flags=1)}

    def page(self, number: int, kind: int) -> tuple[int, int]:
        at = number * PAGE_BYTES
        told, found, count, overflow = struct.unpack_from("<QHHI", self.file, at)
        assert told == number and found & kind == found
        self.met += range(number, number + overflow + 1)
        return found, count

    def items(self, number: int, flags: int = 0) -> Iterator[Item]:
        kind, count = self.page(number, BRANCH | LEAF)
        for place in range(count):
            at = number * PAGE_BYTES + 16 + 16 * place
            if kind == LEAF:
                told, distance, key_bytes, value_bytes = struct.unpack_from("<IIII", self.file, at)
                assert told == flags
                start = at + distance
                end = start + key_bytes
                yield self.file[start:end], self.file[end : end + value_bytes]
            else:
                distance, key_bytes, child = struct.unpack_from("<IIQ", self.file, at)
                below = list(self.items(child, flags))
                assert below[0][0] == self.file[at + distance : at + distance + key_bytes]
                yield from below


@pytest.mark.parametrize("seed", range(5))
def test_what_is_written_is_found_and_every_page_is_used_once(seed: int) -> None:
    rng = random.Random(seed)

    def items(count: int) -> list[Item]:
        keys = sorted({rng.randbytes(rng.choice((1, 17, 40))) for _ in range(count)})
        sizes = rng.choices(
            (0, 10, 100, PAGE_BYTES - 49, PAGE_BYTES, 3 * PAGE_BYTES), (20, 50, 20, 1, 1, 1), k=len(keys)
        )
        return [(key, rng.randbytes(size)) for key, size in zip(keys, sizes, strict=True)]

    given = {b"key": items(rng.choice((3, 300, 20_000))), b"empty": [], b"other": items(50)}
    reader = Reader(written(given))
    assert list(reader.buckets) == sorted(given)
    assert {name: list(reader.items(root)) for name, root in reader.buckets.items()} == given
    assert sorted(reader.met) == list(range(len(reader.file) // PAGE_BYTES))


def test_a_meta_page_has_the_checksum_that_bbolt_expects() -> None:
    file = written({b"key": []})
    found = 0xCBF29CE484222325
    for byte in file[16:72]:  # FNV-1a of all fields of the meta
        found = (found ^ byte) * 0x100000001B3 % (1 << 64)
    assert file[72:80] == found.to_bytes(8, "little")


def test_other_items_than_were_planned_are_a_fault() -> None:
    plan = BucketPlan(b"key")
    plan.add(b"a", 5)
    FilePlan([plan])
    with pytest.raises(InvariantViolation, match="planned"):
        list(bucket_pages(plan, iter([(b"a", b"longer")])))
