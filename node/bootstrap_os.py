"""Bootstrap: the one moment at which a cluster and its stores come into being.

Theory of operation. Bootstrap draws the cluster id and every store id, writes each store with the first
configuration of its groups into an empty directory, and then, outside the stores, a record that this was done. A
later start finds the record and never makes a store: a disk that was wiped is not taken for a new voter, which
would forget its votes.

A node whose store is lost, or can no longer be trusted, gets another one (`replace_store`): empty, in no group, with an
id that was never used. It is another replica, which joins its groups anew.

Invariants:
1. The record is written last and durably. A directory with stores and no record never served anybody.
2. A directory is used again only with an equal topology.
3. Nothing but bootstrap makes a store.
4. The record counts a node's replaced stores before the next one exists, so that no two stores of a node begin to count
   their incarnations from the same number (`regions.storage.directory_os`).
"""

import json
import secrets
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from isochrone.errors import InvalidRequest, IsochroneError, StorageError
from isochrone.ids import ClusterId, GroupId, NodeId, StoreId, store_id
from isochrone.node.config import NodeConfig, encode_config
from isochrone.node.files_os import load_config, load_served_topology, locked, write_durably
from isochrone.node.layout import Layout
from isochrone.node.ports_os import choose_more_addresses
from isochrone.node.settings import first_configuration
from isochrone.regions.storage.directory_os import LOCK_FILE, bootstrap_store
from isochrone.topology import Topology, load_topology
from isochrone.wire.messages import Configuration

RECORD_VERSION = 1


@dataclass(frozen=True, slots=True)
class BootstrapRecord:
    """What was drawn at bootstrap."""

    cluster: ClusterId
    stores: Mapping[NodeId, StoreId]
    """The store of each node now."""
    replacements: Mapping[NodeId, int] = field(default_factory=dict)
    """How many stores a node had before; nodes that still have their first one may be absent."""


def bootstrap(topology_file: Path, directory: Path, progress: Callable[[str], None]) -> BootstrapRecord:
    """Make a cluster's stores in `directory`, or find them there as an earlier bootstrap left them.

    Raises:
        TopologyError: the topology file is wrong, or asks for what no node can serve; nothing was made.
        StorageError: the directory holds another topology's cluster, or stores without a record, or cannot be
            written. What this call made is removed again.
    """
    topology = load_served_topology(topology_file)
    layout = Layout(directory.absolute())
    if is_bootstrapped(layout):
        record = read_record(layout)
        _check_same_topology(topology, layout)
        return record
    _check_empty(layout)
    progress(f"bootstrapping {len(topology.nodes)} stores in {layout.root}")
    record = _draw(topology)
    try:
        _write_stores(topology, layout, record)
        _copy_topology(topology_file, topology, layout)
        write_durably(layout.bootstrap_record, _encode_record(record))
    except BaseException:
        # The record may stand although writing it failed, and must not stand for stores that are gone.
        layout.bootstrap_record.unlink(missing_ok=True)
        shutil.rmtree(layout.root / "data", ignore_errors=True)
        raise
    return record


def replace_store(topology_file: Path, directory: Path, node: NodeId) -> StoreId:
    """Make a new, empty store for a node of a cluster that was bootstrapped in `directory`; returns its id.

    The store belongs to no group. The node's configuration is changed to name it, if it lies in the directory. The old
    store must be gone from there, by the operator's own hand.

    Raises:
        TopologyError: the topology file is wrong.
        InvalidRequest: the topology has no such node.
        StorageError: nothing was bootstrapped there, or another topology, or the old store is still there.
    """
    topology = load_served_topology(topology_file)
    layout = Layout(directory.absolute())
    record = read_record(layout)
    _check_same_topology(topology, layout)
    if node not in record.stores:
        raise InvalidRequest(f"topology {topology.name} has no node {node}; it has {', '.join(record.stores)}")
    data = layout.node_data(node)
    if data.exists() and any(data.iterdir()):
        raise StorageError(f"{data} holds a store; move it away, or remove it, if node {node} is to get another")
    count = record.replacements.get(node, 0) + 1
    store = store_id(secrets.token_hex(8), count)
    record = replace(record, stores={**record.stores, node: store}, replacements={**record.replacements, node: count})
    write_durably(layout.bootstrap_record, _encode_record(record))
    file = layout.node_config(node)
    if file.exists():
        write_durably(file, encode_config(replace(load_config(file), store=store)))
    bootstrap_store(data, record.cluster, node, store, {}, replacements=count)
    return store


def is_bootstrapped(layout: Layout) -> bool:
    """Whether a bootstrap has been completed here."""
    return layout.bootstrap_record.exists()


