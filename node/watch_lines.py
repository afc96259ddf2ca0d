"""Watchers of one stream that want the same share a *line*: one watch of the host, whose batches all of them get.

A thousand watchers of one key on ten streams cost the group ten watchers, and each batch is taken, and encoded, once
for a stream. A watcher joins a line only if both stand at the same place: the watcher wants whatever is written from
now on, and the line has been told everything up to now. Else it gets a watch of its own, which others may join later
if it began at the present and nothing like it is there.

A line does not know how its members are told; the stream that owns it takes from its watch.

A driver without tasks of its own.
"""

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import final

from isochrone.errors import Unavailable
from isochrone.ids import GroupId
from isochrone.regions.host import Host
from isochrone.regions.watch_hub import WatchBatch, WatchRequest
from isochrone.regions.watching import Watch

_Wanted = tuple[GroupId, WatchRequest]


@final
class Line:
    """One watch of the host, and the numbers of the stream's watchers that it feeds, in order of coming."""

    __slots__ = ("batch", "group", "members", "request", "untold", "wanted", "watch")

    def __init__(self, group: GroupId, request: WatchRequest, wanted: _Wanted | None) -> None:
        """`wanted`: what others may join it for; None if nobody may."""
        self.group = group
        self.request = request
        self.wanted = wanted
        self.watch: Watch
        self.members: dict[int, None] = {}
        self.batch: WatchBatch | None = None
        self.untold: deque[int] = deque()
        """Members that were not told of `batch` yet, in a stream that tells one after the other."""

    def is_even(self) -> bool:
        """Whether every member was told everything up to now."""
        try:
            return not self.untold and self.watch.progress() is not None
        except Unavailable:
            return False


@final
class Lines:
    """The lines of one stream."""

    def __init__(self, ready: Callable[[Line], None]) -> None:
        """`ready` is called when there is something to take for a line and was nothing before."""
        self._ready = ready
        self._of: dict[int, Line] = {}
        """By member."""
        self._shared: dict[_Wanted, Line] = {}

    def __len__(self) -> int:
        """How many watchers there are."""
        return len(self._of)

    def __iter__(self) -> Iterator[Line]:
        """Every line, once."""
        return iter(dict.fromkeys(self._of.values()))

    def get(self, number: int) -> Line | None:
        """The line of a watcher."""
        return self._of.get(number)

    def join(self, host: Host, group: GroupId, request: WatchRequest, number: int) -> Line:
        """Begin to watch under a number that is not in use. Raises as `Host.watch`."""
        replica = host.replicas.get(group)
        from_now = replica is not None and request.start_revision in (0, replica.revision + 1)
        wanted = (group, replace(request, start_revision=0)) if from_now else None
        line = self._shared.get(wanted) if wanted is not None else None
        if line is None or not line.is_even():
            line = Line(group, request, wanted if line is None else None)
            line.watch = host.watch(group, request, partial(self._ready, line))
            if line.wanted is not None:
                self._shared[line.wanted] = line
        line.members[number] = None
        self._of[number] = line
        return line

    def leave(self, number: int) -> Line | None:
        """Watch no more under a number. Returns the line, whose watch has ended if it has no members any more."""
        line = self._of.pop(number, None)
        if line is None:
            return None
        del line.members[number]
        if number in line.untold:
            line.untold.remove(number)
        if not line.members:
            line.watch.cancel()
            if line.wanted is not None:
                del self._shared[line.wanted]
        return line
