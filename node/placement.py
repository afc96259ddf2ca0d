"""Where node actors go: Ray's node labels against the topology's zones.

A Ray cluster says where its nodes stand by a label. The first of `ZONE_LABELS` that any Ray node carries counts. A
cluster without zone labels is a laptop or a test: its Ray nodes stand for all zones, and `Placement.describe` says so.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from isochrone.errors import InvalidRequest
from isochrone.ids import ZoneId

ZONE_LABELS = ("isochrone.io/zone", "topology.kubernetes.io/zone")
"""Label keys that name a Ray node's zone: ours, and the one that Kubernetes gives."""


class PlacementError(InvalidRequest):
    """The Ray cluster has zone labels, but none for a zone of the topology: the fault of whoever labelled it."""


@dataclass(frozen=True, slots=True)
class Placement:
    """How actors are bound to zones: by the label `key`, or not at all when it is None."""

    key: str | None

    def selector(self, zone: ZoneId) -> dict[str, str] | None:
        """The label selector of an actor in `zone`."""
        return None if self.key is None else {self.key: zone}

    def describe(self) -> str:
        """One line for the operator."""
        if self.key is None:
            return "no Ray node has a zone label: one Ray node stands for all zones"
        return f"nodes are placed by the Ray label {self.key}"


def choose_placement(
    zones: Iterable[ZoneId], labels: Sequence[Mapping[str, str]], keys: Sequence[str] = ZONE_LABELS
) -> Placement:
    """Choose how to place actors, from the labels of the live Ray nodes.

    Raises:
        PlacementError: there are zone labels, and a zone of the topology has no Ray node.
    """
    for key in keys:
        labelled = {each[key] for each in labels if key in each}
        if not labelled:
            continue
        if missing := sorted(set(zones) - labelled):
            raise PlacementError(
                f"no Ray node carries {key}={missing[0]}; zones without a Ray node: {', '.join(missing)}; "
                f"zones seen: {', '.join(sorted(labelled))}"
            )
        return Placement(key)
    return Placement(None)
