"""Views: all keys with a prefix as of one revision, then as of each revision that changes them.

What recipes wait for is a state, not a change. A view never shows half of what was written in one step, whoever
follows sees the same views in the same order, and only where what happened is compacted some are left out.
"""

import asyncio
import math
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Protocol

from isochrone.client.answers import expect
from isochrone.client.elections import Election
from isochrone.client.leases import Caller, Lease
from isochrone.client.listing import list_all
from isochrone.client.locks import Lock
from isochrone.client.watches import Watcher, WatchGap
from isochrone.errors import NotInTime, Unavailable
from isochrone.ids import Revision
from isochrone.wire.kv import Range, RangeResult, prefix_end
from isochrone.wire.records import KeyValue


class RecipeClient(Caller, Protocol):
    """What recipes need of a client. See `Client`."""

    def wait_limit_s(self, wait_s: float | None) -> float:
        """See `answers.wait_limit_s`."""

    def lease(self, key: bytes | str, *, ttl_s: float, grace_s: float) -> Lease:
        """See `Client.lease`."""

    def lock(
        self, name: bytes | str, *, lease: Lease, wait_s: float | None, announce: bool, value: bytes | str
    ) -> Lock:
        """See `Client.lock`."""

    def election(
        self,
        name: bytes | str,
        value: bytes | str,
        *,
        ttl_s: float,
        grace_s: float,
        lease: Lease | None,
        wait_s: float | None,
    ) -> Election:
        """See `Client.election`."""

    def watch(self, key: bytes | str, *, prefix: bool, start_revision: int) -> Watcher:
        """See `Client.watch`."""


@dataclass(frozen=True, slots=True)
class View:
    """The keys with a prefix as of a revision, in order."""

    revision: Revision
    items: tuple[KeyValue, ...]


async def read_view(client: Caller, prefix: bytes) -> View:
    """The keys with a prefix as they are now; linearizable."""

    async def ask(query: Range) -> RangeResult:
        return expect(RangeResult, (await client.query(query.key, query)).result)

    found = await list_all(ask, prefix, prefix_end(prefix))
    return View(found.revision, found.items)


async def follow(client: RecipeClient, prefix: bytes) -> AsyncGenerator[View, None]:
    """The keys with a prefix as they are now, linearizable, then as of each revision that changed them."""
    view = await read_view(client, prefix)
    yield view
    items = {item.key: item for item in view.items}
    async with (
        client.watch(prefix, prefix=True, start_revision=view.revision + 1) as watcher,
        aclosing(watcher.revisions()) as changes,
    ):
        async for told in changes:
            if isinstance(told, WatchGap):
                revision, items = told.revision, {item.key: item for item in told.items}
            else:
                revision = told[-1].item.mod_revision
                for event in told:
                    if event.deleted:
                        items.pop(event.item.key, None)
                    else:
                        items[event.item.key] = event.item
            yield View(revision, tuple([items[key] for key in sorted(items)]))


async def until(client: RecipeClient, prefix: bytes, holds: Callable[[View], bool], wait_s: float, what: str) -> View:
    """The first view for which something holds.

    Raises:
        NotInTime: it did not hold within `wait_s`; `what` tells what was waited for.
        Unavailable: the client was closed.
    """
    async with aclosing(follow(client, prefix)) as views:
        view = await anext(views)
        if holds(view):
            return view
        try:
            async with asyncio.timeout(None if math.isinf(wait_s) else wait_s):
                async for view in views:
                    if holds(view):
                        return view
        except TimeoutError:
            raise NotInTime(f"{what} did not come within {wait_s:g} s") from None
    raise Unavailable("the client was closed")
