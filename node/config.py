"""What one node needs to know to start: one JSON file per node.

Whoever deploys writes the file (`node.bootstrap_os`); a node only reads it. Every key is required unless it has a
default below, and unknown keys are refused: a misspelt key must not be silently without effect.

This module turns text into a `NodeConfig` and back; reading the file is for `node.files_os`.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path

from isochrone.errors import InvalidRequest
from isochrone.ids import ClusterId, GroupId, NodeId, RegionId, StoreId, ZoneId
from isochrone.topology import Ordering, Problem, Topology, TopologyError

LOCK_WARNING_S = 60.0


class ConfigError(InvalidRequest):
    """A node's configuration is wrong: the fault of whoever wrote it."""


@dataclass(frozen=True, slots=True)
class NodeConfig:
    """One node's configuration."""

    node: NodeId
    region: RegionId
    zone: ZoneId
    cluster: ClusterId
    store: StoreId
    """As recorded at bootstrap: a data directory that holds another store is refused."""
    data_directory: Path
    """Where that store lies. A node never makes one."""
    listen: str
    """`host:port` on which the node takes peers, clients and operators."""
    addresses: Mapping[NodeId, str] = field(hash=False)
    """`host:port` of every node of the cluster, this one included."""
    topology_file: Path
    local: bool = False
    """Links are shaped by the topology: all nodes stand on one machine."""
    clock_offset_ms: float = 0.0
    """Added to the clock's reading; only where `local` is set."""
    seed: int | None = None
    """Seeds election timeouts, jitter and loss; drawn by the node when None."""
    links_file: Path | None = None
    """Link shapes that differ from the topology's, as of now (`node.links`). A file that is absent changes none."""
    etcd_addresses: Mapping[NodeId, str] = field(default_factory=dict, hash=False)
    """`host:port` at which nodes speak etcd's API. A node that is not named speaks it nowhere."""
    etcd_group: GroupId | None = None
    """The group for which nodes speak etcd's API, the same at all nodes; each for that of its region when None."""
    metrics_address: str | None = None
    """`host:port` at which this node serves its metrics over HTTP; nowhere when None."""
    lock_warning_s: float = LOCK_WARNING_S
    """Whoever holds a lock for longer is warned about in the log of the group's leader; 0: nobody ever is."""


def encode_config(config: NodeConfig) -> str:
    """The configuration as the text of its file."""
    plain = {each.name: getattr(config, each.name) for each in fields(config)}
    for name in ("data_directory", "topology_file", "links_file"):
        plain[name] = None if plain[name] is None else str(plain[name])
    plain["addresses"] = dict(config.addresses)
    plain["etcd_addresses"] = dict(config.etcd_addresses)
    return json.dumps(plain, indent=2) + "\n"


def parse_config(text: str, source: str) -> NodeConfig:
    """Parse a configuration; `source` names the file in errors.

    Raises:
        ConfigError: not JSON, a key missing, unknown, of the wrong type or impossible.
    """
    try:
        plain = json.loads(text)
    except json.JSONDecodeError as error:
        raise ConfigError(f"{source}: not JSON: {error}") from error
    if not isinstance(plain, dict):
        raise ConfigError(f"{source}: found {_kind(plain)}; allowed: an object")
    _check_keys(plain, source)
    config = NodeConfig(
        node=NodeId(_text(plain, "node", source)),
        region=RegionId(_text(plain, "region", source)),
        zone=ZoneId(_text(plain, "zone", source)),
        cluster=ClusterId(_text(plain, "cluster", source)),
        store=StoreId(_text(plain, "store", source)),
        data_directory=Path(_text(plain, "data_directory", source)),
        listen=_address(_text(plain, "listen", source), "listen", source),
        addresses=_addresses(plain["addresses"], "addresses", source),
        topology_file=Path(_text(plain, "topology_file", source)),
        local=_boolean(plain, "local", source),
        clock_offset_ms=_number(plain, "clock_offset_ms", source),
        seed=_optional_integer(plain, "seed", source),
        links_file=None if plain.get("links_file") is None else Path(_text(plain, "links_file", source)),
        etcd_addresses=_addresses(plain.get("etcd_addresses", {}), "etcd_addresses", source),
        etcd_group=None if plain.get("etcd_group") is None else GroupId(_text(plain, "etcd_group", source)),
        metrics_address=_optional_address(plain, "metrics_address", source),
        lock_warning_s=_number(plain, "lock_warning_s", source, LOCK_WARNING_S),
    )
    _check_relations(config, source)
    return config


