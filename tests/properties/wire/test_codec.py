"""Every message survives its codec; whatever bytes arrive, nothing but the two stated errors comes out."""

from dataclasses import replace
from typing import Any

import google_crc32c
import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from isochrone.errors import InvalidRequest
from isochrone.ids import GroupId, Incarnation, KeyspaceId, LogIndex, NodeId, ReplicaRole, StoreId, Term, Timestamp
from isochrone.wire import codec, commands, kv, leases, locks, records, session, session_codec
from isochrone.wire.codec import MalformedFrame, decode_frames, decode_hello, encode_frame, encode_hello
from isochrone.wire.configurations import configuration_to_plain, encode_configuration
from isochrone.wire.entries import CorruptEntry, decode_entry, make_entry
from isochrone.wire.messages import (
    MAJORITY,
    AppendRequest,
    AppendResponse,
    Configuration,
    Entry,
    EntryKind,
    GroupMessage,
    Heartbeat,
    HeartbeatResponse,
    InstallSnapshot,
    Member,
    NodeHeartbeat,
    PeerHello,
    PeerMessage,
    Quiesce,
    QuorumSizes,
    SnapshotChunk,
    SnapshotId,
    SnapshotResponse,
    TimeoutNow,
    VoteRequest,
    VoteResponse,
)
from isochrone.wire.rows import encode_row

NUMBERS = st.integers(0, 2**63 - 1)
NAMES = st.text(max_size=12)
BLOBS = st.binary(max_size=40)
BOOLS = st.booleans()
NAMES_OR_NONE = st.none() | NAMES


@st.composite
def entries(draw: st.DrawFn) -> Entry:
    return make_entry(
        index=LogIndex(draw(NUMBERS)),
        term=Term(draw(NUMBERS)),
        kind=draw(st.sampled_from(EntryKind)),
        timestamp=Timestamp(draw(NUMBERS)),
        count=draw(NUMBERS),
        keyspace=draw(NAMES),
        trace=draw(BLOBS),
        data=draw(BLOBS),
    )


@st.composite
def configurations(draw: st.DrawFn) -> Configuration:
    """Sound ones, joint or not."""

    def half() -> tuple[Member, ...]:
        nodes = draw(st.lists(NAMES, min_size=1, max_size=5, unique=True))
        roles = [ReplicaRole.FULL, *(draw(st.sampled_from((ReplicaRole.FULL, ReplicaRole.LEARNER))) for _ in nodes[1:])]
        return tuple(Member(node, StoreId(f"s-{node}"), role) for node, role in zip(nodes, roles, strict=True))

    members, outgoing = half(), half() if draw(BOOLS) else ()
    voters = sum(member.role is not ReplicaRole.LEARNER for member in members)
    sizes = draw(st.sampled_from((MAJORITY, QuorumSizes(voters, voters), QuorumSizes(1, voters))))
    return Configuration(members, outgoing, sizes, MAJORITY, draw(BOOLS))


CONFIGURATIONS = configurations()


@st.composite
def append_requests(draw: st.DrawFn) -> AppendRequest:
    """With entries that follow one another, as in a log."""
    previous, previous_term, timestamp = (draw(st.integers(0, 2**60)) for _ in range(3))
    term, chain = previous_term, []
    for index in range(previous + 1, previous + 1 + draw(st.integers(0, 3))):
        term += draw(st.integers(0, 2**60))
        count = draw(st.integers(1, 2**59))
        timestamp += draw(st.integers(1, 2**59))
        kind = draw(st.sampled_from(EntryKind))
        chain.append(
            make_entry(
                index=LogIndex(index),
                term=Term(term),
                kind=kind,
                timestamp=Timestamp(timestamp),
                count=count,
                keyspace=draw(NAMES),
                trace=draw(BLOBS),
                data=encode_configuration(draw(CONFIGURATIONS)) if kind is EntryKind.CONFIGURATION else draw(BLOBS),
            )
        )
        timestamp += count - 1
    term += draw(st.integers(0, 2**60))
    return AppendRequest(
        Term(term), LogIndex(previous), Term(previous_term), tuple(chain), draw(NUMBERS), draw(NUMBERS)
    )


