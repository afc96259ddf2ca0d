"""A node whose store was lost comes back with another one, while the old one haunts the cluster."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest
from host_cluster import CLUSTER, GROUP, HostCluster, Process, VirtualClock
from stores import make_durable
from virtual_time import run_virtual

from isochrone.clocks.hlc import HybridLogicalClock
from isochrone.errors import StorageError, Unavailable
from isochrone.ids import GroupId, Incarnation, LogIndex, NodeId, ReplicaRole, StoreId, Term, Timestamp, store_id
from isochrone.ports import LoggedConfiguration, LogWrite, StoreIdentity, WriteBatch, first_incarnation
from isochrone.regions.host import Host
from isochrone.regions.intake import Intake
from isochrone.regions.raft.changes import keeps_state
from isochrone.regions.requests import Outcome
from isochrone.regions.storage.log_bounds import empty_group
from isochrone.regions.storage.memory import MemoryStore
from isochrone.wire.configurations import encode_configuration
from isochrone.wire.entries import make_entry
from isochrone.wire.messages import (
    AppendResponse,
    Configuration,
    EntryKind,
    Envelope,
    GroupMessage,
    HardState,
    Heartbeat,
    HeartbeatResponse,
    Member,
    VoteRequest,
)
from isochrone.wire.status import GroupStatus

C = NodeId("c")
LEARNER = Member(C, StoreId("second"), ReplicaRole.LEARNER)
STARTS = 3
"""How often c is started on its first store."""


def host_of(cluster: HostCluster, name: str) -> Host:
    host = cluster.processes[NodeId(name)].host
    assert host is not None
    return host


def status_of(cluster: HostCluster, name: str) -> GroupStatus:
    return host_of(cluster, name).replicas[GROUP].status()


async def change(
    cluster: HostCluster, *put: Member, remove: tuple[NodeId, ...] = (), group: GroupId = GROUP, by: str = "a"
) -> None:
    answer: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
    host_of(cluster, by).administration.change_membership(group, put=put, remove=remove, done=answer.set_result)
    outcome = await answer
    assert outcome.error is None, outcome.error


def with_learner(cluster: HostCluster) -> Configuration:
    return replace(host_of(cluster, "a").replicas[GROUP].core.configuration, members=(*members(cluster), LEARNER))


async def fresh(cluster: HostCluster) -> tuple[Host, MemoryStore]:
    """Replace the store of c, and remove it."""
    await cluster.crash("c")
    store = MemoryStore(StoreIdentity(CLUSTER, C, LEARNER.store, Incarnation(first_incarnation(1) + 1)), {})
    cluster.processes[C] = Process(store, VirtualClock())
    await cluster.start("c")
    await change(cluster, remove=(C,))
    return host_of(cluster, "c"), store


async def rejoin(cluster: HostCluster, incarnation: Incarnation) -> None:
    """Replace the store of c, and make it a learner."""
    await cluster.crash("c")
    store = MemoryStore(StoreIdentity(CLUSTER, C, LEARNER.store, incarnation), {})
    cluster.processes[C] = Process(store, VirtualClock())
    await cluster.start("c")
    await change(cluster, remove=(C,))
    await host_of(cluster, "c").add_replica(GROUP, with_learner(cluster))
    await change(cluster, LEARNER)


def members_at(cluster: HostCluster, name: str) -> tuple[Member, ...]:
    return host_of(cluster, name).replicas[GROUP].core.configuration.members


def members(cluster: HostCluster) -> tuple[Member, ...]:
    return members_at(cluster, "a")


def caught_up(cluster: HostCluster) -> bool:
    status = status_of(cluster, "a")
    return status.match[C] == status.last


def with_a_lost_store(test: Callable[[HostCluster], Awaitable[None]], **raft: int) -> None:
    async def main() -> None:
        cluster = HostCluster(dict.fromkeys("abc", ReplicaRole.FULL), **raft)
        await cluster.start_all()
        for _ in range(STARTS - 1):
            await cluster.crash("c")
            await cluster.start("c")
            await asyncio.sleep(2)
        await cluster.until(lambda: host_of(cluster, "a").incarnations.get(C) == STARTS)
        client = await cluster.client()
        await client.put("k/x", "1")
        await test(cluster)
        await cluster.stop_all()

    run_virtual(main())


def test_a_node_with_a_new_store_is_heard_joins_and_counts() -> None:
    async def test(cluster: HostCluster) -> None:
        await rejoin(cluster, Incarnation(first_incarnation(1) + 1))
        await cluster.until(lambda: caught_up(cluster))
        await change(cluster, replace(LEARNER, role=ReplicaRole.FULL))
        await cluster.crash("b")
        await cluster.clients[0].put("k/y", "2")
        assert (await cluster.clients[0].get("k/x")).value == b"1"

    with_a_lost_store(test)


def test_a_store_that_counted_from_one_again_would_be_taken_for_a_zombie() -> None:
    """Why incarnations rise from store to store."""

    async def test(cluster: HostCluster) -> None:
        await rejoin(cluster, Incarnation(1))
        await asyncio.sleep(5)
        assert status_of(cluster, "a").match[C] == 0
        assert host_of(cluster, "a").counters["messages_of_old_incarnations"] > 0

    with_a_lost_store(test)


def test_what_a_lost_store_held_is_not_counted_for_the_new_one() -> None:
    """The leader still feeds the member that it removed, and must not go on from there."""

    async def test(cluster: HostCluster) -> None:
        await rejoin(cluster, Incarnation(first_incarnation(1) + 1))
        assert status_of(cluster, "a").match[C] == 0
        with pytest.raises(AssertionError, match="c holds the log up to 0 only"):
            await change(cluster, replace(LEARNER, role=ReplicaRole.FULL))

    with_a_lost_store(test)


def test_an_answer_of_the_lost_store_that_is_already_here_is_not_counted_either() -> None:
    async def test(cluster: HostCluster) -> None:
        await cluster.crash("c")
        await change(cluster, remove=(C,))
        before = status_of(cluster, "a")
        held = AppendResponse(before.term, True, before.last, Term(0), LogIndex(0))
        cluster.deliver(NodeId("a"), Envelope(C, StoreId("s-c"), Incarnation(STARTS), (GroupMessage(GROUP, held),)))
        await change(cluster, LEARNER)
        assert status_of(cluster, "a").match[C] == 0

    with_a_lost_store(test)


@pytest.mark.parametrize("joined", [False, True], ids=["while removed", "when joined"])
def test_a_process_that_still_runs_on_the_old_store_is_not_heard(joined: bool) -> None:
    async def test(cluster: HostCluster) -> None:
        await rejoin(cluster, Incarnation(first_incarnation(1) + 1))
        await cluster.until(lambda: caught_up(cluster))
        if not joined:
            await change(cluster, remove=(C,))
            await asyncio.sleep(3)
        before = status_of(cluster, "a").term
        # It asks for votes of a term that nobody could ignore, in the name of a transfer, with a log longer than any.
        asks = VoteRequest(Term(before + 100), LogIndex(10_000), Term(before), pre=False, transfer=True)
        zombie = Envelope(C, StoreId("s-c"), Incarnation(STARTS), (GroupMessage(GROUP, asks),))
        # Whoever has heard neither the new process nor of the new store cannot tell.
        for name in "ab" if joined else "a":
            cluster.deliver(NodeId(name), zombie)
        await asyncio.sleep(3)
        assert [status_of(cluster, name).term for name in "ab"] == [before, before]
        dropped = "messages_of_strangers" if joined else "messages_of_old_incarnations"
        assert host_of(cluster, "a").counters[dropped] == 1

    with_a_lost_store(test)


def test_a_node_restarts_while_its_log_names_the_store_that_it_had_before() -> None:
    """It has caught up to a time at which its former store was a voter, and no further."""

    async def test(cluster: HostCluster) -> None:
        await rejoin(cluster, Incarnation(first_incarnation(1) + 1))
        await cluster.until(lambda: caught_up(cluster))
        await cluster.crash("c")
        begins = replace(cluster.configuration, members=(*members(cluster)[:2], LEARNER))
        store = MemoryStore(StoreIdentity(CLUSTER, C, LEARNER.store, Incarnation(first_incarnation(1) + 2)), {})
        await store.create_group(GROUP, begins)
        data = encode_configuration(cluster.configuration)
        kind = EntryKind.CONFIGURATION
        named = make_entry(index=LogIndex(1), term=Term(1), kind=kind, timestamp=Timestamp(1), data=data)
        await make_durable(store, WriteBatch((LogWrite(GROUP, HardState(Term(1), None, LogIndex(0)), (named,)),)))
        cluster.processes[C] = Process(store, VirtualClock())
        await cluster.start("c")
        assert {member.node: member.store for member in members_at(cluster, "c")}[C] == "s-c"

    with_a_lost_store(test)


@pytest.mark.parametrize("role", [ReplicaRole.LEARNER, ReplicaRole.WITNESS])
def test_a_leader_that_is_out_of_date_does_not_stop_a_node_that_joins_anew(role: ReplicaRole) -> None:
    """It tells the former store of a commit index that the new one cannot have."""

    async def test(cluster: HostCluster) -> None:
        host, _ = await fresh(cluster)
        joins = replace(LEARNER, role=role)
        await host.add_replica(GROUP, replace(with_learner(cluster), members=(*members(cluster), joins)))
        late = Heartbeat(Term(1), LogIndex(5), 0, LogIndex(0))
        cluster.deliver(C, Envelope(NodeId("b"), StoreId("s-b"), Incarnation(1), (GroupMessage(GROUP, late),)))
        await asyncio.sleep(1)
        await change(cluster, joins)
        await cluster.until(lambda: status_of(cluster, "c").last == status_of(cluster, "a").last)

    with_a_lost_store(test)


@pytest.mark.parametrize("truncates", [False, True], ids=["fed from the start", "fed by an install"])
def test_a_node_that_held_state_joins_as_a_witness_whatever_the_log_says_of_its_former_store(truncates: bool) -> None:
    """On its way it learns that its node is a full voter, which with the store that it has now it never was."""

    async def test(cluster: HostCluster) -> None:
        host, _ = await fresh(cluster)
        joins = replace(LEARNER, role=ReplicaRole.WITNESS)
        await host.add_replica(GROUP, replace(with_learner(cluster), members=(*members(cluster), joins)))
        await change(cluster, joins)
        await asyncio.sleep(3)
        assert caught_up(cluster)
        assert status_of(cluster, "c").role is ReplicaRole.WITNESS

    kept = {"truncate_entries_min": 1, "keep_entries": 0} if truncates else {}
    with_a_lost_store(test, append_bytes_max=1, **kept)


@pytest.mark.parametrize("truncated", [0, 1], ids=["from the start", "after a snapshot"])
def test_a_learner_whose_former_store_was_a_witness_keeps_its_state_over_a_restart(truncated: int) -> None:
    witness = Configuration((Member(C, StoreId("first"), ReplicaRole.WITNESS),))
    stored = replace(
        empty_group(witness if truncated else Configuration((LEARNER,))),
        truncated_index=LogIndex(truncated),
        last_index=LogIndex(1),
        applied=LogIndex(1),
        configurations=() if truncated else (LoggedConfiguration(LogIndex(1), witness),),
    )
    assert keeps_state(stored, C)


def test_a_disk_that_fails_while_a_node_joins_ends_the_node() -> None:
    async def test(cluster: HostCluster) -> None:
        host, store = await fresh(cluster)
        store.fail_next()
        with pytest.raises(StorageError):
            await host.add_replica(GROUP, with_learner(cluster))
        with pytest.raises(StorageError):
            await host.closed()
        cluster.processes[C].host = None

    with_a_lost_store(test)


def test_of_two_that_make_a_replica_at_once_one_is_refused() -> None:
    async def test(cluster: HostCluster) -> None:
        host, store = await fresh(cluster)
        create, synced = store.create_group, asyncio.Event()

        async def slowly(group: GroupId, configuration: Configuration) -> None:
            await synced.wait()
            await create(group, configuration)

        store.create_group = slowly  # type: ignore[method-assign]
        first = asyncio.ensure_future(host.add_replica(GROUP, with_learner(cluster)))
        await asyncio.sleep(0)
        with pytest.raises(Unavailable, match="is being made already"):
            await host.add_replica(GROUP, with_learner(cluster))
        synced.set()
        await first
        await host.add_replica(GROUP, with_learner(cluster))

    with_a_lost_store(test)


@pytest.mark.parametrize("joins", ["elsewhere", "anew"])
def test_a_removed_replica_shuts_out_no_node_that_has_another_store_since(joins: str) -> None:
    """It hears of no change any more, so it goes on naming the store that the node had when it was removed."""

    async def main() -> None:
        cluster = HostCluster(dict.fromkeys("abcd", ReplicaRole.FULL), more_groups=1)
        leaves, stays = cluster.groups
        await cluster.start_all()
        await asyncio.sleep(5)
        await change(cluster, remove=(NodeId("b"),), group=leaves)
        await asyncio.sleep(5)
        await cluster.crash("c")
        store = MemoryStore(StoreIdentity(CLUSTER, C, LEARNER.store, Incarnation(first_incarnation(1) + 1)), {})
        cluster.processes[C] = Process(store, VirtualClock())
        await cluster.start("c")
        for group in cluster.groups:
            await change(cluster, remove=(C,), group=group)
        for group in cluster.groups:
            named = host_of(cluster, "a").replicas[group].core.configuration
            await host_of(cluster, "c").add_replica(group, replace(named, members=(*named.members, LEARNER)))
            await change(cluster, LEARNER, group=group)
        await asyncio.sleep(5)
        led_by_c = stays if joins == "elsewhere" else leaves
        await change(cluster, replace(LEARNER, role=ReplicaRole.FULL), group=led_by_c)
        host_of(cluster, "a").administration.transfer_leadership(led_by_c, C, lambda _: None)
        await asyncio.sleep(2)
        if joins == "anew":
            again = Member(NodeId("b"), StoreId("s-b"), ReplicaRole.LEARNER)
            await change(cluster, again, group=leaves, by="c")
        await asyncio.sleep(5)
        statuses = [host_of(cluster, name).replicas[led_by_c].status() for name in "bc"]
        assert [status.leader for status in statuses] == ["c", "c"]
        assert statuses[0].commit == statuses[1].commit
        await cluster.stop_all()

    run_virtual(main())


def test_a_voter_that_was_away_hears_the_node_that_leads_with_another_store_since() -> None:
    """It knows the old store only, and from nobody but this leader can it learn of the new one."""

    async def main() -> None:
        cluster = HostCluster(dict.fromkeys("abcde", ReplicaRole.FULL))
        await cluster.start_all()
        await asyncio.sleep(5)
        cluster.isolate("b")
        await cluster.crash("c")
        later = replace(LEARNER, store=store_id("second", 1))
        store = MemoryStore(StoreIdentity(CLUSTER, C, later.store, Incarnation(first_incarnation(1) + 1)), {})
        cluster.processes[C] = Process(store, VirtualClock())
        await cluster.start("c")
        await change(cluster, remove=(C,))
        named = host_of(cluster, "a").replicas[GROUP].core.configuration
        await host_of(cluster, "c").add_replica(GROUP, replace(named, members=(*named.members, later)))
        await change(cluster, later)
        await asyncio.sleep(5)
        await change(cluster, replace(later, role=ReplicaRole.FULL))
        host_of(cluster, "a").administration.transfer_leadership(GROUP, C, lambda _: None)
        await cluster.until(lambda: cluster.leader() == "c")
        cluster.heal()
        await cluster.until(lambda: status_of(cluster, "b").last == status_of(cluster, "c").last)
        assert {member.node: member.store for member in members_at(cluster, "b")}[C] == later.store
        assert cluster.leader() == "c", "nobody else told it"
        await cluster.stop_all()

    run_virtual(main())


@pytest.mark.parametrize(("store", "heard"), [("third.2", True), ("first", False), ("other.1", False)])
def test_of_stores_that_are_no_member_only_later_ones_are_heard(store: str, heard: bool) -> None:
    """And those only with requests: nobody asked them anything."""
    counters: Counter[str] = Counter()
    intake = Intake(NodeId("a"), {C: Incarnation(7)}, VirtualClock(), HybridLogicalClock(0), counters)
    own, peer = (Member(NodeId(name), StoreId(f"{name}.1"), ReplicaRole.FULL) for name in "ac")
    intake.set_members(GROUP, {own.node: own, peer.node: peer})
    request = VoteRequest(Term(9), LogIndex(1), Term(1), pre=True, transfer=False)
    for message in (request, HeartbeatResponse(Term(9), 1)):
        intake.receive(Envelope(C, StoreId(store), Incarnation(7), (GroupMessage(GROUP, message),)))
    assert [item for _, item in intake.take()] == ([GroupMessage(GROUP, request)] if heard else [])
    assert counters["messages_of_strangers"] == (1 if heard else 2)


def test_where_groups_differ_the_latest_store_of_a_node_counts() -> None:
    intake = Intake(NodeId("a"), {}, VirtualClock(), HybridLogicalClock(0), Counter())
    own = Member(NodeId("a"), StoreId("a"), ReplicaRole.FULL)
    for group, store in (("g", "c"), ("h", "c.2"), ("i", "c.1")):
        peer = Member(C, StoreId(store), ReplicaRole.FULL)
        intake.set_members(GroupId(group), {own.node: own, C: peer})
    assert intake.stores[C] == "c.2"
