"""Groups that sleep on production hosts: silence when idle, failover as fast as ever, no fault that sleeps through."""

import asyncio
import random
from collections.abc import Awaitable, Callable

import pytest
from host_cluster import GROUP, HostCluster
from virtual_time import run_virtual

from isochrone.ids import GroupId, Incarnation, LogIndex, Nanos, NodeId, ReplicaRole, StoreId
from isochrone.regions.host import Host
from isochrone.regions.node_heartbeats import NodeHeartbeats
from isochrone.wire.messages import Envelope, GroupMessage, Heartbeat, NodeHeartbeat, PeerMessage, Quiesce

FULL, WITNESS, LEARNER = ReplicaRole.FULL, ReplicaRole.WITNESS, ReplicaRole.LEARNER
THREE = {"a": FULL, "b": FULL, "c": FULL}
WITNESSED = {"a": FULL, "b": FULL, "w": WITNESS}
COPIED = THREE | {"l": LEARNER}
T_S, LONGEST_TIMEOUT_S, BEAT_S, ROUND_TRIP_S = 1.0, 1.5, 0.1, 0.02


def in_cluster(
    test: Callable[[HostCluster], Awaitable[None]],
    roles: dict[str, ReplicaRole] = THREE,
    seed: int = 1,
    more_groups: int = 0,
) -> None:
    """Run a test on a cluster whose groups all sleep."""

    async def main() -> None:
        cluster = HostCluster(roles, seed, more_groups=more_groups)
        await cluster.start_all()
        await cluster.until(lambda: all_asleep(cluster))
        await test(cluster)
        await cluster.stop_all()

    run_virtual(main())


def host(cluster: HostCluster, name: str) -> Host:
    """The live host of a node."""
    found = cluster.processes[NodeId(name)].host
    assert found is not None
    return found


def asleep(cluster: HostCluster, name: str, group: GroupId = GROUP) -> bool:
    """Whether a replica sleeps."""
    return host(cluster, name).replicas[group].core.quiescent


def all_asleep(cluster: HostCluster) -> bool:
    """Whether every replica sleeps."""
    return all(asleep(cluster, name, group) for name in cluster.processes for group in cluster.groups)


def all_led_by_others(cluster: HostCluster, name: str) -> bool:
    """Whether every group has a leader, and none of them is `name`."""
    return all(cluster.leader(group) not in {None, name} for group in cluster.groups)


def cut(cluster: HostCluster, *pairs: str) -> None:
    """Cut directed links, each written as two letters."""
    cluster.cut |= {(pair[0], pair[1]) for pair in pairs}