ROW_DATA = st.lists(st.builds(encode_row, NAMES, st.integers(0, 255), BLOBS, BLOBS), max_size=4).map(b"".join)
SNAPSHOT_IDS = st.builds(SnapshotId, NUMBERS, NUMBERS, NUMBERS, NUMBERS)
CHUNKS = st.one_of(
    st.builds(SnapshotChunk, SNAPSHOT_IDS, CONFIGURATIONS, NUMBERS, st.just(True), NUMBERS, ROW_DATA, NUMBERS, BOOLS),
    st.builds(SnapshotChunk, SNAPSHOT_IDS, CONFIGURATIONS, NUMBERS, *map(st.just, (False, 0, b"", 0, True))),
)
RAFT_MESSAGES = st.one_of(
    st.builds(InstallSnapshot, NUMBERS, CHUNKS),
    st.builds(SnapshotResponse, NUMBERS, NUMBERS, NUMBERS),
    st.builds(VoteRequest, NUMBERS, NUMBERS, NUMBERS, BOOLS, BOOLS),
    st.builds(VoteResponse, NUMBERS, BOOLS, BOOLS),
    append_requests(),
    st.builds(AppendResponse, NUMBERS, BOOLS, NUMBERS, NUMBERS, NUMBERS),
    st.builds(Heartbeat, NUMBERS, NUMBERS, NUMBERS, NUMBERS),
    st.builds(HeartbeatResponse, NUMBERS, NUMBERS),
    st.builds(TimeoutNow, NUMBERS),
    st.builds(Quiesce, NUMBERS, NUMBERS),
)
PEER_MESSAGES = st.lists(
    st.builds(GroupMessage, NAMES, RAFT_MESSAGES) | st.builds(NodeHeartbeat, NUMBERS, NUMBERS, BOOLS), max_size=4
)
FRAMES = st.lists(st.tuples(NUMBERS.map(Incarnation), PEER_MESSAGES), min_size=1, max_size=3)

