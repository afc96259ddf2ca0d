"""Bootstrap: stores come into being once, and only there."""

import asyncio
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from isochrone.errors import InvalidRequest, StorageError
from isochrone.ids import GroupId, NodeId, StoreId
from isochrone.node.bootstrap_os import BootstrapRecord, bootstrap, read_record, replace_store, write_configs
from isochrone.node.config import ConfigError, NodeConfig
from isochrone.node.files_os import load_config, write_durably
from isochrone.node.layout import Layout
from isochrone.node.ports_os import choose_addresses
from isochrone.node.settings import first_configuration
from isochrone.ops.cli.node import bootstrap_command
from isochrone.ports import first_incarnation
from isochrone.regions.storage.directory_os import open_store
from isochrone.topology import TopologyError, load_topology
from isochrone.wire.configurations import check_configuration
from isochrone.wire.messages import Configuration, QuorumSizes

TOPOLOGY = """
name: small
latencies: aws
regions:
  - {name: us-east-1, zones: [us-east-1a, us-east-1b, us-east-1c]}
  - {name: eu-west-1, zones: [eu-west-1a, eu-west-1b, eu-west-1c]}
keyspaces:
  - {prefix: us/, home: us-east-1, survive: zone}
  - {prefix: eu/, home: eu-west-1, survive: zone}
clock: {source: bound, bound_ms: 5}
"""


@pytest.fixture
def topology_file(tmp_path: Path) -> Path:
    """A valid topology file."""
    path = tmp_path / "small.yaml"
    path.write_text(TOPOLOGY, encoding="utf-8")
    return path


def run(topology_file: Path, directory: Path) -> BootstrapRecord:
    """Bootstrap without a word."""
    return bootstrap(topology_file, directory, lambda _: None)


def configs(topology_file: Path, layout: Layout, record: BootstrapRecord) -> dict[NodeId, NodeConfig]:
    """Write and read every node's configuration."""
    topology = load_topology(topology_file)
    write_configs(topology, layout, record, choose_addresses(topology), local=True)
    return {spec.id: load_config(layout.node_config(spec.id)) for spec in topology.nodes}


async def stored_configurations(config: NodeConfig) -> dict[str, Configuration]:
    """The first configuration of every group in a node's store."""
    store = open_store(config.data_directory, config.cluster, config.node, config.store)
    try:
        return {group: (await store.load(group)).configuration for group in store.groups}
    finally:
        await store.close()


def test_all_nodes_speak_etcds_api_for_the_group_that_is_asked_for(topology_file: Path, tmp_path: Path) -> None:
    layout = Layout(tmp_path / "deployment")
    record = run(topology_file, layout.root)
    assert {config.etcd_group for config in configs(topology_file, layout, record).values()} == {None}
    topology, group = load_topology(topology_file), GroupId("eu-west-1.zone")
    write_configs(topology, layout, record, choose_addresses(topology), local=False, etcd_group=group)
    assert {load_config(layout.node_config(spec.id)).etcd_group for spec in topology.nodes} == {group}
    result = CliRunner().invoke(
        bootstrap_command, [str(topology_file), "--out", str(tmp_path / "x"), "--etcd-group", "g"]
    )
    assert isinstance(result.exception, ConfigError) and "found g; allowed: eu-west-1.zone" in str(result.exception)
    assert not (tmp_path / "x").exists()


def test_every_store_holds_its_groups_and_no_others(topology_file: Path, tmp_path: Path) -> None:
    layout = Layout(tmp_path / "deployment")
    record = run(topology_file, layout.root)
    found = configs(topology_file, layout, record)
    topology = load_topology(topology_file)
    for config in found.values():
        stored = asyncio.run(stored_configurations(config))
        expected = {
            group.id: {(each.node, record.stores[each.node], each.role) for each in group.replicas}
            for group in topology.groups
            if any(replica.node == config.node for replica in group.replicas)
        }
        assert {
            name: {(member.node, member.store, member.role) for member in configuration.members}
            for name, configuration in stored.items()
        } == expected
    assert len(set(record.stores.values())) == len(topology.nodes)
    assert len({config.listen for config in found.values()}) == len(topology.nodes)


def test_a_second_bootstrap_finds_the_first(topology_file: Path, tmp_path: Path) -> None:
    first = run(topology_file, tmp_path / "deployment")
    topology_file.write_text("# Another comment.\n" + TOPOLOGY, encoding="utf-8")
    assert run(topology_file, tmp_path / "deployment") == first


