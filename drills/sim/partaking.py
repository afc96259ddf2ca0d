"""Partakers: what a simulated process does with the SDK's recipes, in several tasks at once, and what it is told.

It sits in one of a few seats of a membership and follows who sits there; closes, opens and awaits a barrier; comes to
meetings; puts into queues, takes, claims, and fails at its work. Some of it hangs together on one lease. Now and then
somebody is evicted from a meeting by the end of his lease, as an operator would do it.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import TypeAlias

from isochrone.client import Client, MembersView
from isochrone.client.leases import Lease
from isochrone.drills.checkers.gates import GateWait
from isochrone.drills.checkers.meetings import Stay
from isochrone.drills.checkers.membership import MemberSeen, Viewer, ViewSeen
from isochrone.drills.checkers.queues import QueueCall
from isochrone.drills.checkers.work_queues import ClaimEnd, ClaimTold
from isochrone.drills.sim.holding import Holder
from isochrone.drills.sim.recipe_notes import SIZES, Notes, RecipeNames
from isochrone.drills.workload import cancel, run_together
from isochrone.errors import Indeterminate, LeaseNotFound, LockNotHeld, NotInTime, Rejected
from isochrone.wire.kv import Range, RangeResult, prefix_end
from isochrone.wire.leases import LeaseRevoke

TASKS = 3
"""So much at a time a process does, beside following."""
GAP_S = 0.2
TTLS_S = (1.0, 1.5, 3.0)
WAITS_S = (0.0, 1.0, 4.0)
SLOW_ODDS = 0.03
SLOW_S_MAX = 6.0
"""So often, and at most so long, one who follows is busy with what he saw."""
FAIL_ODDS = 0.25
"""So often a body fails."""
SEATS = ("one", "two")
SHARED = b"shared "
"""A member's value begins so if its lease is not its own: it is not evicted, for others hang on that lease."""

Expected = (Rejected, Indeterminate, LeaseNotFound, LockNotHeld, TimeoutError)
"""What a partaker may be told while faults are on."""

Work: TypeAlias = Callable[[Client, Lease | None], Awaitable[None]]


class WorkFailed(Exception):
    """A body fails, for no fault of anybody."""