def read_record(layout: Layout) -> BootstrapRecord:
    """What an earlier bootstrap recorded.

    Raises:
        StorageError: there is no record, or it cannot be read.
    """
    try:
        plain = json.loads(layout.bootstrap_record.read_text(encoding="utf-8"))
        if plain["version"] != RECORD_VERSION:
            raise ValueError(f"version {plain['version']}")
        stores = {NodeId(node): StoreId(store) for node, store in plain["stores"].items()}
        replacements = {NodeId(node): int(count) for node, count in plain.get("replacements", {}).items()}
        return BootstrapRecord(ClusterId(plain["cluster"]), stores, replacements)
    except FileNotFoundError:
        raise StorageError(f"nothing was bootstrapped in {layout.root}: it has no bootstrap record") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise StorageError(f"{layout.bootstrap_record} is no bootstrap record of this release: {error}") from error


def write_configs(
    topology: Topology,
    layout: Layout,
    record: BootstrapRecord,
    addresses: Mapping[NodeId, str],
    *,
    local: bool,
    etcd_group: GroupId | None = None,
) -> None:
    """Write every node's configuration, for the addresses given.

    `etcd_group` is the group for which all nodes speak etcd's API, if not each for its region's.
    """
    etcd_addresses = choose_more_addresses(topology, addresses)
    metrics_addresses = choose_more_addresses(topology, addresses, etcd_addresses)
    for spec in topology.nodes:
        config = NodeConfig(
            node=spec.id,
            region=spec.region,
            zone=spec.zone,
            cluster=record.cluster,
            store=record.stores[spec.id],
            data_directory=layout.node_data(spec.id),
            listen=addresses[spec.id],
            addresses=addresses,
            topology_file=layout.topology,
            local=local,
            links_file=layout.links if local else None,
            etcd_addresses=etcd_addresses,
            etcd_group=etcd_group,
            metrics_address=metrics_addresses[spec.id],
        )
        write_durably(layout.node_config(spec.id), encode_config(config))


def check_unused(topology: Topology, layout: Layout) -> None:
    """Raise `StorageError` if a process has one of the stores open, before anything of its is changed."""
    for spec in topology.nodes:
        lock = layout.node_data(spec.id) / LOCK_FILE
        if lock.exists():
            with locked(lock, f"{lock.parent} is in use by process {lock.read_text(encoding='utf-8').strip()}"):
                pass


def _draw(topology: Topology) -> BootstrapRecord:
    stores = {spec.id: StoreId(secrets.token_hex(8)) for spec in topology.nodes}
    return BootstrapRecord(ClusterId(secrets.token_hex(8)), stores)


def _write_stores(topology: Topology, layout: Layout, record: BootstrapRecord) -> None:
    configurations = {group.id: first_configuration(group, record.stores) for group in topology.groups}
    for spec in topology.nodes:
        own: dict[GroupId, Configuration] = {
            group: configuration
            for group, configuration in configurations.items()
            if any(member.node == spec.id for member in configuration.members)
        }
        bootstrap_store(layout.node_data(spec.id), record.cluster, spec.id, record.stores[spec.id], own)


def _copy_topology(topology_file: Path, topology: Topology, layout: Layout) -> None:
    # A matrix of the topology's own stands beside its file, and has to move along.
    matrix = topology_file.parent / topology.latencies
    if matrix.is_file():
        write_durably(layout.root / matrix.name, matrix.read_text(encoding="utf-8"))
    write_durably(layout.topology, topology_file.read_text(encoding="utf-8"))


def _check_same_topology(topology: Topology, layout: Layout) -> None:
    try:
        bootstrapped = load_topology(layout.topology)
    except IsochroneError as error:
        raise StorageError(f"the topology kept in {layout.topology} can no longer be read: {error}") from error
    if topology != bootstrapped:
        raise StorageError(
            f"{layout.root} was bootstrapped with another topology ({bootstrapped.name}, kept in {layout.topology}); "
            "use another directory, or remove this one and its data"
        )


def _check_empty(layout: Layout) -> None:
    data = layout.root / "data"
    if data.exists() and any(data.iterdir()):
        raise StorageError(
            f"{data} holds stores, but {layout.bootstrap_record} is missing: a bootstrap was cut short, or the "
            "record is lost. Restore the record, or remove the directory if nothing in it matters"
        )


def _encode_record(record: BootstrapRecord) -> str:
    plain = {
        "version": RECORD_VERSION,
        "cluster": record.cluster,
        "stores": dict(record.stores),
        "replacements": dict(record.replacements),
    }
    return json.dumps(plain, indent=2) + "\n"