def test_two_bootstraps_draw_different_names(topology_file: Path, tmp_path: Path) -> None:
    first, second = run(topology_file, tmp_path / "one"), run(topology_file, tmp_path / "two")
    assert first.cluster != second.cluster
    assert not set(first.stores.values()) & set(second.stores.values())


def test_another_topology_is_refused_and_changes_nothing(topology_file: Path, tmp_path: Path) -> None:
    layout = Layout(tmp_path / "deployment")
    first = run(topology_file, layout.root)
    kept = layout.topology.read_text(encoding="utf-8")
    topology_file.write_text(TOPOLOGY.replace("prefix: eu/", "prefix: europe/"), encoding="utf-8")
    with pytest.raises(StorageError, match="was bootstrapped with another topology"):
        run(topology_file, layout.root)
    assert layout.topology.read_text(encoding="utf-8") == kept
    topology_file.write_text(TOPOLOGY, encoding="utf-8")
    assert run(topology_file, layout.root) == first


def test_stores_without_a_record_are_never_replaced(topology_file: Path, tmp_path: Path) -> None:
    layout = Layout(tmp_path / "deployment")
    run(topology_file, layout.root)
    layout.bootstrap_record.unlink()
    with pytest.raises(StorageError, match=r"holds stores, but .* is missing"):
        run(topology_file, layout.root)
    assert (layout.node_data(NodeId("us-east-1a-1")) / "data.mdb").exists()


def test_a_wiped_store_is_not_made_again(topology_file: Path, tmp_path: Path) -> None:
    layout = Layout(tmp_path / "deployment")
    record = run(topology_file, layout.root)
    config = configs(topology_file, layout, record)[NodeId("us-east-1a-1")]
    (config.data_directory / "data.mdb").unlink()
    run(topology_file, layout.root)
    assert not (config.data_directory / "data.mdb").exists()
    with pytest.raises(StorageError):
        open_store(config.data_directory, config.cluster, config.node, config.store)


def test_a_broken_topology_makes_nothing(topology_file: Path, tmp_path: Path) -> None:
    topology_file.write_text(TOPOLOGY.replace("us-east-1, survive", "us-east-9, survive"), encoding="utf-8")
    with pytest.raises(TopologyError):
        run(topology_file, tmp_path / "deployment")
    assert not (tmp_path / "deployment").exists()


def test_an_ordering_that_no_node_can_serve_makes_nothing(topology_file: Path, tmp_path: Path) -> None:
    text = TOPOLOGY.replace("survive: zone", "survive: zone, ordering: external", 1)
    assert text != TOPOLOGY
    topology_file.write_text(text, encoding="utf-8")
    with pytest.raises(TopologyError, match=r"keyspaces\[\d\]\.ordering: found external, .* allowed: linearizable"):
        run(topology_file, tmp_path / "deployment")
    assert not (tmp_path / "deployment").exists()


