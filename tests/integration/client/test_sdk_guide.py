"""Every example of `docs/sdk.md` runs, in order, on a real cluster, and prints what the guide says."""

import ast
import asyncio
import inspect
import io
import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import pytest
from process_cluster import Cluster
from small_topology import PROGRAM, REPOSITORY, eventually, isochrone, write_topology

from isochrone.client import Client

NODES = ("us-east-1a-1", "us-east-1b-1", "us-east-1c-1")
GUIDE = REPOSITORY / "docs" / "sdk.md"
_FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """Three nodes that have a leader."""
    done = isochrone("bootstrap", write_topology(tmp_path), "--out", tmp_path / "cluster", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    cluster = Cluster(tmp_path / "cluster")
    for node in NODES:
        cluster.start(node)
    eventually(lambda: cluster.leader(*NODES) is not None, "a leader that all know")
    yield cluster
    cluster.end()


def examples() -> list[tuple[str, str, str]]:
    """Language, source and promised output of each example."""
    blocks = _FENCE.findall(GUIDE.read_text(encoding="utf-8"))
    promised = {at: text for at, (language, text) in enumerate(blocks) if language == "text"}
    return [
        (language, source, promised.get(at + 1, ""))
        for at, (language, source) in enumerate(blocks)
        if language != "text"
    ]


async def run_python(source: str, names: dict[str, Any]) -> str:
    """Run a block as `python -m asyncio` would; returns what it prints."""
    code = compile(source, str(GUIDE), "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    with redirect_stdout(io.StringIO()) as printed:
        running = eval(code, names)
        if inspect.isawaitable(running):
            await running
    return printed.getvalue()


def run_shell(source: str, environment: dict[str, str]) -> str:
    path = f"{PROGRAM.parent}:{os.environ['PATH']}"
    environment = {**os.environ, **environment, "PATH": path}
    done = subprocess.run(
        ["sh", "-ec", source], capture_output=True, text=True, timeout=60, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_examples_run_and_print_what_the_guide_says(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    endpoints = ",".join(cluster.address(node) for node in NODES)
    monkeypatch.setenv("ISOCHRONE_ENDPOINTS", endpoints)
    blocks = examples()
    assert {language for language, _, _ in blocks} == {"python", "sh"} and len(blocks) > 20

    async def run_all() -> None:
        names: dict[str, Any] = {}
        for language, source, promised in blocks:
            if language == "python":
                printed = await run_python(source, names)
            else:
                environment = {"ISOCHRONE_ENDPOINTS": endpoints, "ISOCHRONE_REGION": "us-east-1"}
                printed = await asyncio.to_thread(run_shell, source, environment)
            assert printed == promised, source
        assert isinstance(names["client"], Client)
        await names["client"].close()
        names["database"].close()

    asyncio.run(run_all())
