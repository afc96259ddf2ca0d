"""Keys, leases and events as lines and as plain data. Pure."""

import base64
from collections.abc import Sequence
from typing import Any

from rich.table import Table

from isochrone.client import WatchEvent, WatchGap
from isochrone.client.answers import as_bytes
from isochrone.ops.cli.tables import make_table
from isochrone.wire.kv import DeleteResult, IncrementResult, KvResult, PutResult, RangeResult, TxnResult
from isochrone.wire.records import KeyValue


def text(data: bytes) -> str:
    """Bytes as text; what is not UTF-8 is escaped."""
    return data.decode(errors="backslashreplace")


def shown(argument: str) -> str:
    """An argument of the program as text; what is not UTF-8 is escaped."""
    return text(as_bytes(argument))


def _bytes_to_plain(name: str, data: bytes) -> dict[str, str]:
    try:
        return {name: data.decode()}
    except UnicodeDecodeError:
        return {f"{name}_base64": base64.b64encode(data).decode()}


def item_to_plain(item: KeyValue) -> dict[str, Any]:
    """One key. Key and value are text where they are UTF-8, else `key_base64` and `value_base64`."""
    return {
        **_bytes_to_plain("key", item.key),
        **_bytes_to_plain("value", item.value),
        "create_revision": item.create_revision,
        "mod_revision": item.mod_revision,
        "version": item.version,
        "timestamp_ns": item.timestamp,
        "lease": item.lease,
    }


def result_to_plain(result: KvResult) -> dict[str, Any]:
    """A result, with the revision it was made at."""
    plain: dict[str, Any] = {"revision": result.revision}
    match result:
        case PutResult(previous=previous):
            plain["previous"] = None if previous is None else item_to_plain(previous)
        case DeleteResult(deleted=deleted, previous=items):
            plain |= {"deleted": deleted, "previous": [item_to_plain(item) for item in items]}
        case IncrementResult(value=value):
            plain["value"] = value
        case RangeResult(count=count, more=more, items=items):
            plain |= {"count": count, "more": more, "items": [item_to_plain(item) for item in items]}
        case TxnResult(succeeded=succeeded, results=results):
            plain |= {"succeeded": succeeded, "results": [result_to_plain(each) for each in results]}
    return plain


def result_lines(result: KvResult) -> list[str]:
    """A result as `etcdctl` prints it."""
    match result:
        case PutResult(previous=None):
            return ["OK"]
        case PutResult(previous=previous) if previous is not None:
            return ["OK", *item_lines(previous)]
        case DeleteResult(deleted=deleted, previous=items):
            return [str(deleted), *(line for item in items for line in item_lines(item))]
        case IncrementResult(value=value):
            return [str(value)]
        case RangeResult(items=items):
            return [line for item in items for line in item_lines(item)]
        case TxnResult(succeeded=succeeded, results=results):
            parts = [["", *result_lines(each)] for each in results]
            return ["SUCCESS" if succeeded else "FAILURE", *(line for part in parts for line in part)]
        case _:
            return []


def items_table(items: Sequence[KeyValue], keys_only: bool) -> Table:
    """Keys as a table."""
    columns = ("key",) if keys_only else ("key", "value")
    table = make_table((*columns, "version", "created", "modified", "lease"), right_from=len(columns))
    for item in items:
        texts = (text(item.key),) if keys_only else (text(item.key), text(item.value))
        figures = (item.version, item.create_revision, item.mod_revision, item.lease or "-")
        table.add_row(*texts, *map(str, figures))
    return table


def item_lines(item: KeyValue) -> list[str]:
    """A key and its value, each on a line of its own."""
    return [text(item.key), text(item.value)]


def told_lines(told: WatchEvent | WatchGap) -> list[str]:
    """An event as `etcdctl` prints it; a gap as GAP, its revision, and the keys as they were then."""
    match told:
        case WatchGap(revision, items):
            return [f"GAP {revision}", *(line for item in items for line in item_lines(item))]
        case WatchEvent(item, previous):
            before = item_lines(previous) if previous is not None else []
            return ["DELETE" if told.deleted else "PUT", *before, *item_lines(item)]


def told_to_plain(told: WatchEvent | WatchGap) -> dict[str, Any]:
    """An event, or a gap with the keys as of its revision."""
    match told:
        case WatchGap(revision, items):
            return {"type": "gap", "revision": revision, "items": [item_to_plain(item) for item in items]}
        case WatchEvent(item, previous):
            return {
                "type": "delete" if told.deleted else "put",
                "item": item_to_plain(item),
                "previous": None if previous is None else item_to_plain(previous),
            }
