"""Whatever comes of a command, it comes of every copy: results and refusals alike, across restarts."""

from hypothesis import given, settings
from hypothesis import strategies as st
from state_log import KEYSPACE, StateLog

from isochrone.errors import Indeterminate, IsochroneError
from isochrone.wire.commands import Command, Operation
from isochrone.wire.kv import Compact, Compare, DeleteRange, Increment, Put, Relation, Target, Txn
from isochrone.wire.leases import LeaseGrant, LeaseRevoke
from isochrone.wire.locks import LockAcquire, LockMode, LockRelease

KEYS, LEASES, LOCK = st.sampled_from([b"k/a", b"k/b", b"m/a"]), st.integers(1, 3), b"k/lock"
OPERATIONS: st.SearchStrategy[Operation] = st.one_of(
    st.builds(Put, KEYS, st.sampled_from([b"1", b"x"]), st.integers(0, 3)),
    st.builds(DeleteRange, KEYS),
    st.builds(Increment, KEYS, st.just(1)),
    st.builds(LeaseGrant, LEASES, st.just(60_000)),
    st.builds(LeaseRevoke, LEASES),
    st.builds(LockAcquire, st.just(LOCK), LEASES, st.integers(1, 2), st.sampled_from(LockMode), st.just(0)),
    st.builds(LockRelease, st.just(LOCK), LEASES),
    st.builds(Compact, st.integers(1, 9)),
    st.builds(
        Txn,
        st.just((Compare(b"k/a", Target.VERSION, Relation.EQUAL, 0),)),
        st.tuples(st.builds(Put, KEYS, st.just(b"2"), st.integers(0, 3))),
    ),
)
COMMANDS_EACH = 6
COPIES = st.lists(
    st.tuples(
        st.integers(0, 1),
        st.integers(1, COMMANDS_EACH),
        st.integers(0, 2),
        st.sampled_from(["alone", "joined", "restart"]),
    ),
    max_size=40,
)


@settings(max_examples=150, deadline=None)
@given(st.lists(OPERATIONS, min_size=2 * COMMANDS_EACH, max_size=2 * COMMANDS_EACH), COPIES)
def test_every_copy_of_a_command_ends_alike(
    operations: list[Operation], copies: list[tuple[int, int, int, str]]
) -> None:
    """Copies of the commands of two sessions come in any order, alone or joined, from clients that acknowledge."""
    log = StateLog()
    sessions = [log.session(), log.session()]
    told: dict[tuple[int, int], str] = {}
    acknowledged = [0, 0]
    batch: list[Command] = []
    for session, sequence, mark, how in copies:
        mark = min(mark, sequence - 1)
        batch.append(Command(sessions[session], sequence, mark, operations[COMMANDS_EACH * session + sequence - 1]))
        if how == "joined":
            continue
        for command, outcome in zip(batch, log.apply(*batch), strict=True):
            session = sessions.index(command.session)
            if isinstance(outcome, Indeterminate):
                assert command.sequence <= acknowledged[session]
                continue
            acknowledged[session] = max(acknowledged[session], command.acknowledged)
            shown = f"{type(outcome).__name__} {outcome}"
            assert told.setdefault((session, command.sequence), shown) == shown
            assert not isinstance(outcome, IsochroneError) or outcome.stored
        batch, log.now_ms = [], log.now_ms + 1
        if how == "restart":
            log.restart()
    kept = sum(len(each.results) for each in log.state.data.keyspace(KEYSPACE).sessions.values())
    assert kept == sum(sequence > acknowledged[session] for session, sequence in told)
