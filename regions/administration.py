"""What operators ask of the groups of a host: another leader, other members.

Each answer comes by callback, once, perhaps before the call returns. A change goes on when whoever asked is gone.
"""

from collections.abc import Callable, Sequence
from typing import final

from isochrone.errors import IsochroneError
from isochrone.ids import GroupId, Nanos, NodeId, Revision
from isochrone.regions.intake import Intake
from isochrone.regions.replica import Replica
from isochrone.regions.requests import Done, Outcome
from isochrone.wire.messages import Member, QuorumSizes


@final
class Administration:
    """See the module."""

    def __init__(
        self,
        find: Callable[[GroupId], Replica],
        intake: Intake,
        monotonic: Callable[[], Nanos],
        mark: Callable[[GroupId], None],
    ) -> None:
        """Administer the groups of one host.

        Args:
            find: a group's replica here; raises why there is none.
            intake: hears messages of the groups' members.
            monotonic: reads the node's monotonic clock.
            mark: has the group looked at in the next turn.
        """
        self._find = find
        self._intake = intake
        self._monotonic = monotonic
        self._mark = mark

    def transfer_leadership(self, group: GroupId, target: NodeId, done: Done) -> None:
        """Hand the leadership of a group from this node to `target`; `done` is called once, perhaps at once.

        Success means that this node follows the target, or already led as it. `Unavailable`: the target did not take
        over within an election timeout, or another one leads. `NotLeader`: this node does not lead.
        `InvalidRequest`: the target is not a full voter. Writes are refused with `Unavailable` meanwhile.
        """
        now = self._monotonic()
        self._ask(group, done, lambda replica: replica.transfer_leadership(target, now, done))

    def change_membership(
        self,
        group: GroupId,
        *,
        put: Sequence[Member] = (),
        remove: Sequence[NodeId] = (),
        quorums: QuorumSizes | None = None,
        auto_leave: bool = True,
        done: Done,
    ) -> None:
        """Add, promote, demote and remove members of a group that this node leads; `done` is called once.

        Success means that the new configuration is final. Without `auto_leave` it means that the joint configuration
        before it is committed; `leave_joint` then ends it. `InvalidRequest`: no group can be so, or not from here.
        `Unavailable`: not now. `LeadershipLost`: whoever leads next may complete the change, or undo it.

        Args:
            group: whose members.
            put: members to be added, or to have another role.
            remove: members to be removed.
            quorums: sizes of quorums from now on; None leaves them.
            auto_leave: leave the joint configuration as soon as it is committed.
            done: called once, perhaps before this returns.
        """
        now = self._monotonic()

        def ask(replica: Replica) -> None:
            replica.change_membership(
                put=put, remove=remove, quorums=quorums, auto_leave=auto_leave, now=now, done=done
            )
            # At once: what is heard from now on comes from these members, and their stores.
            self._intake.set_members(group, replica.members)

        self._ask(group, done, ask)

    def leave_joint(self, group: GroupId, done: Done) -> None:
        """End a joint configuration that was entered without `auto_leave`; `done` as in `change_membership`."""
        now = self._monotonic()
        self._ask(group, done, lambda replica: replica.leave_joint(now, done))

    def _ask(self, group: GroupId, done: Done, question: Callable[[Replica], None]) -> None:
        """Put a question to a replica, which answers later unless it refuses."""
        try:
            question(self._find(group))
        except IsochroneError as error:
            done(Outcome(b"", Revision(0), error))
            return
        self._mark(group)
