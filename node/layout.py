"""Where a deployment keeps what, below its directory.

::

    bootstrap.json          that and as what this directory was bootstrapped; written last
    topology.yaml           the topology as of then
    nodes/NODE.json         a node's configuration
    data/NODE/              a node's store
    supervisors/REGION.json which nodes of the region should run
    logs/PROCESS.log        what nodes and supervisors log
    links.json              link shapes that differ from the topology's
    run.json                what runs now; absent when nothing does
    lock                    held while a deployment is brought up or down
    head.log                what the Ray head printed

Names of nodes may hold slashes; in file names these and other special characters are percent-encoded.
"""

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from isochrone.ids import NodeId, RegionId


@dataclass(frozen=True, slots=True)
class Layout:
    """Paths below one deployment directory."""

    root: Path

    @property
    def bootstrap_record(self) -> Path:
        """The record of the bootstrap."""
        return self.root / "bootstrap.json"

    @property
    def topology(self) -> Path:
        """The topology as bootstrapped."""
        return self.root / "topology.yaml"

    def node_config(self, node: NodeId) -> Path:
        """A node's configuration."""
        return self.root / "nodes" / f"{_file_name(node)}.json"

    def node_data(self, node: NodeId) -> Path:
        """A node's store."""
        return self.root / "data" / _file_name(node)

    def supervisor_state(self, region: RegionId) -> Path:
        """A supervisor's target."""
        return self.root / "supervisors" / f"{_file_name(region)}.json"

    def log(self, process: str) -> Path:
        """The log of a node or supervisor."""
        return self.root / "logs" / f"{_file_name(process)}.log"

    @property
    def links(self) -> Path:
        """Link shapes that differ from the topology."""
        return self.root / "links.json"

    @property
    def run(self) -> Path:
        """What runs now."""
        return self.root / "run.json"

    @property
    def lock(self) -> Path:
        """Lock of the commands that bring up and take down."""
        return self.root / "lock"

    @property
    def head_log(self) -> Path:
        """What the Ray head printed."""
        return self.root / "head.log"


def _file_name(name: str) -> str:
    return quote(name, safe="")
