"""Locks as lines, tables and plain data. Pure."""

from collections.abc import Iterator
from typing import Any

from rich.console import RenderableType
from rich.text import Text

from isochrone.ops.cli.kv_view import text
from isochrone.ops.cli.tables import make_table
from isochrone.wire.locks import LockQueryResult, LockRequestView


def lock_to_plain(name: str, found: LockQueryResult) -> dict[str, Any]:
    """Holders, then those that wait, in the order in which they are to be granted."""
    return {
        "name": name,
        "revision": found.revision,
        "holders": [_to_plain(request) for request in found.requests if request.token],
        "waiting": [_to_plain(request) for request in found.requests if not request.token],
        "delayed_until_ns": found.delayed_until,
    }


def _to_plain(request: LockRequestView) -> dict[str, Any]:
    return {
        "value": text(request.value),
        "mode": request.mode.name,
        "token": request.token,
        "lease": request.lease,
        "since_ns": request.since,
    }


def lock_parts(name: str, found: LockQueryResult, now_ns: int) -> Iterator[RenderableType]:
    """A lock for people; `now_ns` is the time of day."""
    if not found.requests:
        delayed = "; it is closed for a while, since its last holder was lost" if found.delayed_until else ""
        yield Text(f"{name} is free{delayed}")
        return
    table = make_table(("who", "mode", "state", "for s", "token", "lease"), right_from=3)
    for request in found.requests:
        state = "holds" if request.token else "waits"
        since_s = max(0.0, (now_ns - request.since) / 1e9)
        figures = (f"{since_s:.1f}", str(request.token or "-"), str(request.lease))
        table.add_row(text(request.value) or "?", request.mode.name, state, *figures)
    yield table


def waiting_line(name: str, found: LockQueryResult) -> str:
    """What somebody who waits is told."""
    holders = [request for request in found.requests if request.token]
    waiting = len(found.requests) - len(holders)
    if not holders:
        return f"waiting for {name}: it is free soon" if found.delayed_until else f"waiting for {name}"
    who = ", ".join(f"{text(each.value) or 'somebody'} (lease {each.lease})" for each in holders[:3])
    more = f" and {len(holders) - 3} more" if len(holders) > 3 else ""
    return f"waiting for {name}: held by {who}{more}; {waiting} waiting, this one included"
