"""Identity: who may open a data directory, and when."""

import asyncio
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from stores import CLUSTER, GROUPS, NODE, STORE, G, append, make_durable

from isochrone.errors import StorageError
from isochrone.ids import ClusterId, LogIndex, NodeId, StoreId
from isochrone.regions.storage.directory_os import bootstrap_store, open_store
from isochrone.regions.storage.image_lmdb import DATA_FILE
from isochrone.regions.storage.store_lmdb import LmdbStore


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A bootstrapped data directory."""
    path = tmp_path / "deep" / "store"
    bootstrap_store(path, CLUSTER, NODE, STORE, GROUPS)
    return path


def close(store: LmdbStore) -> None:
    asyncio.run(store.close())


def reopen(path: Path, *, moved: bool = False) -> int:
    """Open and close; the incarnation."""
    store = open_store(path, CLUSTER, NODE, STORE, moved=moved)
    close(store)
    return store.identity.incarnation


def test_each_opening_raises_the_incarnation(path: Path) -> None:
    assert [reopen(path) for _ in range(3)] == [1, 2, 3]


def test_opening_never_makes_a_store(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    for absent in (empty, tmp_path / "absent"):
        with pytest.raises(StorageError, match="no store"):
            reopen(absent)
    assert list(empty.iterdir()) == []
    assert not (tmp_path / "absent").exists()
    (empty / DATA_FILE).touch()
    with pytest.raises(StorageError, match="no store"):
        reopen(empty)


def test_bootstrap_takes_only_an_empty_directory(path: Path, tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="not empty"):
        bootstrap_store(path, CLUSTER, NODE, StoreId("store-2"), GROUPS)
    assert reopen(path) == 1, "the store that was there is untouched"
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "notes").write_text("mine")
    with pytest.raises(StorageError, match="notes"):
        bootstrap_store(foreign, CLUSTER, NODE, STORE, GROUPS)
    assert [file.name for file in foreign.iterdir()] == ["notes"]


@pytest.mark.parametrize(
    ("cluster", "node", "store"),
    [("other", NODE, STORE), (CLUSTER, "other", STORE), (CLUSTER, NODE, "other")],
)
def test_a_store_opens_only_for_its_own(path: Path, cluster: str, node: str, store: str) -> None:
    with pytest.raises(StorageError, match="expected"):
        open_store(path, ClusterId(cluster), NodeId(node), StoreId(store))
    assert reopen(path) == 1, "a refused opening changes nothing and releases the directory"


def test_a_second_opening_names_the_holder(path: Path) -> None:
    store = open_store(path, CLUSTER, NODE, STORE)
    with pytest.raises(StorageError, match=f"in use by process {os.getpid()}"):
        open_store(path, CLUSTER, NODE, STORE)
    close(store)
    assert reopen(path) == 2


HOLD = """
import asyncio, sys
from pathlib import Path
from isochrone.regions.storage.directory_os import open_store
store = open_store(Path(sys.argv[1]), *sys.argv[2:])
print("open", flush=True)
sys.stdin.read()
asyncio.run(store.close())
"""


def test_another_process_is_named_and_its_death_frees_the_directory(path: Path) -> None:
    command = [sys.executable, "-P", "-c", HOLD, str(path), CLUSTER, NODE, STORE]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"open\n"
        with pytest.raises(StorageError, match=f"in use by process {holder.pid}"):
            reopen(path)
        holder.kill()
    assert reopen(path) == 2


def test_a_copy_is_refused_and_a_move_accepted_once_said(path: Path, tmp_path: Path) -> None:
    assert reopen(path) == 1
    copy = tmp_path / "copy"
    shutil.copytree(path, copy)
    with pytest.raises(StorageError, match="is a copy"):
        reopen(copy)
    assert reopen(copy, moved=True) == 2
    assert reopen(copy) == 3
    assert reopen(path) == 2, "the original knows nothing of it: only the operator can say which one is gone"


def test_a_backup_put_in_place_of_the_file_is_refused(path: Path, tmp_path: Path) -> None:
    backup = tmp_path / "backup"
    shutil.copyfile(path / DATA_FILE, backup)
    assert reopen(path) == 1
    (path / DATA_FILE).unlink()
    shutil.copyfile(backup, path / DATA_FILE)
    with pytest.raises(StorageError, match="is a copy"):
        reopen(path)


def test_renaming_a_directory_is_no_move(path: Path, tmp_path: Path) -> None:
    assert reopen(path) == 1
    path.rename(tmp_path / "elsewhere")
    assert reopen(tmp_path / "elsewhere") == 2


def test_a_store_outlives_its_process_lock_file(path: Path) -> None:
    async def main() -> None:
        store = open_store(path, CLUSTER, NODE, STORE)
        await make_durable(store, append(1, 3))
        await store.close()
        (path / "lock").unlink()
        store = open_store(path, CLUSTER, NODE, STORE)
        assert len(await store.read_entries(G, LogIndex(1), LogIndex(3), 1 << 20)) == 3
        await store.close()

    asyncio.run(main())
