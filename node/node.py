"""One node: store, clock, links, transport, host and server, put together and taken apart.

The order of the start: the data directory is locked and its store checked first, so a second process, a foreign
or a missing store is found before anything else; the server listens last, so whoever reaches a node meets one
that can answer. The order of the end is the reverse. A fatal error of the host (a failed disk, a broken
invariant) ends the node.
"""

import asyncio
import logging
import os
import random
from functools import partial
from typing import Self, final

from isochrone.client.client import Client
from isochrone.clocks.system_os import SystemClock, kernel_bound_ns, require_boot_clock
from isochrone.errors import ClockUnsynchronized, InvalidRequest
from isochrone.ids import NS_PER_MS, GroupId, NodeId, Term
from isochrone.node.config import NodeConfig, check_fits
from isochrone.node.etcd_endpoint_grpc import EtcdEndpoint
from isochrone.node.files_os import load_links, load_served_topology
from isochrone.node.node_metrics import NodeMetrics
from isochrone.node.operations import operate
from isochrone.node.service import ClientService
from isochrone.node.settings import group_settings, places, routes
from isochrone.regions.host import Host
from isochrone.regions.state.families import HANDLERS
from isochrone.regions.storage.directory_os import open_store
from isochrone.regions.storage.store_lmdb import LmdbStore
from isochrone.topology import ClockSpec, Topology
from isochrone.wire.admin_grpc import Links
from isochrone.wire.budget import Budget
from isochrone.wire.handshake import peer_refusal
from isochrone.wire.http2.departures_os import Departures
from isochrone.wire.messages import FEATURE_LEVEL, PROTOCOL_VERSION, PeerHello
from isochrone.wire.operations import Operation
from isochrone.wire.peers_grpc import GrpcTransport, PeerAddress
from isochrone.wire.server_grpc import NodeServer
from isochrone.wire.session import NodeHello
from isochrone.wire.shaper_os import Shaper
from isochrone.wire.status import NodeStatus

logger = logging.getLogger(__name__)

CLOCK_BOUND_MAX_MS = 1_000.0
"""A configured bound above this is refused; no timestamp would be worth anything."""


