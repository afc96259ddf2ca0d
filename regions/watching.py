"""A replica's watches: the hub, and whom to call when a watcher has something.

Callbacks are called while an entry is applied: they may take what there is, and end watches, be they others of those
that are about to be called.
"""

from collections.abc import Callable, Sequence
from typing import final

from isochrone.errors import Unavailable
from isochrone.ids import Nanos
from isochrone.probes import probe
from isochrone.regions.state.model import GroupData
from isochrone.regions.watch_hub import WatchBatch, WatchHub, WatchRequest


@final
class Watch:
    """One watcher, for whoever serves its client. Take until nothing comes, then wait for `ready`; `cancel` it."""

    __slots__ = ("_monotonic", "_serves", "_watches", "identity")

    def __init__(
        self, watches: "Watches", identity: int, serves: Callable[[], bool], monotonic: Callable[[], Nanos]
    ) -> None:
        """Made by `Replica.watch`. `serves`: whether this node may still reveal what is watched."""
        self._watches = watches
        self.identity = identity
        self._serves = serves
        self._monotonic = monotonic

    def take(self) -> WatchBatch | None:
        """The next batch, as `WatchHub.take`. Raises `Unavailable` if this region may not serve what is watched."""
        self._check()
        return self._watches.hub.take(self.identity, self._monotonic())

    def progress(self) -> WatchBatch | None:
        """How far the watcher is, as `WatchHub.progress`. Raises `Unavailable` as `take` does."""
        self._check()
        return self._watches.hub.progress(self.identity)

    def cancel(self) -> None:
        """Watch no more. Idempotent."""
        self._watches.cancel(self.identity)

    def _check(self) -> None:
        if not self._serves():
            raise Unavailable("this region may not serve what is watched now")


class Watches:
    """See the module."""

    def __init__(self, data: GroupData) -> None:
        self.hub = WatchHub(data)
        self._ready: dict[int, Callable[[], None]] = {}

    def open(self, request: WatchRequest, ready: Callable[[], None], now: Nanos) -> int:
        """Begin to watch. Raises as `WatchHub.create`."""
        identity = self.hub.create(request, now)
        self._ready[identity] = ready
        return identity

    def cancel(self, identity: int) -> None:
        """Watch no more. Idempotent."""
        self._ready.pop(identity, None)
        self.hub.cancel(identity)

    def replaced(self, data: GroupData, now: Nanos) -> None:
        """The state was replaced by a later one."""
        self._call(self.hub.reset(data, now))

    def applied(self, records: Sequence[bytes], now: Nanos) -> None:
        """These were written."""
        self._call(self.hub.applied(records, now))

    def _call(self, identities: Sequence[int]) -> None:
        for identity in identities:
            ready = self._ready.get(identity)
            if ready is None:
                probe("watch.ended_by_another")
            else:
                ready()
