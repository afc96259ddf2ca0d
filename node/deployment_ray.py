"""A deployment on one machine, on a Ray of its own: brought up, found again, controlled, taken down.

Theory of operation. `bring_up` checks everything that can be checked, bootstraps the directory or finds it
bootstrapped, starts a Ray head, starts one supervisor per region, and waits until every node listens and every group
has a leader. The run file says what was started from the moment there is something. Whatever fails on the way, what
was started is killed again and the run file removed; stores stay.

`attach` finds a running deployment by its run file. Status and links go over the admin channel, so they work without
Ray; only what concerns processes connects to Ray, at the first call.
"""

import asyncio
import importlib.util
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, final

from isochrone.errors import DeadlineExceeded, StorageError, Unavailable
from isochrone.ids import GroupId, NodeId, RegionId, ZoneId
from isochrone.node.bootstrap_os import BootstrapRecord, bootstrap, check_unused, write_configs
from isochrone.node.clusters_os import Cluster
from isochrone.node.config import check_etcd_group
from isochrone.node.files_os import load_links, load_served_topology, locked, write_durably
from isochrone.node.head_ray import head_address, new_ray_directory, start_head
from isochrone.node.layout import Layout
from isochrone.node.links import Links, encode_links
from isochrone.node.ports_os import check_addresses, choose_addresses
from isochrone.node.process import ProcessId
from isochrone.node.processes_os import find_process, kill_and_wait, kill_session, send, session_members
from isochrone.node.run_file import RunFile, encode_run_file, parse_run_file
from isochrone.topology import Topology, load_topology
from isochrone.wire.admin_grpc import AdminClient
from isochrone.wire.shaping import LinkShape
from isochrone.wire.status import NodeStatus

if TYPE_CHECKING:
    from isochrone.node.supervisor_ray import SupervisorState

LINKS_TIMEOUT_S = 3.0
"""A live node that has not taken new links by then is too slow for a drill to mean anything."""
PROCESS_TIMEOUT_S = 20.0
"""For a process to be started or killed."""
LEADERS_TIMEOUT_S = 90.0
POLL_PAUSE_S = 0.1
PORT_DRAWS = 3
"""Attempts to bring a deployment up with new ports, when another program takes one meanwhile."""

Progress = Callable[[str], None]


async def bring_up(
    topology_file: Path, directory: Path, progress: Progress, etcd_group: GroupId | None = None
) -> "RayDeployment":
    """Bring a deployment up in `directory`; returns when every group has a leader. `etcd_group`: see `write_configs`.

    Raises:
        TopologyError: the topology file is wrong; nothing was started.
        ConfigError: there is no such group as `etcd_group`, or it has no keys.
        StorageError: the directory holds another topology's data, cannot be written, or is being worked on.
        Unavailable: something runs in the directory, an address is in use, Ray is missing, or a node did not start.
    """
    topology = load_served_topology(topology_file)
    check_etcd_group(topology, etcd_group)
    if importlib.util.find_spec("ray") is None:
        raise Unavailable("Ray is not installed; install it with: pip install 'ray>=2.60'")
    layout = Layout(_absolute(directory))
    with locked(layout.lock, f"another isochrone command is at work in {layout.root}"):
        _clear_leftovers(layout)
        check_addresses(topology)  # Before anything is written.
        record = bootstrap(topology_file, layout.root, progress)
        check_unused(topology, layout)
        for _ in range(PORT_DRAWS - 1):
            try:
                return await _start(topology, layout, record, progress, etcd_group)
            except _PortTaken as error:
                progress(f"{error}; drawing other ports")
        return await _start(topology, layout, record, progress, etcd_group)


def attach(directory: Path) -> "RayDeployment":
    """Find the deployment that runs in `directory`.

    Raises:
        Unavailable: nothing runs there, or it is being brought up.
        StorageError: its files cannot be read.
    """
    layout = Layout(_absolute(directory))
    run = read_run_file(layout)
    if run is None or not session_members(run.head, run.ray_directory):
        raise Unavailable(f"nothing runs in {layout.root}; start a deployment with: isochrone up TOPOLOGY")
    if run.ray_address is None:
        raise Unavailable(f"the deployment in {layout.root} is being brought up; try again when it is up")
    return RayDeployment(load_topology(layout.topology), layout, run)


def take_down(directory: Path) -> bool:
    """Kill what runs in `directory`, its data stays; False when nothing was left to do.

    Raises:
        StorageError: another command is at work there, or the run file cannot be read.
        DeadlineExceeded: a process did not end.
    """
    layout = Layout(_absolute(directory))
    if not layout.run.exists():
        return False
    with locked(layout.lock, f"another isochrone command is at work in {layout.root}"):
        run = read_run_file(layout)
        if run is None:
            return False
        _kill_run(layout, run)
        return True


