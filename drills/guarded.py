"""What locks guard in drills and simulations, and how whoever holds one writes to it.

There are two kinds of resource: one outside the system, which knows nothing but the largest token that it took
(`Resource`); and the store itself, by transactions that a fence gate lets pass (`guarded_put`).
"""

from collections.abc import Callable, Iterable, Iterator

from isochrone.drills.checkers.exclusion import GuardedWrite
from isochrone.probes import probe
from isochrone.wire.fence_gates import fenced
from isochrone.wire.kv import Put, Txn
from isochrone.wire.records import KeyValue


class Resource:
    """A resource outside the system: it takes a write unless it has seen a larger token."""

    def __init__(self, now_ns: Callable[[], int]) -> None:
        self._now_ns = now_ns
        self._largest: dict[str, int] = {}
        self.writes: list[GuardedWrite] = []

    def write(self, what: tuple[str, str, int]) -> None:
        """`what`: the lock, its holder and the token."""
        lock, holder, token = what
        accepted = token >= self._largest.get(lock, 0)
        if accepted:
            self._largest[lock] = token
        else:
            probe("contenders.refused_by_token")
        self.writes.append(GuardedWrite(lock=lock, holder=holder, token=token, at_ns=self._now_ns(), accepted=accepted))


def data_of(name: str) -> bytes:
    """The key that a lock guards in the store."""
    return f"{name}/data".encode()


def guarded_put(name: str, holder: str, token: int) -> Txn:
    """Sets the key that a lock guards, unless its gate has seen a larger token."""
    return fenced(f"{name}/gate".encode(), name.encode(), token, Put(data_of(name), f"{token} {holder}".encode()))


def writes_to_the_store(name: str, versions: Iterable[KeyValue]) -> Iterator[GuardedWrite]:
    """What the gate of a lock let pass: `versions` are those of the key that it guards, in the store's own order."""
    for item in versions:
        token, _, holder = item.value.decode().partition(" ")
        lock = f"{name}, in the store"
        yield GuardedWrite(lock=lock, holder=holder, token=int(token), at_ns=item.timestamp, accepted=True)
