"""Faults in the SDK's recipes, paths of locks, reads that may be old, and the end of what ran under a lease."""

from planting import Mutant

BARRIERS = "client/barriers.py"
QUEUES = "client/queues.py"
PATHS = "client/lock_paths.py"
WATCHES = "client/watches.py"
LEASES = "client/leases.py"
LOCKS = "client/locks.py"
BLOCKING = "client/blocking_os.py"

_RECIPES = "tests/unit/client/test_recipes.py::test_"
_RUNS = "tests/sim/test_recipes.py::test_runs_come_to_their_end"
_PATHS = "tests/unit/client/test_lock_paths.py::test_"
_READS = "tests/unit/client/test_old_and_paged_reads.py::test_"
_BLOCKING = "tests/integration/client/test_blocking.py::test_"
_GIVING_UP = "tests/unit/client/test_giving_up.py::test_"
_LOCKS = "tests/unit/client/test_leases_and_locks.py::test_"
_DEADLINES = "tests/unit/client/test_lease_deadlines.py::test_"

RECIPE_MUTANTS = (
    Mutant(
        name="half of a revision is told at the end of a watch",
        file=WATCHES,
        old="            if self._buffer or self._next_revision > revision:\n",
        new="            if not self._gap or self._buffer or self._next_revision > revision:\n",
        test="tests/unit/client/test_watches.py::test_"
        "a_watch_that_is_closed_within_a_revision_does_not_tell_half_of_it",
    ),
    Mutant(
        name="a forked process waits for a thread that it does not have",
        file=BLOCKING,
        old="is self._thread or not self._thread.is_alive():\n",
        new="is self._thread:\n",
        test=_BLOCKING + "a_process_that_was_forked_is_told_that_the_client_is_not_its_own",
    ),
    Mutant(
        name="claims of one session ask for the same item",
        file=QUEUES,
        old="        if name in self._lease.lock_names:\n",
        new="        if not name:\n",
        test=_RECIPES + "consumers_of_one_session_claim_different_items_at_the_same_time",
    ),
    Mutant(
        name="a release does not name its grant",
        file=LOCKS,
        old="LockRelease(self.name, self._lease.identity, self.token)",
        new="LockRelease(self.name, self._lease.identity)",
        test=_GIVING_UP + "a_release_that_comes_late_does_not_end_the_next_hold_of_its_session",
    ),
    Mutant(
        name="a lock is taken again that is owed",
        file=LOCKS,
        old="        await self._lease.owed.pay(self.name)\n",
        new="",
        test=_GIVING_UP + "a_release_that_comes_late_does_not_end_the_next_hold_of_its_session",
    ),
    Mutant(
        name="what is owed is never paid",
        file=LEASES,
        old="                await self.owed.pay_all(self._ttl_s * PAYING_SHARE)\n",
        new="",
        test=_GIVING_UP + "a_release_or_a_wait_that_is_cancelled_is_given_up_later",
    ),
    Mutant(
        name="a conversion that was not heard of is forgotten",
        file=LOCKS,
        old="(*self._unheard, release)",
        new="(release,)",
        test=_GIVING_UP + "a_conversion_that_was_not_heard_of_is_given_up_with_its_lock",
    ),
    Mutant(
        name="who is cancelled while it waits to leave a path stays",
        file=PATHS,
        old="            level.users -= 1\n            async with level.turn:\n",
        new="            async with level.turn:\n                level.users -= 1\n",
        test=_GIVING_UP + "a_path_that_is_cancelled_while_it_waits_for_its_turn_to_leave_has_left",
    ),
    Mutant(
        name="a lock that is entered again forgets its first guard",
        file=LOCKS,
        old="        guard = self._lease.guard()\n",
        new="        guard = self._guard = self._lease.guard()\n",
        test=_LOCKS + "a_lock_that_is_entered_again_is_refused_and_stays_held",
    ),
    Mutant(
        name="a lease without an alarm is renewed no more",
        file=LEASES,
        old="                    wait_s = self._retry_s()\n                    continue\n",
        new="                    return\n",
        test=_DEADLINES + "a_lease_goes_on_once_alarms_can_be_set_again",
    ),
    Mutant(
        name="a lease is entered twice",
        file=LEASES,
        old="        self._was_entered = True\n",
        new="",
        test=_DEADLINES + "a_lease_is_entered_once",
    ),
    Mutant(
        name="a lease is renewed whose task has ended",
        file=LEASES,
        old="        self._body.task.add_done_callback(self._desert)\n",
        new="",
        test=_DEADLINES + "a_lease_whose_task_has_ended_without_leaving_it_is_renewed_no_more",
    ),
    Mutant(
        name="a lease is revoked without time for it",
        file=LEASES,
        old="        timeout_s = min(REVOKE_TIMEOUT_S, remaining_s)\n",
        new="        timeout_s = min(REVOKE_TIMEOUT_S, self.remaining_s)\n",
        test=_DEADLINES + "a_deadline_that_passes_while_a_lease_is_given_up_is_no_error_of_its_own",
    ),
    Mutant(
        name="who leaves a double barrier does not wait for its end",
        file=BARRIERS,
        old="                await self._ended()\n",
        new="",
        test=_RECIPES + "a_double_barrier_begins_and_ends_together_round_after_round",
    ),
    Mutant(
        name="a double barrier begins on what a dead round has left",
        file=BARRIERS,
        old="await self._execute((nobody,), DeleteRange(self._ready), come, otherwise=(come,))",
        new="await self._execute((nobody,), come, otherwise=(come,))",
        test=_RECIPES + "too_few_leave_nothing_behind_and_the_dead_count_as_having_left",
    ),
    Mutant(
        name="the last one to die keeps a double barrier from ending",
        file=BARRIERS,
        old=" or not self._count(view)\n",
        new="\n",
        test=_RECIPES + "too_few_leave_nothing_behind_and_the_dead_count_as_having_left",
    ),
    Mutant(
        name="one who has waited takes two items",
        file=QUEUES,
        old="                    return None\n                taken = await self._take_first()\n",
        new="                    return None\n                await self._take_first()\n"
        "                taken = await self._take_first()\n",
        test=_RECIPES + "one_who_has_waited_takes_one_item",
    ),
    Mutant(
        name="a claim that has ended removes the item",
        file=QUEUES,
        old="Txn((ours,), (DeleteRange(item.key),))",
        new="Txn((), (DeleteRange(item.key),))",
        test=_RECIPES + "a_failed_body_gives_its_item_back_and_a_claim_that_was_lost_removes_nothing",
    ),
    Mutant(
        name="an item is worked on that another has finished",
        file=QUEUES,
        old="        if found.items:\n            return found.items[0], lock\n",
        new="        return (found.items or (item,))[0], lock\n",
        test=_RECIPES + "an_item_that_was_finished_after_it_was_seen_is_not_worked_on_again",
    ),
    Mutant(
        name="a failed body finishes its item",
        file=QUEUES,
        old="            if error is None:\n                await self._finish()\n",
        new="            await self._finish()\n",
        test=_RECIPES + "a_failed_body_gives_its_item_back_and_a_claim_that_was_lost_removes_nothing",
    ),
    Mutant(
        name="views show half of what was written in one step",
        file=WATCHES,
        old="            return self._buffer[0][0].item.mod_revision == revision\n",
        new="            return False\n",
        test=_READS + "what_was_written_in_one_step_is_told_in_one",
    ),
    Mutant(
        name="a stale read forgets what clocks may be wrong by",
        file="regions/state_service.py",
        old="latest - applied + offset_max_ns",
        new="latest - applied - 10 * offset_max_ns",
        test=_READS + "a_stale_read_tells_how_old_it_is_at_most",
    ),
    Mutant(
        name="the first path to leave gives up what others need",
        file=PATHS,
        old="if not level.users and level.lock is not None:",
        new="if level.lock is not None:",
        test=_PATHS + "paths_of_one_session_share_their_upper_levels",
    ),
    Mutant(
        name="a level is not made stronger for a path that needs it",
        file=PATHS,
        old="                    await level.lock.convert(mode, wait_s=left_s())\n",
        new="                    pass\n",
        test=_PATHS + "paths_of_one_session_share_their_upper_levels",
    ),
    Mutant(
        name="a lease takes a name twice",
        file=LOCKS,
        old="if self.name in self._lease.lock_names:",
        new="if False:",
        test=_PATHS + "a_lock_is_converted_to_a_stronger_mode_before_others_that_wait",
    ),
    Mutant(
        name="a body that kept its cancellation to itself has ended well",
        file=LEASES,
        old="if error is None and self.lost.is_set():",
        new="if late and error is None:",
        test=_DEADLINES + "a_body_that_keeps_its_cancellation_to_itself_within_the_grace_is_told_so_afterwards",
    ),
    Mutant(
        name="other tasks go on when their session is lost",
        file=LEASES,
        old="            self._body.cancel()\n        for body in self._guarded:\n            body.cancel()\n",
        new="            self._body.cancel()\n",
        test=_PATHS + "other_tasks_of_a_session_are_told_of_its_loss_and_of_its_end",
    ),
    Mutant(
        name="a body that stood still goes on by its own timers first",
        file=LEASES,
        old="            self.task.cancel()\n",
        new="            asyncio.get_running_loop().call_soon(self.task.cancel)\n",
        test=_DEADLINES + "a_body_takes_no_further_step_after_its_process_stood_still",
    ),
    Mutant(
        name="items are claimed in any order",
        file=QUEUES,
        old="            for item in free:\n",
        new="            for item in reversed(free):\n",
        test=_RUNS,
    ),
    Mutant(
        name="who was late at one item finds nothing behind it",
        file=QUEUES,
        old="                taken[name] = None  # Another one was faster; perhaps there are more behind it.\n",
        new="            return None, claims.revision\n",
        test=_RECIPES + "who_does_not_wait_gets_the_next_item_if_another_was_faster_at_the_first",
    ),
    Mutant(
        name="one leaves a double barrier when one other is left",
        file=BARRIERS,
        old=" or not self._count(view)\n",
        new=" or self._count(view) <= 1\n",
        test=_RUNS,
    ),
    Mutant(
        name="one who is gone makes a double barrier ready",
        file=BARRIERS,
        old="(absent, still_there)",
        new="(absent,)",
        test=_RECIPES + "who_was_removed_while_it_began_a_round_does_not_begin_the_next_one",
    ),
    Mutant(
        name="one who is gone begins with others",
        file=BARRIERS,
        old="            if all(item.key != self._key for item in view.items):\n",
        new="            if self._size < 1:\n",
        test=_RECIPES + "who_was_removed_while_it_waited_does_not_begin_with_others",
    ),
    Mutant(
        name="a barrier is taken for open",
        file=BARRIERS,
        old="        return all(item.key != self._key for item in view.items)\n",
        new="        return len(view.items) < 2\n",
        test=_RUNS,
    ),
    Mutant(
        name="members are told in the order in which they spoke last",
        file="client/members.py",
        old="key=lambda each: (each.joined_revision, each.name)",
        new="key=lambda each: (each.revision, each.name)",
        test=_RUNS,
    ),
)