REPLICAS = st.lists(st.tuples(NAMES, NAMES, NAMES, NAMES, NAMES), max_size=3).map(tuple)
ROUTES = st.lists(st.builds(session.KeyspaceRoute, NAMES, BLOBS, NAMES, REPLICAS, NUMBERS), max_size=3).map(tuple)
SOME_BLOBS = st.lists(BLOBS, min_size=1, max_size=3).map(tuple)
FAILURES = st.lists(st.tuples(NUMBERS, NAMES, NAMES), max_size=2).map(tuple)
WATCHES = st.lists(st.tuples(NUMBERS, NUMBERS), max_size=3).map(tuple)
SEVERAL = st.lists(st.tuples(NUMBERS, BLOBS), min_size=1, max_size=4)
SESSION_MESSAGES = st.lists(
    st.one_of(
        st.builds(session.ClientHello, NUMBERS, NAMES, NAMES, NAMES),
        st.builds(session.NodeHello, NUMBERS, NAMES, NAMES, NAMES, NAMES),
        st.builds(session.LeaderChanged, NAMES, NUMBERS, NAMES_OR_NONE, NUMBERS),
        st.builds(session.DirectoryRequest, NUMBERS),
        st.builds(session.DirectoryResponse, NUMBERS, ROUTES),
        SEVERAL.flatmap(
            lambda pairs: st.builds(
                session.WriteRequest,
                st.just(tuple(number for number, _ in pairs)),
                NAMES,
                NAMES,
                NUMBERS,
                BLOBS,
                st.just(tuple(blob for _, blob in pairs)),
            )
        ),
        SEVERAL.flatmap(
            lambda pairs: st.builds(
                session.WriteAnswer,
                st.just(tuple(number for number, _ in pairs)),
                NAMES,
                NUMBERS,
                st.just(tuple(blob for _, blob in pairs)),
            )
        ),
        st.builds(session.ReadRequest, NUMBERS, NAMES, NAMES, NUMBERS, BLOBS),
        st.builds(session.ReadsRequest, NUMBERS, NAMES, NAMES, NUMBERS, BOOLS, SOME_BLOBS),
        st.builds(session.Answer, NUMBERS, NAMES, NUMBERS, BLOBS),
        st.builds(session.ReadsAnswer, NUMBERS, NAMES, NUMBERS, st.none() | NUMBERS, SOME_BLOBS, FAILURES),
        st.builds(session.Refusal, NUMBERS, NAMES, NAMES, NAMES, NAMES_OR_NONE, st.booleans()),
        st.builds(session.WatchCreate, NUMBERS, NAMES, BLOBS, BLOBS, NUMBERS, BOOLS, BOOLS, BOOLS),
        st.builds(session.WatchCancel, NUMBERS),
        st.builds(session.WatchEvents, WATCHES, NUMBERS, BOOLS, st.lists(BLOBS).map(tuple), st.just(())),
        st.lists(st.tuples(BLOBS, st.none() | BLOBS)).map(
            lambda pairs: session.WatchEvents(
                ((1, 2),), 3, False, tuple(record for record, _ in pairs), tuple(before for _, before in pairs)
            )
        ),
        st.builds(session.WatchProgress, NUMBERS, NUMBERS, NUMBERS),
        st.builds(session.WatchEnded, NUMBERS, NAMES, NAMES, NUMBERS),
        st.builds(session.Ping, NUMBERS),
        st.builds(session.Pong, NUMBERS),
    ),
    max_size=4,
)
RANGES = st.builds(
    kv.Range,
    BLOBS,
    BLOBS,
    *[NUMBERS] * 3,
    st.sampled_from(kv.SortOrder),
    st.sampled_from(kv.SortTarget),
    BOOLS,
    BOOLS,
    *[NUMBERS] * 4,
)
COMPARES = st.builds(kv.Compare, BLOBS, st.sampled_from(kv.Target), st.sampled_from(kv.Relation), NUMBERS, BLOBS, BLOBS)
KV_OPERATIONS: st.SearchStrategy[Any] = st.recursive(
    st.builds(kv.Put, BLOBS, BLOBS, NUMBERS, BOOLS, BOOLS, BOOLS)
    | st.builds(kv.DeleteRange, BLOBS, BLOBS, BOOLS)
    | st.builds(kv.Increment, BLOBS, st.integers(-(1 << 62), 1 << 62))
    | RANGES,
    lambda inner: st.builds(
        kv.Txn,
        st.lists(COMPARES, max_size=2).map(tuple),
        st.lists(inner, max_size=2).map(tuple),
        st.lists(inner, max_size=2).map(tuple),
    ),
    max_leaves=4,
)
OPERATIONS = st.one_of(
    st.builds(commands.OpenSession, BLOBS, NUMBERS),
    st.builds(commands.CloseSession),
    st.builds(kv.Compact, NUMBERS),
    st.builds(leases.LeaseGrant, NUMBERS, NUMBERS),
    st.builds(leases.LeaseRevoke, NUMBERS),
    st.builds(
        locks.LockAcquire,
        BLOBS,
        NUMBERS,
        NUMBERS,
        st.sampled_from(locks.LockMode),
        NUMBERS,
        NUMBERS,
        BOOLS,
        BOOLS,
        BLOBS,
    ),
    st.builds(locks.LockRelease, BLOBS, NUMBERS, NUMBERS),
    st.builds(locks.LockWithdraw, BLOBS, NUMBERS, NUMBERS),
    st.builds(locks.PutSequential, BLOBS, BLOBS, NUMBERS),
    st.builds(locks.TakeFirst, BLOBS, BLOBS),
    st.builds(locks.RaiseTokenEpoch, BLOBS, NUMBERS),
    KV_OPERATIONS,
)
QUERIES = st.one_of(
    RANGES,
    st.builds(leases.LeaseKeepAlive, NUMBERS),
    st.builds(leases.LeaseTimeToLive, NUMBERS, BOOLS),
    st.builds(leases.LeaseList),
    st.builds(locks.LockWait, BLOBS, NUMBERS, NUMBERS),
    st.builds(locks.LockQuery, BLOBS),
)
HOUSEKEEPING = st.one_of(
    st.builds(leases.LeaseExpire, NUMBERS, NUMBERS, NUMBERS),
    st.builds(leases.LeaseCheckpoint, NUMBERS, NUMBERS, st.integers(-(1 << 40), 1 << 40)),
    st.builds(leases.LeaseRenew, NUMBERS),
    st.builds(leases.CompactByRule, NUMBERS, NUMBERS),
    st.builds(leases.LockTick, BLOBS),
)
COMMANDS = st.builds(commands.Command, NUMBERS, NUMBERS, NUMBERS, OPERATIONS)

