"""What clients tell OpenTelemetry. A program that has set up no `MeterProvider` pays next to nothing, and tells nobody.

Counts are read from the clients when an exporter asks, so that no call pays for them; only what happens to a lock is
recorded when it happens. Exporters ask from threads of their own: what they read here is copied in one step. Clients
whose streams are not gRPC are not counted: those of a simulation end without being closed.

Names are stable, and documented in `docs/metrics.md`. Each has the label `region`: where the client is.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

from opentelemetry.metrics import CallbackOptions, Observation, get_meter

from isochrone.client.results import Statistics

_BOUNDS_S = (0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 3600.0)
_METER = get_meter("isochrone.client")

LOCK_ACQUISITION = _METER.create_histogram(
    "isochrone_client_lock_acquisition_seconds",
    "s",
    "From asking for a lock to its grant, with its lease where it has one of its own",
    explicit_bucket_boundaries_advisory=_BOUNDS_S,
)
LOCK_HOLD = _METER.create_histogram(
    "isochrone_client_lock_hold_seconds",
    "s",
    "From the grant of a lock to its release or loss",
    explicit_bucket_boundaries_advisory=_BOUNDS_S,
)
LEASES_LOST = _METER.create_counter(
    "isochrone_client_leases_lost_total",
    "",
    "Leases that could not be renewed in time: what ran under them was broken off",
)


class Source(Protocol):
    """A client, as far as it is counted."""

    @property
    def region(self) -> str:
        """Where it is."""

    def statistics(self) -> Statistics:
        """What it has done so far."""


_counted: tuple[Mapping[Source, None], Mapping[str, Statistics]] = ({}, {})
"""Open clients, and the sums of those that are closed by region. Replaced as a whole: another thread may be reading."""


def count(client: Source) -> None:
    """Count what a client does, until it is closed."""
    global _counted
    clients, sums = _counted
    _counted = {**clients, client: None}, sums


def closed(client: Source) -> None:
    """The client is closed; what it did stays counted. Nothing happens if it was not counted."""
    global _counted
    clients, sums = _counted
    if client in clients:
        total = sums.get(client.region, Statistics()).plus(client.statistics())
        _counted = {each: None for each in clients if each is not client}, {**sums, client.region: total}


def _totals() -> dict[str, Statistics]:
    """By region."""
    clients, sums = _counted
    found = dict(sums)
    for client in clients:
        found[client.region] = found.get(client.region, Statistics()).plus(client.statistics())
    return found


def _observing(value: Callable[[Statistics], int]) -> Callable[[CallbackOptions], Iterable[Observation]]:
    return lambda _: [Observation(value(total), {"region": region}) for region, total in _totals().items()]


def _observe_errors(_: CallbackOptions) -> Iterable[Observation]:
    return [
        Observation(number, {"region": region, "error": error})
        for region, total in _totals().items()
        for error, number in total.errors.items()
    ]


COUNTERS: Mapping[str, tuple[str, Callable[[CallbackOptions], Iterable[Observation]]]] = {
    "isochrone_client_attempts_total": (
        "Requests sent, retries among them",
        _observing(lambda total: total.attempts),
    ),
    "isochrone_client_retries_total": (
        "Requests sent while an earlier attempt of the same call had no known outcome",
        _observing(lambda total: total.retransmissions),
    ),
    "isochrone_client_reconnects_total": (
        "Connections opened to a node that had been connected before",
        _observing(lambda total: total.reconnects),
    ),
    "isochrone_client_leader_changes_total": (
        "Changes of leaders that clients learned of",
        _observing(lambda total: total.leader_changes),
    ),
    "isochrone_client_errors_total": ("Calls that ended with an error, by its class", _observe_errors),
}
for _name, (_meaning, _callback) in COUNTERS.items():
    _METER.create_observable_counter(_name, [_callback], "", _meaning)
