"""What the figures of `regional.py` are held to: ratios of one run, each met or not."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from figures import Load
from sides import (
    ALIKE,
    CONTENDED,
    ENDPOINT,
    ETCD,
    LINEARIZABLE,
    LOCKS,
    SDK,
    SDK_WITNESS,
    SERIALIZABLE,
    WATCHES,
    WRITES,
)

CEILING = "unary echo ceiling"
SERVERS = {"aio": "grpc.aio", "http2": "our own server"}
"""Whose ceilings are taken, by the names of `bench/echo.py`. Nodes serve etcd's API by the second."""
Results = Mapping[str, Mapping[str, Sequence[Load]]]
"""By side, by measure: its points."""
FACTORS = {WRITES: 2.0, LINEARIZABLE: 2.0, SERIALIZABLE: 2.0, WATCHES: 1.0, LOCKS: 1.0, CONTENDED: 1.0}
"""How many times etcd's best figure the SDK's best must reach."""
FORMS = (SDK, SDK_WITNESS)
"""Of a regional group, both with every write in a majority of synced logs. The better one is judged, and named."""
OF_CEILING = 0.9


@dataclass(frozen=True, slots=True)
class Judgement:
    """One target and what came of it."""

    what: str
    ratio: float
    at_least: float

    @property
    def met(self) -> bool:
        """Whether it was reached."""
        return self.ratio >= self.at_least


def judge(results: Results) -> list[Judgement]:
    """Every target of which both sides were measured."""
    return [*_of_sdk(results), *_of_endpoint(results)]


def _of_sdk(results: Results) -> Iterator[Judgement]:
    for name, at_least in FACTORS.items():
        form = max(FORMS, key=lambda side: _best(results, side, name))
        ours, theirs = _best(results, form, name), _best(results, ETCD, name)
        if ours and theirs:
            yield Judgement(f"{name}: best of '{form}' / best of etcd", ours / theirs, at_least)
    theirs_ms = _single_p50_ms(results, ETCD)
    measured = {side: ours_ms for side in FORMS if (ours_ms := _single_p50_ms(results, side))}
    if measured and theirs_ms:
        form = min(measured, key=lambda side: measured[side])
        yield Judgement(f"one client's write: p50 of etcd / p50 of '{form}'", theirs_ms / measured[form], 1.0)


def _of_endpoint(results: Results) -> Iterator[Judgement]:
    for server, described in SERVERS.items():
        ceiling = _best(results, server, CEILING)
        for name in (WRITES, LINEARIZABLE, SERIALIZABLE):
            ours = _best(results, ENDPOINT, name)
            if ours and ceiling:
                yield Judgement(f"{name}: endpoint / echo ceiling of {described}", ours / ceiling, OF_CEILING)


def _best(results: Results, side: str, name: str) -> float:
    """Operations per second at the best number in flight; 0 if it was not measured."""
    return max((load.per_s for load in results.get(side, {}).get(name, ())), default=0.0)


def _single_p50_ms(results: Results, side: str) -> float:
    return next((load.p50_ms for load in results.get(side, {}).get(ALIKE, ()) if load.in_flight == 1), 0.0)
