"""Locks and waits that are to be given up, until the group has said that they are.

The command that gives up a lock may stay unanswered: the group is silent for a while, or whoever leaves is cancelled. A
lock with a lease of its own goes with that all the same. One on the lease of a session would stay held as long as the
session lives, though nobody knows of it. So the lease *owes* what was not answered, and repeats it after each renewal
that succeeds, oldest first: then the group answers again, and what lies below in a hierarchy is given up before what
lies above.

A release names the token of the grant that it ends, and a lock that is owed is taken again only after a release that
was answered. So a copy of an old release that is late on its way ends no later grant.
"""

from typing import Protocol, final

from isochrone.client.answers import expect
from isochrone.client.results import Executed
from isochrone.errors import Indeterminate, LeaseNotFound, LockNotHeld, LockOrder, Rejected
from isochrone.probes import probe
from isochrone.wire.commands import Operation
from isochrone.wire.locks import LockEnd, LockRelease, LockResult, LockWithdraw


class Executor(Protocol):
    """What giving up needs of a client."""

    async def execute(self, key: bytes | str, operation: Operation, *, timeout_s: float | None = None) -> Executed:
        """See `Client.execute`."""


@final
class Owed:
    """What one lease owes; see the module."""

    def __init__(self, caller: Executor) -> None:
        self._caller = caller
        self._operations: dict[bytes, tuple[LockRelease | LockWithdraw, ...]] = {}
        """By the name of the lock, to be done in order."""

    async def give_up(self, operations: tuple[LockRelease | LockWithdraw, ...], timeout_s: float) -> None:
        """Have a lock, or what waits for it, given up by these operations, or owe them.

        Raises:
            LockOrder: the lease holds locks below, and owes none.
        """
        name, others = operations[0].name, bool(self._operations)
        self._operations[name] = operations
        try:
            await self.pay(name, timeout_s)
        except (Rejected, Indeterminate):
            probe("client.giving_up_is_owed")
        except LockOrder:
            if not others:
                del self._operations[name]
                raise

    async def pay(self, name: bytes, timeout_s: float | None = None) -> None:
        """Give up what is owed of a lock, if anything is. Raises what `Client.execute` raises, and `LockOrder`."""
        while operations := self._operations.get(name):
            first, left = operations[0], operations[1:]
            try:
                executed = await self._caller.execute(name, first, timeout_s=timeout_s)
                result = expect(LockResult, executed.result)
                if result.end is LockEnd.GRANTED:
                    probe("client.granted_while_it_withdrew")
                    left = (LockRelease(name, first.lease, result.token), *left)
            except (LockNotHeld, LeaseNotFound):
                pass  # It is given up already.
            if self._operations.get(name) is operations:  # Else somebody else has paid it meanwhile.
                self._operations[name] = left
        self._operations.pop(name, None)

    async def pay_all(self, timeout_s: float) -> None:
        """Give up all that is owed, as far as the group answers."""
        for name in list(self._operations):
            try:
                await self.pay(name, timeout_s)
            except (Rejected, Indeterminate):
                return
            except LockOrder:
                continue  # What lies below was taken again: it is in use.
