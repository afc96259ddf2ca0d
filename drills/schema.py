"""What a drill file may say: one pydantic model for each section, and faults of the file in plain words.

A drill file names a topology file, a workload, faults at times, and what must hold. Times are seconds from the start
of the workload. The file is checked in two steps: its form (`read_drill`), then its names against the topology
(`cross_check`).
"""

import difflib
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import BaseModel, Discriminator, Field, Tag, ValidationError, model_validator
from pydantic_core import ErrorDetails

from isochrone.errors import InvariantViolation
from isochrone.topology.model import Problem, Topology
from isochrone.topology.schema import Section, in_words, path_of, spelled

Seconds = Annotated[float, Field(ge=0, le=3600, allow_inf_nan=False)]
_NAME_TAG, _LEADER_TAG = "<name>", "<leader-of>"


class FaultKind(StrEnum):
    """What a fault does, from its start to its end."""

    KILL_NODE = "kill-node"
    """SIGKILL; started again at the end."""
    PAUSE_NODE = "pause-node"
    """SIGSTOP; SIGCONT at the end."""
    CUT_LINK = "cut-link"
    """Frames from one place to another vanish."""
    ISOLATE_REGION = "isolate-region"
    """Frames between the region and all others vanish, both ways; clients in the region are cut off with it."""
    KILL_REGION = "kill-region"
    """The region is isolated, then its processes and its supervisor are killed; started again at the end."""


class LeaderOf(Section):
    """The place is found when the fault starts: where the leader of a keyspace's group is then."""

    leader_of: str = Field(alias="leader-of", description="Prefix of a keyspace.")


class LinkPlaces(Section):
    """The links to cut: all from one place to another."""

    from_: str = Field(alias="from", description="A region or a zone: the sending side.")
    to: str = Field(description="A region or a zone: the receiving side.")
    both_ways: bool = Field(default=False, description="Cut the opposite links too.")


Place = Annotated[
    Annotated[str, Tag(_NAME_TAG)] | Annotated[LeaderOf, Tag(_LEADER_TAG)],
    Discriminator(lambda value: _LEADER_TAG if isinstance(value, dict | LeaderOf) else _NAME_TAG),
]


class FaultSection(Section):
    """One fault: what, where and when."""

    kill_node: Place | None = Field(default=None, alias="kill-node", description="A node, or leader-of a keyspace.")
    pause_node: Place | None = Field(default=None, alias="pause-node", description="A node, or leader-of a keyspace.")
    cut_link: LinkPlaces | None = Field(
        default=None, alias="cut-link", description="from and to: a region or zone each."
    )
    isolate_region: Place | None = Field(
        default=None, alias="isolate-region", description="A region, or leader-of a keyspace."
    )
    kill_region: Place | None = Field(
        default=None, alias="kill-region", description="A region, or leader-of a keyspace."
    )
    start_s: Seconds = Field(description="Start, in seconds from the start of the workload.")
    end_s: Seconds = Field(description="End, in seconds from the start of the workload.")

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        given = [kind.value for kind in FaultKind if self._target(kind) is not None]
        if len(given) != 1:
            raise ValueError(f"exactly one of {', '.join(FaultKind)} (found {', '.join(given) or 'none'})")
        if self.end_s <= self.start_s:
            raise ValueError(f"an end_s above start_s (found {self.start_s:g} to {self.end_s:g})")
        return self

    def _target(self, kind: FaultKind) -> str | LeaderOf | LinkPlaces | None:
        targets: dict[FaultKind, str | LeaderOf | LinkPlaces | None] = {
            FaultKind.KILL_NODE: self.kill_node,
            FaultKind.PAUSE_NODE: self.pause_node,
            FaultKind.CUT_LINK: self.cut_link,
            FaultKind.ISOLATE_REGION: self.isolate_region,
            FaultKind.KILL_REGION: self.kill_region,
        }
        return targets[kind]

    @property
    def kind(self) -> FaultKind:
        """What the fault does."""
        return next(kind for kind in FaultKind if self._target(kind) is not None)

    @property
    def target(self) -> str | LeaderOf | LinkPlaces:
        """Where it does it."""
        target = self._target(self.kind)
        if target is None:
            raise InvariantViolation("a fault without a target passed validation")
        return target


class ClientSection(Section):
    """The clients of one region."""

    region: str = Field(description="Where they run.")
    zone: str | None = Field(default=None, description="The zone in it. Default: the region's first.")
    rate_per_s: float = Field(gt=0, le=1000, allow_inf_nan=False, description="Operations started per second.")


