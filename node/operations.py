"""What operators ask of a running node, carried to its host.

The host's answers come by callback, when the change is final or has failed. An operator who has gone meanwhile changes
nothing about that: what was asked goes on.
"""

import asyncio
from collections.abc import Callable
from functools import partial

from isochrone.regions.host import Host
from isochrone.regions.requests import Done, Outcome
from isochrone.wire.operations import AddReplica, ChangeMembers, LeaveJoint, MoveLeader, Operation


async def operate(host: Host, operation: Operation) -> None:
    """Do what is asked; returns when it is done.

    Raises:
        IsochroneError: as the method of `Host` says that does it.
    """
    match operation:
        case AddReplica(group, configuration):
            await host.add_replica(group, configuration)
        case ChangeMembers(group, put, remove):
            await _answer(lambda done: host.administration.change_membership(group, put=put, remove=remove, done=done))
        case LeaveJoint(group):
            await _answer(partial(host.administration.leave_joint, group))
        case MoveLeader(group, target):
            await _answer(partial(host.administration.transfer_leadership, group, target))


async def _answer(ask: Callable[[Done], None]) -> None:
    answer: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()

    def done(outcome: Outcome) -> None:
        if not answer.done():
            answer.set_result(outcome)

    ask(done)
    outcome = await answer
    if outcome.error is not None:
        raise outcome.error
