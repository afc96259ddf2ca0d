"""Whatever a command says, applying it ends in a result or a typed error, on every replica alike, and leaves rows that
rebuild the state: an exception at apply would stop every replica of the group."""

import random

from hypothesis import given, settings
from hypothesis import strategies as st
from state_log import GROUP, KEYSPACE, NS_PER_MS, SECOND, StateLog, same_state
from wild_requests import command, damaged, query

from isochrone.errors import InvalidRequest, IsochroneError
from isochrone.ids import KeyspaceId
from isochrone.regions.state.families import HANDLERS
from isochrone.regions.state.machine import GroupState
from isochrone.wire.commands import Command, OpenSession, decode_query, decode_result, encode_command, encode_result
from isochrone.wire.kv import Put
from isochrone.wire.leases import LeaseGrant
from isochrone.wire.locks import LockAcquire
from isochrone.wire.messages import EntryKind

SESSION = 1_000 * NS_PER_MS
"""The session that the setting opens: the timestamp of its first command."""
SETTING = [
    encode_command(Command(0, 0, 0, operation))
    for operation in (
        OpenSession(b"", 3_600_000),
        LeaseGrant(1, 60_000),
        LeaseGrant(2, 60_000),
        LeaseGrant(3, 60_000),
        Put(b"k/a", b"7", 1),
        Put(b"k/b", b"-9223372036854775807"),
        Put(b"m/a", b"text", 2),
        LockAcquire(b"k/a", 1, 1, announce=True, value=b"first"),
        LockAcquire(b"k/a/b", 2, 2),
        LockAcquire(b"k/a/b", 3, 3, wait_ms=500),
    )
]
"""Something for wild commands to meet."""
KEYSPACES = (KEYSPACE, KEYSPACE, KEYSPACE, SECOND, KeyspaceId("other"))
SEEDS = st.integers(0, 1 << 32)


def begun() -> StateLog:
    """A state with something in it."""
    log = StateLog()
    results = log.log(EntryKind.COMMANDS, SETTING)
    assert not any(isinstance(result, IsochroneError) for result in results)
    assert SESSION in log.state.data.keyspaces[KEYSPACE].sessions
    return log


@settings(max_examples=150, deadline=None)
@given(SEEDS, st.integers(1, 60))
def test_apply_is_total_and_alike_on_all_replicas(seed: int, entries: int) -> None:
    rng, log = random.Random(seed), begun()
    for _ in range(entries):
        log.now_ms += rng.choice((20, 20, 700, 70_000))
        said = [command(rng, SESSION) for _ in range(rng.randrange(1, 6))]
        said = [damaged(rng, each) if rng.random() < 0.1 else each for each in said]
        log.log(EntryKind.COMMANDS, said, rng.choice(KEYSPACES))
        assert len(log.last.outcomes) == len(said)
    twin, last = GroupState(GROUP, log.keyspaces, HANDLERS), log.last
    for entry in log.entries:
        last = twin.apply(entry)
    assert list(map(repr, last.outcomes)) == list(map(repr, log.last.outcomes)) and last.rows == log.last.rows
    assert same_state(twin, log.state)
    rebuilt = GroupState(GROUP, log.keyspaces, HANDLERS)
    rebuilt.restore(log.stored())
    assert same_state(rebuilt, log.state)


@settings(max_examples=100, deadline=None)
@given(SEEDS)
def test_whatever_is_asked_is_answered_or_refused(seed: int) -> None:
    rng, log = random.Random(seed), begun()
    for _ in range(40):
        data = query(rng)
        try:
            asked = decode_query(damaged(rng, data) if rng.random() < 0.2 else data)
        except InvalidRequest:
            continue
        try:
            answer = log.state.query(rng.choice(KEYSPACES), asked)
        except IsochroneError:
            continue
        decode_result(encode_result(answer))
