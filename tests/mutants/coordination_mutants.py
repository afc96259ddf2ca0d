"""Faults in locks, leases, elections and watches that only the look at whole histories finds."""

from planting import Mutant

HOST = "regions/host.py"
LOCKS = "regions/state/locks.py"
LOCK_TABLE = "regions/state/lock_table.py"
LEASES = "regions/state/leases.py"
LESSOR = "regions/lessor.py"
SERVICE = "regions/state_service.py"
CLIENT_OWED = "client/owed.py"
CLIENT_LEASES = "client/leases.py"
CLIENT_WATCHES = "client/watches.py"

_LOCKS = "tests/unit/regions/state/test_locks.py::test_"
_CLIENT_LOCKS = "tests/unit/client/test_leases_and_locks.py::test_"
_DEADLINES = "tests/unit/client/test_lease_deadlines.py::test_"
_WATCHES = "tests/unit/client/test_watches.py::test_"
_HOST_LOCKS = "tests/unit/regions/test_host_locks.py::test_"
_SNAPSHOTS = "tests/unit/regions/test_host_snapshots.py::test_"
_RUNS = "tests/sim/test_coordination.py::test_runs_come_to_their_end"

COORDINATION_MUTANTS = (
    Mutant(
        name="a token is given out twice",
        file=LOCKS,
        old="    token = state.token + 1\n",
        new="    token = state.token\n",
        test=_RUNS,
    ),
    Mutant(
        name="whoever waits is granted the lock beside its holder",
        file=LOCKS,
        old=" and lock.admits(request.lease, request.mode)",
        new="",
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
        file="wire/fence_gates.py",
        old="Txn((passes,), (Put",
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
        old="        if sequence != self._sequence + 1:\n"
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
        file=CLIENT_OWED,
        old="result.end is LockEnd.GRANTED:",
        new="result.end is LockEnd.WAITING:",
        test=_CLIENT_LOCKS + "what_is_granted_while_its_asker_gives_up_is_given_up_too",
    ),
    Mutant(
        name="a holder counts from the answer to its renewal",
        file=CLIENT_LEASES,
        old="self._extend(sent_at, answer.result.ttl_ms)",
        new="self._extend(self._clock(), answer.result.ttl_ms)",
        test=_DEADLINES + "the_deadline_counts_from_when_the_last_answered_renewal_was_sent",
    ),
    Mutant(
        name="a holder counts from the grant of its lease",
        file=CLIENT_LEASES,
        old="self._extend(sent_at, granted.ttl_ms)",
        new="self._extend(self._clock(), granted.ttl_ms)",
        test=_DEADLINES + "the_deadline_of_a_new_lease_counts_from_when_it_was_asked_for",
    ),
    Mutant(
        name="a holder takes the leader's clock for right",
        file=CLIENT_LEASES,
        old="CLOCK_SHARE = (1 - CLOCK_RATE_MAX) / (1 + CLOCK_RATE_MAX)\n",
        new="CLOCK_SHARE = 1 - CLOCK_RATE_MAX\n",
        test=_DEADLINES + "drifting_clocks_end_the_body_before_the_group_ends_the_lease",
    ),
    Mutant(
        name="a watcher that resumes is told again what it was told",
        file=CLIENT_WATCHES,
        old="            if order > self._told:",
        new='            if order > b"":',
        test=_WATCHES + "a_watch_that_breaks_within_a_revision_goes_on_behind_what_was_told",
    ),
    Mutant(
        name="watchers do not notice that a snapshot was installed",
        file=SERVICE,
        old="        self._watches.replaced(machine.data, self._monotonic())\n",
        new="",
        test=_SNAPSHOTS + "a_watch_at_a_replica_that_installs_a_snapshot_misses_nothing",
    ),
    Mutant(
        name="an office looks at the state from before a snapshot",
        file=SERVICE,
        old="        self.office = Office[Read](machine, self._margin_ns, self._compaction)\n        self._w",
        new="        self._w",
        test="tests/unit/regions/test_state_service.py::test_a_leader_whose_state_was_a_snapshot_ends_the_leases_in_it",
    ),
    Mutant(
        name="renewals and waits are left without an answer when the leader changes",
        file=SERVICE,
        old="        for read in [*self.office.end(), *waits]:\n            read.done(self._failed(error))\n",
        new="        self.office.end()\n        del waits\n",
        test=_HOST_LOCKS + "who_waits_at_a_leader_that_hands_over_is_told",
    ),
    Mutant(
        name="an item that was taken from a queue stays there",
        file=LOCKS,
        old="            remove_key(context, state, key, record)\n",
        new="",
        test=_RUNS,
    ),
    Mutant(
        name="who shares a lock does not exclude who intends to change what lies below",
        file=LOCK_TABLE,
        old="    LockMode.S: frozenset((LockMode.IS, LockMode.S)),\n    LockMode.SIX: frozenset((LockMode.IS,)),",
        new="    LockMode.S: frozenset((LockMode.IS, LockMode.IX, LockMode.S)),\n"
        "    LockMode.SIX: frozenset((LockMode.IS,)),",
        test="tests/unit/regions/state/test_locks.py::test_the_compatibility_table",
    ),
    Mutant(
        name="those who wait for each other wait on",
        file=LOCKS,
        old="    _end_cycles(context, name, request)\n",
        new="",
        test=_RUNS,
    ),
)
