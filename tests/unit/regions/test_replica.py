"""One replica without a host: what it answers, and when."""

import random
from dataclasses import replace

import pytest

from isochrone.clocks.hlc import HybridLogicalClock
from isochrone.errors import NotLeader
from isochrone.ids import GroupId, KeyspaceId, LogIndex, Nanos, NodeId, ReplicaRole, StoreId, Term, Timestamp
from isochrone.ports import StoredGroup, TermRun
from isochrone.regions.raft.config import RaftConfig
from isochrone.regions.raft.node import RaftNode
from isochrone.regions.raft.ready import NOTHING_READY, Event, EventName, ReadReady
from isochrone.regions.replica import Replica
from isochrone.regions.requests import Outcome, Read
from isochrone.regions.state.families import HANDLERS
from isochrone.regions.state.machine import GroupState
from isochrone.regions.work import Turn
from isochrone.wire.commands import (
    Command,
    OpenSession,
    Operation,
    decode_result,
    encode_batch,
    encode_command,
)
from isochrone.wire.entries import make_entry
from isochrone.wire.kv import Put, Range, RangeResult
from isochrone.wire.leases import LeaseGrant, LeaseKeepAlive, LeaseTimeToLive
from isochrone.wire.locks import LockWait
from isochrone.wire.messages import Configuration, Entry, EntryKind, HardState, Member

GROUP, KEYSPACE, A = GroupId("g"), KeyspaceId("k/"), NodeId("a")
MS = 1_000_000


def entry(index: int, session: int, sequence: int, operation: Operation) -> Entry:
    return make_entry(
        index=LogIndex(index),
        term=Term(1),
        kind=EntryKind.COMMANDS,
        timestamp=Timestamp(index * MS),
        keyspace=KEYSPACE,
        data=encode_batch([encode_command(Command(session, sequence, 0, operation))]),
    )


def end_writes(replica: Replica, turn: Turn) -> None:
    """Everything that was handed out is durable now."""
    releases, turn.releases = turn.releases, []
    for release in releases:
        replica.core.persisted(release.token, Nanos(0))


def test_a_read_waits_until_what_it_must_reflect_is_applied() -> None:
    """A restart finds three writes that were acknowledged. Their commit is learned anew; they are applied singly."""
    session = MS
    puts = (entry(1 + n, session, n, Put(b"k/x", b"%d" % n)) for n in (1, 2, 3))
    log = [entry(1, 0, 0, OpenSession(b"", 60_000)), *puts]
    stored = StoredGroup(
        configuration=Configuration((Member(A, StoreId("s"), ReplicaRole.FULL),)),
        hard_state=HardState(Term(1), A, LogIndex(0)),
        truncated_index=LogIndex(0),
        truncated_term=Term(0),
        last_index=LogIndex(4),
        term_runs=(TermRun(LogIndex(1), Term(1)),),
        applied=LogIndex(0),
        entry_bytes=[len(item.encoded) for item in log],
    )
    config = RaftConfig(
        group=GROUP, node=A, heartbeat_ns=Nanos(MS), election_timeout_ns=Nanos(10 * MS), apply_bytes_max=1
    )
    core = RaftNode(config, stored, log, store=StoreId("s"), rng=random.Random(1), now=Nanos(0))
    replica = Replica(GROUP, core, GroupState(GROUP, [KEYSPACE], HANDLERS), HybridLogicalClock(MS), lambda: Nanos(0))
    turn = Turn()
    core.campaign(Nanos(0))
    replica.collect(Nanos(0), turn)
    end_writes(replica, turn)
    assert core.status().leader == A
    answers: list[Outcome] = []
    replica.reads.ask(Read(KEYSPACE, Range(b"k/x"), answers.append))
    replica.collect(Nanos(0), turn)
    assert answers == []
    end_writes(replica, turn)
    replica.collect(Nanos(0), turn)
    (answer,) = answers
    found = decode_result(answer.payload)
    assert isinstance(found, RangeResult)
    (item,) = found.items
    assert item.value == b"3"


