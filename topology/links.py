"""One shaped link for each ordered pair of zones, from the matrix and the overrides of the file.

Between regions a link takes half of the pair's median round trip, inside a region half of the middle figure
between its zones (else of an assumed one). Overrides are applied in the order of the file, so a later one wins.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from isochrone.ids import RegionId, ZoneId
from isochrone.topology.latency import ASSUMED_ZONE_RTT_MS, TAIL_RATIO, LatencyMatrix
from isochrone.topology.model import Region
from isochrone.wire.shaping import LinkShape

ZonePair = tuple[ZoneId, ZoneId]


@dataclass(frozen=True, slots=True)
class LinkOverride:
    """Changes to every link from one of `sources` to one of `targets`; None leaves a figure as it is."""

    sources: frozenset[ZoneId]
    targets: frozenset[ZoneId]
    delay_ms: float | None
    jitter_ms: float | None
    loss: float | None


@dataclass(frozen=True, slots=True)
class Links:
    """The links of a topology."""

    shapes: Mapping[ZonePair, LinkShape]
    tail_rtt_ms: Mapping[ZonePair, float]
    """The tail of the round trip, equal for both orders of a pair."""
    assumed: frozenset[RegionId]
    """Regions where some link between zones rests on the assumed figure."""
    missing: tuple[tuple[RegionId, RegionId], ...]
    """Ordered pairs of regions with a link that neither the matrix nor an override gives."""


@dataclass(frozen=True, slots=True)
class _Base:
    """Round trip of a zone pair before overrides."""

    rtt_ms: float | None
    tail_ms: float | None
    assumed: bool = False


def build_links(
    regions: Sequence[Region],
    matrix: LatencyMatrix,
    zone_rtts: Mapping[RegionId, float],
    overrides: Sequence[LinkOverride],
) -> Links:
    """All links. Pairs without a figure are left out of `shapes` and named in `missing`."""
    places = [(zone, region.id) for region in regions for zone in region.zones]
    shapes: dict[ZonePair, LinkShape] = {}
    given: set[ZonePair] = set()
    bases: dict[ZonePair, _Base] = {}
    assumed: set[RegionId] = set()
    missing: dict[tuple[RegionId, RegionId], None] = {}
    for source, source_region in places:
        for target, target_region in places:
            if source == target:
                continue
            pair = (source, target)
            base = bases[pair] = _base(source_region, target_region, matrix, zone_rtts)
            shape, own_delay = _overridden(pair, LinkShape(delay_ms=(base.rtt_ms or 0.0) / 2), overrides)
            if own_delay:
                given.add(pair)
            elif base.rtt_ms is None:
                missing[source_region, target_region] = None
                continue
            elif base.assumed:
                assumed.add(source_region)
            shapes[pair] = shape
    tails = {
        (a, b): _tail_ms(shapes[a, b], shapes[b, a], None if given & {(a, b), (b, a)} else bases[a, b].tail_ms)
        for a, b in shapes
        if (b, a) in shapes
    }
    return Links(shapes, tails, frozenset(assumed), tuple(missing))


def _base(a: RegionId, b: RegionId, matrix: LatencyMatrix, zone_rtts: Mapping[RegionId, float]) -> _Base:
    if a != b:
        return _Base(matrix.rtt_ms(a, b), matrix.tail_rtt_ms(a, b))
    rtt_ms = zone_rtts.get(a, ASSUMED_ZONE_RTT_MS)
    return _Base(rtt_ms, rtt_ms, assumed=a not in zone_rtts)


def _overridden(pair: ZonePair, shape: LinkShape, overrides: Sequence[LinkOverride]) -> tuple[LinkShape, bool]:
    """The shape after overrides, and whether one of them gave the delay."""
    own_delay = False
    for override in overrides:
        if pair[0] not in override.sources or pair[1] not in override.targets:
            continue
        if override.delay_ms is not None:
            shape, own_delay = replace(shape, delay_ms=override.delay_ms), True
        if override.jitter_ms is not None:
            shape = replace(shape, jitter_ms=override.jitter_ms)
        if override.loss is not None:
            shape = replace(shape, loss=override.loss)
    return shape, own_delay


def _tail_ms(there: LinkShape, back: LinkShape, measured_ms: float | None) -> float:
    """A measured tail holds only for measured delays. Jitter comes on top of either, in full."""
    delays_ms = there.delay_ms + back.delay_ms
    tail_ms = TAIL_RATIO * delays_ms if measured_ms is None else measured_ms
    return tail_ms + there.jitter_ms + back.jitter_ms
