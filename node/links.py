"""Link shapes as text, for the file from which a node that starts late learns what was changed before.

The text is a JSON list of `{"source", "target", "delay_ms", "jitter_ms", "loss", "cut"}`, one per directed link.
"""

import json
from collections.abc import Mapping

from isochrone.ids import ZoneId
from isochrone.wire.shaping import LinkShape

Links = Mapping[tuple[ZoneId, ZoneId], LinkShape]


def encode_links(links: Links) -> str:
    """The links as the text of their file, in order of source and target."""
    rows = [
        {
            "source": source,
            "target": target,
            "delay_ms": shape.delay_ms,
            "jitter_ms": shape.jitter_ms,
            "loss": shape.loss,
            "cut": shape.cut,
        }
        for (source, target), shape in sorted(links.items())
    ]
    return json.dumps(rows, indent=1) + "\n"


def parse_links(text: str) -> dict[tuple[ZoneId, ZoneId], LinkShape]:
    """Parse what `encode_links` wrote. Raises `ValueError`, `KeyError` or `TypeError` for anything else."""
    return {
        (ZoneId(row["source"]), ZoneId(row["target"])): LinkShape(
            row["delay_ms"], row["jitter_ms"], row["loss"], row["cut"]
        )
        for row in json.loads(text)
    }
