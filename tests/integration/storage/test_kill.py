"""A store killed while it writes has everything that it acknowledged, and each batch as a whole or not at all."""

import asyncio
import random
import subprocess
import sys
from pathlib import Path

from stores import CLUSTER, GROUPS, NODE, STORE, G

from isochrone.ids import LogIndex
from isochrone.regions.storage.directory_os import bootstrap_store, open_store

ROUNDS = 6
IN_FLIGHT = 8

WRITER = f"""
import asyncio, os, sys
from pathlib import Path
from isochrone.ids import LogIndex
from isochrone.ports import LogWrite, WriteBatch
from isochrone.regions.storage.directory_os import open_store
from stores import CLUSTER, G, NODE, STORE, entry, hard_state, make_durable, row

async def main():
    store = open_store(Path(sys.argv[1]), CLUSTER, NODE, STORE)
    last = (await store.load(G)).last_index
    gate = asyncio.Semaphore({IN_FLIGHT})

    async def write(index):
        batch = WriteBatch(
            logs=(LogWrite(G, hard_state(1, NODE, index), (entry(index),)),),
            rows=(row(b"last", b"%d" % index), row(b"%d" % index, bytes(500))),
            applied={{G: LogIndex(index)}},
        )
        await make_durable(store, batch)
        os.write(1, b"%d\\n" % index)
        gate.release()

    tasks = set()
    while True:
        await gate.acquire()
        last += 1
        task = asyncio.create_task(write(last))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

asyncio.run(main())
"""


def test_kill_during_writes_loses_nothing_acknowledged(tmp_path: Path) -> None:
    path = tmp_path / "store"
    bootstrap_store(path, CLUSTER, NODE, STORE, GROUPS)
    rng = random.Random(20)
    support = str(Path(__file__).parents[2] / "support")
    acknowledged = 0
    for round_number in range(ROUNDS):
        command = [sys.executable, "-P", "-c", f"import sys; sys.path.append({support!r})\n" + WRITER, str(path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as writer:
            assert writer.stdout is not None
            lines = [writer.stdout.readline() for _ in range(rng.randrange(1, 400))]
            assert all(lines), "the writer ended by itself"
            writer.kill()
            lines += writer.stdout.readlines()  # acknowledged before the kill, too
        last = asyncio.run(check(path))
        acknowledged = max(acknowledged, *(int(line) for line in lines if line.endswith(b"\n")))
        assert last >= acknowledged > 0, f"round {round_number}"


async def check(path: Path) -> int:
    """Reopen and compare log, hard state and rows with each other; the last index held."""
    store = open_store(path, CLUSTER, NODE, STORE)
    bounds = await store.load(G)
    last = bounds.last_index
    assert bounds.applied == bounds.hard_state.commit == last, "one batch holds all three"
    held = await store.read_entries(G, LogIndex(1), last, 1 << 30)
    assert [entry.index for entry in held] == list(range(1, last + 1))
    rows = {row.key: row.value for row in await store.read_rows(G)}
    assert rows.pop(b"last") == b"%d" % last
    assert set(rows) == {b"%d" % index for index in range(1, last + 1)}
    await store.close()
    return last
