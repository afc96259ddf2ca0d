"""The map: land, regions, and the round trips between them. Equirectangular, from 60 degrees south to 78 north."""

from html import escape
from itertools import combinations
from typing import Any

from isochrone.drills.record import DrillRecord
from isochrone.drills.report.svg import picture
from isochrone.drills.report.timeline import region_colour
from isochrone.drills.results import Results
from isochrone.topology.model import Region

WIDTH, NORTH, SOUTH = 720.0, 76.0, -56.0
HEIGHT = WIDTH * (NORTH - SOUTH) / 360.0
EXTENT_MIN_DEGREES = 1.6
"""Islands smaller than this are left out."""

Point = tuple[float, float]


def draw_world(record: DrillRecord, results: Results, land: dict[str, Any]) -> str:
    """The picture. `land` is a GeoJSON feature with a multi-polygon of land."""
    parts = [f'<path class="land" d="{_land_path(land)}"/>']
    lost = {fault.region for fault in results.faults if fault.region is not None}
    regions = record.topology.regions
    parts += [_arc(record, one, other, lost) for one, other in combinations(regions, 2)]
    parts += [_site(record, region, lost) for region in regions]
    return picture(WIDTH, HEIGHT, "Regions and the round trips between them", parts)


def _place(longitude: float, latitude: float) -> Point:
    return (longitude + 180.0) / 360.0 * WIDTH, (NORTH - latitude) / (NORTH - SOUTH) * HEIGHT


def _land_path(land: dict[str, Any]) -> str:
    path: list[str] = []
    for polygon in land["geometry"]["coordinates"]:
        ring = polygon[0]
        longitudes, latitudes = [point[0] for point in ring], [point[1] for point in ring]
        extent = max(max(longitudes) - min(longitudes), max(latitudes) - min(latitudes))
        if extent < EXTENT_MIN_DEGREES or max(latitudes) < SOUTH:
            continue
        points = [_place(longitude, max(latitude, SOUTH - 4)) for longitude, latitude in ring]
        path.append("M" + "L".join(_thin(points)) + "Z")
    return "".join(path)


def _thin(points: list[Point]) -> list[str]:
    """Points in picture units, without those that would not move a pixel."""
    kept: list[Point] = []
    for x, y in points:
        if not kept or abs(x - kept[-1][0]) + abs(y - kept[-1][1]) >= 1.0:
            kept.append((x, y))
    return [f"{x:.1f} {y:.1f}" for x, y in kept]


def _arc(record: DrillRecord, one: Region, other: Region, lost: set[str]) -> str:
    (x1, y1), (x2, y2) = _place(one.longitude, one.latitude), _place(other.longitude, other.latitude)
    bend = min(46.0, 0.16 * abs(x2 - x1) + 8.0)
    middle_x, middle_y = (x1 + x2) / 2, (y1 + y2) / 2 - bend
    rtt_ms = record.topology.rtt_ms(one.zones[0], other.zones[0])
    css = "arc cut" if one.id in lost or other.id in lost else "arc"
    label_y = (y1 + y2) / 4 + middle_y / 2 - 4
    return (
        f'<path class="{css}" d="M{x1:.1f} {y1:.1f}Q{middle_x:.1f} {middle_y:.1f} {x2:.1f} {y2:.1f}"/>'
        f'<text class="halo tiny" text-anchor="middle" x="{middle_x:.1f}" y="{label_y:.1f}">{rtt_ms:.0f} ms</text>'
    )


def _site(record: DrillRecord, region: Region, lost: set[str]) -> str:
    x, y = _place(region.longitude, region.latitude)
    ring = f'<circle class="hit" cx="{x:.1f}" cy="{y:.1f}" r="10"/>' if region.id in lost else ""
    anchor = "end" if x > WIDTH - 110 else "start"
    offset = -13 if anchor == "end" else 13
    note = " (lost)" if region.id in lost else ""
    return (
        f'<circle class="site" cx="{x:.1f}" cy="{y:.1f}" r="6" style="fill:{region_colour(record, region.id)}"/>{ring}'
        f'<text class="halo label" text-anchor="{anchor}" x="{x + offset:.1f}" y="{y + 17:.1f}">'
        f"{escape(region.city)}{note}</text>"
    )
