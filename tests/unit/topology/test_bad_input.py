"""Every kind of bad input: one problem for each fault, with its key, what was found and what is allowed."""

from pathlib import Path

import pytest

from isochrone.errors import InvalidRequest
from isochrone.topology import Problem, TopologyError, load_topology

GOOD = """
name: good
latencies: aws
regions:
  - {name: us-east-1, zones: 3}
  - {name: eu-west-1, zones: [eu-west-1a, eu-west-1b]}
  - {name: eu-north-1, zones: 1, witness_site: true}
keyspaces:
  - {prefix: us/, home: us-east-1, survive: zone}
  - {prefix: global/, home: us-east-1, survive: region}
clock: {source: bound, bound_ms: 5}
"""


def problems_of(directory: Path, text: str | bytes) -> list[Problem]:
    file = directory / "topology.yaml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(TopologyError) as caught:
        load_topology(file)
    problems = list(caught.value.problems)
    assert str(caught.value).splitlines() == [str(problem) for problem in problems], "one line for each fault"
    assert all(problem.found and problem.allowed and problem.path for problem in problems)
    return problems


def replaced(old: str, new: str) -> str:
    assert GOOD.count(old) == 1
    return GOOD.replace(old, new)


def test_the_good_file_is_good(tmp_path: Path) -> None:
    file = tmp_path / "topology.yaml"
    file.write_text(GOOD)
    assert load_topology(file).name == "good"