@final
class Node:
    """A running node. Made by `open`."""

    def __init__(
        self,
        config: NodeConfig,
        store: LmdbStore,
        shaper: Shaper,
        transport: GrpcTransport,
        host: Host,
        server: NodeServer,
        endpoint: EtcdEndpoint | None,
        metrics: NodeMetrics,
    ) -> None:
        self._config = config
        self._store = store
        self._shaper = shaper
        self._transport = transport
        self._host = host
        self._server = server
        self._endpoint = endpoint
        self.metrics = metrics
        """What the node tells of itself in numbers."""
        self._task: asyncio.Task[None] | None = None
        self._stopping: asyncio.Task[None] | None = None

    @classmethod
    async def open(cls, config: NodeConfig, *, moved: bool = False) -> Self:
        """Start a node; returns when it listens.

        `moved` is the operator's word that the store was stopped, moved here as a whole, and that the original is gone.

        Raises:
            StorageError: the data directory is missing, foreign, locked or damaged.
            ClockUnsynchronized: the clock source of the topology gives no usable bound here, or a group reads under
                leases and no clock here goes on during a suspension.
            Unavailable: the address cannot be listened on.
            TopologyError: the topology file is wrong.
            ConfigError: the configuration does not fit the topology.
        """
        topology = load_served_topology(config.topology_file)
        check_fits(config, topology)
        clock = system_clock(topology.clock, config.clock_offset_ms)
        if any(group.lease_reads for group in topology.groups):
            require_boot_clock()
        clock.now()  # A clock without a bound is refused before anything starts.
        store = open_store(config.data_directory, config.cluster, config.node, config.store, moved=moved)
        try:
            node = cls._compose(config, topology, clock, store)
        except BaseException:
            await store.close()
            raise
        await node._start()
        return node

    @classmethod
    def _compose(cls, config: NodeConfig, topology: Topology, clock: SystemClock, store: LmdbStore) -> Self:
        rng = random.Random(config.seed)
        shaper, departures = Shaper(rng), Departures()
        if config.local:
            shaper.set_links(topology.links() | load_links(config.links_file))
        hello = PeerHello(
            PROTOCOL_VERSION, FEATURE_LEVEL, config.cluster, config.node, config.store, store.identity.incarnation
        )
        transport = GrpcTransport(
            hello,
            config.zone,
            _peer_addresses(config, topology),
            shaper=shaper,
            accept=lambda peer: peer_refusal(hello, peer, host.stores, host.incarnations),
            rng=rng,
            departures=departures,
        )
        endpoint: EtcdEndpoint | None = None

        def leader_changed(group: GroupId, term: Term, leader: NodeId | None) -> None:
            service.leader_changed(group, term, leader)
            if endpoint is not None:
                endpoint.leader_changed()

        service = ClientService(config.node, routes(topology, config.addresses), places(topology, config.addresses))
        host = Host(
            store,
            transport,
            clock,
            {group.id: group_settings(topology, config.node, group) for group in topology.groups},
            handlers=HANDLERS,
            rng=rng,
            offset_max_ns=round(topology.clock.offset_max_ms * NS_PER_MS),
            leader_changed=leader_changed,
            together=departures.together,
        )
        service.attach(host)
        node_hello = NodeHello(PROTOCOL_VERSION, config.cluster, config.node, config.region, config.zone)
        admin = _Admin()
        budget = Budget()
        server = NodeServer(
            node_hello,
            shaper=shaper,
            transport=transport,
            sessions=service,
            admin=admin,
            budget=budget,
            departures=departures,
        )
        endpoint = _endpoint(config, topology, host, store, shaper, budget, departures)
        refusals = {"session": service.refusals} | ({"etcd": endpoint.refusals} if endpoint is not None else {})
        metrics = NodeMetrics(config, topology, host, store, clock, refusals, budget, lambda: node.status().counters)
        node = cls(config, store, shaper, transport, host, server, endpoint, metrics)
        admin.node = node
        return node

    async def _start(self) -> None:
        try:
            await self._host.start()
            address = await self._server.start(self._config.listen)
            if self._endpoint is not None:
                await self._endpoint.start()
            await self.metrics.start()
        except BaseException:
            await self._shut_down()
            raise
        logger.info("node %s listens on %s", self._config.node, address)
        self._task = asyncio.get_running_loop().create_task(self._run(), name=f"node {self._config.node}")

    async def _run(self) -> None:
        try:
            await self._host.closed()
        finally:
            await self._shut_down()
            logger.info("node %s has stopped", self._config.node)

    async def _shut_down(self) -> None:
        await self.metrics.stop()
        if self._endpoint is not None:
            await self._endpoint.stop()
        await self._server.stop()
        await self._transport.close()
        await self._host.stop()
        await self._store.close()
        self._shaper.close()

    async def wait_closed(self) -> None:
        """Return when the node has stopped. Raises the error that ended it, if it was not stopped."""
        if self._task is not None:
            await asyncio.shield(self._task)

    async def stop(self) -> None:
        """Stop in an orderly way and wait for the end. Idempotent. Raises the error that ended the node, if any."""
        await self._host.stop()
        await self.wait_closed()

    # ---- what operators ask

    def status(self) -> NodeStatus:
        """The node's state now."""
        config = self._config
        counters = {
            **self._host.counters,
            **self._transport.counters(),
            **self._server.counters(),
            **self._shaper.counters(),
            "commits": self._store.commits,
        }
        return NodeStatus(
            node=config.node,
            region=config.region,
            zone=config.zone,
            store=config.store,
            incarnation=self._store.identity.incarnation,
            pid=os.getpid(),
            groups=self._host.group_statuses(),
            counters=counters,
            etcd_address=self._endpoint.address if self._endpoint is not None else None,
            etcd_group=self._endpoint.group if self._endpoint is not None else None,
        )

    async def operate(self, operation: Operation) -> None:
        """Do what an operator asks of a group. Raises why it was not done."""
        await operate(self._host, operation)

    def set_links(self, links: Links) -> None:
        """Change how frames that this node sends are shaped. Raises `InvalidRequest` outside local mode."""
        if not self._config.local:
            raise InvalidRequest("links are shaped in local mode only")
        self._shaper.set_links(links)

    def request_stop(self) -> None:
        """Begin an orderly stop."""
        if self._stopping is None:
            self._stopping = asyncio.get_running_loop().create_task(self._host.stop(), name="stop")


class _Admin:
    """Stands in for the node while it is being put together; the server needs a handler first."""

    node: Node

    def status(self) -> NodeStatus:
        return self.node.status()

    async def operate(self, operation: Operation) -> None:
        await self.node.operate(operation)

    def set_links(self, links: Links) -> None:
        self.node.set_links(links)

    def request_stop(self) -> None:
        self.node.request_stop()


def system_clock(spec: ClockSpec, offset_ms: float) -> SystemClock:
    """The clock that a topology asks for."""
    bound_max_ns = round(CLOCK_BOUND_MAX_MS * NS_PER_MS)
    if spec.source == "kernel":
        return SystemClock(kernel_bound_ns, bound_max_ns=round(spec.bound_ms * NS_PER_MS), offset_ms=offset_ms)
    if spec.source != "bound":
        raise ClockUnsynchronized(f"clock source {spec.source!r} is not known; known are kernel and bound")
    bound_ns = round(spec.bound_ms * NS_PER_MS)
    return SystemClock(lambda: bound_ns, bound_max_ns=bound_max_ns, offset_ms=offset_ms)


def _endpoint(
    config: NodeConfig,
    topology: Topology,
    host: Host,
    store: LmdbStore,
    shaper: Shaper,
    budget: Budget,
    departures: Departures,
) -> EtcdEndpoint | None:
    """The node's endpoint of etcd's API, if it has an address."""
    if config.node not in config.etcd_addresses:
        return None
    connect = partial(
        Client.connect,
        list(config.addresses.values()),
        region=config.region,
        zone=config.zone,
        name=config.node,
        shaper=shaper if config.local else None,
    )
    return EtcdEndpoint(config, topology, host, lambda: store.size_bytes, connect, budget, departures)


def _peer_addresses(config: NodeConfig, topology: Topology) -> dict[NodeId, PeerAddress]:
    return {
        node.id: PeerAddress(config.addresses[node.id], node.zone) for node in topology.nodes if node.id != config.node
    }
