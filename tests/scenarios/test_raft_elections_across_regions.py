"""Elections after the loss of a region, with the delays and timers of three AWS regions (`three-regions.yaml`).

Of five voters three are left, and every one of their votes is needed, so two candidates at once elect nobody.
"""

import pytest
from raft_cluster import MS, Cluster

from isochrone.regions.raft.ready import EventName

HEARTBEAT_MS, ELECTION_MS = 209, 1045
ONE_WAY_MS = {("us", "eu"): 35, ("us", "ap"): 75, ("eu", "ap"): 101}


def _delay_ms(source: str, target: str) -> float:
    a, b = source[:2], target[:2]
    return 0.5 if a == b else ONE_WAY_MS.get((a, b)) or ONE_WAY_MS[b, a]


def _cluster(seed: int) -> Cluster:
    return Cluster(
        ["us1", "us2", "eu1", "eu2", "ap1"],
        seed,
        delay_ms=_delay_ms,
        heartbeat_ms=HEARTBEAT_MS,
        election_ms=ELECTION_MS,
    )


def _writable_ms(cluster: Cluster, lost: list[str]) -> float:
    """Cut `lost` off; how long until a leader elsewhere has committed in its own term."""
    cut_at = cluster.now
    cluster.isolate(*lost)

    def writable() -> bool:
        statuses = [cluster.status(name) for name in cluster.replicas if name not in lost]
        return any(status.match and status.commit == status.last for status in statuses)

    assert cluster.run_until(writable, 60_000)
    return (cluster.now - cut_at) / MS


@pytest.mark.parametrize("leader", ["us1", "eu1", "ap1"])
def test_a_region_survivor_is_writable_within_three_election_timeouts(leader: str) -> None:
    took_ms = []
    for seed in range(60):
        cluster = _cluster(seed)
        cluster.elect(leader)
        cluster.run(2_000 + 7 * seed)
        took_ms.append(_writable_ms(cluster, [name for name in cluster.replicas if name[:2] == leader[:2]]))
    print(f"lost {leader[:2]}: median {sorted(took_ms)[30]:.0f} ms, worst {max(took_ms):.0f} ms")
    assert max(took_ms) <= 3 * 1.5 * ELECTION_MS


def test_of_two_pre_candidates_the_later_member_gives_way() -> None:
    cluster = _cluster(1)
    for name in ("eu1", "ap1"):
        cluster.force_campaign(name)
    assert cluster.run_until(lambda: cluster.leader() is not None, 1_000)
    assert cluster.leader() == "eu1"
    assert cluster.status("eu1").term == 1, "nobody had to try twice"
    gave_way = [name for name in cluster.replicas if cluster.events_of(name).count(EventName.GAVE_WAY)]
    assert gave_way == ["ap1"]


def test_a_pre_candidate_that_cannot_win_is_given_way_to_once_only() -> None:
    cluster = _cluster(3)
    # eu1 is heard by ap1 only, and hears nobody: it asks for votes for ever and gets none.
    others = [name for name in cluster.replicas if name != "eu1"]
    cluster.cut |= {(name, "eu1") for name in others} | {("eu1", name) for name in others if name != "ap1"}
    # Of the others only ap1 is left to campaign: a leader needs it, and two voters that are up to date.
    for name in ("us1", "us2"):
        cluster.crash(name)
    for name in ("eu1", "ap1"):
        cluster.force_campaign(name)
    cluster.run(2 * ELECTION_MS)
    assert cluster.events_of("ap1").count(EventName.GAVE_WAY) == 1
    for name in ("us1", "us2"):
        cluster.start(name)
    assert cluster.run_until(lambda: cluster.leader() is not None, 3 * 1.5 * ELECTION_MS)
    assert cluster.leader() != "eu1"
    assert cluster.events_of("ap1").count(EventName.GAVE_WAY) == 1
