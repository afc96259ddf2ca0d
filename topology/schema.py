"""What a topology file may say: one pydantic model for each section, and faults in plain words.

`read_document` returns what could be read beside the faults, so that a fault in one place does not hide those that
only later steps can see in others.
"""

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from isochrone.topology.model import Problem

_NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$"
_ADDRESS_PATTERN = r"^(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):[0-9]{1,5}$"
_PREFIX_PATTERN = r"^[!-~]{1,255}$"
_WORDS_BY_PATTERN = {
    _NAME_PATTERN: "at most 63 letters, digits, dots, dashes and underscores that begin with a letter or digit",
    _ADDRESS_PATTERN: "host:port",
    _PREFIX_PATTERN: "1 to 255 printable ASCII characters without spaces",
}

_WORDS_BY_TYPE = {
    "string_type": "text",
    "bool_type": "true or false",
    "int_type": "a whole number",
    "float_type": "a number",
    "list_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "too_short": "at least one item",
}

Name = Annotated[str, Field(pattern=_NAME_PATTERN)]
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
    latitude: float | None = Field(
        default=None, ge=-90, le=90, allow_inf_nan=False, description="Degrees north. Default: from regions.csv."
    )
    longitude: float | None = Field(
        default=None, ge=-180, le=180, allow_inf_nan=False, description="Degrees east. Default: from regions.csv."
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
        pattern=_ADDRESS_PATTERN,
        description="host:port for peers and clients. Default: chosen on loopback by whoever starts the node.",
    )


class LinkSection(Section):
    """An override of one direction of one link, or of all links between two regions. Later overrides win."""

    from_: Name = Field(alias="from", description="A region or a zone: the sending side.")
    to: Name = Field(description="A region or a zone: the receiving side.")
    delay_ms: Milliseconds | None = Field(default=None, description="One-way delay in ms.")
    jitter_ms: Milliseconds | None = Field(default=None, description="Added to the delay: uniform in [0, jitter_ms].")
    loss: float | None = Field(
        default=None, ge=0, lt=1, allow_inf_nan=False, description="Probability that a frame is lost."
    )


class PlacementSection(Section):
    """Voters placed by hand, one in each zone named."""

    voters: list[Name] = Field(min_length=1, description="Zones of the full voters.")
    witnesses: list[Name] = Field(default=[], description="Zones of the witnesses; always fewer than a quorum.")


class QuorumsSection(Section):
    """How many voters make a quorum, in place of majorities. Any two that must meet have to."""

    commit: int = Field(ge=1, description="Voters that commit a write and confirm a read.")
    election: int = Field(ge=1, description="Voters that elect a leader; more than half of them.")


class KeyspaceSection(Section):
    """A key prefix: where it lives and what it survives."""

    prefix: str = Field(
        pattern=_PREFIX_PATTERN, description="Prefix of its keys, part of them. No prefix may start with another."
    )
    home: Name = Field(description="The region that leads it.")
    survive: Literal["zone", "region"] = Field(description="What may be lost: one zone, or one region.")
    ordering: Literal["linearizable", "external"] = Field(
        default="linearizable",
        description="external: by commit timestamp, for cross-group transactions and strong snapshots. It can be "
        "planned with; nodes cannot serve it yet and refuse to start.",
    )
    witness: bool = Field(
        default=False, description="Make the last voter a witness: it stores the log but not the state."
    )
    async_copy: Name | None = Field(
        default=None,
        description="A second region for goal zone: it holds a copy that no write waits for and that does not vote. "
        "If the home is lost for good, the copy may lack the newest acknowledged writes.",
    )
    placement: PlacementSection | None = Field(default=None, description="Voters by hand in place of the derived ones.")
    quorums: QuorumsSection | None = Field(default=None, description="Sizes of quorums in place of majorities.")
    lease_reads: bool = Field(
        default=False,
        description="Let the leader answer reads without asking a quorum. Sound only while every node's clock keeps "
        "clock.drift_max_ppm, and no machine is moved or restored while it runs.",
    )


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
    drift_max_ppm: int = Field(
        default=100_000,
        ge=0,
        le=250_000,
        description="How wrong a node's monotonic clock may run, in parts per million; lease reads rest on it. The "
        "default covers chronyd's fastest slewing (maxslewrate).",
    )


class TimersSection(Section):
    """Timers of one group in place of the derived ones."""

    heartbeat_ms: int | None = Field(
        default=None, ge=20, le=60_000, description="At least the P90 round trip between voters."
    )
    election_timeout_ms: int | None = Field(
        default=None, ge=100, le=600_000, description="Base T, drawn from [T, 1.5 T]; at least five heartbeats."
    )


