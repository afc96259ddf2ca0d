"""Writes reports, and says what machine and software made them."""

import json
import os
import platform
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import psutil

import isochrone.topology
from isochrone.drills.history import to_lines
from isochrone.drills.record import DrillRecord
from isochrone.drills.report.figures import Surroundings, to_figures
from isochrone.drills.report.page import Assets, to_page
from isochrone.drills.results import Results

PACKAGES = ("isochrone", "ray", "grpcio", "lmdb", "msgpack")


def describe_surroundings(started_at: datetime) -> Surroundings:
    """When, where and with what. The moment of the call counts as the end of the drill."""
    return Surroundings(
        started_at=started_at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC"),
        elapsed_s=(datetime.now(UTC) - started_at).total_seconds(),
        versions={"python": platform.python_version()} | {name: version(name) for name in PACKAGES},
        machine={
            "system": f"{platform.system()} {platform.release()}",
            "architecture": platform.machine(),
            "cores": str(os.cpu_count()),
            "memory": f"{psutil.virtual_memory().total / 2**30:.0f} GiB",
        },
    )


def write_report(directory: Path, record: DrillRecord, results: Results, surroundings: Surroundings) -> None:
    """Write `report.json`, `report.html` and `history.jsonl` into a directory, which is made if need be.

    Raises:
        OSError: the directory or a file cannot be written.
    """
    directory.mkdir(parents=True, exist_ok=True)
    history = "".join(f"{line}\n" for line in to_lines(record.operations))
    (directory / "history.jsonl").write_text(history, "utf-8")
    figures = json.dumps(to_figures(record, results, surroundings), indent=2) + "\n"
    (directory / "report.json").write_text(figures, "utf-8")
    (directory / "report.html").write_text(to_page(record, results, surroundings, load_assets()), "utf-8")


def load_assets() -> Assets:
    """Style, script and map, which ship with the package."""
    here = Path(__file__).parent
    data = Path(isochrone.topology.__file__).parent / "data"
    return Assets(
        style=(here / "style.css").read_text("utf-8"),
        script=(here / "script.js").read_text("utf-8"),
        land=json.loads((data / "world_land_110m.geojson").read_text("utf-8")),
    )