def check_served(topology: Topology, file: str) -> None:
    """Refuse what a topology may plan but no node can serve yet, rather than serve less than was asked for.

    Raises:
        TopologyError: a keyspace is to be ordered externally, which takes a commit-wait that nodes do not have.
    """
    problems = [
        Problem(file, f"keyspaces[{number}].ordering", "external, which no node can serve yet", "linearizable")
        for number, keyspace in enumerate(topology.keyspaces)
        if keyspace.ordering is not Ordering.LINEARIZABLE
    ]
    if problems:
        raise TopologyError(tuple(problems))


def check_fits(config: NodeConfig, topology: Topology) -> None:
    """Check a configuration against its topology: the two are copied to a node's machine by hand.

    Raises:
        ConfigError: the topology has no such node or has it elsewhere, or the address of a node is missing.
    """
    source = f"the configuration of node {config.node}"
    spec = next((each for each in topology.nodes if each.id == config.node), None)
    if spec is None:
        known = ", ".join(each.id for each in topology.nodes)
        raise ConfigError(f"{source}: node: found {config.node}; allowed: a node of {config.topology_file}: {known}")
    for name, found, allowed in (("region", config.region, spec.region), ("zone", config.zone, spec.zone)):
        if found != allowed:
            raise ConfigError(f"{source}: {name}: found {found}; allowed: {allowed}, by {config.topology_file}")
    for each in topology.nodes:
        if each.id not in config.addresses:
            raise ConfigError(f"{source}: addresses.{each.id}: found nothing; this key is required")


def check_etcd_group(topology: Topology, group: GroupId | None) -> None:
    """Raise `ConfigError` if there is no such group, or no keyspace belongs to it."""
    with_keys = {keyspace.group for keyspace in topology.keyspaces}
    if group is not None and group not in with_keys:
        raise ConfigError(f"etcd_group: found {group}; allowed: {', '.join(sorted(with_keys))}")


def _check_keys(plain: Mapping[str, object], source: str) -> None:
    known = [each.name for each in fields(NodeConfig)]
    optional = {"local", "clock_offset_ms", "seed", "links_file", "etcd_addresses", "etcd_group"}
    optional |= {"metrics_address", "lock_warning_s"}
    for name in sorted(set(plain) - set(known)):
        raise ConfigError(f"{source}: {name}: found an unknown key; allowed: {', '.join(known)}")
    for name in known:
        if name not in plain and name not in optional:
            raise ConfigError(f"{source}: {name}: found nothing; this key is required")


def _check_relations(config: NodeConfig, source: str) -> None:
    if config.node not in config.addresses:
        raise ConfigError(f"{source}: addresses: found no address of {config.node} itself")
    if config.clock_offset_ms and not config.local:
        raise ConfigError(
            f"{source}: clock_offset_ms: found {config.clock_offset_ms:g}; allowed: 0 unless local is true"
        )
    if not 0 <= config.lock_warning_s < math.inf:
        raise ConfigError(f"{source}: lock_warning_s: found {config.lock_warning_s:g}; allowed: 0 or more seconds")


def _text(plain: Mapping[str, object], name: str, source: str) -> str:
    value = plain[name]
    if not isinstance(value, str) or not value:
        raise ConfigError(f"{source}: {name}: found {_kind(value)}; allowed: a text that is not empty")
    return value


def _boolean(plain: Mapping[str, object], name: str, source: str) -> bool:
    value = plain.get(name, False)
    if not isinstance(value, bool):
        raise ConfigError(f"{source}: {name}: found {_kind(value)}; allowed: true or false")
    return value


def _number(plain: Mapping[str, object], name: str, source: str, default: float = 0.0) -> float:
    value = plain.get(name, default)
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise ConfigError(f"{source}: {name}: found {_kind(value)}; allowed: a number")
    return float(value)


def _optional_integer(plain: Mapping[str, object], name: str, source: str) -> int | None:
    value = plain.get(name)
    if value is not None and (not isinstance(value, int) or isinstance(value, bool)):
        raise ConfigError(f"{source}: {name}: found {_kind(value)}; allowed: an integer or null")
    return value


def _optional_address(plain: Mapping[str, object], name: str, source: str) -> str | None:
    value = plain.get(name)
    return None if value is None else _address(value, name, source)


def _addresses(value: object, name: str, source: str) -> dict[NodeId, str]:
    if not isinstance(value, dict):
        raise ConfigError(f"{source}: {name}: found {_kind(value)}; allowed: an object of node: host:port")
    return {NodeId(node): _address(address, f"{name}.{node}", source) for node, address in value.items()}


def _address(value: object, path: str, source: str) -> str:
    if isinstance(value, str):
        host, colon, port = value.rpartition(":")
        if host and colon and port.isascii() and port.isdigit() and 0 < int(port) < 65536:
            return value
    raise ConfigError(f"{source}: {path}: found {_kind(value)}; allowed: host:port, such as 127.0.0.1:7001")


def _kind(value: object) -> str:
    return json.dumps(value) if isinstance(value, str | int | float | bool | None) else f"a {type(value).__name__}"