class CompactionSection(Section):
    """How much of its history a group keeps: what was superseded within both bounds. Older reads and watches fail."""

    keep_seconds: int | None = Field(
        default=3600,
        ge=1,
        le=315_360_000,
        description="Forget what was superseded longer ago. null: forget nothing for its age.",
    )
    keep_revisions: int | None = Field(
        default=1_000_000,
        ge=1,
        le=1_000_000_000_000,
        description="Forget what was superseded before the last so many revisions. null: forget nothing for that.",
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
    clock: ClockSection = Field(default_factory=ClockSection, description="Source and bound of the nodes' clocks.")
    timers: dict[str, TimersSection] = Field(default={}, description="Timers by group, such as us-east-1.region.")
    compaction: dict[str, CompactionSection] = Field(
        default={}, description="History that is kept, by group, such as us-east-1.region."
    )


SectionT = TypeVar("SectionT", bound=Section)


@dataclass(frozen=True, slots=True)
class ReadDocument:
    """What could be read of a document: faulty list items are left out, other faulty keys stand at their default."""

    document: TopologyDocument
    faulty: frozenset[str]
    """The top-level keys with any fault in them."""
    positions: Mapping[str, tuple[int, ...]]
    """For each list with items left out: the position in the file of each item that is left."""
    problems: tuple[Problem, ...]

    def numbered(self, key: str, items: Sequence[SectionT]) -> list[tuple[int, SectionT]]:
        """The items of a list under a top-level key, each with its position in the file."""
        return list(zip(self.positions.get(key, range(len(items))), items, strict=True))


_PLACEHOLDERS: Mapping[str, object] = {"name": "unnamed", "latencies": "aws", "regions": [], "keyspaces": []}


def read_document(plain: object, file: str) -> ReadDocument:
    """Check plain values against the schema. Never raises: what is wrong is in `problems`."""
    if not isinstance(plain, dict):
        found = "nothing" if plain is None else f"a {type(plain).__name__}"
        allowed = f"a mapping with the keys {', '.join(TopologyDocument.model_fields)}"
        problem = Problem(file, "document", found, allowed)
        everything = frozenset(TopologyDocument.model_fields)
        return ReadDocument(TopologyDocument.model_validate(_PLACEHOLDERS), everything, {}, (problem,))
    try:
        return ReadDocument(TopologyDocument.model_validate(plain), frozenset(), {}, ())
    except ValidationError as error:
        details = error.errors(include_url=False)
    sound, positions = _without_faulty(plain, details)
    document = TopologyDocument.model_validate({**_PLACEHOLDERS, **sound})
    faulty = frozenset(str(detail["loc"][0]) for detail in details)
    return ReadDocument(document, faulty, positions, tuple(_problem(detail, file) for detail in details))


def _without_faulty(
    plain: Mapping[str, object], details: Sequence[ErrorDetails]
) -> tuple[dict[str, object], dict[str, tuple[int, ...]]]:
    """The document without what the errors are about, and the positions of the list items that are left."""
    faulty_items: dict[str, set[int]] = {}
    sound = dict(plain)
    for detail in details:
        match detail["loc"]:
            case (str() as key, int() as position, *_):
                faulty_items.setdefault(key, set()).add(position)
            case (str() as key, *_):
                sound.pop(key, None)
    positions: dict[str, tuple[int, ...]] = {}
    for key, faulty in faulty_items.items():
        items = sound.get(key)
        if isinstance(items, list):
            positions[key] = tuple(position for position in range(len(items)) if position not in faulty)
            sound[key] = [items[position] for position in positions[key]]
    return sound, positions


def _problem(detail: ErrorDetails, file: str) -> Problem:
    location = tuple(part for part in detail["loc"] if part not in (_COUNT_TAG, _NAMES_TAG))
    match detail["type"]:
        case "missing":
            found = "nothing"
        case "extra_forbidden":
            found = "an unknown key"
        case _:
            found = spelled(detail["input"])
    return Problem(file, path_of(location), found, _allowed(detail, location))


def path_of(location: tuple[int | str, ...]) -> str:
    """A pydantic location as a key path: `regions[0].zones`."""
    path = ""
    for part in location:
        path += f"[{part}]" if isinstance(part, int) else f".{part}" if path else part
    return path or "document"


def spelled(value: object) -> str:
    """A value of a file in few words, as YAML spells it."""
    match value:
        case None:
            return "null"
        case bool():
            return str(value).lower()
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "…"


def _allowed(detail: ErrorDetails, location: tuple[int | str, ...]) -> str:
    fields = _keys(_model_above(location))
    key = str(location[-1])
    about = f" ({fields[key].description})" if key in fields else ""
    match detail["type"]:
        case "extra_forbidden":
            close = difflib.get_close_matches(key, fields, n=1)
            hint = f" (did you mean {close[0]}?)" if close else ""
            return f"the keys {', '.join(fields)}{hint}"
        case "missing":
            return f"this key is required{about}"
        case "string_pattern_mismatch":
            return _WORDS_BY_PATTERN[str(detail["ctx"]["pattern"])] + about
        case "int_type" if _COUNT_TAG in detail["loc"]:
            return "a whole number, or a list of names" + about
        case _:
            return in_words(detail) + about


def in_words(detail: ErrorDetails) -> str:
    """What pydantic allows, in the words of a YAML file in place of Python's types."""
    words = _WORDS_BY_TYPE.get(detail["type"]) or detail["msg"].removeprefix("Input should be ")
    return {"True": "true", "False": "false"}.get(words, words)


def _keys(model: type[BaseModel]) -> dict[str, FieldInfo]:
    """The fields of a section by the key that a file uses."""
    return {field.alias or name: field for name, field in model.model_fields.items()}


def _model_above(location: tuple[int | str, ...]) -> type[BaseModel]:
    """The section that holds the last key of a location."""
    model: type[BaseModel] = TopologyDocument
    for part in location[:-1]:
        fields = _keys(model)
        below = _model_in(fields[part].annotation) if isinstance(part, str) and part in fields else None
        model = below or model
    return model


def _model_in(annotation: object) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((model for part in get_args(annotation) if (model := _model_in(part))), None)
