"""An entry of many commands does what as many entries of one command each do: whatever is done once for an entry
only, be it for speed, shows in no outcome and in nothing that the state holds.

But for the rows of results: those are one for each session and entry.
"""

import random
from collections.abc import Sequence
from unittest.mock import patch

from hypothesis import given, settings
from hypothesis import strategies as st
from state_log import GROUP, KEYSPACE, NS_PER_MS, SECOND, same_state
from wild_requests import command as wild_command

from isochrone.errors import IsochroneError, QueueFull
from isochrone.ids import LogIndex, Term, Timestamp
from isochrone.ports import Row
from isochrone.regions.state import sessions
from isochrone.regions.state.families import HANDLERS
from isochrone.regions.state.machine import GroupState
from isochrone.wire.commands import CloseSession, Command, OpenSession, Operation, encode_batch, encode_command
from isochrone.wire.entries import make_entry
from isochrone.wire.kv import Compare, DeleteRange, Increment, Put, Range, Relation, Target, Txn
from isochrone.wire.leases import LeaseGrant, LeaseRevoke
from isochrone.wire.messages import EntryKind

TTL_MS = 1_000
START_MS = 1_000
OPENING = encode_command(Command(0, 0, 0, OpenSession(b"", TTL_MS)))
KEYS = [b"k/a", b"k/b", b"m/a", b"elsewhere"]


class Replica:
    """A state, and the rows that its store would hold."""

    def __init__(self) -> None:
        self.state = GroupState(GROUP, (KEYSPACE, SECOND), HANDLERS)
        self.rows: dict[tuple[str, int, bytes], Row] = {}

    def apply(self, commands: Sequence[bytes], timestamp: int) -> list[bytes | str]:
        """Apply an entry; errors are told as text."""
        data = encode_batch(list(commands))
        kind, count = EntryKind.COMMANDS, len(commands)
        entry = make_entry(
            index=LogIndex(1),
            term=Term(1),
            kind=kind,
            timestamp=Timestamp(timestamp),
            count=count,
            keyspace=KEYSPACE,
            data=data,
        )
        applied = self.state.apply(entry)
        self.rows.update({(row.keyspace, row.table, row.key): row for row in applied.rows})
        return [outcome if isinstance(outcome, bytes) else _told(outcome) for outcome in applied.outcomes]

    def restarted(self) -> GroupState:
        """A state that is made of the rows."""
        state = GroupState(GROUP, (KEYSPACE, SECOND), HANDLERS)
        state.restore([row for _, row in sorted(self.rows.items()) if row.value is not None])
        return state


def _told(error: IsochroneError) -> str:
    return f"{type(error).__name__}: {error}"


def _held(state: GroupState) -> object:
    """All that a state holds, but for the rows of results."""
    data = state.data
    marks = ("revision", "timestamp", "compacted", "compacted_timestamp", "leases", "attached", "locks")
    keyspaces = [
        (
            each.history,
            each.token,
            each.results_bytes,
            {
                number: (held.ttl_ns, held.last_used, held.acknowledged, held.results, held.results_bytes)
                for number, held in each.sessions.items()
            },
        )
        for each in data.keyspaces.values()
    ]
    return [getattr(data, mark) for mark in marks], keyspaces


def _operation(rng: random.Random) -> Operation:
    key = rng.choice(KEYS)
    put = Put(key, bytes(rng.choice((0, 50, 300))), rng.choice((0, 0, 1, 2)), rng.random() < 0.3, False, False)
    match rng.randrange(12):
        case 0:
            return DeleteRange(key, b"", prev_kv=True)
        case 1:
            return Increment(b"k/n", 1)
        case 2:
            return Txn((Compare(key, Target.VERSION, Relation.GREATER, 1),), (put,), (Range(key),))
        case 3:
            return rng.choice((LeaseGrant(1, 60_000), LeaseRevoke(1)))
        case 4:
            return rng.choice((OpenSession(b"", TTL_MS), CloseSession(), Put(key, b"1", 0, False, True, False)))
        case 5 | 6:
            return Range(key)
        case _:
            return put


class _Clients:
    """Clients that send some commands again, out of order, too far ahead, or with marks that are wrong."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._sessions: list[int] = []
        self._last: dict[int, int] = {}

    def commands(self, timestamp: int) -> list[bytes]:
        """For an entry with this timestamp."""
        rng, said = self._rng, []
        if not self._sessions or rng.random() < 0.2:
            self._sessions = [timestamp, timestamp + 1]  # which is how they are named
            said = [OPENING, OPENING]
        for _ in range(rng.randrange(1, 30)):
            session = rng.choice(self._sessions) if rng.random() < 0.95 else rng.choice((0, 7))
            if rng.random() < 0.1:
                said.append(wild_command(rng, session))
                continue
            last = self._last.get(session, 0)
            sequence = max(0, last + rng.choice((1, 1, 1, 1, 1, 2, 3, 0, -1, -4)))
            self._last[session] = max(sequence, last)
            mark = max(0, sequence - rng.choice((0, 1, 2, 3, 5, 8, 30))) if rng.random() < 0.4 else 0
            said.append(encode_command(Command(session, sequence, mark, _operation(rng))))
        return said


@settings(max_examples=120, deadline=None)
@given(st.integers(0, 1 << 32), st.integers(1, 12))
def test_an_entry_of_many_commands_does_what_many_entries_do(seed: int, entries: int) -> None:
    _compare(random.Random(seed), entries)


def test_what_is_done_once_for_an_entry_meets_full_sessions_and_keyspaces() -> None:
    """The drawn commands reach what they are drawn for."""
    met = {told for seed in range(20) for told in _compare(random.Random(seed), 12)}
    for text in ("its result is forgotten", "a command cannot acknowledge", "is unknown or has expired"):
        assert any(text in told for told in met), text
    full = [told for told in met if told.startswith(QueueFull.__name__)]
    assert any("session" in told for told in full) and any("keyspace" in told for told in full)


def _compare(rng: random.Random, entries: int) -> list[str]:
    """Compare two replicas; returns the errors that both told."""
    errors: list[str] = []
    with patch.multiple(sessions, RESULTS_BYTES_MAX=700, KEYSPACE_RESULTS_BYTES_MAX=900, RESULT_ROW_BYTES_TARGET=400):
        together, alone, clients = Replica(), Replica(), _Clients(rng)
        now = START_MS * NS_PER_MS
        for _ in range(entries):
            said = clients.commands(now)
            outcomes = together.apply(said, now)
            assert outcomes == [alone.apply([each], now + place)[0] for place, each in enumerate(said)]
            assert _held(together.state) == _held(alone.state)
            errors += [outcome for outcome in outcomes if isinstance(outcome, str)]
            now += rng.choice((1, 20, 20, 20, 300, TTL_MS, 1_200)) * NS_PER_MS - rng.randrange(20)
        assert same_state(together.restarted(), together.state)
        assert same_state(alone.restarted(), alone.state)
    return errors
