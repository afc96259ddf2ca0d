"""Options and schedules: drawn ones can run, impossible ones are refused with the reason, and both survive JSON."""

import json
from dataclasses import replace

import pytest

from isochrone.drills.sim.case import Case, SimVerdict, case_from_text, case_to_text
from isochrone.drills.sim.options import Mode, SimOptions, draw_options
from isochrone.drills.sim.run_os import draw_case, find_topology, run_case, shipped_topologies
from isochrone.drills.sim.schedule import Fault, FaultKind, check_schedule
from isochrone.errors import InvalidRequest
from isochrone.topology import TopologyError

TOPOLOGY = find_topology("three-zones")
OPTIONS = replace(
    replace(draw_options(1, Mode.LITE, "three-zones"), quorum_shift=0, lease_reads=False), log_cap_bytes=0
)
A, B, G = "us-east-1a-1", "us-east-1b-1", "us-east-1.zone"


@pytest.mark.parametrize("mode", list(Mode))
def test_what_is_drawn_can_run(mode: Mode) -> None:
    drawn: set[FaultKind] = set()
    for seed in range(150):
        case = draw_case(seed, mode)
        check_schedule(case.schedule, case.options, find_topology(case.options.topology))
        drawn.update(fault.kind for fault in case.schedule)
        assert draw_case(seed, mode) == case
    assert drawn == (set() if mode is Mode.PERF else set(FaultKind))


def test_a_swarm_draws_from_every_shipped_topology() -> None:
    assert {draw_case(seed, Mode.SWARM).options.topology for seed in range(20)} == set(shipped_topologies())


def test_one_more_draw_in_the_options_changes_no_schedule() -> None:
    case = draw_case(3, Mode.SWARM)
    other = replace(case.options, rate_per_s=99.0)
    assert draw_case(3, Mode.SWARM).schedule == case.schedule
    assert other.seed == case.options.seed


def test_a_case_survives_its_file() -> None:
    case = replace(draw_case(5, Mode.SWARM), story="what it shows")
    assert case_from_text(case_to_text(case)) == case


REFUSED: dict[str, tuple[Fault, str]] = {
    "an unknown node": (Fault(0, 10, FaultKind.CRASH, ("x",)), "'x' is not known; known are us-east-1a-1"),
    "an unknown group": (Fault(0, 10, FaultKind.CRASH_LEADER, (A,)), "known are us-east-1.zone"),
    "a missing place": (Fault(0, 10, FaultKind.CUT, (A,)), "found 1 targets; allowed: 2"),
    "a place too many": (Fault(0, 10, FaultKind.LOSS, (A,), 0.1), "found 1 targets; allowed: 0"),
    "a time after the end": (Fault(11_999, 10, FaultKind.PAUSE, (A,)), "outside 0 to 12000"),
    "a time before the start": (Fault(-1, 10, FaultKind.PAUSE, (A,)), "outside 0"),
    "no time at all": (Fault(5, 0, FaultKind.PAUSE, (A,)), "outside 0"),
    "a probability above one": (Fault(0, 10, FaultKind.LOSS, (), 1.5), "allowed: 0 to 1"),
    "a negative delay": (Fault(0, 10, FaultKind.DELAY, (), -1), "allowed: 0 to 3.6e+06"),
    "flapping without pause": (Fault(0, 10, FaultKind.FLAP, (A,), 0.0), "allowed: 1 to 3.6e+06"),
    "a clock that runs backwards": (Fault(0, 10, FaultKind.CLOCK_RATE, (A,), -1e6), "allowed: -999999 to"),
    "a delay without end": (Fault(0, 10, FaultKind.DELAY, (), float("inf")), "found inf"),
    "a delay that is no number": (Fault(0, 10, FaultKind.DELAY, (), float("nan")), "found nan"),
    "one place for two": (Fault(0, 10, FaultKind.CUT, (A, A)), "found us-east-1a-1 twice"),
    "a group for a node": (Fault(0, 10, FaultKind.DEMOTE, (G, G)), "a group and the node of one of its replicas"),
    "a swizzle that leaves one off": (Fault(0, 10, FaultKind.SWIZZLE, (A, B, A, A)), "the same ones"),
    "an odd swizzle": (Fault(0, 10, FaultKind.SWIZZLE, (A, B, A)), "the same ones"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_fault_that_cannot_be_is_refused(name: str) -> None:
    fault, text = REFUSED[name]
    with pytest.raises(InvalidRequest, match="schedule\\[0\\]") as refused:
        run_case(OPTIONS, (fault,))
    assert text in str(refused.value)


def test_a_schedule_that_destroys_a_quorum_for_good_is_refused() -> None:
    schedule = (Fault(0, 10, FaultKind.WIPE_DISK, (A,)), Fault(20, 10, FaultKind.OLD_DISK, (B,)))
    with pytest.raises(InvalidRequest, match=r"group us-east-1\.zone keeps 1 of 3 voters, and needs 2"):
        run_case(OPTIONS, schedule)
    check_schedule(schedule[:1], OPTIONS, TOPOLOGY)


def test_no_disk_is_lost_for_good_where_a_log_cap_would_wait_for_it() -> None:
    capped = replace(OPTIONS, log_cap_bytes=30_000)
    with pytest.raises(InvalidRequest, match="no lost disk with a log cap"):
        run_case(capped, (Fault(0, 10, FaultKind.WIPE_DISK, (A,)),))
    with pytest.raises(InvalidRequest, match="log_cap_bytes: found 500; allowed: 0, or at least 20000"):
        replace(OPTIONS, log_cap_bytes=500)


def test_clocks_keep_the_bound_that_leases_rest_on() -> None:
    schedule = (Fault(0, 10, FaultKind.CLOCK_RATE, (A,), -100_001),)
    with pytest.raises(InvalidRequest, match="found -100001; allowed: at most 100000 ppm either way"):
        run_case(replace(OPTIONS, lease_reads=True), schedule)
    check_schedule(schedule, OPTIONS, TOPOLOGY)


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("{", "not JSON"),
        ("[]", "found no options"),
        ('{"options": {"seed": 1}, "schedule": []}', "options.mode: found nothing"),
        ('{"options": {"seed": 1}}', "schedule: found nothing"),
        ('{"options": ' * 20_000, "too many levels"),
        ('{"options": {"seed": ' + "9" * 5_000, "not JSON"),
        ('{"options": {"sed": 1}, "schedule": []}', "unknown key sed"),
        (
            case_to_text(Case(OPTIONS, ())).replace('"lite"', '"slow"'),
            "options.mode: found 'slow'; allowed: lite, swarm, perf",
        ),
        (case_to_text(Case(OPTIONS, ())).replace('"schedule": []', '"schedule": [{"kind": "crash"}]'), "at_ms"),
        (case_to_text(Case(OPTIONS, ())).replace('"schedule": []', '"schedule": [1]'), "allowed: an object"),
    ],
)
def test_a_file_that_is_no_case_is_refused(text: str, match: str) -> None:
    with pytest.raises(InvalidRequest, match=match):
        case_from_text(text)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("loss", 0.9),
        ("loss", float("nan")),
        ("duration_ms", 5),
        ("sync_ms_max", -1.0),
        ("sync_ms_max", float("inf")),
        ("clock_offset_ms_max", -1.0),
        ("fault_ms_max", 1),
        ("rate_per_s", 0),
        ("seed", -1),
    ],
)
def test_an_impossible_option_is_refused(name: str, value: float) -> None:
    plain = case_to_text(Case(OPTIONS, ()))
    options: SimOptions = case_from_text(plain).options
    with pytest.raises(InvalidRequest, match=f"{name}: found {value:g}"):
        replace(options, **{name: value})


