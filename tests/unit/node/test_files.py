"""Durable writes, locks, link shapes and the run file."""

from pathlib import Path

import pytest

from isochrone.errors import StorageError
from isochrone.ids import NodeId, RegionId, ZoneId
from isochrone.node.files_os import load_links, locked, write_durably
from isochrone.node.layout import Layout
from isochrone.node.links import encode_links
from isochrone.node.process import ProcessId
from isochrone.node.run_file import RunFile, encode_run_file, parse_run_file
from isochrone.wire.shaping import LinkShape


def test_a_write_replaces_the_file_and_leaves_no_other(tmp_path: Path) -> None:
    path = tmp_path / "sub" / "file"
    write_durably(path, "one")
    write_durably(path, "two", mode=0o600)
    assert path.read_text(encoding="utf-8") == "two"
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(path.parent.iterdir()) == [path]


def test_a_write_that_fails_keeps_the_old_content(tmp_path: Path) -> None:
    path = tmp_path / "directory"
    (path / "x").mkdir(parents=True)
    with pytest.raises(StorageError, match=f"^cannot write {path}: "):
        write_durably(path, "text")
    assert list(tmp_path.iterdir()) == [path]


def test_a_lock_excludes_and_is_given_back(tmp_path: Path) -> None:
    with (
        locked(tmp_path / "d" / "lock", "busy"),
        pytest.raises(StorageError, match=r"^taken$"),
        locked(tmp_path / "d" / "lock", "taken"),
    ):
        pytest.fail("two hold one lock")
    with locked(tmp_path / "d" / "lock", "busy"):
        pass


def test_links_survive_their_file(tmp_path: Path) -> None:
    a, b = ZoneId("a"), ZoneId("b")
    links = {(a, b): LinkShape(cut=True), (b, a): LinkShape(12.5, 1.0, 0.25)}
    write_durably(tmp_path / "links.json", encode_links(links))
    assert load_links(tmp_path / "links.json") == links


def test_without_a_file_no_link_differs(tmp_path: Path) -> None:
    assert load_links(tmp_path / "none.json") == {}
    assert load_links(None) == {}


def test_a_broken_file_of_links_is_refused(tmp_path: Path) -> None:
    (tmp_path / "links.json").write_text('[{"source": "a"}]', encoding="utf-8")
    with pytest.raises(StorageError, match="is no file of link shapes"):
        load_links(tmp_path / "links.json")


def test_the_run_file_survives() -> None:
    run = RunFile(ProcessId(7, 1234.5), Path("/t/r"), "127.0.0.2:1", {NodeId("a"): "127.0.0.1:2"})
    assert parse_run_file(encode_run_file(run)) == run
    with pytest.raises(ValueError, match="version 2"):
        parse_run_file(encode_run_file(run).replace('"version": 1', '"version": 2'))


def test_names_with_slashes_stay_apart_and_inside_the_directory() -> None:
    layout = Layout(Path("/d"))
    names = [NodeId("a/1"), NodeId("a-1"), NodeId("a%2F1"), NodeId("../a")]
    assert len({layout.node_data(name) for name in names}) == len(names)
    assert all(layout.node_data(name).parent == Path("/d/data") for name in names)
    assert layout.supervisor_state(RegionId("r/1")).parent == Path("/d/supervisors")
