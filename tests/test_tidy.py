"""The tree keeps the rules of `tests/support/tidy_rules.py`, and the rules find what they should."""

import importlib.util
import sys
from functools import cache
from pathlib import Path

import pytest
from tidy_rules import (
    ADAPTER_SUFFIXES,
    COMPOSITION,
    PLAIN_DATA,
    ROOMS,
    TASKLESS_DRIVERS,
    Finding,
    Kind,
    Module,
    check_any_module,
    check_room_module,
    check_test_module,
    imports_of,
    kind_of,
    parse,
)

ROOT = Path(__file__).parents[1]


def files_under(*folders: str) -> list[Path]:
    """Python files below folders of the repository, but generated ones; relative to its root."""
    found = [path.relative_to(ROOT) for folder in folders for path in (ROOT / folder).rglob("*.py")]
    return sorted(path for path in found if "generated" not in path.parts)


def load(path: Path) -> Module:
    return parse(path, (ROOT / path).read_text())


ROOM_FILES = [*files_under(*ROOMS), *(path.relative_to(ROOT) for path in (ROOT / "src/isochrone").glob("*.py"))]


def import_name(path: Path) -> str:
    """`regions/raft/log.py` is imported as `isochrone.regions.raft.log`."""
    parts = list(path.with_suffix("").parts)
    parts = parts[2:] if parts[0] == "src" else [f"{parts[0]}_" if parts[0] == "global" else parts[0], *parts[1:]]
    if parts[-1] == "__init__":
        parts.pop()
    return ".".join(["isochrone", *parts])


@cache
def kinds() -> dict[str, Kind]:
    """Kind of every module of the project by import name, and of the origin of each name that a facade collects."""
    modules = {import_name(path): load(path) for path in ROOM_FILES}
    found = {name: kind_of(module) for name, module in modules.items()}
    for name, module in modules.items():
        if found[name] is Kind.FACADE:
            for origin, _ in imports_of(module):
                origin_kind = found.get(origin.rpartition(".")[0])
                if origin_kind is not None:
                    found.setdefault(f"{name}.{origin.rpartition('.')[2]}", origin_kind)
    return found


def report(findings: list[Finding]) -> str:
    return "\n".join(map(str, findings))


def test_the_rooms_keep_the_rules() -> None:
    assert len(ROOM_FILES) > 50, "the files are found"
    findings = [finding for path in ROOM_FILES for finding in check_room_module(load(path), kinds().get)]
    assert not findings, report(findings)


def test_tests_and_benchmarks_keep_the_rules() -> None:
    findings = [finding for path in files_under("tests") for finding in check_test_module(load(path))]
    findings += [finding for path in files_under("bench") for finding in check_any_module(load(path))]
    assert not findings, report(findings)


def test_the_lists_of_exceptions_name_files_that_need_them() -> None:
    for name in (*COMPOSITION, *TASKLESS_DRIVERS, *PLAIN_DATA):
        assert (ROOT / name).is_file(), name
    for name in PLAIN_DATA:
        module = load(Path(name))
        assert kind_of(module) is Kind.PURE, name
        assert "Any" in module.source, f"{name} needs no exception"


def test_rooms_can_be_imported_only_through_isochrone() -> None:
    assert str(ROOT) not in sys.path
    for room in ROOMS:
        spec = importlib.util.find_spec(room)
        assert spec is None or not str(spec.origin).startswith(str(ROOT)), f"{room} can be imported bare"
        name = "isochrone." + ("global_" if room == "global" else room)
        assert importlib.util.find_spec(name) is not None, name


def test_every_room_has_its_link() -> None:
    for room in ROOMS:
        link = ROOT / "src/isochrone" / ("global_" if room == "global" else room)
        assert link.is_symlink()
        assert link.readlink() == Path("../..") / room


OTHERS = {
    "isochrone.ids": Kind.PURE,
    "isochrone.regions.host": Kind.DRIVER,
    "isochrone.node.node": Kind.COMPOSITION,
    "isochrone.wire.peers_grpc": Kind.ADAPTER,
    "isochrone.ops.cli.main": Kind.COMMAND,
    "isochrone.topology": Kind.FACADE,
    "isochrone.topology.load_topology": Kind.ADAPTER,
    "isochrone.topology.Topology": Kind.PURE,
}

