"""Faults in what an endpoint of etcd's API does beside the group: snapshots, ids of watchers, whom it serves."""

from planting import Mutant

BOLT = "wire/etcd/bolt.py"
SLICES = "node/etcd_slices.py"
SNAPSHOT = "node/etcd_snapshot_grpc.py"
WATCHES = "node/etcd_watches_grpc.py"
ENDPOINT = "node/etcd_endpoint_grpc.py"
WORK = "node/etcd_work_grpc.py"
TXN = "regions/state/txn.py"

_BOLT = "tests/unit/wire/test_etcd_bolt.py::test_"
_SNAPSHOT = "tests/unit/node/test_etcd_snapshot.py::test_"
_WATCHES = "tests/unit/node/test_etcd_watches.py::test_"
_GROUP = "tests/unit/node/test_etcd_group.py::test_"
_TXN = "tests/unit/regions/state/test_txn.py::test_"

ETCD_MUTANTS = (
    Mutant(
        name="a page that is too long for one does not say how many it spans",
        file=BOLT,
        old="list(islice(items, leaf.count)), leaf.pages - 1)",
        new="list(islice(items, leaf.count)), 0)",
        test=_BOLT + "what_is_written_is_found_and_every_page_is_used_once",
    ),
    Mutant(
        name="a branch points behind its children",
        file=BOLT,
        old="_BRANCH_ELEMENT.pack(at, len(child.first_key), child.number)",
        new="_BRANCH_ELEMENT.pack(at, len(child.first_key), child.number + 1)",
        test=_BOLT + "what_is_written_is_found_and_every_page_is_used_once",
    ),
    Mutant(
        name="a snapshot takes keys as they are by now",
        file=SLICES,
        old="state.history.between(start, None, revision)",
        new="state.history.between(start, None)",
        test=_SNAPSHOT + "a_snapshot_holds_one_revision_whatever_is_written_meanwhile",
    ),
    Mutant(
        name="a snapshot goes on although a compaction has passed its revision",
        file=SLICES,
        old="            if data.compacted > revision:\n",
        new="            if False:\n",
        test=_SNAPSHOT + "a_compaction_up_to_the_revision_changes_nothing_and_one_beyond_ends_the_snapshot",
    ),
    Mutant(
        name="a snapshot's keys are in no order",
        file=SNAPSHOT,
        old="[sorted(records) async for records in",
        new="[records async for records in",
        test=_SNAPSHOT + "each_list_is_in_the_order_of_the_writes",
    ),
    Mutant(
        name="a client that gives up keeps the only place for a snapshot",
        file=SNAPSHOT,
        old="        finally:\n            self._under_way = False\n",
        new="        finally:\n            pass\n",
        test=_SNAPSHOT + "a_client_that_gives_up_leaves_the_place_free",
    ),
    Mutant(
        name="the file is sent however slowly the client takes it",
        file=SNAPSHOT,
        old="            await _drained(call)\n",
        new="            await asyncio.sleep(0)\n",
        test=_SNAPSHOT + "a_client_that_takes_nothing_loses_the_call_and_others_then_have_their_turn",
    ),
    Mutant(
        name="the id of a watcher that a compaction has ended is free at once",
        file=WATCHES,
        old="                self._spent[number] = None\n",
        new="",
        test=_WATCHES + "ids_are_chosen_or_given_out_and_stay_taken_after_a_compaction_until_they_are_cancelled",
    ),
    Mutant(
        name="watchers do not rest while their client does not read",
        file=WATCHES,
        old="            while self._call.backlog_bytes <= BACKLOG_BYTES_MAX:\n",
        new="            while True:\n",
        test=_WATCHES + "a_client_that_does_not_read_makes_its_watchers_rest_and_misses_nothing",
    ),
    Mutant(
        name="notices of progress come also to who was told something",
        file=WATCHES,
        old="if watcher.progress_notify and not watcher.told and",
        new="if watcher.progress_notify and",
        test=_WATCHES + "who_asked_for_notices_hears_how_far_it_is_while_nothing_happens",
    ),
    Mutant(
        name="clients are told of endpoints that speak for other groups",
        file=ENDPOINT,
        old=" and served_group(topology, node.region, config.etcd_group) == group\n",
        new="\n",
        test=_GROUP + "clients_are_told_only_of_endpoints_that_speak_for_the_same_group",
    ),
    Mutant(
        name="a witness site speaks for the groups that it votes for",
        file=ENDPOINT,
        old="replica.role is ReplicaRole.FULL and ",
        new="",
        test=_GROUP + "a_region_that_is_home_to_no_keys_speaks_for_those_that_it_holds_and_a_witness_site_for_none",
    ),
    Mutant(
        name="a put in a transaction may name a lease that is not there",
        file=TXN,
        old="                check_lease(data, operation)\n",
        new="",
        test=_TXN + "what_is_wrong_with_writes_is_told_before_what_is_wrong_with_reads",
    ),
)