def test_a_renewal_asks_for_a_round_even_where_reads_are_leased(monkeypatch: pytest.MonkeyPatch) -> None:
    """A leader's own lease says nothing of who leads when the client counts from: when its question left."""
    stored = StoredGroup(
        configuration=Configuration((Member(A, StoreId("s"), ReplicaRole.FULL),)),
        hard_state=HardState(Term(0), None, LogIndex(0)),
        truncated_index=LogIndex(0),
        truncated_term=Term(0),
        last_index=LogIndex(0),
        term_runs=(),
        applied=LogIndex(0),
    )
    config = RaftConfig(group=GROUP, node=A, heartbeat_ns=Nanos(MS), election_timeout_ns=Nanos(10 * MS))
    core = RaftNode(config, stored, (), store=StoreId("s"), rng=random.Random(1), now=Nanos(0))
    asked: list[bool] = []
    monkeypatch.setattr(RaftNode, "read_index", lambda _core, _context, *, leased=True: asked.append(leased))
    replica = Replica(GROUP, core, GroupState(GROUP, [KEYSPACE], HANDLERS), HybridLogicalClock(MS), lambda: Nanos(0))
    for query in (Range(b"k/x"), LeaseKeepAlive(1)):
        replica.reads.ask(Read(KEYSPACE, query, lambda _outcome: None))
    assert asked == [True, False]


def test_what_only_a_leader_knows_is_not_told_by_one_that_has_lost_its_office(monkeypatch: pytest.MonkeyPatch) -> None:
    """A quorum had confirmed that it leads, but it applied what the questions rest on only afterwards.

    Told "not found", the owner of a lease that lives would give up what it holds.
    """
    stored = StoredGroup(
        configuration=Configuration((Member(A, StoreId("s"), ReplicaRole.FULL),)),
        hard_state=HardState(Term(1), None, LogIndex(0)),
        truncated_index=LogIndex(0),
        truncated_term=Term(0),
        last_index=LogIndex(0),
        term_runs=(),
        applied=LogIndex(0),
    )
    config = RaftConfig(group=GROUP, node=A, heartbeat_ns=Nanos(MS), election_timeout_ns=Nanos(10 * MS))
    core = RaftNode(config, stored, (), store=StoreId("s"), rng=random.Random(1), now=Nanos(0))
    replica = Replica(GROUP, core, GroupState(GROUP, [KEYSPACE], HANDLERS), HybridLogicalClock(MS), lambda: Nanos(0))
    queries = (LeaseKeepAlive(7), LeaseTimeToLive(7), LockWait(b"k/x", 7, 1), Range(b"k/x"))
    granted = entry(1, 0, 0, LeaseGrant(7, 60_000))

    def event(name: EventName, leader: NodeId | None) -> Event:
        return Event(name, Term(1), LogIndex(0), leader)

    script = [
        replace(NOTHING_READY, events=(event(EventName.LEADER_CHANGED, A),), committed=(granted,)),
        replace(NOTHING_READY, reads=(ReadReady((1, 2, 3, 4), LogIndex(2)),)),
        replace(
            NOTHING_READY,
            events=(event(EventName.LEADER_CHANGED, None),),
            committed=(entry(2, 0, 0, Put(b"k/x", b"")),),
        ),
        NOTHING_READY,
    ]
    applied = [LogIndex(0)]
    monkeypatch.setattr(RaftNode, "ready", lambda _core, _now: script.pop(0))
    monkeypatch.setattr(RaftNode, "read_index", lambda _core, _context, *, leased=True: None)
    monkeypatch.setattr(RaftNode, "applied", lambda _core, index: applied.append(index))
    monkeypatch.setattr(RaftNode, "applied_index", property(lambda _core: applied[-1]))
    answers: dict[int, Outcome] = {}
    for number, query in enumerate(queries):
        replica.reads.ask(Read(KEYSPACE, query, lambda outcome, number=number: answers.update({number: outcome})))
    replica.collect(Nanos(0), Turn())
    assert answers == {} and replica.service.office.term == 1
    replica.collect(Nanos(0), Turn())
    assert [type(answers[number].error) for number in range(4)] == [NotLeader, NotLeader, NotLeader, type(None)]