class Partaker:
    """See the module. Runs in the group of its process."""

    def __init__(self, holder: Holder, keyspace: str, rng: random.Random) -> None:
        """`holder` is its own, of its process."""
        self.names = RecipeNames(keyspace)
        self.holder = holder
        self.notes = Notes()
        self._rng = rng
        self._numbers = 0

    async def run(self, client: Client, end_s: float) -> None:
        """Partake until the loop's time `end_s`."""
        tasks = [self._partake(client, end_s) for _ in range(TASKS)]
        await run_together([self._follow(client, end_s), *tasks])

    async def _partake(self, client: Client, end_s: float) -> None:
        rng, loop = self._rng, asyncio.get_running_loop()
        works: dict[Work, float] = {
            self._sit: 2,
            self._use_gate: 3,
            self._meet: 4,
            self._evict: 0.5,
            self._use_queue: 2,
            self._put_report: 2,
            self._claim_report: 3,
            self._do_together: 2,
        }
        while loop.time() < end_s:
            await asyncio.sleep(rng.expovariate(1 / GAP_S))
            (work,) = rng.choices(list(works), list(works.values()))
            try:
                async with asyncio.timeout(rng.choice((None, None, None, 0.3, 2.0))):
                    await work(client, None)
            except (*Expected, WorkFailed):
                continue

    async def _do_together(self, client: Client, _lease: Lease | None) -> None:
        """Two things at once on one lease, each in a task of its own."""
        pairs: list[tuple[Work, Work]] = [
            (self._claim_report, self._claim_report),
            (self._claim_report, self._sit),
            (self._claim_report, self._meet),
            (self._meet, self._meet),
        ]
        async with client.lease(self.names.keyspace, ttl_s=self._rng.choice(TTLS_S)) as lease:
            ended = asyncio.Semaphore(0)
            tasks = [asyncio.create_task(self._quietly(work, client, lease, ended)) for work in self._rng.choice(pairs)]
            try:
                # Not `gather`: if the lease is lost, it is the lease that ends them, not this task.
                for _ in tasks:
                    await ended.acquire()
            finally:
                await cancel(tasks)

    async def _quietly(self, work: Work, client: Client, lease: Lease, ended: asyncio.Semaphore) -> None:
        try:
            await work(client, lease)
        except (*Expected, WorkFailed):
            return  # What else hangs on the lease goes on.
        finally:
            ended.release()

    def _next_value(self, lease: Lease | None) -> bytes:
        """One that nobody else uses."""
        self._numbers += 1
        return (SHARED if lease else b"") + f"{self.holder.name}/{self._numbers}".encode()

    async def _work(self, client: Client) -> None:
        """A body."""
        await self.holder.use(client)
        if self._rng.random() < FAIL_ODDS:
            raise WorkFailed

    # ---- membership

    async def _sit(self, client: Client, lease: Lease | None) -> None:
        rng, asked_ns = self._rng, self.holder.now_ns()
        team = client.recipes.membership(self.names.team)
        seat = team.join(
            rng.choice(SEATS), self.holder.name, ttl_s=rng.choice(TTLS_S), lease=lease, wait_s=rng.choice(WAITS_S)
        )
        async with seat:
            grant = self.holder.granted(seat, seat.name.decode(), asked_ns, gated=False)
            try:
                if rng.random() < 0.5:
                    await seat.proclaim(self._next_value(lease))
                await self._work(client)
            finally:
                self.holder.given_up(grant)

    async def _follow(self, client: Client, end_s: float) -> None:
        """See who is there, anew every now and then."""
        rng, loop = self._rng, asyncio.get_running_loop()
        team = client.recipes.membership(self.names.team)
        while (left_s := end_s - loop.time()) > 0:
            seen: list[ViewSeen] = []
            self.notes.viewers.append(Viewer(name=self.holder.name, asked_ns=self.holder.now_ns(), views=seen))
            try:
                async with asyncio.timeout(min(left_s, rng.uniform(1.0, 20.0))), aclosing(team.views()) as views:
                    async for view in views:
                        seen.append(_seen(view))
                        if rng.random() < SLOW_ODDS:
                            await asyncio.sleep(rng.uniform(0.0, SLOW_S_MAX))
            except Expected:
                await asyncio.sleep(rng.expovariate(1 / GAP_S))

    # ---- barriers

    async def _use_gate(self, client: Client, _lease: Lease | None) -> None:
        """Close the gate, for a while or for as long as a lease lives; open it; or wait there."""
        rng, gate = self._rng, client.recipes.barrier(self.names.gate)
        match rng.randrange(6):
            case 0:
                await gate.close()
            case 1:
                async with client.lease(self.names.gate, ttl_s=rng.choice(TTLS_S)) as lease:
                    await gate.close(lease=lease)
                    await self._work(client)
            case 2:
                await gate.open()
            case _:
                key, asked_ns = f"{self.names.gate}/closed".encode(), self.holder.now_ns()
                try:
                    await gate.wait(wait_s=rng.choice(WAITS_S))
                    passed = True
                except NotInTime:
                    passed = False
                told_ns = self.holder.now_ns()
                self.notes.gate_waits.append(GateWait(key=key, asked_ns=asked_ns, told_ns=told_ns, passed=passed))

    async def _meet(self, client: Client, lease: Lease | None) -> None:
        rng, size, value = self._rng, self._rng.choice(SIZES), self._next_value(lease)
        meeting = client.recipes.double_barrier(
            self.names.meeting(size),
            size,
            value=value,
            ttl_s=rng.choice(TTLS_S),
            lease=lease,
            wait_s=rng.choice(WAITS_S),
        )
        began_ns = left_ns = None
        try:
            async with meeting:
                began_ns = self.holder.now_ns()
                await self._work(client)
            left_ns = self.holder.now_ns()
        finally:
            if began_ns is not None:
                self.notes.stays[size].append(Stay(value=value, began_ns=began_ns, left_ns=left_ns))

    async def _evict(self, client: Client, _lease: Lease | None) -> None:
        """End the lease of somebody who is at a meeting, or comes there."""
        prefix = f"{self.names.meeting(self._rng.choice(SIZES))}/members/".encode()
        found = (await client.query(prefix, Range(prefix, prefix_end(prefix)))).result
        assert isinstance(found, RangeResult)
        leases = [item.lease for item in found.items if not item.value.startswith(SHARED)]
        if leases:
            await client.execute(prefix, LeaseRevoke(self._rng.choice(leases)))

    # ---- queues

    async def _use_queue(self, client: Client, _lease: Lease | None) -> None:
        for _ in range(self._rng.randrange(1, 4)):
            put, asked_ns = self._rng.random() < 0.5, self.holder.now_ns()
            try:
                key = await self._put_or_take(client, put)
            except Rejected:
                continue  # It had no effect.
            except BaseException:
                self._note_call(put, asked_ns, None, None)
                raise
            self._note_call(put, asked_ns, self.holder.now_ns(), key)

    async def _put_or_take(self, client: Client, put: bool) -> bytes | None:
        mails = client.recipes.queue(self.names.mails)
        if put:
            return await mails.put(b"")
        item = await mails.take(wait_s=self._rng.choice(WAITS_S))
        return item.key if item else None

    def _note_call(self, put: bool, asked_ns: int, answered_ns: int | None, key: bytes | None) -> None:
        call = QueueCall(queue=self.names.mails, put=put, asked_ns=asked_ns, answered_ns=answered_ns, key=key)
        self.notes.queue_calls.append(call)

    async def _put_report(self, client: Client, _lease: Lease | None) -> None:
        reports = client.recipes.work_queue(self.names.reports)
        for _ in range(self._rng.randrange(1, 4)):
            value = self._next_value(None)
            self.notes.put[await reports.put(value, priority=self._rng.choice((0, 500, 500)))] = value

    async def _claim_report(self, client: Client, lease: Lease | None) -> None:
        rng, asked_ns = self._rng, self.holder.now_ns()
        claim = client.recipes.work_queue(self.names.reports).claim(
            consumer=self.holder.name, ttl_s=rng.choice(TTLS_S), lease=lease, wait_s=rng.choice(WAITS_S)
        )
        answered_ns: int | None = None
        end = ClaimEnd.GIVEN_BACK
        try:
            async with claim:
                answered_ns = self.holder.now_ns()
                grant = self.holder.granted(claim, f"claim of {claim.key.decode()}", asked_ns, gated=False)
                try:
                    await self._work(client)
                finally:
                    self.holder.given_up(grant)
                end = ClaimEnd.UNKNOWN
            end = ClaimEnd.FINISHED
        except NotInTime:
            told = ClaimTold(asked_ns=asked_ns, answered_ns=self.holder.now_ns(), alone=lease is None, key=None)
            self.notes.claims.append(told)
            raise
        finally:
            if answered_ns is not None:
                told = ClaimTold(
                    asked_ns=asked_ns,
                    answered_ns=answered_ns,
                    alone=lease is None,
                    key=claim.key,
                    value=claim.value,
                    end=end,
                    ended_ns=self.holder.now_ns(),
                )
                self.notes.claims.append(told)


def _seen(view: MembersView) -> ViewSeen:
    members = [
        MemberSeen(each.name, each.value, each.lease, each.joined_revision, each.revision) for each in view.members
    ]
    return ViewSeen(view.revision, tuple(members))
