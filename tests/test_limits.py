"""`docs/limits.md` says what the code says, and leaves out no limit of the modules that clients can reach."""

import re
from importlib import import_module
from pathlib import Path

import pytest

TABLE = Path(__file__).parents[1] / "docs" / "limits.md"
UNITS = {"": 1, "KiB": 1 << 10, "MiB": 1 << 20}
ROW = re.compile(r"\| [^|]+ \| ([\d.,]+) ?(\w*) \| `([\w/]+)\.py` `([\w.]+)` \| [^|]*\|")
NAME = re.compile(r"[A-Z][A-Z0-9_]*_(?:MAX|TIMEOUT_S)")
NO_LIMITS = {
    ("wire/kv", "NUMBER_MAX"),
    ("regions/requests", "BATCH_COMMANDS_MAX"),
    ("regions/requests", "BATCH_BYTES_MAX"),
    ("regions/state/machine", "SCRUB_RECORDS_MAX"),
    ("node/session_watches", "LEADERLESS_MAX"),
    ("node/etcd_watches_grpc", "TOLD_BYTES_MAX"),
    ("wire/http2/headers", "KEPT_BLOCKS_MAX"),
    ("wire/http2/headers", "KEPT_BLOCK_BYTES_MAX"),
    ("wire/http2/headers", "TEXT_CHARS_MAX"),
    ("wire/http2/frames", "WINDOW_MAX"),
}
"""Sizes of steps and of what is remembered, which no client can go beyond."""


def rows() -> list[tuple[str, str, float]]:
    """Module, name and value of each row."""
    lines = [line for line in TABLE.read_text(encoding="utf-8").splitlines() if line.startswith("| ")]
    lines = [line for line in lines if not line.startswith("| what")]
    found = [ROW.fullmatch(line) for line in lines]
    assert [line for line, match in zip(lines, found, strict=True) if match is None] == []
    return [
        (match[3], match[4], float(match[1].replace(",", "")) * UNITS[match[2]]) for match in found if match is not None
    ]


@pytest.mark.parametrize(("module", "name", "stated"), rows(), ids=str)
def test_a_limit_is_as_stated(module: str, name: str, stated: float) -> None:
    value = import_module(f"isochrone.{module.replace('/', '.')}")
    for part in name.split("."):
        value = getattr(value, part)() if part == "Limits" else getattr(value, part)
    assert value == stated


def test_no_limit_is_left_out() -> None:
    stated = {(module, name) for module, name, _ in rows()}
    left_out = []
    for module in sorted({module for module, _ in stated}):
        source = (TABLE.parents[1] / f"{module}.py").read_text(encoding="utf-8")
        for line in source.splitlines():
            name = re.match(r"([A-Z]\w*)(?:: [^=]+)? = ", line)
            if name and NAME.fullmatch(name[1]) and (module, name[1]) not in stated | NO_LIMITS:
                left_out.append((module, name[1]))
    assert left_out == []
