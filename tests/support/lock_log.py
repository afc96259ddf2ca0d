"""A log with leases, and short words for what they do with locks."""

from state_log import StateLog

from isochrone.regions.state.model import LockNotice
from isochrone.wire.leases import LeaseExpire, LeaseGrant, LockTick, encode_housekeeping
from isochrone.wire.locks import (
    WAIT_FOREVER,
    LockAcquire,
    LockMode,
    LockQuery,
    LockQueryResult,
    LockRelease,
    LockResult,
    LockWithdraw,
)
from isochrone.wire.messages import EntryKind

IS, IX, S, SIX, X = LockMode
NAME = b"k/lock"


class Locks(StateLog):
    """A log with leases 1 to 9, and short words for what they do."""

    def __init__(self) -> None:
        super().__init__()
        for lease in range(1, 10):
            self.do(LeaseGrant(lease, 30_000))
        self.requests = 0
        self.notices: list[LockNotice] = []

    def acquire(
        self, lease: int, mode: LockMode = X, name: bytes = NAME, wait_ms: int = WAIT_FOREVER, **more: object
    ) -> LockResult:
        self.requests += 1
        operation = LockAcquire(name, lease, self.requests, mode, wait_ms, **more)  # type: ignore[arg-type]
        return self.done(operation)

    def done(self, operation: LockAcquire | LockRelease | LockWithdraw) -> LockResult:
        try:
            result = self.do(operation)
        finally:
            self.notices += self.last.lock_notices
        assert isinstance(result, LockResult)
        return result

    def free(self, lease: int, name: bytes = NAME) -> None:
        self.done(LockRelease(name, lease))

    def keep_house(self, *commands: LeaseExpire | LockTick) -> None:
        self.log(EntryKind.HOUSEKEEPING, [encode_housekeeping(command) for command in commands])
        self.notices += self.last.lock_notices
        self.now_ms += 1

    def lose(self, lease: int) -> None:
        """The lease runs out."""
        self.keep_house(LeaseExpire(lease, self.entries[-1].term, 0))

    def holders(self, name: bytes = NAME) -> list[int]:
        return [item.lease for item in self.view(name).requests if item.token]

    def waiters(self, name: bytes = NAME) -> list[int]:
        return [item.lease for item in self.view(name).requests if not item.token]

    def view(self, name: bytes = NAME) -> LockQueryResult:
        result = self.ask(LockQuery(name))
        assert isinstance(result, LockQueryResult)
        return result
