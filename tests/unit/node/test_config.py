"""The node's configuration file: what it says comes back, and what is wrong in it is named."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from small_topology import write_topology

from isochrone.errors import InvalidRequest
from isochrone.ids import ClusterId, NodeId, RegionId, StoreId, ZoneId
from isochrone.node.config import ConfigError, NodeConfig, check_fits, encode_config, parse_config
from isochrone.node.files_os import load_config
from isochrone.topology import load_topology

CONFIG = NodeConfig(
    node=NodeId("a-1"),
    region=RegionId("r"),
    zone=ZoneId("a"),
    cluster=ClusterId("c0ffee"),
    store=StoreId("5707e"),
    data_directory=Path("/var/lib/isochrone/a-1"),
    listen="127.0.0.1:7001",
    addresses={NodeId("a-1"): "127.0.0.1:7001", NodeId("b-1"): "[::1]:7002"},
    topology_file=Path("/etc/isochrone/topology.yaml"),
    local=True,
    clock_offset_ms=-12.5,
    seed=7,
    links_file=Path("/var/lib/isochrone/links.json"),
    metrics_address="127.0.0.1:7003",
    lock_warning_s=2.5,
)


OPTIONAL = ("local", "seed", "links_file", "metrics_address", "lock_warning_s")


def plain() -> dict[str, Any]:
    """The configuration as the plain data of its file."""
    value: dict[str, Any] = json.loads(encode_config(CONFIG))
    return value


def test_a_configuration_survives_its_file() -> None:
    assert parse_config(encode_config(CONFIG), "f") == CONFIG


def test_what_has_a_default_may_be_left_out() -> None:
    least = {name: value for name, value in plain().items() if name not in OPTIONAL}
    config = parse_config(json.dumps(least | {"clock_offset_ms": 0}), "f")
    assert (config.local, config.clock_offset_ms, config.seed, config.links_file) == (False, 0.0, None, None)
    assert (config.metrics_address, config.lock_warning_s) == (None, 60.0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"node": ""}, 'f: node: found ""; allowed: a text that is not empty'),
        ({"zone": 3}, "f: zone: found 3; allowed: a text that is not empty"),
        ({"local": "yes"}, 'f: local: found "yes"; allowed: true or false'),
        ({"seed": 1.5}, "f: seed: found 1.5; allowed: an integer or null"),
        ({"seed": True}, "f: seed: found true; allowed: an integer or null"),
        ({"clock_offset_ms": "1"}, 'f: clock_offset_ms: found "1"; allowed: a number'),
        ({"listen": "7001"}, 'f: listen: found "7001"; allowed: host:port, such as 127.0.0.1:7001'),
        ({"listen": "h:0"}, 'f: listen: found "h:0"; allowed: host:port, such as 127.0.0.1:7001'),
        ({"listen": "h:65536"}, 'f: listen: found "h:65536"; allowed: host:port, such as 127.0.0.1:7001'),
        ({"addresses": []}, "f: addresses: found a list; allowed: an object of node: host:port"),
        ({"addresses": {"a-1": 1}}, "f: addresses.a-1: found 1; allowed: host:port, such as 127.0.0.1:7001"),
        ({"addresses": {"b-1": "h:1"}}, "f: addresses: found no address of a-1 itself"),
        ({"local": False}, "f: clock_offset_ms: found -12.5; allowed: 0 unless local is true"),
        ({"metrics_address": "h"}, 'f: metrics_address: found "h"; allowed: host:port, such as 127.0.0.1:7001'),
        ({"lock_warning_s": -1}, "f: lock_warning_s: found -1; allowed: 0 or more seconds"),
        ({"zones": "a"}, "f: zones: found an unknown key; allowed: node, region, zone, "),
    ],
)
def test_what_is_wrong_is_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidRequest) as raised:
        parse_config(json.dumps(plain() | changes), "f")
    assert str(raised.value).startswith(message)


@pytest.mark.parametrize("name", ["node", "cluster", "store", "data_directory", "listen", "addresses", "topology_file"])
def test_a_missing_key_is_named(name: str) -> None:
    without = {key: value for key, value in plain().items() if key != name}
    with pytest.raises(InvalidRequest, match=f"^f: {name}: found nothing; this key is required$"):
        parse_config(json.dumps(without), "f")


@pytest.mark.parametrize(("text", "message"), [("{", "f: not JSON: "), ("[]", "f: found a list; allowed: an object")])
def test_what_is_no_object_is_refused(text: str, message: str) -> None:
    with pytest.raises(InvalidRequest) as raised:
        parse_config(text, "f")
    assert str(raised.value).startswith(message)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match=r"none\.json: cannot be read: No such file or directory$"):
        load_config(tmp_path / "none.json")


def test_a_binary_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "binary.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InvalidRequest, match=r"binary\.json: cannot be read: not UTF-8$"):
        load_config(tmp_path / "binary.json")


def test_a_configuration_must_fit_its_topology(tmp_path: Path) -> None:
    topology = load_topology(write_topology(tmp_path))
    spec = topology.nodes[0]
    addresses = {each.id: "127.0.0.1:7001" for each in topology.nodes}
    fitting = replace(CONFIG, node=spec.id, region=spec.region, zone=spec.zone, addresses=addresses)
    check_fits(fitting, topology)
    for changed, text in (
        (replace(fitting, node=NodeId("x")), "node x: node: found x; allowed: a node of "),
        (replace(fitting, region=RegionId("mars")), f"{spec.id}: region: found mars; allowed: {spec.region}, by "),
        (replace(fitting, zone=ZoneId("us-east-1b")), f"{spec.id}: zone: found us-east-1b; allowed: us-east-1a, by "),
        (replace(fitting, addresses={spec.id: "127.0.0.1:7001"}), "addresses.us-east-1b-1: found nothing"),
    ):
        with pytest.raises(ConfigError) as wrong:
            check_fits(changed, topology)
        assert text in str(wrong.value)