class MixSection(Section):
    """Weights of the kinds of operation."""

    insert: float = Field(ge=0, allow_inf_nan=False, description="Put to a key that is never used again.")
    put: float = Field(ge=0, allow_inf_nan=False, description="Put to a key in rotation.")
    get: float = Field(ge=0, allow_inf_nan=False, description="Linearizable get.")
    cas: float = Field(ge=0, allow_inf_nan=False, description="Compare-and-set from the value last seen.")
    delete: float = Field(ge=0, allow_inf_nan=False, description="Delete.")

    @model_validator(mode="after")
    def _some(self) -> Self:
        if self.insert + self.put + self.get + self.cas + self.delete <= 0:
            raise ValueError("at least one weight above 0")
        return self


class KeysSection(Section):
    """Key choice for everything but inserts. A key that is worn out is replaced by a new one."""

    own: int = Field(
        default=3, ge=1, le=1000, description="Keys in rotation per region and keyspace, used by that region only."
    )
    shared: int = Field(
        default=2, ge=1, le=1000, description="Keys in rotation per keyspace that all regions contend for."
    )
    shared_share: float = Field(
        default=0.5, ge=0, le=1, allow_inf_nan=False, description="Share of operations on shared keys."
    )
    indeterminate_max: int = Field(
        default=8,
        ge=1,
        le=10,
        description="Operations of unknown outcome, those in flight included, after which a key is replaced.",
    )
    operations_max: int = Field(default=120, ge=10, le=1000, description="Operations after which a key is replaced.")


class LocksSection(Section):
    """Holders that contend for locks, and watchers that see all that is written beside them."""

    keyspace: str = Field(description="Prefix of the keyspace in which the locks, and what they guard, lie.")
    names: int = Field(default=2, ge=1, le=100, description="How many locks.")
    holders: int = Field(default=2, ge=1, le=100, description="How many contend for them, for each region of clients.")
    ttl_s: Annotated[float, Field(ge=1, le=600, allow_inf_nan=False)] = Field(
        default=4.0, description="Time to live of their leases."
    )
    hold_s: Annotated[float, Field(gt=0, le=60, allow_inf_nan=False)] = Field(
        default=0.3, description="Mean time for which a lock is held."
    )

    @property
    def lock_names(self) -> list[str]:
        """The locks that are contended for."""
        return [f"{self.keyspace}drill/lock/{number}" for number in range(self.names)]


class WorkloadSection(Section):
    """Open-loop clients: operations start at their times, whether or not earlier ones were answered."""

    warm_up_s: Seconds = Field(
        default=3.0, description="Load before time 0; recorded and checked, but no fault runs yet."
    )
    duration_s: Annotated[float, Field(gt=0, le=3600, allow_inf_nan=False)] = Field(description="Load from time 0.")
    timeout_s: Annotated[float, Field(gt=0, le=60, allow_inf_nan=False)] = Field(
        default=4.0, description="Deadline of each operation."
    )
    arrivals: Literal["poisson", "fixed"] = Field(default="poisson", description="Gaps between operations of a region.")
    value_bytes: int = Field(default=100, ge=32, le=65536, description="Size of each value written.")
    clients: list[ClientSection] = Field(min_length=1, description="Clients by region.")
    mix: MixSection = Field(
        default=MixSection(insert=30, put=20, get=25, cas=15, delete=10),
        description="Weights of the kinds of operation.",
    )
    keyspaces: dict[str, Annotated[float, Field(gt=0, allow_inf_nan=False)]] = Field(
        min_length=1, description="Weights of the keyspaces, by prefix."
    )
    keys: KeysSection = Field(default=KeysSection(), description="Key choice.")
    locks: LocksSection | None = Field(default=None, description="Locks and watches beside the operations.")


class LockExpectSection(Section):
    """What must hold of locks and watches, beside exclusion by token order and watches without gaps."""

    next_grant_within_s: Annotated[float, Field(gt=0, le=3600, allow_inf_nan=False)] = Field(
        description="From the start of each fault, every lock is granted so soon to one who asked after it."
    )
    handovers_min: int = Field(ge=1, description="Grants to another than the holder before; fewer prove nothing.")