# What is wrong, and then path, part of found, part of allowed of the one problem that this makes.
FAULTS = [
    # Schema.
    (replaced("name: good\n", ""), "name", "nothing", "required"),
    (replaced("name: good", "name: a b"), "name", "'a b'", "letters, digits"),
    (replaced("name: good", "name: 7"), "name", "7", "text"),
    (replaced("name: good", "name: yes"), "name", "true", "text"),
    (replaced("name: good", "name: null"), "name", "null", "text"),
    (replaced("latencies: aws\n", ""), "latencies", "nothing", "required"),
    (replaced("name: good", "name: good\nlatency: aws"), "latency", "an unknown key", "did you mean latencies?"),
    (replaced("witness_site:", "witness:"), "regions[2].witness", "an unknown key", "did you mean witness_site?"),
    (replaced("zones: 3", "zones: 0"), "regions[0].zones", "0", "greater than or equal to 1"),
    (replaced("zones: 3", "zones: 27"), "regions[0].zones", "27", "less than or equal to 26"),
    (replaced("zones: 3", "zones: []"), "regions[0].zones", "[]", "at least one item"),
    (replaced("zones: 3", "zones: three"), "regions[0].zones", "'three'", "a whole number, or a list of names"),
    (replaced("zones: 3", "zones: 3.5"), "regions[0].zones", "3.5", "a whole number, or a list of names"),
    (replaced("zones: 3", "zones: [a, 2, c]"), "regions[0].zones[1]", "2", "text"),
    (
        replaced("zones: 3", "zones: 3, latitude: 91, longitude: 0"),
        "regions[0].latitude", "91", "less than or equal to 90",
    ),
    (replaced("zones: 3", "zones: 3, latitude: .nan, longitude: 0"), "regions[0].latitude", "nan", "finite number"),
    (replaced("witness_site: true", "witness_site: 'true'"), "regions[2].witness_site", "'true'", "true or false"),
    (
        replaced("us-east-1, survive: zone", "us-east-1, survive: planet"),
        "keyspaces[0].survive", "'planet'", "'zone' or 'region'",
    ),
    (
        replaced("survive: zone", "survive: zone, ordering: none"),
        "keyspaces[0].ordering", "'none'", "'linearizable' or 'external'",
    ),
    (replaced("prefix: us/", "prefix: ''"), "keyspaces[0].prefix", "''", "1 to 255 printable"),
    (replaced("bound_ms: 5", "bound_ms: -1"), "clock.bound_ms", "-1", "greater than 0"),
    (replaced("source: bound", "source: gps"), "clock.source", "'gps'", "'kernel' or 'bound'"),
    (GOOD + "links: [{from: us-east-1, to: eu-west-1, loss: 1.0}]", "links[0].loss", "1.0", "less than 1"),
    (GOOD + "links: [{from: us-east-1, to: eu-west-1, delay_ms: .inf}]", "links[0].delay_ms", "inf", "finite number"),
    (GOOD + "links: [{from: us-east-1, delay_ms: 1}]", "links[0].to", "nothing", "required"),
    (GOOD + "links: 3", "links", "3", "a list"),
    (GOOD + "nodes: [{name: n, zone: z, address: nowhere}]", "nodes[0].address", "'nowhere'", "host:port"),
    (GOOD + "compaction: {us-east-1.zone: {keep: 1}}", "compaction.us-east-1.zone.keep", "unknown", "keep_revisions"),
    (GOOD + "compaction: {us-east-1.zone: {keep_seconds: 0}}", "compaction.us-east-1.zone.keep_seconds", "0", "1"),
    (
        GOOD + "compaction: {us-east-1.zone: {keep_revisions: many}}",
        "compaction.us-east-1.zone.keep_revisions", "many", "a whole number",
    ),
    (GOOD + "timers: {us-east-1.zone: {heartbeat: 100}}", "timers.us-east-1.zone.heartbeat", "unknown", "heartbeat_ms"),
    # Regions, zones and their data.
    (replaced("name: eu-west-1", "name: us-east-1"), "regions[1].name", "us-east-1 again", "each region once"),
    (replaced("eu-west-1b", "us-east-1a"), "regions[1].zones", "us-east-1a, a zone of us-east-1", "no other zone"),
    (replaced("eu-west-1b", "eu-west-1a"), "regions[1].zones", "eu-west-1a, a zone of eu-west-1", "no other zone"),
    (replaced("eu-west-1b", "eu-north-1"), "regions[1].zones", "eu-north-1, the name of a region", "no other zone"),
    (replaced("zones: 3", "zones: 3, latitude: 3"), "regions[0]", "one of latitude and longitude", "both or none"),
    (replaced("latencies: aws", "latencies: nowhere.csv"), "latencies", "'nowhere.csv': no such file", "aws, azure"),
    (replaced("latencies: aws", "latencies: ."), "latencies", "'.': a directory", "aws, azure"),
    (replaced("latencies: aws", 'latencies: "a\\0b"'), "latencies", "no file name", "aws, azure"),
    # References.
    (
        replaced("prefix: us/, home: us-east-1", "prefix: us/, home: us-est-1"),
        "keyspaces[0].home", "us-est-1", "us-east-1, eu-west-1",
    ),
    (
        replaced("prefix: us/, home: us-east-1", "prefix: us/, home: eu-north-1"),
        "keyspaces[0].home", "eu-north-1, a witness site", "us-east-1",
    ),
    (GOOD + "links: [{from: us-east-9, to: eu-west-1, loss: 0.1}]", "links[0].from", "us-east-9", "a region or zone"),
    (GOOD + "links: [{from: us-east-1, to: eu-west-1}]", "links[0]", "no change", "at least one of delay_ms"),
    (GOOD + "links: [{from: us-east-1a, to: us-east-1a, loss: 0.1}]", "links[0].to", "the same zone", "another zone"),
    (
        GOOD + "timers: {us.zone: {heartbeat_ms: 100}}",
        "timers.us.zone", "no such group", "us-east-1.zone, us-east-1.region",
    ),
    (
        GOOD + "compaction: {us.zone: {keep_seconds: 100}}",
        "compaction.us.zone", "no such group", "us-east-1.zone, us-east-1.region",
    ),
    # Goals that cannot be met, overlaps, unsafe settings.
    (
        replaced("prefix: us/, home: us-east-1", "prefix: us/, home: eu-west-1"),
        "keyspaces[0].survive", "zone with 2 zone(s)", "three zones",
    ),
    (replaced("prefix: global/", "prefix: us/global/"), "keyspaces[1].prefix", "'us/global/'", "'us/' of keyspaces[0]"),
    (replaced("prefix: global/", "prefix: u"), "keyspaces[1].prefix", "'u'", "'us/' of keyspaces[0]"),
    (replaced("prefix: global/", "prefix: us/"), "keyspaces[1].prefix", "'us/'", "'us/' of keyspaces[0]"),
    (replaced(", bound_ms: 5", ""), "clock.bound_ms", "nothing", "required by source bound"),
    (replaced("bound_ms: 5", "bound_ms: 5, offset_max_ms: 9"), "clock.offset_max_ms", "9 ms", "at least 10 ms"),
    (GOOD + "timers: {us-east-1.region: {heartbeat_ms: 20}}", "timers.us-east-1.region.heartbeat_ms", "20 ms", "P90"),
    (
        GOOD + "timers: {us-east-1.zone: {election_timeout_ms: 499}}",
        "timers.us-east-1.zone.election_timeout_ms", "499 ms", "at least 500 ms",
    ),
    (
        replaced("survive: zone", "survive: zone, placement: {voters: [us-east-1a, us-east-1b]}"),
        "keyspaces[0].placement", "1 of 2 voters left without us-east-1a", "a quorum left",
    ),
    (
        replaced("survive: zone", "survive: zone, placement: {voters: [us-east-1a, us-east-1b, z]}"),
        "keyspaces[0].placement.voters[2]", "z", "a zone: us-east-1a",
    ),
    (
        replaced(
            "survive: zone",
            "survive: zone, witness: true, placement: {voters: [us-east-1a, us-east-1b, us-east-1c]}",
        ),
        "keyspaces[0].witness", "true beside placement", "placement.witnesses",
    ),
    *(
        (
            replaced("survive: zone", f"survive: zone, quorums: {{commit: {commit}, election: {election}}}"),
            "keyspaces[0].quorums", found, allowed,
        )
        for commit, election, found, allowed in (
            (1, 2, "quorums of 1 to commit and 2 to elect among 3 voters, which need not meet", "together more than 3"),
            (3, 1, "an election quorum of 1 of 3 voters", "at least 2, or two leaders"),
            (4, 2, "a commit quorum of 4 of 3 voters", "at most 3"),
            (1, 3, "2 of 3 voters left without us-east-1a", "goal zone: at least 3, to commit and to elect"),
        )
    ),
    (
        replaced("survive: zone", "survive: zone, witness: true, quorums: {commit: 1, election: 3}"),
        "keyspaces[0].quorums", "1 witness", "fewer witnesses than any quorum",
    ),
    (
        replaced("survive: zone", "survive: zone, quorums: {commit: 2}"),
        "keyspaces[0].quorums.election", "nothing", "required",
    ),
    *(
        (replaced("survive: zone", f"survive: zone, {more}"), "keyspaces[0].async_copy", found, allowed)
        for more, found, allowed in (
            ("async_copy: mars", "mars", "a region: eu-west-1"),
            ("async_copy: us-east-1", "us-east-1, the home region", "another region than the home"),
            ("async_copy: eu-north-1", "eu-north-1, a witness site", "a region that holds state"),
            (
                "async_copy: eu-west-1, placement: {voters: [us-east-1a, us-east-1b, eu-west-1b]}",
                "eu-west-1, where a voter stands", "without a voter",
            ),
            ("async_copy: [eu-west-1]", "['eu-west-1']", "text"),
            ("async_copy: eu west", "'eu west'", "letters, digits"),
        )
    ),
    (
        replaced("survive: region", "survive: region, async_copy: eu-west-1"),
        "keyspaces[1].async_copy", "eu-west-1 beside goal region", "goal zone only",
    ),
    (
        replaced("survive: zone", "survive: zone, asynccopy: eu-west-1"),
        "keyspaces[0].asynccopy", "an unknown key", "did you mean async_copy?",
    ),
    # The text itself.
    (replaced("name: good", "name: good\nname: better"), "name", "the key again at line 3, column 1", "each key once"),
    (replaced("zones: 1,", "zones: 1, zones: 2,"), "regions[2].zones", "the key again", "each key once"),
    (GOOD + "7: seven", "document", "the key '7'", "text; quote it"),
    (GOOD + "[a, b]: seven", "document", "a key of many parts", "text; quote it"),
    (
        replaced("name: good", "name: &anchor good\nlinks: *anchor"),
        "line 3, column 8", "the alias *anchor", "written out",
    ),
    (replaced("name: good", "name: !!python/name:os.system good"), "line 2, column 7", "the tag", "without tags"),
    (replaced("name: good", "name: [good"), "line 3, column 10", "flow sequence", "one YAML document"),
    (GOOD + "---\nname: again", "line 12, column 1", "another document", "one YAML document"),
    ("", "document", "nothing", "a mapping with the keys name"),
    ("- a\n- b", "document", "a list", "a mapping with the keys name"),
    ("just words", "document", "a str", "a mapping with the keys name"),
    ("[" * 1500 + "]" * 1500, "document", "nested", "a few levels"),
    ("a: \x07", "document", "special characters are not allowed", "UTF-8"),
    (b"name: \xff\xfe", "document", "not UTF-8 at position 6", "a topology file"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "path", "found", "allowed"), FAULTS)