KINDS = [
    ("wire/peers_grpc.py", "", Kind.ADAPTER),
    ("regions/storage/store_lmdb.py", "import asyncio", Kind.ADAPTER),
    ("node/os.py", "", Kind.PURE),
    ("ops/cli/main.py", "import asyncio", Kind.COMMAND),
    ("ops/cli/__init__.py", "", Kind.COMMAND),
    ("topology/__init__.py", "import asyncio", Kind.FACADE),
    ("node/node.py", "", Kind.COMPOSITION),
    ("node/service.py", "", Kind.DRIVER),
    ("regions/host.py", "import asyncio", Kind.DRIVER),
    ("regions/host.py", "from asyncio import Queue", Kind.DRIVER),
    ("regions/host.py", "import logging", Kind.DRIVER),
    ("regions/host.py", "async def f(): ...", Kind.DRIVER),
    ("regions/host.py", "class A:\n    async def f(self): ...", Kind.DRIVER),
    ("regions/host.py", "class A(Protocol):\n    async def f(self): ...", Kind.PURE),
    ("regions/host.py", "import random", Kind.PURE),
]


@pytest.mark.parametrize(("path", "source", "kind"), KINDS)
def test_kinds_are_told_apart(path: str, source: str, kind: Kind) -> None:
    assert kind_of(parse(Path(path), source)) is kind


PURE, DRIVER, ADAPTER, COMMAND = "regions/raft/log.py", "regions/host.py", "node/files_os.py", "ops/cli/main.py"
ASYNC = "import asyncio\n"

BAD = [
    (PURE, "import threading", "imports threading"),
    (PURE, "import time", "imports time"),
    (PURE, "from datetime import datetime", "imports datetime.datetime"),
    (PURE, "import os", "imports os"),
    (PURE, "import uuid", "imports uuid"),
    (PURE, "import secrets", "imports secrets"),
    (PURE, "import psutil", "imports psutil"),
    (PURE, "def f():\n    import socket", "imports socket"),
    (PURE, "from isochrone.regions.host import Host", "imports the driver"),
    (PURE, "from isochrone.regions import host", "imports the driver"),
    (PURE, "import isochrone.wire.peers_grpc", "imports the adapter"),
    (PURE, "from isochrone.topology import load_topology", "imports the adapter"),
    (PURE, "from typing import Any\nx: Any = 1", "Any in a pure module"),
    (PURE, "from typing import Any\ndef f(x: dict[str, Any]): ...", "Any in a pure module"),
    (PURE, "import random\nrandom.random()", "global generator"),
    (PURE, "import random\nr = random.Random()", "without a seed"),
    (PURE, "from random import shuffle", "imports random.shuffle"),
    (PURE, "import random\nr = random.SystemRandom()", "global generator"),
    (PURE, "x = open('f')", "open()"),
    (PURE, "from pathlib import Path\nx = Path('f').read_text()", "touches the file system"),
    (DRIVER, ASYNC + "async def f():\n    async with asyncio.TaskGroup() as g: ...", "asyncio.TaskGroup"),
    (DRIVER, ASYNC + "async def f():\n    await asyncio.wait([])", "asyncio.wait"),
    (DRIVER, "from asyncio import wait", "asyncio.wait"),
    (DRIVER, ASYNC + "for x in asyncio.as_completed([]): ...", "asyncio.as_completed"),
    (DRIVER, ASYNC + "async def f():\n    await asyncio.to_thread(len)", "asyncio.to_thread"),
    (DRIVER, ASYNC + "import time", "imports time"),
    (DRIVER, ASYNC + "from time import monotonic", "imports time.monotonic"),
    (DRIVER, ASYNC + "import datetime", "imports datetime"),
    (DRIVER, ASYNC + "from uuid import uuid4", "imports uuid.uuid4"),
    (DRIVER, ASYNC + "import secrets", "imports secrets"),
    (DRIVER, ASYNC + "from os import urandom", "imports os.urandom"),
    (DRIVER, ASYNC + "import random\nrandom.shuffle([])", "global generator"),
    (DRIVER, ASYNC + "import isochrone.wire.peers_grpc", "imports the adapter"),
    (DRIVER, ASYNC + "from isochrone.ops.cli.main import main", "imports the command"),
    ("node/node.py", "import os\nos.urandom(4)", "os.urandom"),
    ("node/node.py", "import time", "imports time"),
    (ADAPTER, "import ray", "only *_ray.py"),
    (ADAPTER, "from ray.exceptions import RayError", "only *_ray.py"),
    (ADAPTER, "import grpc.aio", "only *_grpc.py"),
    (COMMAND, "import lmdb", "only *_lmdb.py"),
    ("node/actor_ray.py", "import grpc", "only *_grpc.py"),
    (PURE, "from regions.raft import log", "bare import"),
    (PURE, "import wire", "bare import"),
    (PURE, "from . import log", "relative import"),
    (PURE, "# FIX" + "ME later", "left over"),
    (PURE, "x = 1  # X" + "XX", "left over"),
    (PURE, "def f():\n    raise NotImplementedError", "stub"),
    (PURE, "def f():\n    raise NotImplementedError('later')", "stub"),
    (ADAPTER, "try:\n    f()\nexcept:\n    pass", "swallows"),
    (ADAPTER, "try:\n    f()\nexcept Exception:\n    pass", "swallows"),
    (
        ADAPTER,
        "for x in y:\n    try:\n        f()\n    except (OSError, Exception):\n        continue",
        "swallows",
    ),
    (ADAPTER, "import contextlib\nwith contextlib.suppress(BaseException):\n    f()", "suppresses"),
    (ADAPTER, "x = 1\n" * 601, "601 lines"),
    (ADAPTER, "def f():\n" + "    x = 1\n" * 70, "f has 71 lines"),
]


