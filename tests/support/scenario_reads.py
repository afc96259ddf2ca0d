"""How a node of a scenario answers reads: as `regions.replica` does, but a scenario can stop it before the answer."""

from typing import TYPE_CHECKING

from scenario_site import Site

from isochrone.regions.raft.node import RaftNode
from isochrone.regions.raft.ready import ReadReady, Ready

if TYPE_CHECKING:
    from scenario_world import World


def take_reads(world: "World", site: Site, core: RaftNode, ready: Ready) -> None:
    """Answer the reads that may be answered, unless the node's answers are held."""
    held = site.name in world.answers_held
    for read in ready.reads:
        site.waiting_reads.append(read)
        if held:
            world.tell(site, f"read {_contexts(read)} allowed{_by_lease(read)}")
    for context in ready.refused_reads:
        world.tell(site, f"read {context} refused: NotLeader")
    if not held:
        answer_reads(world, site, core)


def answer_reads(world: "World", site: Site, core: RaftNode) -> None:
    """Answer what waits and is applied. A lease is looked at again, by then the state has been read."""
    while site.waiting_reads and site.waiting_reads[0].index <= core.applied_index:
        read = site.waiting_reads.pop(0)
        if read.lease is not None and not core.lease_holds(read.lease, world.now):
            world.tell(site, f"read {_contexts(read)} not answered: its lease has ended")
            for context in read.contexts:
                world.ask(site, lambda core, context=context: core.read_index(context, leased=False))
        else:
            for context in read.contexts:
                world.claims.answers(context, read.index)
                world.tell(site, f"read {context} answered at index {read.index}{_by_lease(read)}")


def _contexts(read: ReadReady) -> str:
    return ", ".join(map(str, read.contexts))


def _by_lease(read: ReadReady) -> str:
    return "" if read.lease is None else " by a lease"