PLAIN: st.SearchStrategy[Any] = st.recursive(
    st.none() | BOOLS | NUMBERS | st.floats() | NAMES | BLOBS | st.integers(1, 11),
    lambda inner: st.lists(inner, max_size=9) | st.dictionaries(NAMES, inner, max_size=2),
    max_leaves=25,
)
GARBAGE = st.binary(max_size=60) | PLAIN.map(msgpack.packb)
"""Any bytes, and well-formed msgpack of the wrong form."""


@given(FRAMES)
def test_joined_peer_frames_come_back_as_they_were(frames: list[tuple[Incarnation, list[PeerMessage]]]) -> None:
    data = b"".join(encode_frame(incarnation, messages) for incarnation, messages in frames)
    assert decode_frames(data) == [(incarnation, tuple(messages)) for incarnation, messages in frames]


@given(st.lists(SESSION_MESSAGES, min_size=1, max_size=3))
def test_joined_session_frames_come_back_as_they_were(frames: list[list[session.SessionMessage]]) -> None:
    data = b"".join(session_codec.encode_session_frame(messages) for messages in frames)
    assert session_codec.decode_session_frames(data) == [message for messages in frames for message in messages]


@given(st.builds(PeerHello, NUMBERS, NUMBERS, NAMES, NAMES, NAMES, NUMBERS))
def test_a_hello_comes_back_as_it_was(hello: PeerHello) -> None:
    assert decode_hello(encode_hello(hello)) == hello


def test_a_hello_of_a_later_protocol_is_still_read() -> None:
    later = msgpack.packb((9, 9, "c", "n", "s", 3, "something new"))
    assert decode_hello(later).protocol_version == 9


@given(entries())
def test_an_entry_comes_back_as_it_was(entry: Entry) -> None:
    decoded = decode_entry(entry.encoded)
    assert decoded == entry
    assert decoded.encoded == entry.encoded


@given(COMMANDS)
def test_a_command_comes_back_as_it_was(command: commands.Command) -> None:
    assert commands.decode_command(commands.encode_command(command)) == command


@given(QUERIES)
def test_a_query_comes_back_as_it_was(query: commands.Query) -> None:
    assert commands.decode_query(commands.encode_query(query)) == query


@given(HOUSEKEEPING)
def test_what_a_leader_logs_comes_back_as_it_was(command: leases.Housekeeping) -> None:
    assert leases.decode_housekeeping(leases.encode_housekeeping(command)) == command


@given(COMMANDS, st.data())
def test_a_command_with_a_field_of_another_type_is_refused_and_breaks_nothing(
    command: commands.Command, data: st.DataObject
) -> None:
    fields = msgpack.unpackb(commands.encode_command(command), use_list=False)
    place = data.draw(st.integers(0, len(fields) - 1))
    other = data.draw(st.sampled_from([None, "text", 1.5, {}, 1 << 63]))
    try:
        commands.decode_command(msgpack.packb([*fields[:place], other, *fields[place + 1 :]]))
    except InvalidRequest:
        return
    raise AssertionError((fields, place, other))