class ExpectSection(Section):
    """What must hold. The first two may be stated for the reader, but not relaxed."""

    linearizable: Literal[True] = Field(default=True, description="true: every key's history is linearizable.")
    acknowledged_writes_lost: Literal[0] = Field(
        default=0, description="0: every acknowledged insert is there at the end."
    )
    recovery_within_s: dict[str, Annotated[float, Field(gt=0, le=3600, allow_inf_nan=False)]] = Field(
        {}, description="By keyspace prefix: writes from outside the faulted region succeed again so soon."
    )
    operations_beside_each_fault_min: int = Field(
        ge=0, description="Acknowledged operations beside each fault; fewer make the verdict unknown."
    )
    contended_operations_min: int = Field(
        ge=0, description="Acknowledged operations that overlapped one of another region on the same key."
    )
    locks: LockExpectSection | None = Field(default=None, description="Of workload.locks.")


class DrillDocument(Section):
    """A drill file."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")] = Field(description="Name of the drill.")
    description: str = Field(default="", description="What it shows, in a sentence or two.")
    topology: str = Field(min_length=1, description="The topology file, relative to this file.")
    seed: int = Field(default=1, ge=0, description="Seed of arrivals, key choice and values.")
    workload: WorkloadSection = Field(description="Who does what, how often, on which keys.")
    faults: list[FaultSection] = Field(description="What goes wrong, and when.")
    expect: ExpectSection = Field(description="What must hold.")


def read_drill(plain: object, file: str) -> tuple[DrillDocument | None, list[Problem]]:
    """Check plain values against the schema: the document, or every fault in it."""
    if not isinstance(plain, dict):
        found = "nothing" if plain is None else f"a {type(plain).__name__}"
        return None, [Problem(file, "document", found, f"a mapping with the keys {', '.join(_fields(DrillDocument))}")]
    try:
        return DrillDocument.model_validate(plain), []
    except ValidationError as error:
        details = error.errors(include_url=False)
        meant = {_meant(detail) for detail in details if detail["type"] == "extra_forbidden"}
        # A required key that is misspelt is one fault, not a missing key and an unknown one.
        return None, [_problem(each, file) for each in details if each["type"] != "missing" or each["loc"] not in meant]


def topology_named(plain: object) -> str | None:
    """The topology that a drill names, also if the rest of the file is wrong."""
    named = plain.get("topology") if isinstance(plain, dict) else None
    return named if isinstance(named, str) and named else None


def cross_check(drill: DrillDocument, topology: Topology, file: str) -> list[Problem]:
    """Check names and times of a well-formed drill against its topology."""
    names = _Names(
        regions=tuple(region.id for region in topology.regions),
        zones=tuple(zone for region in topology.regions for zone in region.zones),
        nodes=tuple(node.id for node in topology.nodes),
        keyspaces=tuple(keyspace.id for keyspace in topology.keyspaces),
    )
    found = [*_check_clients(drill, topology, names), *_check_faults(drill, names)]
    for section, keyspaces in (
        ("workload.keyspaces", drill.workload.keyspaces),
        ("expect.recovery_within_s", drill.expect.recovery_within_s),
    ):
        found += [
            _unknown(f"{section}.{name}", name, names.keyspaces) for name in keyspaces if name not in names.keyspaces
        ]
    found += _check_locks(drill, names)
    for name in drill.expect.recovery_within_s:
        if name in names.keyspaces and name not in drill.workload.keyspaces:
            allowed = "a keyspace that the workload writes: " + ", ".join(drill.workload.keyspaces)
            found.append((f"expect.recovery_within_s.{name}", repr(name), allowed))
    return [Problem(file, *fault) for fault in found]


_Fault = tuple[str, str, str]
"""(key path, found, allowed)."""


@dataclass(frozen=True, slots=True)
class _Names:
    regions: tuple[str, ...]
    zones: tuple[str, ...]
    nodes: tuple[str, ...]
    keyspaces: tuple[str, ...]


def _unknown(path: str, name: str, known: tuple[str, ...]) -> _Fault:
    close = difflib.get_close_matches(name, known, n=1)
    hint = f" (did you mean {close[0]}?)" if close else ""
    return path, repr(name), f"{', '.join(known)}{hint}"


def _check_clients(drill: DrillDocument, topology: Topology, names: _Names) -> Iterator[_Fault]:
    seen: set[str] = set()
    for number, client in enumerate(drill.workload.clients):
        path = f"workload.clients[{number}]"
        if client.region not in names.regions:
            yield _unknown(f"{path}.region", client.region, names.regions)
            continue
        if client.region in seen:
            yield f"{path}.region", f"{client.region!r} again", "each region once"
        seen.add(client.region)
        zones = next(region.zones for region in topology.regions if region.id == client.region)
        if client.zone is not None and client.zone not in zones:
            yield _unknown(f"{path}.zone", client.zone, zones)


def _check_locks(drill: DrillDocument, names: _Names) -> Iterator[_Fault]:
    locks = drill.workload.locks
    if (locks is None) != (drill.expect.locks is None):
        given, missing = ("expect", "workload") if locks is None else ("workload", "expect")
        yield f"{missing}.locks", "nothing", f"what {given}.locks asks for"
    if locks is not None and locks.keyspace not in names.keyspaces:
        yield _unknown("workload.locks.keyspace", locks.keyspace, names.keyspaces)


def _check_faults(drill: DrillDocument, names: _Names) -> Iterator[_Fault]:
    for number, fault in enumerate(drill.faults):
        path = f"faults[{number}]"
        yield from _check_place(f"{path}.{fault.kind}", fault, names)
        if fault.end_s > drill.workload.duration_s:
            yield f"{path}.end_s", f"{fault.end_s:g}", f"at most workload.duration_s, {drill.workload.duration_s:g}"
        for earlier in drill.faults[:number]:
            if _process_faults_collide(earlier, fault):
                yield (
                    f"{path}.start_s",
                    f"{fault.start_s:g}",
                    "a start after the end of the earlier fault that stops processes, or two nodes given by name",
                )


def _check_place(path: str, fault: FaultSection, names: _Names) -> Iterator[_Fault]:
    on_nodes = fault.kind in (FaultKind.KILL_NODE, FaultKind.PAUSE_NODE)
    match fault.target:
        case LeaderOf() as target:
            if target.leader_of not in names.keyspaces:
                yield _unknown(f"{path}.leader-of", target.leader_of, names.keyspaces)
        case LinkPlaces() as target:
            places = names.regions + names.zones
            for side, place in (("from", target.from_), ("to", target.to)):
                if place not in places:
                    yield _unknown(f"{path}.{side}", place, places)
            if target.from_ == target.to:
                yield f"{path}.to", repr(target.to), "another place than from"
        case str() as target:
            known = names.nodes if on_nodes else names.regions
            if target not in known:
                yield _unknown(path, target, known)


def _process_faults_collide(first: FaultSection, second: FaultSection) -> bool:
    """Whether two faults may stop the same process at one time; then ending one would undo the other."""
    stopping = (FaultKind.KILL_NODE, FaultKind.PAUSE_NODE, FaultKind.KILL_REGION)
    if first.kind not in stopping or second.kind not in stopping:
        return False
    if first.end_s <= second.start_s or second.end_s <= first.start_s:
        return False
    by_name = isinstance(first.target, str) and isinstance(second.target, str)
    both_nodes = FaultKind.KILL_REGION not in (first.kind, second.kind)
    return not (by_name and both_nodes and first.target != second.target)


def _meant(unknown: ErrorDetails) -> tuple[int | str, ...] | None:
    """The place of the key that an unknown one is probably meant to be."""
    *above, key = unknown["loc"]
    close = difflib.get_close_matches(str(key), _fields(_model_above(_without_tags(unknown["loc"]))), n=1)
    return (*above, close[0]) if close else None


def _without_tags(location: tuple[int | str, ...]) -> tuple[int | str, ...]:
    return tuple(part for part in location if part not in (_NAME_TAG, _LEADER_TAG))


def _problem(detail: ErrorDetails, file: str) -> Problem:
    location = _without_tags(detail["loc"])
    model = _model_above(location)
    key = str(location[-1])
    found = spelled(detail["input"])
    match detail["type"]:
        case "extra_forbidden":
            close = difflib.get_close_matches(key, _fields(model), n=1)
            hint = f" (did you mean {close[0]}?)" if close else ""
            found, allowed = "an unknown key", f"the keys {', '.join(_fields(model))}{hint}"
        case "missing":
            field = _fields(model).get(key)
            found, allowed = "nothing", f"this key is required: {field.description if field else key}"
        case "value_error":
            allowed = str(detail["ctx"]["error"])
        case "string_pattern_mismatch":
            allowed = f"text that matches {detail['ctx']['pattern']}"
        case _:
            allowed = in_words(detail)
    return Problem(file, path_of(location), found, allowed)


def _fields(model: type[BaseModel]) -> dict[str, Any]:
    return {field.alias or name: field for name, field in model.model_fields.items()}


def _model_above(location: tuple[int | str, ...]) -> type[BaseModel]:
    """The section that holds the last key of a location."""
    model: type[BaseModel] = DrillDocument
    for part in location[:-1]:
        if isinstance(part, str) and part in _fields(model):
            model = _model_in(_fields(model)[part].annotation) or model
    return model


def _model_in(annotation: object) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((model for part in get_args(annotation) if (model := _model_in(part))), None)
