"""Nodes go to the Ray nodes of their zones, and come back there."""

import json
import subprocess
import sys
from pathlib import Path

from small_topology import write_topology

PROGRAM = Path(__file__).parents[2] / "support" / "place_nodes.py"


def test_nodes_are_placed_by_zone_labels_and_restarted_in_their_zone(tmp_path: Path) -> None:
    result = tmp_path / "result.json"
    command = [sys.executable, str(PROGRAM), str(tmp_path / "d"), str(write_topology(tmp_path)), str(result)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=150, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr
    by_zone = {"us-east-1a-1": "us-east-1a", "us-east-1b-1": "us-east-1b", "us-east-1c-1": "us-east-1c"}
    assert json.loads(result.read_text(encoding="utf-8")) == {
        "placement": "nodes are placed by the Ray label isochrone.io/zone",
        "started": by_zone,
        "restarted": by_zone,
        "held": 0,
    }
