"""Faults in locks, leases, elections and watches that only the look at whole histories finds."""

from planting import Mutant

HOST = "regions/host.py"
LOCKS = "regions/state/locks.py"
LEASES = "regions/state/leases.py"
LESSOR = "regions/lessor.py"
KV = "wire/kv.py"
CLIENT_LOCKS = "client/locks.py"
CLIENT_LEASES = "client/leases.py"
CLIENT_WATCHES = "client/watches.py"

_LOCKS = "tests/unit/regions/state/test_locks.py::test_"
_CLIENT_LOCKS = "tests/unit/client/test_leases_and_locks.py::test_"
_RUNS = "tests/sim/test_coordination.py::test_runs_come_to_their_end"

COORDINATION_MUTANTS = (
    Mutant(
        name="a token is given out twice",
        file=LOCKS,
        old="    state.token += 1\n    if state",
        new="    if state",
        test=_RUNS,
    ),
    Mutant(
        name="whoever waits is granted the lock beside its holder",
        file=LOCKS,
        old="lock.admits(lock.waiting[0].lease, lock.waiting[0].mode)",
        new="True",
        test=_RUNS,
    ),
    Mutant(
        name="a leader that resigned stays announced",
        file=LOCKS,
        old="    if announced is not None and record_lease(announced) == held.lease:\n"
        "        remove_key(context, state, name, announced)\n",
        new="",
        test=_RUNS,
    ),
    Mutant(
        name="a fence gate lets everything pass",
        file=KV,
        old="Txn((Compare(gate, Target.TOKEN, Relation.NOT_GREATER, token),), (Put",
        new="Txn((), (Put",
        test=_RUNS,
    ),
    Mutant(
        name="an expiry that was applied ends nothing",
        file=LEASES,
        old="            end_lease(context, identity, clean=False)\n            return True",
        new="            return True",
        test=_RUNS,
    ),
    Mutant(
        name="a new leader gives leases a part of their time",
        file=LESSOR,
        old="            self._watch(identity, now, left_ms * NS_PER_MS, self._margin_ns, CHECKPOINT_FIRST_NS)",
        new="            self._watch(identity, now, left_ms * NS_PER_MS // 4, 0, CHECKPOINT_FIRST_NS)",
        test=_RUNS,
    ),
    Mutant(
        name="a holder relies on its lease beyond its end",
        file=CLIENT_LEASES,
        old=" - MARGIN_S\n",
        new=" + 1.0\n",
        test=_RUNS,
    ),
    Mutant(
        name="a watcher does not notice what was lost on the way",
        file=CLIENT_WATCHES,
        old="        if message.sequence != self._sequence + 1:\n"
        "            self._again()  # One was lost on the way.\n            return\n",
        new="",
        test=_RUNS,
    ),
    Mutant(
        name="a watcher goes on behind a compaction without a word",
        file=CLIENT_WATCHES,
        old="            self._gap = True\n        elif",
        new="            self._next_revision = message.compacted\n            self._again()\n        elif",
        test=_RUNS,
    ),
    Mutant(
        name="a node without a replica refuses a watch as if it were wrong",
        file=HOST,
        old='            raise Unavailable(f"this node serves no replica of group {group} now")',
        new='            raise InvalidRequest(f"this node serves no replica of group {group} now")',
        test=_RUNS,
    ),
    Mutant(
        name="a conversion that has failed is answered with the weaker hold",
        file=LOCKS,
        old="held.request != query.request",
        new="held.request > query.request",
        test=_LOCKS + "a_conversion_that_has_failed_is_not_taken_for_the_weaker_hold",
    ),
    Mutant(
        name="giving up a conversion that has failed finds the weaker hold",
        file=LOCKS,
        old="held.request != operation.request:",
        new="False:",
        test=_LOCKS + "a_wait_ends_when_it_is_withdrawn_or_its_time_is_over",
    ),
    Mutant(
        name="what is granted to one who withdraws stays with its session",
        file=CLIENT_LOCKS,
        old="withdrawn.end is LockEnd.GRANTED:",
        new="withdrawn.end is LockEnd.WAITING:",
        test=_CLIENT_LOCKS + "what_is_granted_while_its_asker_gives_up_is_given_up_too",
    ),
)