def read_run_file(layout: Layout) -> RunFile | None:
    """What the run file says; None when there is none. Raises `StorageError` when it cannot be read."""
    try:
        return parse_run_file(layout.run.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StorageError(f"{layout.run} is no run file of this release: {error}") from error


@final
class RayDeployment:
    """The `Deployment` on Ray. Made by `bring_up` and `attach`."""

    def __init__(
        self, topology: Topology, layout: Layout, run: RunFile, head: "subprocess.Popen[str] | None" = None
    ) -> None:
        self.topology = topology
        self._layout = layout
        self._run = run
        self._head = head
        self._connected = False

    @property
    def addresses(self) -> Mapping[NodeId, str]:
        """`host:port` of every node."""
        return self._run.addresses

    @property
    def directory(self) -> Path:
        """Where the deployment keeps its files."""
        return self._layout.root

    async def status(self) -> tuple[NodeStatus, ...]:
        """See `Deployment`."""
        return await Cluster(self.topology, self.addresses).statuses()

    async def kill_node(self, node: NodeId) -> None:
        """See `Deployment`."""
        await self._supervisor(node, "hold")

    async def start_node(self, node: NodeId) -> None:
        """See `Deployment`."""
        await self._supervisor(node, "release")
        await self._send_own_links(node)

    async def pause_node(self, node: NodeId) -> None:
        """See `Deployment`."""
        self._signal(await self._process_of(node), node, signal.SIGSTOP)

    async def resume_node(self, node: NodeId) -> None:
        """See `Deployment`."""
        self._signal(await self._process_of(node), node, signal.SIGCONT)
        await self._send_own_links(node)

    async def set_links(self, links: Links) -> frozenset[NodeId]:
        """See `Deployment`."""
        # First the file, then the nodes: a node that starts in between reads the file.
        write_durably(self._layout.links, encode_links(load_links(self._layout.links) | dict(links)))
        return await self._send_links(self.addresses, links)

    async def kill_region(self, region: RegionId) -> None:
        """See `Deployment`."""
        from isochrone.node.driver_ray import kill_supervisor

        processes = await self._processes_of_region(region)
        kill_supervisor(region)
        # The supervisor is the first: it would start the others again.
        await asyncio.to_thread(kill_and_wait, processes[:1], PROCESS_TIMEOUT_S)
        await asyncio.to_thread(kill_and_wait, processes[1:], PROCESS_TIMEOUT_S)

    async def start_region(self, region: RegionId) -> None:
        """See `Deployment`."""
        from isochrone.node.driver_ray import supervise

        self._connect()
        supervise(self.topology, region, self._layout.root)
        held = (await self._state(region)).held
        nodes = [spec.id for spec in self.topology.nodes if spec.region == region and spec.id not in held]
        await asyncio.gather(*(self.start_node(node) for node in nodes))

    async def stop(self) -> None:
        """See `Deployment`."""
        if self._connected:
            from isochrone.node.driver_ray import disconnect

            disconnect()
            self._connected = False
        await asyncio.to_thread(_kill_run, self._layout, self._run)
        if self._head is not None:
            with self._head:
                pass  # It is dead: this closes the pipe to it and takes its exit status.

    async def wait_ended(self) -> None:
        """Return never; raise `Unavailable` when the Ray head that this call's process started has ended."""
        assert self._head is not None
        await asyncio.to_thread(self._head.wait)
        raise Unavailable(f"the Ray head of {self._layout.root} ended; what it said is in {self._layout.head_log}")

    # ---- for bring_up

    async def start_all(self, progress: Progress) -> None:
        """Start Ray, supervisors and nodes; return when every group has a leader."""
        assert self._head is not None
        progress("starting Ray")
        address = await asyncio.to_thread(head_address, self._head, self._layout.head_log)
        self._run = replace(self._run, ray_address=address)
        write_durably(self._layout.run, encode_run_file(self._run))
        from isochrone.node.driver_ray import placement_of, supervise

        self._connect()
        progress(placement_of(self.topology).describe())
        progress(f"starting {len(self.topology.nodes)} nodes")
        for region in self.topology.regions:
            supervise(self.topology, region.id, self._layout.root)
        await self._wait_until_led(progress)

    async def _wait_until_led(self, progress: Progress) -> None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + LEADERS_TIMEOUT_S
        announced = False
        while True:
            statuses = await self.status()
            leaderless = leaderless_groups(self.topology, statuses)
            if len(statuses) == len(self.topology.nodes):
                if not leaderless:
                    return
                if not announced:
                    progress(
                        f"all nodes listen; {len(leaderless)} of {len(self.topology.groups)} groups elect a leader"
                    )
                    announced = True
            else:
                await self._raise_if_a_node_failed()
            if loop.time() > deadline:
                raise Unavailable(
                    f"after {LEADERS_TIMEOUT_S:g} s {len(statuses)} of {len(self.topology.nodes)} nodes listen; "
                    f"groups without a leader: {', '.join(leaderless) or 'none'}"
                )
            await asyncio.sleep(POLL_PAUSE_S)

    async def _raise_if_a_node_failed(self) -> None:
        for region in self.topology.regions:
            for node, view in (await self._state(region.id)).views.items():
                if view.failures and view.last_error:
                    failure = f"node {node} did not start: {view.last_error}"
                    raise _PortTaken(failure) if "cannot listen on" in failure else Unavailable(failure)

    # ---- processes

    def _connect(self) -> None:
        from isochrone.node.driver_ray import connect

        if self._run.ray_address is None or find_process(self._run.head) is None:
            raise Unavailable(f"the Ray head of {self._layout.root} is gone; take the rest down with: isochrone down")
        connect(self._run.ray_address, self._run.ray_directory, self._layout.root)
        self._connected = True

    async def _supervisor(self, node: NodeId, method: str) -> None:
        from isochrone.node.driver_ray import call

        self._connect()
        region = self.topology.node(node).region
        await call(region, method, node, PROCESS_TIMEOUT_S, timeout_s=2 * PROCESS_TIMEOUT_S)

    async def _state(self, region: RegionId) -> "SupervisorState":
        from isochrone.node.driver_ray import call

        self._connect()
        state: SupervisorState = await call(region, "state", timeout_s=PROCESS_TIMEOUT_S)
        return state

    async def _process_of(self, node: NodeId) -> ProcessId | None:
        return (await self._state(self.topology.node(node).region)).processes.get(node)

    async def _processes_of_region(self, region: RegionId) -> list[ProcessId]:
        """The region's supervisor, if there is one, then the nodes that live."""
        from isochrone.node.driver_ray import is_supervised

        self._connect()
        if not is_supervised(region):
            # It was killed before. Nodes of it that answer nevertheless are found by what they say.
            pids = {each.pid for each in await self.status() if each.region == region}
            ours = session_members(self._run.head, self._run.ray_directory)
            return [process for process in ours if process.pid in pids]
        state = await self._state(region)
        return [state.process, *state.processes.values()]

    def _signal(self, process: ProcessId | None, node: NodeId, number: signal.Signals) -> None:
        if process is None or not send(process, number):
            raise Unavailable(f"node {node} does not run, so it cannot take {number.name}")

    # ---- admin channel

    async def _send_links(self, nodes: Iterable[NodeId], links: Links) -> frozenset[NodeId]:
        """Send links to nodes; those that listen and did not answer."""
        asked = tuple(nodes)
        taken = await asyncio.gather(*(_set_links(self.addresses[node], links) for node in asked))
        return frozenset(node for node, done in zip(asked, taken, strict=True) if not done)

    async def _send_own_links(self, node: NodeId) -> None:
        """Send a node that has missed changes all links that differ from the topology's."""
        links = load_links(self._layout.links)
        if links and await self._send_links([node], links):
            raise Unavailable(f"node {node} did not take its links in {LINKS_TIMEOUT_S:g} s")


def _absolute(directory: Path) -> Path:
    return Path(os.path.abspath(directory))


class _PortTaken(Unavailable):
    """A node's port was taken between the draw and the node's start."""


async def _start(
    topology: Topology, layout: Layout, record: BootstrapRecord, progress: Progress, etcd_group: GroupId | None
) -> RayDeployment:
    addresses = choose_addresses(topology)
    write_configs(topology, layout, record, addresses, local=True, etcd_group=etcd_group)
    # What an earlier run held down or cut belongs to that run.
    shutil.rmtree(layout.root / "supervisors", ignore_errors=True)
    layout.links.unlink(missing_ok=True)
    ray_directory = new_ray_directory()
    process, head = start_head(ray_directory, layout.head_log)
    run = RunFile(head, ray_directory, None, addresses)
    deployment = RayDeployment(topology, layout, run, process)
    try:
        write_durably(layout.run, encode_run_file(run))
        await deployment.start_all(progress)
    except BaseException:
        await deployment.stop()
        raise
    return deployment


def leaderless_groups(topology: Topology, statuses: Iterable[NodeStatus]) -> list[GroupId]:
    """Groups that no node claims to lead."""
    led = {group.group for status in statuses for group in status.groups if group.leader == status.node}
    return [group.id for group in topology.groups if group.id not in led]


async def _set_links(address: str, links: Mapping[tuple[ZoneId, ZoneId], LinkShape]) -> bool:
    """Whether the node has taken the links, or is down and so gets them when it starts."""
    try:
        async with AdminClient(address) as admin:
            await admin.set_links(links, LINKS_TIMEOUT_S)
    except DeadlineExceeded:
        return False
    except Unavailable:
        return True
    return True


def _clear_leftovers(layout: Layout) -> None:
    run = read_run_file(layout)
    if run is None:
        return
    if find_process(run.head) is not None:
        raise Unavailable(f"a deployment runs in {layout.root} already; see it with: isochrone status")
    _kill_run(layout, run)


def _kill_run(layout: Layout, run: RunFile) -> None:
    kill_session(run.head, run.ray_directory, PROCESS_TIMEOUT_S)
    shutil.rmtree(run.ray_directory, ignore_errors=True)
    layout.run.unlink(missing_ok=True)
