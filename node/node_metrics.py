"""The metrics of one node, put together: what counts, what reads it, and the endpoint that serves it."""

from collections.abc import Callable, Iterator, Mapping
from typing import final

from isochrone.clocks.interval import Interval
from isochrone.errors import ClockUnsynchronized
from isochrone.node import metric_catalogue as metrics
from isochrone.node.config import NodeConfig
from isochrone.node.metric_readings import (
    Reading,
    budget_readings,
    error_readings,
    node_readings,
    predicted_readings,
    replica_readings,
)
from isochrone.node.metrics_os import MetricsEndpoint
from isochrone.node.vitals import Vitals
from isochrone.ports import Clock
from isochrone.regions.host import Host
from isochrone.regions.storage.store_lmdb import LmdbStore
from isochrone.topology import Topology
from isochrone.wire.budget import Budget


@final
class NodeMetrics:
    """See the module. `start` it when the host runs."""

    def __init__(
        self,
        config: NodeConfig,
        topology: Topology,
        host: Host,
        store: LmdbStore,
        clock: Clock,
        refusals: Mapping[str, Mapping[str, int]],
        budget: Budget,
        events: Callable[[], Mapping[str, int]],
    ) -> None:
        """Put together what counts.

        Args:
            config: of the node.
            topology: of the cluster.
            host: of the node.
            store: of the node.
            clock: of the node.
            refusals: errors by interface and class.
            budget: what clients make the node keep.
            events: what else the node counts.
        """
        self._groups = {group.id: group for group in topology.groups}
        self._topology = topology
        self._host = host
        self._store = store
        self._clock = clock
        self._refusals = refusals
        self._budget = budget
        self._events = events
        self._vitals = Vitals(host.replicas, config.lock_warning_s)
        self.common = {"node": str(config.node), "region": str(config.region)}
        """Labels of every metric."""
        address = config.metrics_address
        self._endpoint = None if address is None else MetricsEndpoint(address, self.read, self.common)

    async def start(self) -> None:
        """Begin. Raises `Unavailable` if the endpoint's address cannot be listened on."""
        self._vitals.begin()
        if self._endpoint is not None:
            await self._endpoint.start()

    async def stop(self) -> None:
        """End. Idempotent."""
        self._vitals.end()
        if self._endpoint is not None:
            await self._endpoint.stop()

    def read(self) -> Iterator[Reading]:
        """All metrics of the node now."""
        for group, replica in self._host.replicas.items():
            yield from replica_readings(replica)
            if replica.leader == replica.core.node:
                yield from predicted_readings(self._topology, self._groups[group], replica.leader)
            yield Reading(metrics.HELD_TOO_LONG, (group,), self._vitals.held_too_long_now(group))
            yield Reading(metrics.HELD_TOO_LONG_TOTAL, (group,), self._vitals.held_too_long[group])
        yield from error_readings(self._refusals)
        yield from budget_readings(self._budget)
        store = self._store
        yield from node_readings(
            store.size_bytes, store.size_bytes_max, store.commit_ns, self._vitals.loop_lag_ns, self._now()
        )
        for event, count in sorted(self._events().items()):
            yield Reading(metrics.NODE_EVENTS, (event,), count)

    def _now(self) -> Interval | None:
        try:
            return self._clock.now()
        except ClockUnsynchronized:
            return None