def test_one_fault_is_one_problem(tmp_path: Path, text: str | bytes, path: str, found: str, allowed: str) -> None:
    problems = problems_of(tmp_path, text)
    about = [problem for problem in problems if problem.path == path and found in problem.found]
    assert about, problems
    assert allowed in about[0].allowed
    assert len(problems) == 1 or "without us-east-1" in about[0].found, problems
    assert problems[0].file == str(tmp_path / "topology.yaml")


def test_a_missing_file_and_a_directory(tmp_path: Path) -> None:
    for path, found in ((tmp_path / "none.yaml", "no such file"), (tmp_path, "a directory")):
        with pytest.raises(TopologyError) as caught:
            load_topology(path)
        assert caught.value.problems == (Problem(str(path), "document", found, "a topology file"),)


def test_a_topology_error_is_the_callers_fault() -> None:
    assert issubclass(TopologyError, InvalidRequest)


def test_faults_of_all_sections_come_in_one_run(tmp_path: Path) -> None:
    text = """
name: x y
name: z
latencies: awz
regions:
  - {name: us-east-1, zones: [a, a]}
  - {name: eu-west-1, zones: 3}
nodes:
  - {name: one, zone: nowhere}
  - {name: two, zone: a, address: nothing}
links:
  - {from: us-east-1, to: mars, delay_ms: 1}
  - {from: us-east-1, to: eu-west-1, delay: 1}
keyspaces:
  - {prefix: a, home: us-est-1, survive: zone}
  - {prefix: b, home: us-east-1, survive: planet}
  - {prefix: ab, home: eu-west-1, survive: zone}
clock: {source: bound}
timers: {x: {heartbeat_ms: 1}}
"""
    paths = [problem.path for problem in problems_of(tmp_path, text)]
    assert sorted(paths) == sorted(
        [
            "name",
            "name",
            "latencies",
            "regions[0].zones",
            "nodes[0].zone",
            "nodes[1].address",
            "links[0].to",
            "links[1].delay",
            "keyspaces[0].home",
            "keyspaces[1].survive",
            "keyspaces[2].prefix",
            "clock.bound_ms",
            "timers.x.heartbeat_ms",
        ]
    )


