"""The recipes of a simulated keyspace, and the notes of whoever uses them. Plain data."""

from dataclasses import dataclass, field

from isochrone.drills.checkers.gates import GateWait
from isochrone.drills.checkers.meetings import Stay
from isochrone.drills.checkers.membership import Viewer
from isochrone.drills.checkers.queues import QueueCall
from isochrone.drills.checkers.work_queues import ClaimTold

SIZES = (2, 3)
"""Of meetings."""


@dataclass(frozen=True, slots=True)
class RecipeNames:
    """The recipes of a keyspace."""

    keyspace: str

    @property
    def team(self) -> str:
        """Of the membership."""
        return f"{self.keyspace}team"

    @property
    def gate(self) -> str:
        """Of the barrier."""
        return f"{self.keyspace}gate"

    def meeting(self, size: int) -> str:
        """Of the double barrier for so many."""
        return f"{self.keyspace}meeting-of-{size}"

    @property
    def mails(self) -> str:
        """Of the queue."""
        return f"{self.keyspace}mails"

    @property
    def reports(self) -> str:
        """Of the work queue."""
        return f"{self.keyspace}reports"


@dataclass(slots=True)
class Notes:
    """What one process was told."""

    viewers: list[Viewer] = field(default_factory=list)
    gate_waits: list[GateWait] = field(default_factory=list)
    stays: dict[int, list[Stay]] = field(default_factory=lambda: {size: [] for size in SIZES})
    queue_calls: list[QueueCall] = field(default_factory=list)
    put: dict[bytes, bytes] = field(default_factory=dict)
    """Items of the work queue, by key."""
    claims: list[ClaimTold] = field(default_factory=list)
