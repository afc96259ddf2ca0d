"""Group membership: who is there, by ephemeral keys, as stable views.

::

    members = client.recipes.membership("app/workers")
    async with members.join("worker-7", "10.0.0.7:80", ttl_s=10):
        ...

    async for view in members.views():
        print(view.revision, [member.name for member in view.members])

A member is an election with one seat: the lock of its key is held by one process at a time, so a name that is still
taken, perhaps by a process before that has not been missed yet, is waited for. It is announced at the key, which goes
when it leaves, or when its lease has ended because nothing is heard of it.
"""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from typing import final

from isochrone.client.answers import as_bytes
from isochrone.client.elections import Election
from isochrone.client.leases import Lease
from isochrone.client.views import RecipeClient, View, follow, read_view
from isochrone.errors import InvalidRequest
from isochrone.ids import Revision
from isochrone.wire.records import KeyValue

MEMBER_TTL_S = 10.0
"""How long a member that has gone silent is believed to be there, unless it says."""


@dataclass(frozen=True, slots=True)
class Member:
    """One that is there."""

    name: bytes
    value: bytes
    lease: int
    joined_revision: Revision
    """Two stays of one name have different ones; whoever has the smallest is there longest."""
    revision: Revision
    """At which it has joined, or has changed its value last."""


@dataclass(frozen=True, slots=True)
class MembersView:
    """Who was there as of a revision, those first that have been there longest."""

    revision: Revision
    members: tuple[Member, ...]


@final
class Membership:
    """A group of members; `Client.recipes.membership` makes one."""

    def __init__(self, client: RecipeClient, name: bytes) -> None:
        self._client = client
        self._prefix = name + b"/"

    def join(
        self,
        member: bytes | str,
        value: bytes | str = b"",
        *,
        ttl_s: float = MEMBER_TTL_S,
        grace_s: float = 0.0,
        lease: Lease | None = None,
        wait_s: float | None = None,
    ) -> Election:
        """Be a member while `async with` lasts; the arguments are those of `Client.lock`.

        `proclaim` of what this returns changes the value that others see. Entering raises `LockHeld` if the name was
        taken all the time. A body whose membership may have ended is cancelled, and `LeaseLost` is raised.
        """
        key = as_bytes(member)
        if not key:
            raise InvalidRequest("a member needs a name")
        return self._client.election(
            self._prefix + key, value, ttl_s=ttl_s, grace_s=grace_s, lease=lease, wait_s=wait_s
        )

    async def view(self) -> MembersView:
        """Who is there now; linearizable."""
        return self._members(await read_view(self._client, self._prefix))

    async def views(self) -> AsyncGenerator[MembersView, None]:
        """Who is there now, linearizable, then as of each revision at which that changed: the same views for all."""
        async with aclosing(follow(self._client, self._prefix)) as views:
            async for view in views:
                yield self._members(view)

    def _members(self, view: View) -> MembersView:
        members = [self._member(item) for item in view.items]
        return MembersView(view.revision, tuple(sorted(members, key=lambda each: (each.joined_revision, each.name))))

    def _member(self, item: KeyValue) -> Member:
        name = item.key[len(self._prefix) :]
        return Member(name, item.value, item.lease, item.create_revision, item.mod_revision)
