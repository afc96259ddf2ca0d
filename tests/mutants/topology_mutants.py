"""Faults in what a topology file leads to: asynchronous copies that count, or that are shared by mistake."""

from planting import Mutant

BUILD = "topology/build.py"
MODEL = "topology/model.py"
STATUS = "ops/cli/status_view.py"

_BUILD = "tests/unit/topology/test_build.py::test_"
_SHIPPED = "tests/unit/topology/test_shipped.py::test_"
_STATUS = "tests/unit/ops/test_status_view.py::test_"
_LEARNERS = "tests/unit/raft/test_learners.py::test_"

COPY_MUTANTS = (
    Mutant(
        name="an asynchronous copy counts as a voter of its topology",
        file=MODEL,
        old="if replica.role is not ReplicaRole.LEARNER)\n\n    def learners",
        new=")\n\n    def learners",
        test=_SHIPPED + "async_copies_stand_in_the_other_region_and_do_not_vote",
    ),
    Mutant(
        name="an asynchronous copy is planned as a voter",
        file=BUILD,
        old="places.append((plan.copy_zone, ReplicaRole.LEARNER))",
        new="places.append((plan.copy_zone, ReplicaRole.FULL))",
        test=_BUILD + "keyspaces_with_different_asynchronous_copies_do_not_share_a_group",
    ),
    Mutant(
        name="keyspaces with different asynchronous copies share a group",
        file=BUILD,
        old='        parts.append(f"copy-{section.async_copy}")\n',
        new="        pass\n",
        test=_BUILD + "keyspaces_with_different_asynchronous_copies_do_not_share_a_group",
    ),
    Mutant(
        name="a deposed leader tells how far a copy lags",
        file=STATUS,
        old="    leader = max(leaders, key=lambda each: each.term, default=None)\n",
        new="    leader = min(leaders, key=lambda each: each.term, default=None)\n",
        test=_STATUS + "a_deposed_leader_does_not_tell_the_lag",
    ),
    Mutant(
        name="the age of an entry that was given up is told for the last one",
        file="regions/raft/status.py",
        old="state.log.cached_timestamp(state.log.last_index) or state.last_timestamp",
        new="state.last_timestamp",
        test=_LEARNERS + "the_newest_entry_is_the_last_one_in_the_log_not_one_that_was_given_up",
    ),
)
