"""Ranges larger than one answer may be: read in pieces, all as of one revision.

This module has no state; a driver because it asks.
"""

from collections.abc import Awaitable, Callable
from dataclasses import replace

from isochrone.errors import InvalidRequest, RevisionCompacted
from isochrone.probes import probe
from isochrone.wire.kv import Range, RangeResult
from isochrone.wire.records import KeyValue

PIECE_ITEMS = 1000
"""Most items asked for at once; fewer where their values are large."""

Ask = Callable[[Range], Awaitable[RangeResult]]


async def list_all(ask: Ask, key: bytes, range_end: bytes) -> RangeResult:
    """All items of a range, as of the revision that the result names. Raises what `ask` raises."""
    while True:
        try:
            return await _list_once(ask, key, range_end)
        except RevisionCompacted:
            probe("client.list_overtaken_by_compaction")  # Then there is a newer state to begin with.


async def _list_once(ask: Ask, key: bytes, range_end: bytes) -> RangeResult:
    items: list[KeyValue] = []
    first: RangeResult | None = None
    start, limit = key, PIECE_ITEMS
    while True:
        try:
            found = await ask(Range(start, range_end, limit, revision=first.revision if first else 0))
        except RevisionCompacted:
            raise
        except InvalidRequest:
            if limit == 1:
                raise
            limit = max(1, limit // 10)  # Perhaps so many are more than an answer may hold; one never is.
            continue
        first = first or found
        items += found.items
        if not found.more:
            return replace(first, count=len(items), more=False, items=tuple(items))
        start = items[-1].key + b"\0"
