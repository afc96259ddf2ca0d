"""Faults planted in what is counted, and in who is warned about."""

from planting import Mutant

MEASURES = "regions/measures.py"
REPLICA = "regions/replica.py"
HOLDS = "regions/hold_times.py"
TXN = "regions/state/txn.py"
HUB = "regions/watch_hub.py"

_MEASURES = "tests/unit/regions/test_measures.py::test_"
_HOLDS = "tests/unit/regions/test_hold_times.py::test_"

MEASURE_MUTANTS = (
    Mutant(
        name="every replica counts what happened",
        file=REPLICA,
        old="            if leads:\n                self.measures.applied",
        new="            if True:\n                self.measures.applied",
        test=_MEASURES + "expiries_repeated_commands_and_refused_tokens_are_counted_once",
    ),
    Mutant(
        name="a transaction that fails for another reason counts as a refused token",
        file=TXN,
        old="    return not all(_holds(data, compare, budget) for compare in tokens)\n",
        new="    return True\n",
        test=_MEASURES + "a_comparison_that_fails_without_a_token_is_no_refused_token",
    ),
    Mutant(
        name="the time of an acquisition lacks the wait",
        file=MEASURES,
        old="max(0, notice.waited_ns) + age_ns",
        new="age_ns",
        test=_MEASURES + "locks_are_counted_by_whether_they_waited_and_by_how_the_wait_ended",
    ),
    Mutant(
        name="a watcher's lag begins anew with every event",
        file=HUB,
        old="        if watcher.ready:\n            return False\n        watcher.ready = True\n",
        new="        if watcher.ready:\n            watcher.ready_since = now\n            return False\n"
        "        watcher.ready = True\n",
        test=_MEASURES + "the_lag_of_a_watcher_counts_from_when_it_had_been_told_everything",
    ),
    Mutant(
        name="the time of a new grant goes on from the one before",
        file=HOLDS,
        old="        if hold is None or hold.token != request.token:\n",
        new="        if hold is None:\n",
        test=_HOLDS + "each_grant_counts_anew_and_each_holder_for_itself",
    ),
    Mutant(
        name="a warning comes at every look",
        file=HOLDS,
        old="            while hold.warn_after_ns <= held_ns:\n",
        new="            while hold.warn_after_ns <= 0:\n",
        test=_HOLDS + "a_holder_is_warned_about_after_the_time_and_whenever_that_has_doubled",
    ),
)