@pytest.mark.parametrize(("path", "source", "expected"), BAD, ids=[f"{path}: {text}" for path, _, text in BAD])
def test_planted_breaches_are_found(path: str, source: str, expected: str) -> None:
    findings = check_room_module(parse(Path(path), source), OTHERS.get)
    assert any(expected in finding.message for finding in findings), report(findings)


GOOD = [
    (PURE, "import random\ndef f(rng: random.Random) -> float:\n    return random.Random(7).random() + rng.random()"),
    (PURE, "from isochrone.ids import NodeId\nfrom collections.abc import Mapping\nimport urllib.parse"),
    (PURE, "from isochrone.topology import Topology\nfrom isochrone import topology"),
    (PURE, "from pathlib import Path\nx = Path('a') / 'b'"),
    (PURE, "def waits(): ...\nclass Any_: ..."),
    ("wire/codec.py", "from typing import Any\nx: Any = 1"),
    (DRIVER, ASYNC + "from isochrone.regions.raft import log\nasync def f():\n    await asyncio.gather()"),
    ("node/node.py", "import os\nfrom isochrone.wire.peers_grpc import Peers\nos.getpid()"),
    (ADAPTER, "import time, os, threading\ntime.monotonic()\nopen('f')"),
    (ADAPTER, "try:\n    f()\nexcept OSError:\n    pass"),
    (ADAPTER, "try:\n    f()\nexcept Exception as error:\n    stop(error)"),
    (ADAPTER, "x = 1\n" * 600),
    (ADAPTER, "def f():\n" + "    x = 1\n" * 69),
    *[(f"wire/x_{name}.py", f"import {name}") for name in ADAPTER_SUFFIXES],
]


@pytest.mark.parametrize(("path", "source"), GOOD)
def test_what_is_allowed_is_not_found(path: str, source: str) -> None:
    findings = check_room_module(parse(Path(path), source), OTHERS.get)
    assert not findings, report(findings)


TESTS = [
    ("tests/unit/test_x.py", "import pytest\n@pytest.mark.skip\ndef test(): ...", "pytest.mark.skip"),
    ("tests/unit/test_x.py", "import pytest\npytestmark = pytest.mark.skipif(True, reason='')", "pytest.mark.skipif"),
    ("tests/unit/test_x.py", "import pytest\ndef test():\n    pytest.skip('later')", "pytest.skip"),
    ("tests/integration/test_x.py", "import pytest\npytest.importorskip('ray')", "pytest.importorskip"),
    ("tests/integration/test_x.py", "from pytest import xfail", "pytest.xfail"),
    ("tests/unit/test_x.py", "import time\ntime.sleep(1)", "time.sleep"),
    ("tests/scenarios/test_x.py", "from time import sleep", "time.sleep"),
    ("tests/unit/test_x.py", "import regions.host", "bare import"),
]


@pytest.mark.parametrize(("path", "source", "expected"), TESTS)
def test_planted_breaches_in_tests_are_found(path: str, source: str, expected: str) -> None:
    findings = check_test_module(parse(Path(path), source))
    assert any(expected in finding.message for finding in findings), report(findings)


def test_tests_of_real_processes_may_sleep_between_two_looks() -> None:
    assert not check_test_module(parse(Path("tests/integration/test_x.py"), "import time\ntime.sleep(1)"))
