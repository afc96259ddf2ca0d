"""The simulated network: directed links between endpoints (nodes and clients), shaped by the topology's zones.

A link has the delay of its pair of zones. It is FIFO, as the streams of the transport port are; a frame that is lost,
that meets a cut, or that is on its way when a cut begins, vanishes without a trace. Beyond that, peer frames may arrive
twice or leave their order, as frames do that meet a broken stream and its successor; session frames do not, because a
client's stream promises that they will not.
"""

import random
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from isochrone.drills.sim.loop import SimLoop
from isochrone.drills.sim.trace import Trace
from isochrone.ids import ZoneId
from isochrone.topology.model import Topology
from isochrone.wire.shaping import LinkShape

SOFTWARE_S = 0.000_2
"""What software and the local network add to every frame."""
_NEXT_S = 1e-9
"""Between two frames of a stream that would arrive at one time."""


@dataclass(slots=True)
class Weather:
    """What the whole network does to frames now."""

    jitter: float = 0.0
    """Uniform extra delay, as a share of the link's own."""
    delay_s: float = 0.0
    """Uniform extra delay up to this."""
    loss: float = 0.0
    duplicate: float = 0.0
    reorder: float = 0.0


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A node or a client, and where it stands."""

    name: str
    number: int
    zone: ZoneId
    region: str


class Link:
    """One directed link."""

    __slots__ = ("_arrived_last_s", "_delay_s", "_generation", "_network", "_shape", "cuts", "source", "target")

    def __init__(self, network: "Network", source: Endpoint, target: Endpoint, shape: LinkShape) -> None:
        self.source = source
        self.target = target
        self.cuts = 0
        """How many faults cut it."""
        self._network = network
        self._generation = 0
        self._arrived_last_s = 0.0
        self._shape = LinkShape()
        self.reshape(shape)

    def reshape(self, shape: LinkShape) -> None:
        """Take a shape. If it is cut, that is one more cut, until a shape is taken that is not."""
        if shape.cut and not self._shape.cut:
            self.cut()
        elif self._shape.cut and not shape.cut:
            self.mend()
        self._shape = shape
        self._delay_s = shape.delay_ms / 1000 + SOFTWARE_S

    def cut(self) -> None:
        """Lose everything, from what is on its way now, until `mend` was called as often."""
        if not self.cuts:
            self._generation += 1
        self.cuts += 1

    def mend(self) -> None:
        """End one cut."""
        self.cuts -= 1

    def send(self, deliver: Callable[[Any], None], payload: Any, *, stream: bool) -> bool:
        """Call `deliver(payload)` when the frame arrives, if it does; returns whether it left.

        `stream`: it arrives at most once and in order; else it may be repeated and overtaken.
        """
        network = self._network
        weather, rng, loop = network.weather, network.rng, network.loop
        shape = self._shape
        lost = self.cuts or (weather.loss and rng.random() < weather.loss) or (shape.loss and rng.random() < shape.loss)
        if lost:
            network.lost += 1
            return False
        delay_s = self._delay_s
        if shape.jitter_ms:
            delay_s += rng.random() * shape.jitter_ms / 1000
        if weather.jitter:
            delay_s += rng.random() * weather.jitter * self._delay_s
        if weather.delay_s:
            delay_s += rng.random() * weather.delay_s
        when_s = loop.now_s + delay_s
        frame = (self._generation, deliver, payload)
        if not stream and weather.reorder and rng.random() < weather.reorder:
            network.reordered += 1
            when_s += rng.random() * 4 * (delay_s + 0.005)
        else:
            if when_s <= self._arrived_last_s:
                when_s = self._arrived_last_s + _NEXT_S
            self._arrived_last_s = when_s
        loop.at(when_s, self._arrive, frame)
        if not stream and weather.duplicate and rng.random() < weather.duplicate:
            network.repeated += 1
            loop.at(when_s + rng.random() * 4 * (delay_s + 0.005), self._arrive, frame)
        return True

    def _arrive(self, frame: tuple[int, Callable[[Any], None], Any]) -> None:
        generation, deliver, payload = frame
        network = self._network
        if generation != self._generation:
            network.lost += 1
            return
        network.delivered += 1
        network.trace.note(network.loop.now_s, Trace.DELIVERY, self.source.number, self.target.number)
        deliver(payload)


class Network:
    """All links."""

    def __init__(self, loop: SimLoop, rng: random.Random, trace: Trace, topology: Topology) -> None:
        self.loop = loop
        self.rng = rng
        self.trace = trace
        self.weather = Weather()
        self.delivered = 0
        self.lost = 0
        self.repeated = 0
        self.reordered = 0
        self._shapes = topology.links()
        self._endpoints: dict[str, Endpoint] = {}
        self._links: dict[tuple[str, str], Link] = {}

    def add(self, name: str, zone: ZoneId, region: str) -> Endpoint:
        """Connect an endpoint with all that are there."""
        endpoint = Endpoint(name, len(self._endpoints), zone, region)
        for other in self._endpoints.values():
            for source, target in ((endpoint, other), (other, endpoint)):
                shape = self._shapes[source.zone, target.zone]
                self._links[source.name, target.name] = Link(self, source, target, shape)
        self._endpoints[name] = endpoint
        return endpoint

    def link(self, source: str, target: str) -> Link:
        """The link from one endpoint to another."""
        return self._links[source, target]

    def between(self, source: str, target: str) -> list[Link]:
        """The links from one place to another: a place is a region, a zone or an endpoint."""
        return [
            link
            for link in self._links.values()
            if source in _places_of(link.source) and target in _places_of(link.target)
        ]

    def around(self, places: Iterable[str]) -> list[Link]:
        """The links between these places and everything else, both ways."""
        inside = set(places)
        return [
            link
            for link in self._links.values()
            if inside.isdisjoint(_places_of(link.source)) != inside.isdisjoint(_places_of(link.target))
        ]

    def reshape(self, shapes: Mapping[tuple[ZoneId, ZoneId], LinkShape], sources: Collection[str]) -> None:
        """Give the links from these endpoints the shapes of their pairs of zones."""
        for link in self._links.values():
            shape = shapes.get((link.source.zone, link.target.zone))
            if shape is not None and link.source.name in sources:
                link.reshape(shape)

    def mend_all(self) -> None:
        """End every cut."""
        for link in self._links.values():
            link.cuts = 0


def _places_of(endpoint: Endpoint) -> tuple[str, ...]:
    return endpoint.name, endpoint.zone, endpoint.region
