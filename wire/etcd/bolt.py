"""A bbolt file, written from its first page to its last: what `etcdctl snapshot` takes for a database of etcd's.

A file is a row of pages. Two meta pages tell where the root is, how many pages there are, and their own checksum; a
page of free pages follows (none are free), then the root, a leaf that lists the buckets, then the pages of each bucket:
leaves in order of the keys, branches over them, level by level, up to one that is the bucket's root. (The format is
that of go.etcd.io/bbolt, files page.go, db.go and bucket.go, on a little-endian machine.)

The meta pages come first and depend on what comes last, so a file is planned before it is written: a plan takes the
sizes of all items, and keeps of each page only its first key. Then the items are given again, in the same order.
"""

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import final

from isochrone.errors import InvariantViolation

PAGE_BYTES = 4096
_PAGE = struct.Struct("<QHHI")  # number, kind, count of elements, how many more pages it spans
_LEAF_ELEMENT = struct.Struct("<IIII")  # flags, distance to the key, length of the key, of the value
_BRANCH_ELEMENT = struct.Struct("<IIQ")  # distance to the key, its length, page
_BUCKET = struct.Struct("<QQ")  # root page, sequence
_META = struct.Struct("<IIIIQQQQQ")  # magic, version, page size, flags, root bucket, free pages, pages, transaction
_MAGIC, _VERSION = 0xED0CDAED, 2
_BRANCH, _LEAF, _METAS, _FREE = 1, 2, 4, 16
_IS_BUCKET = 1
_FREE_AT, _ROOT_AT = 2, 3
_ELEMENTS_MAX = 0xFFFE
_FNV_OFFSET, _FNV_PRIME, _U64 = 0xCBF29CE484222325, 0x100000001B3, (1 << 64) - 1

Item = tuple[bytes, bytes]


@dataclass(slots=True)
class _Page:
    first_key: bytes
    count: int
    used_bytes: int
    number: int = 0

    @property
    def pages(self) -> int:
        return -(-self.used_bytes // PAGE_BYTES)


@final
class BucketPlan:
    """The pages of one bucket. Give `add` the size of each item, in order of the keys."""

    def __init__(self, name: bytes) -> None:
        self.name = name
        self.levels: list[list[_Page]] = [[_Page(b"", 0, _PAGE.size)]]
        """The leaves, then the branches over them, up to a level of one page."""

    def add(self, key: bytes, value_bytes: int) -> None:
        """The next item. A page holds as many as fit; one that is too large for any gets as many pages as it needs."""
        _extend(self.levels[0], key, _LEAF_ELEMENT.size + len(key) + value_bytes)

    def place(self, number: int) -> int:
        """Number the pages from here on, once all items are known; returns the first number after them."""
        while len(self.levels[-1]) > 1:
            branches = [_Page(b"", 0, _PAGE.size)]
            for page in self.levels[-1]:
                _extend(branches, page.first_key, _BRANCH_ELEMENT.size + len(page.first_key))
            self.levels.append(branches)
        for level in self.levels:
            for page in level:
                page.number = number
                number += page.pages
        return number

    @property
    def root(self) -> int:
        """Number of the bucket's root page."""
        return self.levels[-1][0].number


def _extend(pages: list[_Page], key: bytes, element_bytes: int) -> None:
    last = pages[-1]
    if last.count and (last.used_bytes + element_bytes > PAGE_BYTES or last.count == _ELEMENTS_MAX):
        last = _Page(key, 0, _PAGE.size)
        pages.append(last)
    if not last.count:
        last.first_key = key
    last.count += 1
    last.used_bytes += element_bytes


@final
class FilePlan:
    """A whole file."""

    def __init__(self, buckets: Iterable[BucketPlan]) -> None:
        """Of buckets that know all their items."""
        self.buckets = sorted(buckets, key=lambda bucket: bucket.name)
        number = _ROOT_AT + 1
        for bucket in self.buckets:
            number = bucket.place(number)
        self.pages = number

    @property
    def size_bytes(self) -> int:
        """Of the file."""
        return self.pages * PAGE_BYTES

    def head(self) -> bytes:
        """The pages before those of the buckets."""
        free = _PAGE.pack(_FREE_AT, _FREE, 0, 0)
        roots = [(bucket.name, _BUCKET.pack(bucket.root, 0)) for bucket in self.buckets]
        root = _leaf(_ROOT_AT, roots, 0, _IS_BUCKET)
        return b"".join(map(_padded, (self._meta(0), self._meta(1), free, root)))

    def _meta(self, number: int) -> bytes:
        page = _PAGE.pack(number, _METAS, 0, 0)
        meta = _META.pack(_MAGIC, _VERSION, PAGE_BYTES, 0, _ROOT_AT, 0, _FREE_AT, self.pages, number)
        return page + meta + _fnv(meta).to_bytes(8, "little")


def bucket_pages(plan: BucketPlan, items: Iterator[Item]) -> Iterator[bytes]:
    """The pages of a bucket, in the file's order, from the items that it was planned for."""
    for leaf in plan.levels[0]:
        page = _leaf(leaf.number, list(islice(items, leaf.count)), leaf.pages - 1)
        if len(page) != leaf.used_bytes:
            raise InvariantViolation(f"a page of {len(page)} bytes stands where one of {leaf.used_bytes} was planned")
        yield _padded(page)
    for below, level in zip(plan.levels, plan.levels[1:], strict=False):
        children = iter(below)
        for branch in level:
            yield _padded(_branch(branch, list(islice(children, branch.count))))


def _leaf(number: int, items: list[Item], overflow: int, flags: int = 0) -> bytes:
    elements: list[bytes] = []
    data: list[bytes] = []
    at = len(items) * _LEAF_ELEMENT.size
    for key, value in items:
        elements.append(_LEAF_ELEMENT.pack(flags, at, len(key), len(value)))
        data += (key, value)
        at += len(key) + len(value) - _LEAF_ELEMENT.size
    return b"".join((_PAGE.pack(number, _LEAF, len(items), overflow), *elements, *data))


def _branch(page: _Page, children: list[_Page]) -> bytes:
    elements = []
    at = len(children) * _BRANCH_ELEMENT.size
    for child in children:
        elements.append(_BRANCH_ELEMENT.pack(at, len(child.first_key), child.number))
        at += len(child.first_key) - _BRANCH_ELEMENT.size
    keys = [child.first_key for child in children]
    return b"".join((_PAGE.pack(page.number, _BRANCH, len(children), page.pages - 1), *elements, *keys))


def _padded(page: bytes) -> bytes:
    return page + bytes(-len(page) % PAGE_BYTES)


def _fnv(data: bytes) -> int:
    """FNV-1a."""
    found = _FNV_OFFSET
    for byte in data:
        found = (found ^ byte) * _FNV_PRIME & _U64
    return found
