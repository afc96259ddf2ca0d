"""What the kernel sees: data synced, then the meta page through an O_DSYNC descriptor, then the acknowledgement."""

import itertools
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from stores import CLUSTER, GROUPS, NODE, STORE

from isochrone.regions.storage.directory_os import bootstrap_store

pytestmark = pytest.mark.interop

WRITES = 5
WRITER = f"""
import asyncio, os, sys
from pathlib import Path
from isochrone.regions.storage.directory_os import open_store
from stores import CLUSTER, NODE, STORE, append, make_durable

async def main():
    store = open_store(Path(sys.argv[1]), CLUSTER, NODE, STORE)
    for index in range(1, {WRITES} + 1):
        os.write(1, b"begin %d\\n" % index)
        await make_durable(store, append(index, index))
        os.write(1, b"acknowledged %d\\n" % index)
    await store.close()

asyncio.run(main())
"""
DATA_OPEN = re.compile(r'openat\(.*data\.mdb", (?P<flags>[A-Z_|]+).*\) = (?P<fd>\d+)')


def test_the_acknowledgement_follows_the_sync_and_the_meta_page(tmp_path: Path) -> None:
    strace = shutil.which("strace")
    assert strace, "this test needs strace; make test-interop installs it"
    path, trace = tmp_path / "store", tmp_path / "trace"
    bootstrap_store(path, CLUSTER, NODE, STORE, GROUPS)
    support = str(Path(__file__).parents[2] / "support")
    program = f"import sys; sys.path.append({support!r})\n" + WRITER
    watched = "trace=openat,write,pwrite64,pwritev,fdatasync,fsync,msync"
    command = [strace, "-f", "-e", watched, "-o", str(trace), sys.executable, "-P", "-c", program, str(path)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, timeout=120)
    calls = completed_calls(trace.read_text())
    opened = [match for call in calls if (match := DATA_OPEN.match(call))]
    data = {match["fd"] for match in opened if "O_RDWR" in match["flags"]}
    meta = {match["fd"] for match in opened if "O_DSYNC" in match["flags"]}
    assert len(meta) == len(data) == 1, "LMDB opens the file for data and, with O_DSYNC, for the meta page"
    patterns = {
        "data": re.compile(rf"pwrite(64|v)\({data.pop()},"),
        "sync": re.compile(r"fdatasync\(.*= 0"),
        "meta": re.compile(rf"pwrite64\({meta.pop()},"),
    }
    for index in range(1, WRITES + 1):
        start = next(n for n, call in enumerate(calls) if f'"begin {index}\\n"' in call)
        end = next(n for n, call in enumerate(calls) if f'"acknowledged {index}\\n"' in call)
        kinds = [kind for call in calls[start:end] for kind, pattern in patterns.items() if pattern.match(call)]
        steps = [kind for kind, _ in itertools.groupby(kinds)]
        assert steps == ["data", "sync", "meta"], f"write {index}: {calls[start : end + 1]}"


def completed_calls(trace: str) -> list[str]:
    """System calls in the order in which they returned; a write to standard output counts where it began."""
    calls: list[str] = []
    unfinished: dict[str, str] = {}
    for line in trace.splitlines():
        thread, call = line.split(maxsplit=1)
        if call.endswith("<unfinished ...>"):
            begun = call.removesuffix("<unfinished ...>")
            if begun.startswith("write(1,"):
                calls.append(begun)
            else:
                unfinished[thread] = begun
        elif "resumed>" in call:
            calls.append(unfinished.pop(thread, "") + call.split("resumed>")[1])
        else:
            calls.append(call)
    return calls
