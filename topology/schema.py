"""What a topology file may say: one pydantic model for each section, and faults in plain words.

Each section is checked on its own, so that a fault in one does not hide the faults in another: `read_document`
returns what could be read together with the names of the faulty sections.
"""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal, get_args

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, ValidationError
from pydantic_core import ErrorDetails

from isochrone.topology.model import Problem

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")]
Milliseconds = Annotated[float, Field(ge=0, le=60_000, allow_inf_nan=False)]
_COUNT_TAG, _NAMES_TAG = "<count>", "<names>"


class Section(BaseModel):
    """Base of all sections: no unknown keys, no silent conversion."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class RegionSection(Section):
    """A region and its zones."""

    name: Name = Field(description="Name of the region; a row of the latency matrix unless links give all its delays.")
    zones: Annotated[
        Annotated[Annotated[int, Field(ge=1, le=26)], Tag(_COUNT_TAG)]
        | Annotated[Annotated[list[Name], Field(min_length=1)], Tag(_NAMES_TAG)],
        Discriminator(lambda value: _NAMES_TAG if isinstance(value, list) else _COUNT_TAG),
    ] = Field(description="Names of its zones, unique in the file; or how many (then named NAMEa, NAMEb, …).")
    city: str | None = Field(
        default=None, min_length=1, description="City, for maps and tables. Default: from regions.csv."
    )
    latitude: float | None = Field(default=None, ge=-90, le=90, description="Degrees north. Default: from regions.csv.")
    longitude: float | None = Field(
        default=None, ge=-180, le=180, description="Degrees east. Default: from regions.csv."
    )
    witness_site: bool = Field(
        default=False, description="Its nodes hold witnesses only; no keyspace can have its home there."
    )


class NodeSection(Section):
    """A node. Several nodes in one zone share its replicas."""

    name: Name = Field(description="Name of the node, unique and for good.")
    zone: Name = Field(description="The zone it runs in.")
    address: str | None = Field(
        default=None,
        pattern=r"^(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):[0-9]{1,5}$",
        description="host:port for peers and clients. Default: chosen on loopback by whoever starts the node.",
    )


class LinkSection(Section):
    """An override of one direction of one link, or of all links between two regions. Later overrides win."""

    from_: Name = Field(alias="from", description="A region or a zone: the sending side.")
    to: Name = Field(description="A region or a zone: the receiving side.")
    delay_ms: Milliseconds | None = Field(default=None, description="One-way delay in ms.")
    jitter_ms: Milliseconds | None = Field(default=None, description="Added to the delay: uniform in [0, jitter_ms].")
    loss: float | None = Field(
        default=None, ge=0, le=1, allow_inf_nan=False, description="Probability that a frame is lost."
    )


class PlacementSection(Section):
    """Voters placed by hand, one in each zone named."""

    voters: list[Name] = Field(min_length=1, description="Zones of the full voters.")
    witnesses: list[Name] = Field(default=[], description="Zones of the witnesses; always fewer than a quorum.")


class KeyspaceSection(Section):
    """A key prefix: where it lives and what it survives."""

    prefix: str = Field(
        pattern=r"^[!-~]{1,255}$", description="Prefix of its keys, part of them. No prefix may start with another."
    )
    home: Name = Field(description="The region that leads it.")
    survive: Literal["zone", "region"] = Field(description="What may be lost: one zone, or one region.")
    ordering: Literal["linearizable", "external"] = Field(
        default="linearizable",
        description="external: by commit timestamp, for cross-group transactions and strong snapshots.",
    )
    witness: bool = Field(
        default=False, description="Make the last voter a witness: it stores the log but not the state."
    )
    placement: PlacementSection | None = Field(default=None, description="Voters by hand in place of the derived ones.")


class ClockSection(Section):
    """Where the clock bound comes from."""

    source: Literal["kernel", "bound"] = Field(
        default="kernel", description="kernel: adjtimex; bound: the operator vouches."
    )
    bound_ms: float | None = Field(
        default=None,
        gt=0,
        le=10_000,
        allow_inf_nan=False,
        description="Half-width of the clock interval in ms. bound: required; kernel: the widest accepted, 100.",
    )
    offset_max_ms: float = Field(
        default=500.0, gt=0, le=60_000, allow_inf_nan=False, description="Largest accepted lead of a timestamp, ms."
    )


class TimersSection(Section):
    """Timers of one group in place of the derived ones."""

    heartbeat_ms: int | None = Field(
        default=None, ge=20, le=60_000, description="At least the P90 round trip between voters."
    )
    election_timeout_ms: int | None = Field(
        default=None, ge=100, le=600_000, description="Base T, drawn from [T, 1.5 T]; at least five heartbeats."
    )


class TopologyDocument(Section):
    """A topology file."""

    name: Name = Field(description="Name of the deployment.")
    latencies: str = Field(
        min_length=1, description="Matrix of round trips: aws, gcp, azure, gryff, or a CSV file beside this one."
    )
    regions: list[RegionSection] = Field(description="The regions, each with its zones.")
    nodes: list[NodeSection] | None = Field(
        default=None, description="All nodes; every zone needs one. Default: one for each zone, named ZONE-1."
    )
    links: list[LinkSection] = Field(default=[], description="Overrides of single links, directed.")
    keyspaces: list[KeyspaceSection] = Field(description="The keyspaces.")
    clock: ClockSection = Field(default=ClockSection(), description="Where the clock bound comes from.")
    timers: dict[str, TimersSection] = Field(default={}, description="Timers by group, such as us-east-1.region.")


@dataclass(frozen=True, slots=True)
class ReadDocument:
    """A document, the sections in it that are faulty (and stand there empty), and every fault found."""

    document: TopologyDocument
    faulty: frozenset[str]
    problems: tuple[Problem, ...]


_PLACEHOLDERS: Mapping[str, object] = {"name": "unnamed", "latencies": "aws", "regions": [], "keyspaces": []}


def read_document(plain: object, file: str) -> ReadDocument:
    """Check plain values against the schema, section by section."""
    if not isinstance(plain, dict):
        found = "nothing" if plain is None else f"a {type(plain).__name__}"
        allowed = f"a mapping with the keys {', '.join(TopologyDocument.model_fields)}"
        problem = Problem(file, "document", found, allowed)
        everything = frozenset(TopologyDocument.model_fields)
        return ReadDocument(TopologyDocument.model_validate(_PLACEHOLDERS), everything, (problem,))
    try:
        return ReadDocument(TopologyDocument.model_validate(plain), frozenset(), ())
    except ValidationError as error:
        details = error.errors(include_url=False)
        faulty = frozenset(str(detail["loc"][0]) for detail in details)
        sound = {key: value for key, value in plain.items() if key not in faulty}
        document = TopologyDocument.model_validate({**_PLACEHOLDERS, **sound})
        return ReadDocument(document, faulty, tuple(_problem(detail, file) for detail in details))


def _problem(detail: ErrorDetails, file: str) -> Problem:
    location = tuple(part for part in detail["loc"] if part not in (_COUNT_TAG, _NAMES_TAG))
    found = "nothing" if detail["type"] == "missing" else _shorten(detail["input"])
    if detail["type"] == "extra_forbidden":
        found = "an unknown key"
    return Problem(file, path_of(location), found, _allowed(detail, location))


def path_of(location: tuple[int | str, ...]) -> str:
    """A pydantic location as a key path: `regions[0].zones`."""
    path = ""
    for part in location:
        path += f"[{part}]" if isinstance(part, int) else f".{part}" if path else part
    return path or "document"


def _shorten(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "…"


def _allowed(detail: ErrorDetails, location: tuple[int | str, ...]) -> str:
    model = _model_above(location)
    names = {field.alias or name: field for name, field in model.model_fields.items()}
    key = str(location[-1])
    match detail["type"]:
        case "extra_forbidden":
            close = difflib.get_close_matches(key, names, n=1)
            hint = f" (did you mean {close[0]}?)" if close else ""
            return f"the keys {', '.join(names)}{hint}"
        case "missing":
            return f"this key is required: {names[key].description}"
        case "string_pattern_mismatch":
            pattern = detail.get("ctx", {}).get("pattern", "")
            return f"text that matches {pattern}"
        case _:
            return detail["msg"].removeprefix("Input should be ")


def _model_above(location: tuple[int | str, ...]) -> type[BaseModel]:
    """The section that holds the last key of a location."""
    model: type[BaseModel] = TopologyDocument
    for part in location[:-1]:
        fields = {field.alias or name: field for name, field in model.model_fields.items()}
        below = _model_in(fields[part].annotation) if isinstance(part, str) and part in fields else None
        model = below or model
    return model


def _model_in(annotation: object) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((model for part in get_args(annotation) if (model := _model_in(part))), None)
