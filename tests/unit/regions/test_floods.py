"""What tens of thousands of watchers and leases cost: memory that is known, and no time where nothing concerns them."""

import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager

from state_log import StateLog

from isochrone.ids import NS_PER_MS, Nanos, Term
from isochrone.regions.lessor import COMMANDS_MAX, Lessor
from isochrone.regions.watch_hub import PENDING_EVENTS_MAX, WatchHub, WatchRequest
from isochrone.wire.commands import Command
from isochrone.wire.kv import Put
from isochrone.wire.leases import LeaseExpire, LeaseGrant

WATCHERS = 10_000
LEASES = 10_000


@contextmanager
def at_most(kibibytes_each: float, count: int) -> Iterator[None]:
    """What is done inside keeps no more memory than so much for each."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[0] <= kibibytes_each * 1024 * count
    finally:
        tracemalloc.stop()


def test_watchers_of_different_keys_cost_memory_and_no_time() -> None:
    log = StateLog()
    hub = WatchHub(log.state.data)
    with at_most(2, WATCHERS):
        for number in range(WATCHERS):
            hub.create(WatchRequest(b"k/%d" % number))
    log.do(Put(b"k/7", b""))
    assert len(hub.applied(log.last.events)) == 1


def test_watchers_of_one_key_that_nobody_serves_share_what_they_keep() -> None:
    log = StateLog()
    hub = WatchHub(log.state.data)
    for _ in range(100):
        hub.create(WatchRequest(b"k/a", prev_kv=True))
    with at_most(34, 100):  # 8 for its list; what all of them share makes the rest
        for _ in range(4 * PENDING_EVENTS_MAX):
            log.do(Put(b"k/a", bytes(100)))
            log.rows.clear()
            hub.applied(log.last.events)


def test_thousands_of_leases_end_a_few_at_a_time() -> None:
    log = StateLog()
    lessor = Lessor[str](log.state.data.leases, 0)
    lessor.begin_office(Term(1), Nanos(0))
    with at_most(4, LEASES):
        for first in range(0, LEASES, 500):
            log.apply(*[Command(0, 0, 0, LeaseGrant(first + number, 1_000)) for number in range(1, 501)])
            log.now_ms += 1_000
            lessor.applied(log.last.lease_events, Nanos(0))
    ended = 0
    while commands := lessor.due(Nanos(2_000 * NS_PER_MS)):
        assert len(commands) <= COMMANDS_MAX and all(isinstance(each, LeaseExpire) for each in commands)
        ended += len(commands)
    assert ended == LEASES