async def seconds_until(cluster: HostCluster, condition: Callable[[], bool]) -> float:
    """How long it takes until the condition holds."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    await cluster.until(condition)
    return loop.time() - began


@pytest.mark.parametrize("roles", [THREE, WITNESSED], ids=["three full", "with a witness"])
def test_idle_groups_cost_one_message_per_peer_and_interval(roles: dict[str, ReplicaRole]) -> None:
    async def test(cluster: HostCluster) -> None:
        await asyncio.sleep(1)
        cluster.sent.clear()
        await asyncio.sleep(60)
        assert all_asleep(cluster)
        last = list(roles)[-1]
        assert cluster.sent == {("a", NodeHeartbeat): 1_200, ("b", NodeHeartbeat): 600, (last, NodeHeartbeat): 600}

    in_cluster(test, roles, more_groups=20)


@pytest.mark.parametrize("seed", range(3))
def test_fifty_sleeping_groups_whose_leader_dies_elect_within_the_usual_bound(seed: int) -> None:
    async def test(cluster: HostCluster) -> None:
        await asyncio.sleep(cluster.rng.uniform(1, 2))
        await cluster.crash("a")
        took_s = await seconds_until(cluster, lambda: all_led_by_others(cluster, "a"))
        # Two rounds of votes after the longest timeout since the last word; and once more where two campaigned at once.
        assert took_s <= LONGEST_TIMEOUT_S + LONGEST_TIMEOUT_S + 4 * ROUND_TRIP_S
        assert took_s >= T_S - BEAT_S - ROUND_TRIP_S, "a live leader was not given time"

    in_cluster(test, seed=seed, more_groups=49)


def test_failover_from_sleep_is_as_fast_as_failover_awake() -> None:
    async def fail_over(seed: int, *, awake: bool) -> float:
        cluster = HostCluster(THREE, seed)
        if awake:
            cluster.quiesce_after_ns = None
        await cluster.start_all()
        await asyncio.sleep(cluster.rng.uniform(3, 4))
        assert all_asleep(cluster) is not awake
        await cluster.crash("a")
        took_s = await seconds_until(cluster, lambda: all_led_by_others(cluster, "a"))
        await cluster.stop_all()
        return took_s

    def mean_s(*, awake: bool) -> float:
        return sum(run_virtual(fail_over(seed, awake=awake)) for seed in range(30)) / 30

    assert mean_s(awake=False) <= mean_s(awake=True) + BEAT_S


def test_a_write_wakes_the_group_and_is_as_fast_as_ever() -> None:
    async def test(cluster: HostCluster) -> None:
        client = await cluster.client()
        await client.put("k/x", "1")
        for _ in range(3):
            await cluster.until(lambda: all_asleep(cluster))
            await asyncio.sleep(10)
            loop = asyncio.get_running_loop()
            began = loop.time()
            assert (await client.put("k/x", "2")).succeeded
            assert (await client.get("k/x")).value is not None
            assert loop.time() - began <= 4 * ROUND_TRIP_S + 0.001
            assert not any(asleep(cluster, name) for name in "abc")

    in_cluster(test)


def test_a_write_in_one_group_wakes_no_other() -> None:
    async def test(cluster: HostCluster) -> None:
        client = await cluster.client()
        await client.put("k/x", "1")
        await asyncio.sleep(0.5)
        assert not asleep(cluster, "a")
        assert all(asleep(cluster, name, group) for name in "abc" for group in cluster.groups[1:])

    in_cluster(test, more_groups=3)


def test_a_lost_word_to_sleep_is_noticed_at_the_next_heartbeat() -> None:
    """Else the follower that did not get it would campaign."""

    async def test(cluster: HostCluster) -> None:
        lost = []

        def lose(_source: str, target: str, message: PeerMessage) -> bool:
            lose_it = target == "c" and isinstance(message, GroupMessage) and isinstance(message.message, Quiesce)
            lost.extend([message] * (lose_it and len(lost) < 3))
            return lose_it and len(lost) < 3

        cluster.lose = lose
        client = await cluster.client()
        await client.put("k/x", "1")
        await cluster.until(lambda: len(lost) == 1)
        assert asleep(cluster, "a")
        await asyncio.sleep(BEAT_S + ROUND_TRIP_S)
        assert not asleep(cluster, "a")
        await cluster.until(lambda: len(lost) == 2)
        await cluster.until(lambda: all_asleep(cluster), 10)
        assert [host(cluster, name).counters["raft_became_pre_candidate"] for name in "bc"] == [0, 0]
        assert host(cluster, "a").replicas[GROUP].core.term == 1

    in_cluster(test)


def test_a_follower_that_misses_the_end_of_the_sleep_wakes_with_the_next_heartbeat() -> None:
    async def test(cluster: HostCluster) -> None:
        cluster.lose = lambda _source, target, message: target == "c" and isinstance(message, GroupMessage)
        client = await cluster.client()
        await client.put("k/x", "1")
        await cluster.until(lambda: not asleep(cluster, "c"), T_S)

    in_cluster(test, more_groups=2)


@pytest.mark.parametrize("direction", ["to the leader", "from the leader"])
def test_a_one_way_cut_between_leader_and_follower_disturbs_nobody_else(direction: str) -> None:
    async def test(cluster: HostCluster) -> None:
        cut(cluster, "ca" if direction == "to the leader" else "ac")
        await asyncio.sleep(2)
        assert not asleep(cluster, "a"), "its leader cannot know that c lives"
        await asyncio.sleep(10)
        assert (cluster.leader(), host(cluster, "a").replicas[GROUP].core.term) == ("a", 1)
        cluster.heal()
        await cluster.until(lambda: all_asleep(cluster))

    in_cluster(test)


def test_a_leader_that_cannot_be_heard_loses_its_sleeping_groups() -> None:
    async def test(cluster: HostCluster) -> None:
        cut(cluster, "ab", "ac")
        assert await seconds_until(cluster, lambda: all_led_by_others(cluster, "a")) <= 2 * LONGEST_TIMEOUT_S
        cluster.heal()
        await cluster.until(lambda: all_asleep(cluster))

    in_cluster(test, more_groups=4)


def test_a_leader_that_cannot_hear_steps_down_and_its_followers_wake() -> None:
    async def test(cluster: HostCluster) -> None:
        cut(cluster, "ba", "ca")
        await asyncio.sleep(T_S + BEAT_S)
        for group in cluster.groups:
            assert not host(cluster, "a").replicas[group].core.status().match, "it heard no quorum for a timeout"
        assert await seconds_until(cluster, lambda: all_led_by_others(cluster, "a")) <= 2 * LONGEST_TIMEOUT_S

    in_cluster(test, more_groups=4)


@pytest.mark.parametrize("away_s", [0.0, 0.05, 0.5, 0.9])
@pytest.mark.parametrize("name", ["a", "c"])
def test_a_process_that_restarts_within_a_timeout_finds_the_groups_awake(name: str, away_s: float) -> None:
    async def test(cluster: HostCluster) -> None:
        await cluster.crash(name)
        await asyncio.sleep(away_s)
        await cluster.start(name)
        took_s = await seconds_until(cluster, lambda: all(cluster.leader(group) for group in cluster.groups))
        assert took_s <= 2 * LONGEST_TIMEOUT_S + T_S
        await cluster.until(lambda: all_asleep(cluster))
        term = host(cluster, "b").replicas[GROUP].core.term
        assert term == 1 or name == "a", "a follower's restart deposes nobody"

    in_cluster(test, more_groups=4)


def test_a_new_process_wakes_its_groups_with_its_first_word() -> None:
    """Before any silence or digest could tell: here nothing else of it arrives."""

    async def test(cluster: HostCluster) -> None:
        word = NodeHeartbeat(*_digest_of(cluster, "a", "b"), mismatch=False)
        cluster.isolate("a")
        await asyncio.sleep(0.2)
        assert asleep(cluster, "b")
        cluster.deliver(NodeId("b"), Envelope(NodeId("a"), StoreId("s-a"), Incarnation(2), (word,)))
        await asyncio.sleep(0.01)
        assert not asleep(cluster, "b")

    in_cluster(test, more_groups=2)


def _digest_of(cluster: HostCluster, leader: str, member: str) -> tuple[int, int]:
    """The digest that a leader's node sends a member's now."""
    heartbeats = NodeHeartbeats(NodeId(leader))
    for group in cluster.groups:
        heartbeats.note(group, host(cluster, leader).replicas[group].core.slumber, Nanos(0))
    beat = dict(heartbeats.due(Nanos(0)))[NodeId(member)]
    return beat.count, beat.checksum


def test_a_word_and_the_digest_that_reflects_it_may_come_in_one_turn() -> None:
    async def test(cluster: HostCluster) -> None:
        core = host(cluster, "a").replicas[GROUP].core
        status = core.status()
        digest = NodeHeartbeat(*_digest_of(cluster, "a", "b"), mismatch=False)
        heartbeat = GroupMessage(GROUP, Heartbeat(status.term, status.commit, 0, LogIndex(0)))
        quiesce = GroupMessage(GROUP, Quiesce(status.term, status.last))
        # Between two of the heartbeats that a sends by itself.
        await asyncio.sleep(1.05 * BEAT_S - asyncio.get_running_loop().time() % BEAT_S + 2 * ROUND_TRIP_S)
        for words in ((heartbeat,), (quiesce, digest)):
            assert asleep(cluster, "b") is (words == (heartbeat,))
            cluster.deliver(NodeId("b"), Envelope(NodeId("a"), StoreId("s-a"), Incarnation(1), words))
            await asyncio.sleep(0.001)
        await asyncio.sleep(2 * ROUND_TRIP_S)
        assert asleep(cluster, "b")
        assert asleep(cluster, "a"), "b told a of a mismatch"

    in_cluster(test)


@pytest.mark.parametrize("frozen_s", [0.5, 3.0, 30.0])
@pytest.mark.parametrize("name", ["a", "c"])
def test_a_paused_process_finds_its_place_again(name: str, frozen_s: float) -> None:
    async def test(cluster: HostCluster) -> None:
        cluster.freeze(name)
        await asyncio.sleep(frozen_s)
        cluster.thaw(name)
        client = await cluster.client()
        assert (await client.put("k/x", "1", timeout_s=10)).succeeded
        await cluster.until(lambda: all_asleep(cluster))

    in_cluster(test, more_groups=4)


def test_a_leader_cut_off_in_its_sleep_answers_no_read_and_loses_its_office() -> None:
    async def test(cluster: HostCluster) -> None:
        client = await cluster.client()
        await client.put("k/x", "old")
        await cluster.until(lambda: all_asleep(cluster))
        cluster.isolate("a", "client-0")
        await asyncio.sleep(0.9)
        stale = asyncio.ensure_future(client.get("k/x", timeout_s=5.0))
        await asyncio.sleep(0.2 + BEAT_S)
        assert not host(cluster, "a").replicas[GROUP].core.status().match, "work gave it no new timeout"
        with pytest.raises(Exception):  # noqa: B017  Which refusal it is depends on what the client tries last.
            await stale

    in_cluster(test)


def applied(cluster: HostCluster, name: str) -> LogIndex:
    """How far a replica of the first group has applied its log."""
    return host(cluster, name).replicas[GROUP].core.applied_index


@pytest.mark.parametrize("how", ["crash", "cut", "cut to it", "cut from it", "freeze"])
def test_a_learner_that_is_away_costs_one_message_per_interval_and_is_fed_when_it_returns(how: str) -> None:
    async def test(cluster: HostCluster) -> None:
        client = await cluster.client()
        match how:
            case "crash":
                await cluster.crash("l")
            case "freeze":
                cluster.freeze("l")
            case _:
                cut(cluster, *{"cut": ("al", "la"), "cut to it": ("al",), "cut from it": ("la",)}[how])
        if how != "cut from it":  # There it lacks nothing, and could sleep too, but its leader must hear that first.
            assert (await client.put("k/x", "1")).succeeded
        await asyncio.sleep(5 + BEAT_S / 2 - asyncio.get_running_loop().time() % BEAT_S)
        cluster.sent.clear()
        await asyncio.sleep(60)
        assert all(asleep(cluster, name, group) for name in "abc" for group in cluster.groups)
        sent = {name: count for (name, kind), count in cluster.sent.items() if kind is NodeHeartbeat and name in "abc"}
        assert sent == {"a": 1_800, "b": 600, "c": 600}
        assert sum(cluster.sent.values()) - sum(sent.values()) <= 600, "and perhaps what the learner's node answers"
        if how == "crash":
            await cluster.start("l")
        elif how == "freeze":
            cluster.thaw("l")
        cluster.heal()
        await cluster.until(lambda: applied(cluster, "l") == applied(cluster, "a"), 1)
        await cluster.until(lambda: all_asleep(cluster), 5)
        slumbers = [host(cluster, "a").replicas[group].core.slumber for group in cluster.groups]
        assert {slumber.absent for slumber in slumbers if slumber} == {()}, "the leader knows that it is back"

    in_cluster(test, COPIED, more_groups=3)


def test_a_change_of_members_wakes_the_group_and_who_stays_sleeps_again() -> None:
    async def test(cluster: HostCluster) -> None:
        done = asyncio.get_running_loop().create_future()
        host(cluster, "a").administration.change_membership(GROUP, remove=[NodeId("c")], done=done.set_result)
        assert (await done).error is None
        await cluster.until(lambda: asleep(cluster, "a") and asleep(cluster, "b"))
        cluster.sent.clear()
        await asyncio.sleep(30)
        assert asleep(cluster, "a")
        assert cluster.sent == {("a", NodeHeartbeat): 300, ("b", NodeHeartbeat): 300}

    in_cluster(test)


@pytest.mark.parametrize("roles", [THREE, WITNESSED, COPIED], ids=["three full", "with a witness", "with a learner"])
@pytest.mark.parametrize("seed", range(10))
def test_after_random_faults_every_group_is_led_and_sleeps(roles: dict[str, ReplicaRole], seed: int) -> None:
    print(f"seed {seed}")
    rng = random.Random(f"sleep/{seed}/{len(roles)}")

    async def test(cluster: HostCluster) -> None:
        for _ in range(25):
            await asyncio.sleep(rng.choice([0.05, 0.5, 1.2, 4.0]))
            _fault(cluster, rng)
            name = rng.choice(list(cluster.processes))
            match rng.randrange(5):
                case 0 if cluster.processes[NodeId(name)].host is not None:
                    await cluster.crash(name)
                case 1 | 2:
                    for each, process in cluster.processes.items():
                        if process.host is None:
                            await cluster.start(each)
        cluster.heal()
        cluster.lose = lambda _source, _target, _message: False
        for name, process in cluster.processes.items():
            cluster.thaw(name)
            if process.host is None:
                await cluster.start(name)
        await cluster.until(lambda: all(cluster.leader(group) for group in cluster.groups), 20)
        await cluster.until(lambda: all_asleep(cluster), 20)

    in_cluster(test, roles, seed, more_groups=5)


def _fault(cluster: HostCluster, rng: random.Random) -> None:
    a, b = rng.sample(list(cluster.processes), 2)
    match rng.randrange(7):
        case 0:
            cut(cluster, a + b)
        case 1:
            cluster.isolate(a)
        case 2:
            cluster.loss = rng.choice([0.1, 0.5])
        case 3:
            cluster.freeze(a) if rng.random() < 0.5 else cluster.thaw(a)
        case 4:
            kind = rng.choice([Quiesce, Heartbeat, NodeHeartbeat])
            cluster.lose = lambda _source, _target, message: isinstance(getattr(message, "message", message), kind)
        case _:
            cluster.heal()
            cluster.lose = lambda _source, _target, _message: False