def test_positions_count_items_that_could_not_be_read(tmp_path: Path) -> None:
    text = replaced("- {prefix: us/, home: us-east-1, survive: zone}", "- {}").replace(
        "home: us-east-1, survive: region", "home: mars, survive: region"
    )
    paths = [problem.path for problem in problems_of(tmp_path, text)]
    assert paths == [f"keyspaces[0].{key}" for key in ("prefix", "home", "survive")] + ["keyspaces[1].home"]


def test_nodes(tmp_path: Path) -> None:
    text = (
        GOOD
        + """
nodes:
  - {name: n1, zone: us-east-1a, address: "h:1"}
  - {name: n1, zone: us-east-1b, address: "h:1"}
  - {name: n3, zone: us-east-1c, address: "h:65536"}
  - {name: n4, zone: eu-west-1a}
  - {name: n5, zone: eu-west-1b}
"""
    )
    found = {(problem.path, problem.found) for problem in problems_of(tmp_path, text)}
    assert found == {
        ("nodes[1].name", "n1 again"),
        ("nodes[1].address", "h:1"),
        ("nodes[2].address", "h:65536"),
        ("nodes", "no node in zone us-east-1b"),
        ("nodes", "no node in zone eu-north-1a"),
    }


def test_a_region_that_the_matrix_lacks(tmp_path: Path) -> None:
    text = replaced("name: eu-north-1, zones: 1", "name: attic, zones: 1, latitude: 0, longitude: 0")
    (problem,) = problems_of(tmp_path, text)
    assert (problem.path, problem.found) == ("regions[2].name", "attic")
    assert problem.allowed.startswith("a region of the aws matrix: one of 33, such as ")