@given(entries(), st.data())
def test_one_flipped_bit_of_an_entry_is_noticed(entry: Entry, data: st.DataObject) -> None:
    bit = data.draw(st.integers(0, len(entry.encoded) * 8 - 1))
    damaged = bytearray(entry.encoded)
    damaged[bit // 8] ^= 1 << bit % 8
    with pytest.raises(CorruptEntry):
        decode_entry(bytes(damaged))


@given(FRAMES, SESSION_MESSAGES, st.data())
def test_cut_off_frames_are_malformed(
    frames: list[tuple[Incarnation, list[PeerMessage]]], messages: list[session.SessionMessage], data: st.DataObject
) -> None:
    last = encode_frame(*frames[-1])
    cut = data.draw(st.integers(1, len(last) - 1))
    before = b"".join(encode_frame(incarnation, messages) for incarnation, messages in frames[:-1])
    with pytest.raises(MalformedFrame):
        decode_frames(before + last[:cut])
    frame = session_codec.encode_session_frame([*messages, session.Ping(1)])
    with pytest.raises(MalformedFrame):
        session_codec.decode_session_frames(frame + frame[: data.draw(st.integers(1, len(frame) - 1))])


@given(GARBAGE)
def test_garbage_on_a_peer_stream_gives_the_stated_errors_only(data: bytes) -> None:
    try:
        for incarnation, messages in decode_frames(data):
            assert type(incarnation) is int
            assert encode_frame(incarnation, messages)
    except (MalformedFrame, CorruptEntry):
        pass


@given(GARBAGE)
def test_garbage_on_a_session_stream_gives_the_stated_error_only(data: bytes) -> None:
    try:
        assert session_codec.encode_session_frame(session_codec.decode_session_frames(data))
    except MalformedFrame:
        pass


@given(GARBAGE)
def test_garbage_elsewhere_gives_the_stated_errors_only(data: bytes) -> None:
    for decode, error in (
        (decode_hello, MalformedFrame),
        (decode_entry, CorruptEntry),
        (commands.decode_command, InvalidRequest),
        (commands.decode_query, InvalidRequest),
    ):
        try:
            decode(data)
        except error:
            pass


@pytest.mark.parametrize(
    "frames", [[session_codec.FRAME_MESSAGES_MAX + 1], [session_codec.FRAME_MESSAGES_MAX // 2 + 1] * 2]
)
def test_a_flood_of_tiny_session_messages_is_malformed(frames: list[int]) -> None:
    data = b"".join(msgpack.packb([(10, 1)] * count) for count in frames)
    with pytest.raises(MalformedFrame):
        session_codec.decode_session_frames(data)


def _fields(tag: int) -> list[object]:
    """Fields of a well-formed message."""
    plain = configuration_to_plain(Configuration((Member(NodeId("n"), StoreId("s"), ReplicaRole.FULL),)))
    lists: dict[type[object], object] = {AppendRequest: [], InstallSnapshot: plain}
    cls, types = codec._FORMS[tag]
    simple: dict[type[object], object] = {int: 1, bool: True, bytes: b""}
    return [lists[cls] if expected is list else simple[expected] for expected in types]


@pytest.mark.parametrize("tag", sorted(codec._FORMS))
def test_a_field_of_the_wrong_type_is_malformed(tag: int) -> None:
    right = _fields(tag)
    assert decode_frames(msgpack.packb([1, [tag, "g", *right]]))
    for position in range(len(right)):
        wrong = [*right[:position], "text", *right[position + 1 :]]
        with pytest.raises(MalformedFrame):
            decode_frames(msgpack.packb([1, [tag, "g", *wrong]]))


@pytest.mark.parametrize("tag", sorted(codec._FORMS))
@pytest.mark.parametrize("number", [-1, 1 << 63])
def test_a_number_that_no_store_could_hold_is_malformed(tag: int, number: int) -> None:
    _, types = codec._FORMS[tag]
    right = _fields(tag)
    for position in [position for position, expected in enumerate(types) if expected is int]:
        wrong = [*right[:position], number, *right[position + 1 :]]
        with pytest.raises(MalformedFrame):
            decode_frames(msgpack.packb([1, [tag, "g", *wrong]]))
    with pytest.raises(MalformedFrame):
        decode_frames(msgpack.packb([number, [tag, "g", *right]]))
    with pytest.raises(MalformedFrame):
        decode_hello(msgpack.packb((1, 1, "c", "n", "s", number)))


def _snapshot(**changes: object) -> bytes:
    member = Member(NodeId("n"), StoreId("s"), ReplicaRole.FULL)
    name = SnapshotId(Term(1), 1, LogIndex(9), Term(1))
    chunk = SnapshotChunk(
        name, Configuration((member,)), Timestamp(5), True, 7, encode_row(KeyspaceId("k"), 1, b"a", b"b"), 3, False
    )
    return encode_frame(
        Incarnation(1), [GroupMessage(GroupId("g"), InstallSnapshot(Term(1), replace(chunk, **changes)))]
    )  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "changes",
    [
        {"data": b"x"},
        {"data": encode_row(KeyspaceId("k"), 1, b"a", b"b")[:-1]},
        {"data": encode_row(KeyspaceId("k"), 256, b"a", b"b")},
        {"data": msgpack.packb(("k", 1, b"a"))},
        {"with_state": False},
        {"with_state": False, "position": 0, "data": b""},
        {"configuration": Configuration(())},
    ],
)
def test_a_chunk_that_no_leader_can_have_made_is_malformed(changes: dict[str, object]) -> None:
    assert decode_frames(_snapshot())
    with pytest.raises(MalformedFrame):
        decode_frames(_snapshot(**changes))


def link(index: int, term: int, timestamp: int, count: int = 1) -> Entry:
    return make_entry(
        index=LogIndex(index), term=Term(term), kind=EntryKind.NOOP, timestamp=Timestamp(timestamp), count=count
    )


@pytest.mark.parametrize(
    "chain",
    [
        (link(8, 3, 10),),
        (link(6, 3, 10), link(8, 3, 11)),
        (link(6, 3, 10), link(6, 3, 11)),
        (link(6, 1, 10),),
        (link(6, 3, 10), link(7, 2, 11)),
        (link(6, 5, 10),),
        (link(6, 3, 10, count=2), link(7, 3, 11)),
        (link(6, 3, 10, count=0),),
    ],
    ids=["gap first", "gap", "twice", "term before", "term falls", "term ahead", "timestamps overlap", "no timestamp"],
)
def test_entries_that_are_no_piece_of_a_log_are_malformed(chain: tuple[Entry, ...]) -> None:
    request = AppendRequest(Term(4), LogIndex(5), Term(2), chain, LogIndex(0), LogIndex(0))
    with pytest.raises(MalformedFrame):
        decode_frames(encode_frame(Incarnation(1), [GroupMessage(GroupId("g"), request)]))


def test_an_entry_whose_fields_have_wrong_types_is_corrupt() -> None:
    right = [1, 1, 0, 1, 1, "", b"", b""]
    for position in range(len(right)):
        body = msgpack.packb([*right[:position], None, *right[position + 1 :]])
        with pytest.raises(CorruptEntry):
            decode_entry(google_crc32c.value(body).to_bytes(4) + body)


def test_every_message_of_the_protocols_has_a_tag() -> None:
    assert {cls for cls, _ in codec._FORMS.values()} == {*codec.RaftMessage.__args__, codec.NodeHeartbeat}
    assert {cls for cls, _ in session_codec._FORMS.values()} == set(session.SessionMessage.__args__)


@pytest.mark.parametrize(
    ("tag", "fields"),
    [
        (6, ((), "g", "k", 1, b"", ())),
        (6, ((1, 2), "g", "k", 1, b"", (b"a",))),
        (6, ((1, "2"), "g", "k", 1, b"", (b"a", b"b"))),
        (6, ((1, 2), "g", "k", 1, b"", (b"a", 2))),
        (6, (tuple(range(513)), "g", "k", 1, b"", (b"a",) * 513)),
        (6, ((1, 2), "g", "k", 1, b"", (bytes(1 << 20), b"a"))),
        (19, ((1,), "n", 1, (b"a", b"b"))),
        (19, ((1,), "n", 1, (None,))),
    ],
)
def test_requests_of_several_commands_that_no_client_sends_are_malformed(tag: int, fields: tuple[object, ...]) -> None:
    with pytest.raises(MalformedFrame):
        session_codec.decode_session_frames(msgpack.packb([(tag, *fields)]))


def test_a_command_alone_may_be_large() -> None:
    alone = session.WriteRequest((1,), GroupId("g"), KeyspaceId("k"), 1, b"", (bytes(2 << 20),))
    assert session_codec.decode_session_frames(session_codec.encode_session_frame([alone])) == [alone]


@given(NUMBERS, NUMBERS, NUMBERS, NUMBERS, st.binary(max_size=20))
def test_the_lineage_of_a_record_is_what_the_record_says(
    revision: int, created: int, version: int, lease: int, value: bytes
) -> None:
    record = records.set_record(
        b"k", value, revision=revision, place=1, created=created, version=version, timestamp=2, lease=lease
    )
    whole = records.decode_record(record)
    assert records.record_lineage(record) == (whole.create_revision, whole.version, whole.lease)