def test_a_failed_bootstrap_leaves_no_store(
    topology_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise StorageError("the disk is full")

    layout = Layout(tmp_path / "deployment")
    with monkeypatch.context() as patch:
        patch.setattr("isochrone.node.bootstrap_os.write_durably", full)
        with pytest.raises(StorageError, match="the disk is full"):
            run(topology_file, layout.root)
    assert not (layout.root / "data").exists()
    assert run(topology_file, layout.root).stores


def test_a_bootstrap_that_fails_after_its_record_was_written_leaves_nothing(
    topology_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout = Layout(tmp_path / "deployment")

    def write_and_fail(path: Path, text: str) -> None:
        write_durably(path, text)
        if path == layout.bootstrap_record:
            raise StorageError("the directory could not be synced")

    with monkeypatch.context() as patch:
        patch.setattr("isochrone.node.bootstrap_os.write_durably", write_and_fail)
        with pytest.raises(StorageError, match="could not be synced"):
            run(topology_file, layout.root)
    record = run(topology_file, layout.root)
    assert all((layout.node_data(node) / "data.mdb").exists() for node in record.stores)


def test_a_record_of_another_release_is_refused(topology_file: Path, tmp_path: Path) -> None:
    layout = Layout(tmp_path / "deployment")
    run(topology_file, layout.root)
    plain = json.loads(layout.bootstrap_record.read_text(encoding="utf-8"))
    layout.bootstrap_record.write_text(json.dumps(plain | {"version": 99}), encoding="utf-8")
    with pytest.raises(StorageError, match="is no bootstrap record of this release: version 99"):
        run(topology_file, layout.root)


def test_a_matrix_beside_the_topology_moves_along(tmp_path: Path) -> None:
    (tmp_path / "rtt.csv").write_text("region,x,y\nx,0.5,80\ny,80,0.5\n", encoding="utf-8")
    topology_file = tmp_path / "own.yaml"
    topology_file.write_text(
        """
name: own
latencies: rtt.csv
regions:
  - {name: x, zones: [xa, xb, xc], city: X, latitude: 1, longitude: 2}
  - {name: y, zones: [ya, yb, yc], city: Y, latitude: 3, longitude: 4}
keyspaces:
  - {prefix: x/, home: x, survive: zone}
clock: {source: bound, bound_ms: 5}
""",
        encoding="utf-8",
    )
    layout = Layout(tmp_path / "deployment")
    run(topology_file, layout.root)
    assert load_topology(layout.topology) == load_topology(topology_file)


def test_the_first_configuration_has_the_sizes_of_quorums_that_the_topology_gives(tmp_path: Path) -> None:
    text = (Path(__file__).parents[3] / "deploy/topologies/five-sites.yaml").read_text(encoding="utf-8")
    file = tmp_path / "flexible.yaml"
    file.write_text(text.replace("survive: region", "survive: region, quorums: {commit: 2, election: 4}"))
    (group,) = load_topology(file).groups
    stores = {replica.node: StoreId(f"s-{replica.node}") for replica in group.replicas}
    configuration = first_configuration(group, stores)
    assert configuration.quorums == QuorumSizes(2, 4)
    check_configuration(configuration)


def replaced(topology_file: Path, layout: Layout, node: NodeId) -> StoreId:
    """Lose a node's store and give it another."""
    shutil.rmtree(layout.node_data(node))
    return replace_store(topology_file, layout.root, node)


def test_a_replaced_store_is_empty_and_new_and_counts_above_every_start_of_those_before(
    topology_file: Path, tmp_path: Path
) -> None:
    layout, node = Layout(tmp_path / "deployment"), NodeId("us-east-1a-1")
    record = run(topology_file, layout.root)
    before = configs(topology_file, layout, record)
    seen, highest = {record.stores[node]}, 0
    for _ in range(2):
        store = replaced(topology_file, layout, node)
        config = load_config(layout.node_config(node))
        assert config == replace(before[node], store=store)
        opened = open_store(config.data_directory, config.cluster, node, store)
        assert opened.groups == ()
        assert opened.identity.incarnation > highest + 2**31
        highest = opened.identity.incarnation
        asyncio.run(opened.close())
        assert store not in seen
        seen.add(store)
    others = {name: store for name, store in read_record(layout).stores.items() if name != node}
    assert others == {name: store for name, store in record.stores.items() if name != node}


def test_a_store_that_is_still_there_is_not_replaced(topology_file: Path, tmp_path: Path) -> None:
    layout, node = Layout(tmp_path / "deployment"), NodeId("us-east-1a-1")
    record = run(topology_file, layout.root)
    with pytest.raises(StorageError, match="holds a store; move it away, or remove it"):
        replace_store(topology_file, layout.root, node)
    assert read_record(layout) == record


def test_only_a_node_of_a_bootstrapped_cluster_gets_another_store(topology_file: Path, tmp_path: Path) -> None:
    layout = Layout(tmp_path / "deployment")
    with pytest.raises(StorageError, match="no bootstrap record"):
        replace_store(topology_file, layout.root, NodeId("us-east-1a-1"))
    run(topology_file, layout.root)
    with pytest.raises(InvalidRequest, match="has no node nobody; it has us-east-1a-1, "):
        replace_store(topology_file, layout.root, NodeId("nobody"))
    topology_file.write_text(TOPOLOGY.replace("prefix: eu/", "prefix: europe/"), encoding="utf-8")
    with pytest.raises(StorageError, match="another topology"):
        replace_store(topology_file, layout.root, NodeId("us-east-1a-1"))


def test_a_replacement_that_was_cut_short_never_gives_a_count_twice(
    topology_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise StorageError("the disk is full")

    layout, node = Layout(tmp_path / "deployment"), NodeId("us-east-1a-1")
    run(topology_file, layout.root)
    with monkeypatch.context() as patch:
        patch.setattr("isochrone.node.bootstrap_os.bootstrap_store", fails)
        with pytest.raises(StorageError, match="the disk is full"):
            replaced(topology_file, layout, node)
    layout.node_data(node).mkdir()
    store = replaced(topology_file, layout, node)
    assert read_record(layout).replacements == {node: 2}
    opened = open_store(layout.node_data(node), read_record(layout).cluster, node, store)
    assert opened.identity.incarnation == first_incarnation(2) + 1
    asyncio.run(opened.close())