WRONG_OPTIONS: dict[str, object] = {
    "seed": "1",
    "topology": 3,
    "loss": "little",
    "jitter": True,
    "clocks_honest": 1,
    "rate_per_s": float("inf"),
    "duration_ms": 2_000.5,
    "fault_weights": {"meteor": 1},
}


@pytest.mark.parametrize("name", WRONG_OPTIONS)
def test_an_option_of_another_type_is_refused(name: str) -> None:
    plain = json.loads(case_to_text(Case(OPTIONS, ())))
    plain["options"][name] = WRONG_OPTIONS[name]
    with pytest.raises(InvalidRequest, match=rf"^options\.{name}: found "):
        case_from_text(json.dumps(plain))


WRONG_FAULTS: dict[str, tuple[str, object]] = {
    "a time as text": ("at_ms", "5"),
    "half a millisecond": ("at_ms", 0.5),
    "a time without end": ("duration_ms", float("inf")),
    "an unknown kind": ("kind", "meteor"),
    "one name for a list": ("targets", "us-east-1a-1"),
    "an amount that is no number": ("amount", float("nan")),
}


@pytest.mark.parametrize("name", WRONG_FAULTS)
def test_a_fault_that_is_written_wrongly_is_refused(name: str) -> None:
    key, value = WRONG_FAULTS[name]
    plain = json.loads(case_to_text(Case(OPTIONS, (Fault(0, 10, FaultKind.CRASH, (A,)),) * 2)))
    plain["schedule"][1][key] = value
    with pytest.raises(InvalidRequest, match=rf"^schedule\[1\]\.{key}: found .*; allowed: "):
        case_from_text(json.dumps(plain))


def test_a_misspelt_key_of_a_fault_is_refused() -> None:
    plain = json.loads(case_to_text(Case(OPTIONS, (Fault(0, 10, FaultKind.CRASH, (A,)),))))
    plain["schedule"][0]["amont"] = 1
    with pytest.raises(InvalidRequest, match=r"schedule\[0\]: found the unknown key amont; allowed: at_ms, "):
        case_from_text(json.dumps(plain))


def test_an_unknown_topology_is_refused() -> None:
    with pytest.raises(TopologyError, match=r"no such file; allowed: .* ships with the simulator: async-copies, five-"):
        draw_case(1, Mode.LITE, "nowhere.yaml")


@pytest.mark.parametrize("beside", [FaultKind.WIPE_DISK, FaultKind.REMOVE])
def test_a_store_is_replaced_only_where_nothing_else_takes_members_away(beside: FaultKind) -> None:
    targets = ("us-east-1.zone", B) if beside is FaultKind.REMOVE else (A,)
    schedule = (Fault(0, 10, FaultKind.REPLACE_STORE, (A,)), Fault(20, 10, beside, targets))
    with pytest.raises(InvalidRequest, match="loses a store and changes the members of a group otherwise"):
        run_case(OPTIONS, schedule)
    check_schedule(schedule[:1], OPTIONS, TOPOLOGY)


def test_a_store_is_not_replaced_where_quorums_have_fixed_sizes() -> None:
    with pytest.raises(InvalidRequest, match="a group has quorums of fixed sizes"):
        run_case(replace(OPTIONS, quorum_shift=1), (Fault(0, 10, FaultKind.REPLACE_STORE, (A,)),))


def test_a_node_with_a_replaced_store_rejoins() -> None:
    result = run_case(OPTIONS, (Fault(2_000, 1_000, FaultKind.REPLACE_STORE, (A,)),))
    assert result.verdict is SimVerdict.HOLDS, result.reason
    assert (result.counters["stores_replaced"], result.counters["operator_remove_done"]) == (1, 1)
