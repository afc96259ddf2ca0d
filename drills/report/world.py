"""The map: land, regions, and the round trips between them. Equirectangular, cut to where the regions are."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from itertools import combinations
from typing import Any

from isochrone.drills.record import DrillRecord
from isochrone.drills.report.svg import picture, text
from isochrone.drills.report.timeline import region_colour, short_city
from isochrone.drills.results import Results
from isochrone.topology.model import Region

WIDTH, HEIGHT = 560.0, 270.0
MARGIN_DEGREES, SPAN_MIN_DEGREES = 24.0, 50.0
PIXELS_MIN = 2.5
"""Islands smaller than this are left out."""

Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class _Window:
    """The part of the world that is drawn: its north-west corner, and how large a degree is."""

    west: float
    north: float
    scale: float

    def place(self, longitude: float, latitude: float) -> Point:
        return (longitude - self.west) * self.scale, (self.north - latitude) * self.scale


def draw_world(record: DrillRecord, results: Results, land: dict[str, Any]) -> str:
    """The picture. `land` is a GeoJSON feature with a multi-polygon of land."""
    regions = record.topology.regions
    window = _window(regions)
    lost = {fault.region for fault in results.faults if fault.region is not None}
    parts = [f'<path class="land" d="{_land_path(window, land)}"/>']
    parts += [_arc(window, one, other, lost) for one, other in combinations(regions, 2)]
    parts += [_round_trip(record, window, one, other) for one, other in combinations(regions, 2)]
    parts += [_site(record, window, region, lost) for region in regions]
    return picture(WIDTH, HEIGHT, "Regions and the round trips between them", parts)


def _window(regions: tuple[Region, ...]) -> _Window:
    longitudes, latitudes = [region.longitude for region in regions], [region.latitude for region in regions]
    span = max(longitudes) - min(longitudes) + 2 * MARGIN_DEGREES
    span = max(span, (max(latitudes) - min(latitudes) + MARGIN_DEGREES) * WIDTH / HEIGHT, SPAN_MIN_DEGREES)
    span = min(span, 360.0)
    scale = WIDTH / span
    middle = (max(longitudes) + min(longitudes)) / 2
    west = min(max(middle - span / 2, -180.0), 180.0 - span)
    north = min((max(latitudes) + min(latitudes)) / 2 + HEIGHT / scale / 2, 84.0)
    return _Window(west, north, scale)


def _land_path(window: _Window, land: dict[str, Any]) -> str:
    path: list[str] = []
    outlines = (outline for polygon in land["geometry"]["coordinates"] for outline in _split_at_date_line(polygon[0]))
    for outline in outlines:
        points = [window.place(longitude, latitude) for longitude, latitude in outline]
        left, right = min(point[0] for point in points), max(point[0] for point in points)
        top, bottom = min(point[1] for point in points), max(point[1] for point in points)
        in_sight = right > 0 and left < WIDTH and bottom > 0 and top < HEIGHT
        if in_sight and max(right - left, bottom - top) >= PIXELS_MIN:
            path.append("M" + "L".join(_thin(points)) + "Z")
    return "".join(path)


def _split_at_date_line(ring: Sequence[Point]) -> list[list[Point]]:
    """The outline in parts that do not cross the date line, where it would run across the whole map."""
    parts: list[list[Point]] = [[]]
    for at, point in enumerate(ring):
        if at and abs(point[0] - ring[at - 1][0]) > 180:
            parts.append([])
        parts[-1].append(point)
    if len(parts) > 1:
        parts[0] = parts.pop() + parts[0]
    return parts


def _thin(points: list[Point]) -> list[str]:
    """Points in picture units, without those that would not move a pixel."""
    kept: list[Point] = []
    for x, y in points:
        if not kept or abs(x - kept[-1][0]) + abs(y - kept[-1][1]) >= 1.0:
            kept.append((x, y))
    return [f"{x:.1f} {y:.1f}" for x, y in kept]


def _bend(window: _Window, one: Region, other: Region) -> tuple[Point, Point, Point]:
    """Both ends of a link and the point that bends it upwards, the more the longer it is."""
    (x1, y1), (x2, y2) = window.place(one.longitude, one.latitude), window.place(other.longitude, other.latitude)
    return (x1, y1), ((x1 + x2) / 2, (y1 + y2) / 2 - 0.3 * abs(x2 - x1)), (x2, y2)


def _arc(window: _Window, one: Region, other: Region, lost: set[str]) -> str:
    (x1, y1), (bend_x, bend_y), (x2, y2) = _bend(window, one, other)
    css = "arc cut" if one.id in lost or other.id in lost else "arc"
    return f'<path class="{css}" d="M{x1:.1f} {y1:.1f}Q{bend_x:.1f} {bend_y:.1f} {x2:.1f} {y2:.1f}"/>'


def _round_trip(record: DrillRecord, window: _Window, one: Region, other: Region) -> str:
    (_, y1), (bend_x, bend_y), (_, y2) = _bend(window, one, other)
    rtt_ms = record.topology.rtt_ms(one.zones[0], other.zones[0])
    return text(bend_x, (y1 + y2) / 4 + bend_y / 2 + 4, f"{rtt_ms:.0f} ms", "halo", "middle")


def _site(record: DrillRecord, window: _Window, region: Region, lost: set[str]) -> str:
    x, y = window.place(region.longitude, region.latitude)
    ring = f'<circle class="hit" cx="{x:.1f}" cy="{y:.1f}" r="10"/>' if region.id in lost else ""
    note = " (lost)" if region.id in lost else ""
    return (
        f'<circle class="site" cx="{x:.1f}" cy="{y:.1f}" r="6" style="fill:{region_colour(record, region.id)}"/>{ring}'
        f'<text class="halo label" text-anchor="middle" x="{x:.1f}" y="{y + 25:.1f}">'
        f"{escape(short_city(region.city))}{note}</text>"
    )
