"""What coordination is often made of: membership, barriers, queues. Their modules tell what they promise.

All of a recipe lies in the group of its name, below `NAME/`. A name is for one recipe.
"""

import random
from typing import final

from isochrone.client.answers import as_bytes
from isochrone.client.barriers import Barrier, DoubleBarrier
from isochrone.client.leases import Lease
from isochrone.client.members import MEMBER_TTL_S, Membership
from isochrone.client.queues import Queue, WorkQueue
from isochrone.client.views import RecipeClient


@final
class Recipes:
    """The recipes of a cluster; `Client.recipes` is one."""

    def __init__(self, client: RecipeClient, rng: random.Random) -> None:
        """Made by the client."""
        self._client = client
        self._rng = rng

    def membership(self, name: bytes | str) -> Membership:
        """Who is there; see `members`."""
        return Membership(self._client, as_bytes(name))

    def barrier(self, name: bytes | str) -> Barrier:
        """A gate that holds everybody up while it is closed; see `barriers`."""
        return Barrier(self._client, as_bytes(name))

    def double_barrier(
        self,
        name: bytes | str,
        size: int,
        *,
        value: bytes | str = b"",
        ttl_s: float = MEMBER_TTL_S,
        grace_s: float = 0.0,
        lease: Lease | None = None,
        wait_s: float | None = None,
    ) -> DoubleBarrier:
        """A meeting of `size` that begins and ends together; see `barriers`.

        `wait_s` limits the wait for the beginning, and that for the end: the client's deadline if not given. The other
        arguments are those of `Client.lock`.
        """
        owns_lease = lease is None
        lease = lease or self._client.lease(name, ttl_s=ttl_s, grace_s=grace_s)
        limit_s = self._client.wait_limit_s(wait_s)
        return DoubleBarrier(self._client, as_bytes(name), size, as_bytes(value), lease, owns_lease, limit_s, self._rng)

    def queue(self, name: bytes | str) -> Queue:
        """Items that go to one consumer at most once; see `queues`."""
        return Queue(self._client, as_bytes(name))

    def work_queue(self, name: bytes | str) -> WorkQueue:
        """Items that are handed out until one consumer has succeeded with them; see `queues`."""
        return WorkQueue(self._client, as_bytes(name))