def test_a_region_that_no_table_places(tmp_path: Path) -> None:
    (problem,) = problems_of(tmp_path, replaced("eu-north-1, zones: 1", "attic, zones: 1"))
    assert problem.found == "no coordinates for attic"


@pytest.mark.parametrize(
    ("table", "path", "found"),
    [
        ("", "line 1", "nothing"),
        ("a,b\n", "line 1", "'a,b'"),
        ("region,a,a\na,,1\n", "line 1", "'a,a'"),
        ("region,a,b\na,,1\n", "column 1", "'a'"),
        ("region,a,b\na,,1\nb,1\n", "row b", "2 columns"),
        ("region,a,b\na,,x\nb,1,\n", "row a, column b", "'x'"),
        ("region,a,b\na,,-1\nb,1,\n", "row a, column b", "'-1'"),
        ("region,a,b\na,,nan\nb,1,\n", "row a, column b", "'nan'"),
    ],
)
def test_a_bad_latency_table(tmp_path: Path, table: str, path: str, found: str) -> None:
    (tmp_path / "table.csv").write_text(table)
    problems = problems_of(tmp_path, replaced("latencies: aws", "latencies: table.csv"))
    assert (problems[0].file, problems[0].path, problems[0].found) == (str(tmp_path / "table.csv"), path, found)


def test_a_pair_without_a_figure(tmp_path: Path) -> None:
    (tmp_path / "table.csv").write_text(
        "region,us-east-1,eu-west-1,eu-north-1\nus-east-1,,80,\neu-west-1,,,30\neu-north-1,,,\n"
    )
    problems = problems_of(tmp_path, replaced("latencies: aws", "latencies: table.csv"))
    assert [problem.path for problem in problems] == ["links", "links"]
    assert problems[0].found == "no delay from us-east-1 to eu-north-1 in the table.csv matrix"
    text = (
        replaced("latencies: aws", "latencies: table.csv")
        + """
links:
  - {from: us-east-1, to: eu-north-1, delay_ms: 50}
  - {from: eu-north-1, to: us-east-1, delay_ms: 60}
"""
    )
    (tmp_path / "topology.yaml").write_text(text)
    topology = load_topology(tmp_path / "topology.yaml")
    assert topology.rtt_ms("us-east-1a", "eu-north-1a") == 110
    assert topology.rtt_ms("us-east-1a", "eu-west-1a") == 80
