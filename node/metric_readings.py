"""What the metrics of a node are now, read from what its parts have counted.

Reading costs nothing on the ways of requests: nobody but whoever asks for metrics pays for them.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from isochrone.clocks.interval import Interval
from isochrone.histograms import Histogram
from isochrone.ids import NS_PER_S, NodeId, ReplicaRole
from isochrone.node import metric_catalogue as metrics
from isochrone.node.metric_catalogue import Metric
from isochrone.regions.measures import GroupMeasures
from isochrone.regions.raft.ready import EventName
from isochrone.regions.replica import Replica
from isochrone.regions.state.model import Happening
from isochrone.topology import Group, Topology
from isochrone.topology.predict import predicted_commit_ms
from isochrone.wire.budget import Budget
from isochrone.wire.locks import LockEnd


@dataclass(frozen=True, slots=True)
class Reading:
    """One value of a metric, for some values of its labels, in their order."""

    metric: Metric
    labels: tuple[str, ...]
    value: float | Histogram


def replica_readings(replica: Replica) -> Iterator[Reading]:
    """Of one replica."""
    status = replica.core.status()
    counted = replica.measures
    values: list[tuple[Metric, float | Histogram]] = [
        (metrics.IS_LEADER, int(replica.leader == replica.core.node)),
        (metrics.HAS_LEADER, int(replica.known_leader() is not None)),
        (metrics.TERM, status.term),
        (metrics.COMMIT_INDEX, status.commit),
        (metrics.APPLIED_INDEX, status.applied),
        (metrics.LOG_BYTES, status.retained_bytes),
        (metrics.ELECTIONS, counted.events[EventName.BECAME_CANDIDATE]),
        (metrics.ELECTIONS_WON, counted.events[EventName.BECAME_LEADER]),
        (metrics.ELECTION_SECONDS, counted.election_ns),
        (metrics.LEADER_CHANGES, counted.events[EventName.LEADER_CHANGED]),
    ]
    group = (replica.group,)
    yield from (Reading(metric, group, value) for metric, value in values)
    if replica.machine is not None:
        yield from _state_readings(replica, counted)


def _state_readings(replica: Replica, counted: GroupMeasures) -> Iterator[Reading]:
    """Of a replica that keeps state."""
    data, hub = replica.service.machine.data, replica.service.watch_hub
    values: list[tuple[Metric, float | Histogram]] = [
        (metrics.COMMIT_SECONDS, counted.commit_ns),
        (metrics.COMMANDS, counted.commands),
        (metrics.QUEUED_COMMANDS, replica.queued_commands),
        (metrics.QUEUED_BYTES, replica.queued_bytes),
        (metrics.LOCKS, len(data.locks.locks)),
        (metrics.TOKEN_REJECTIONS, counted.happened[Happening.TOKEN_REFUSED]),
        (metrics.SESSIONS, sum(len(state.sessions) for state in data.keyspaces.values())),
        (metrics.SESSION_EXPIRIES, counted.happened[Happening.SESSION_EXPIRED]),
        (metrics.RETRIES, counted.happened[Happening.COMMAND_REPEATED]),
        (metrics.LEASES, len(data.leases)),
        (metrics.LEASE_EXPIRIES, counted.happened[Happening.LEASE_EXPIRED]),
        (metrics.WATCHERS, len(hub)),
        (metrics.WATCHERS_BEHIND, hub.behind),
        (metrics.WATCH_EVENTS, hub.events_told),
        (metrics.WATCH_LAG, hub.lag_ns),
        (metrics.REVISION, data.revision),
        (metrics.READS, replica.reads.asked),
    ]
    group = replica.group
    yield from (Reading(metric, (group,), value) for metric, value in values)
    yield Reading(metrics.LOCK_ACQUISITION, (group, "no"), counted.acquired_at_once_ns)
    yield Reading(metrics.LOCK_ACQUISITION, (group, "yes"), counted.acquired_after_wait_ns)
    for end in LockEnd:
        if end is not LockEnd.WAITING:
            yield Reading(metrics.LOCK_WAITS, (group, end.name.lower()), counted.waits_ended[end])


def predicted_readings(topology: Topology, group: Group, leader: NodeId) -> Iterator[Reading]:
    """What a free lock takes by the topology while `leader` leads: one commit, seen from each region.

    Nothing where the topology did not foresee that leader.
    """
    foreseen = any(voter.node == leader and voter.role is ReplicaRole.FULL for voter in group.voters())
    for client in topology.regions if foreseen else ():
        seconds = predicted_commit_ms(topology, group, client.zones[0], leader) / 1000
        yield Reading(metrics.LOCK_PREDICTED, (group.id, client.id), seconds)


def error_readings(refusals: Mapping[str, Mapping[str, int]]) -> Iterator[Reading]:
    """Of errors by the interface at which they were told, and by class."""
    for api, counts in refusals.items():
        for error, count in sorted(counts.items()):
            yield Reading(metrics.ERRORS, (api, error), count)


def budget_readings(budget: Budget) -> Iterator[Reading]:
    """Of what the node keeps for its clients."""
    yield Reading(metrics.KEPT, (), budget.kept_bytes)
    yield Reading(metrics.KEPT_LIMIT, (), budget.bytes_max)
    yield Reading(metrics.CUT_OFF, (), budget.cut_off)


def node_readings(
    size_bytes: int, size_bytes_max: int, commit_ns: Histogram, loop_lag_ns: Histogram, now: Interval | None
) -> Iterable[Reading]:
    """Of the node as a whole. `now` is None while the clock knows no bound."""
    uncertainty_s = math.inf if now is None else (now.latest - now.earliest) / 2 / NS_PER_S
    return (
        Reading(metrics.LOOP_LAG, (), loop_lag_ns),
        Reading(metrics.STORE_SIZE, (), size_bytes),
        Reading(metrics.STORE_LIMIT, (), size_bytes_max),
        Reading(metrics.STORE_COMMIT, (), commit_ns),
        Reading(metrics.CLOCK_UNCERTAINTY, (), uncertainty_s),
    )
