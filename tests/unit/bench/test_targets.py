"""Targets are ratios of what was measured in one run; what was not measured is not judged."""

from figures import Load
from sides import ALIKE, ENDPOINT, ETCD, SDK, SDK_WITNESS, WATCHES, WRITES
from targets import CEILING, judge


def load(per_s: float, in_flight: int = 1, p50_ms: float = 1.0) -> Load:
    return Load(in_flight, round(per_s), 1.0, p50_ms, 2 * p50_ms)


def test_the_best_of_each_side_counts() -> None:
    results = {
        ETCD: {WRITES: [load(100), load(1_000, 64)]},
        SDK: {WRITES: [load(50), load(2_500, 256), load(2_000, 512)]},
    }
    (judgement,) = judge(results)
    assert (judgement.ratio, judgement.at_least, judgement.met) == (2.5, 2.0, True)


def test_a_target_that_is_missed_is_said_to_be() -> None:
    (judgement,) = judge({ETCD: {WATCHES: [load(1_000)]}, SDK: {WATCHES: [load(999)]}})
    assert not judgement.met


def test_one_clients_write_is_judged_by_its_median_not_by_its_rate() -> None:
    alone = {ETCD: {ALIKE: [load(1, 1, 3.0), load(1, 64, 9.0)]}, SDK: {ALIKE: [load(1, 1, 2.0), load(1, 64, 99.0)]}}
    (judgement,) = judge(alone)
    assert judgement.ratio == 1.5 and judgement.met


def test_the_better_form_of_a_group_is_judged_and_named() -> None:
    results = {
        ETCD: {WRITES: [load(1_000)], ALIKE: [load(1, 1, 3.0)]},
        SDK: {WRITES: [load(1_500)], ALIKE: [load(1, 1, 2.0)]},
        SDK_WITNESS: {WRITES: [load(2_000)], ALIKE: [load(1, 1, 4.0)]},
    }
    writes, alone = judge(results)
    assert (writes.what, writes.ratio) == ("writes: best of 'SDK, 2 full + witness' / best of etcd", 2.0)
    assert (alone.what, alone.ratio) == ("one client's write: p50 of etcd / p50 of 'SDK, 3 full'", 1.5)


def test_the_endpoint_is_held_to_both_ceilings() -> None:
    results = {
        ENDPOINT: {WRITES: [load(900)]},
        "aio": {CEILING: [load(500), load(1_000)]},
        "http2": {CEILING: [load(10_000)]},
    }
    assert [(each.ratio, each.met) for each in judge(results)] == [(0.9, True), (0.09, False)]


def test_without_etcd_only_what_can_be_compared_is() -> None:
    assert judge({SDK: {WRITES: [load(1)]}, ENDPOINT: {WRITES: [load(1)]}}) == []
