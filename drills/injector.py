"""Makes faults on a running deployment, and undoes them.

A region that is lost is cut off first and killed then: a dead process sends resets, a lost region nothing. Clients in
a faulted region are cut off with it.

HAZARD: when a cut begins it must reach the clients before the nodes, and both before anything is killed; the order is
that of `set_links` and `start`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from isochrone.drills.convergence import leader_of
from isochrone.drills.faults import Link, ResolvedFault, links_under, resolve
from isochrone.drills.record import FaultRun
from isochrone.drills.schema import FaultKind, FaultSection
from isochrone.errors import InvariantViolation, Unavailable
from isochrone.ids import NodeId, RegionId
from isochrone.node.deployment import Deployment
from isochrone.wire.shaping import LinkShape


class NoProgress(Exception):
    """The deployment does not serve where it should."""


@dataclass(slots=True)
class FaultInjector:
    """The faults of one deployment."""

    deployment: Deployment
    shape_clients: Callable[[Mapping[Link, LinkShape]], None]
    now_ns: Callable[[], int]
    progress: Callable[[str], None]
    runs: list[FaultRun]
    """All faults so far, in order of their start."""
    active: list[FaultRun] = field(default_factory=list)

    async def start(self, section: FaultSection) -> FaultRun:
        """Find the place of a fault and make it.

        Raises:
            NoProgress: the fault is to strike a leader, and there is none.
        """
        fault = resolve(section, self.deployment.topology, await self._leaders())
        run = FaultRun(fault, self.now_ns())
        self.runs.append(run)
        self.active.append(run)
        self.progress(f"fault: {fault.description}")
        if fault.cut:
            await self._reshape()
        match fault.kind:
            case FaultKind.KILL_NODE:
                await self.deployment.kill_node(_node(fault))
            case FaultKind.PAUSE_NODE:
                await self.deployment.pause_node(_node(fault))
            case FaultKind.KILL_REGION:
                await self.deployment.kill_region(_region(fault))
            case FaultKind.CUT_LINK | FaultKind.ISOLATE_REGION:
                pass
        return run

    async def end(self, run: FaultRun) -> None:
        """Undo a fault: processes first, links then.

        Raises:
            NoProgress: a process does not run again.
        """
        fault = run.fault
        run.end_ns = self.now_ns()
        self.active.remove(run)
        self.progress(f"fault ends: {fault.description}")
        try:
            await self._start_again(fault)
        except Unavailable as error:
            raise NoProgress(f"{fault.description} has ended, but {error}") from error
        if fault.cut:
            await self._reshape()

    async def _start_again(self, fault: ResolvedFault) -> None:
        match fault.kind:
            case FaultKind.KILL_NODE:
                await self.deployment.start_node(_node(fault))
            case FaultKind.PAUSE_NODE:
                await self.deployment.resume_node(_node(fault))
            case FaultKind.KILL_REGION:
                await self.deployment.start_region(_region(fault))
            case FaultKind.CUT_LINK | FaultKind.ISOLATE_REGION:
                pass

    async def set_links(self, links: Mapping[Link, LinkShape]) -> None:
        """Shape all links, those of clients included. Raises `Unavailable` when a node that should answer does not."""
        self.shape_clients(links)
        paused = {run.fault.node for run in self.active if run.fault.kind is FaultKind.PAUSE_NODE}
        silent = await self.deployment.set_links(links) - paused
        if silent:
            # With some links as they were, the fault would not be what its report says.
            raise Unavailable(f"{', '.join(sorted(silent))} did not answer when links were changed")

    async def _reshape(self) -> None:
        await self.set_links(links_under(self.deployment.topology, [run.fault for run in self.active]))

    async def _leaders(self) -> Callable[[str], NodeId]:
        statuses = await self.deployment.status()

        def leader(keyspace: str) -> NodeId:
            group = next(each.group for each in self.deployment.topology.keyspaces if each.id == keyspace)
            found = leader_of(statuses, group)
            if found is None:
                raise NoProgress(f"group {group} has no leader, and a fault is to strike it")
            return found

        return leader


def _node(fault: ResolvedFault) -> NodeId:
    if fault.node is None:
        raise InvariantViolation(f"{fault.description} has no node")
    return fault.node


def _region(fault: ResolvedFault) -> RegionId:
    if fault.region is None:
        raise InvariantViolation(f"{fault.description} has no region")
    return fault.region
