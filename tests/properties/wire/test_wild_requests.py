"""Whatever bytes come instead of a session's frame, a command or a query: they are one, or the sender's fault."""

import random
import tracemalloc
from collections.abc import Callable

import msgpack
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from wild_requests import anything, command, damaged, message, query

from isochrone.errors import Indeterminate, InvalidRequest
from isochrone.ids import GroupId, NodeId, ReplicaRole, StoreId
from isochrone.wire.codec import MalformedFrame, decode_frames, decode_hello
from isochrone.wire.commands import COMMAND_BYTES_MAX, decode_command, decode_query, encode_command, encode_query
from isochrone.wire.entries import CorruptEntry
from isochrone.wire.kv import KV_FORMS, PUT, pack_put, unpack_put
from isochrone.wire.messages import Configuration, Member
from isochrone.wire.operations import (
    AddReplica,
    ChangeMembers,
    MoveLeader,
    decode_operation,
    decode_outcome,
    encode_operation,
)
from isochrone.wire.session_codec import FRAME_MESSAGES_MAX, decode_session_frames, encode_session_frame

SEEDS = st.integers(0, 1 << 32)
DEEP = b"\x91" * 2_000 + b"\xc0"
WIDE = b"\xdd\x7f\xff\xff\xff"


@settings(max_examples=150, deadline=None)
@given(SEEDS)
def test_frames_of_a_session(seed: int) -> None:
    rng = random.Random(seed)
    for _ in range(20):
        frame = bytes(msgpack.packb([message(rng) for _ in range(rng.randrange(4))]))
        try:
            found = decode_session_frames(damaged(rng, frame) if rng.random() < 0.5 else frame)
        except MalformedFrame:
            continue
        assert decode_session_frames(encode_session_frame(found)) == found or "nan" in repr(found)


@settings(max_examples=150, deadline=None)
@given(SEEDS)
def test_commands_and_queries(seed: int) -> None:
    rng = random.Random(seed)
    for _ in range(20):
        for made, decode, encode in ((command, decode_command, encode_command), (query, decode_query, encode_query)):
            data = made(rng) if rng.random() < 0.8 else bytes(msgpack.packb(anything(rng)))
            try:
                found = decode(damaged(rng, data) if rng.random() < 0.4 else data)
            except InvalidRequest:
                continue
            assert decode(encode(found)) == found  # type: ignore[operator]


PUTS = [(b"k/a", b"1", 3, False, False, False), (b"k/a", b"", -1, True, True, True)]
ODD_FIELDS = [None, True, False, 0, 1, (1 << 63) - 1, 1 << 63, -(1 << 63), -(1 << 63) - 1, 1.0, b"", b"v", "v", {}]


@pytest.mark.parametrize("fields", PUTS)
@pytest.mark.parametrize("odd", ODD_FIELDS, ids=repr)
def test_a_put_is_taken_apart_as_its_form_says(fields: tuple[object, ...], odd: object) -> None:
    """Replicas of two releases must agree on what is a command."""
    (form,) = [each for each in KV_FORMS if each.tag == PUT]
    said = [(*fields[:place], odd, *fields[place + 1 :]) for place in range(len(fields))]
    for values in (*said, fields, fields[:-1], (*fields, odd), ()):
        assert _told(unpack_put, values) == _told(form.unpack, values)
    put = unpack_put(fields)
    assert pack_put(put) == form.pack(put) == (PUT, *fields)


def _told(unpack: Callable[[tuple[object, ...]], object], values: tuple[object, ...]) -> str:
    """What fields are, with the types of all, or why they are nothing."""
    try:
        return repr(unpack(values))
    except InvalidRequest as error:
        return f"refused: {error}"


@given(st.binary(max_size=60))
@example(DEEP)
@example(WIDE)
@example(WIDE * 300)
@example(b"\xc1")
@example(b"\xd9\x02\xff\xff")
@example(b"\xd6\xff\xff\xff\xff\xff")
@example(b"\x81\x91\x01\x02")
def test_bytes_that_nobody_made(data: bytes) -> None:
    for decode in (decode_command, decode_query, decode_session_frames):
        try:
            decode(data)
        except InvalidRequest:
            pass


@pytest.mark.parametrize("data", [WIDE[:1] + b"\0\x04\0\0" * 1_000, (b"\xdd\0\x1e\0\0") * 400 + bytes(1 << 20)])
def test_what_a_length_claims_is_not_made_before_it_comes(data: bytes) -> None:
    for decode in (decode_command, decode_query, decode_session_frames):
        tracemalloc.start()
        try:
            decode(data)
        except InvalidRequest:
            pass
        finally:
            peak_bytes = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
        assert peak_bytes < 64 << 20


def test_a_frame_of_more_messages_than_allowed_is_none() -> None:
    ping = b"\x92\x0a\x01"
    frame = b"\xdd" + FRAME_MESSAGES_MAX.to_bytes(4, "big") + ping * FRAME_MESSAGES_MAX
    assert len(decode_session_frames(frame)) == FRAME_MESSAGES_MAX
    with pytest.raises(MalformedFrame):
        decode_session_frames(frame + b"\x91" + ping)


def test_a_command_beyond_the_limit_is_not_even_looked_at() -> None:
    with pytest.raises(InvalidRequest, match=f"at most {COMMAND_BYTES_MAX}"):
        decode_command(bytes(COMMAND_BYTES_MAX + 1))


@settings(max_examples=60, deadline=None)
@given(SEEDS)
def test_what_operators_and_peers_say(seed: int) -> None:
    rng = random.Random(seed)
    member = Member(NodeId("a"), StoreId("s"), ReplicaRole.FULL)
    whole = [
        encode_operation(ChangeMembers(GroupId("g"), (member,), (NodeId("b"),))),
        encode_operation(AddReplica(GroupId("g"), Configuration((member,)))),
        encode_operation(MoveLeader(GroupId("g"), NodeId("b"))),
    ]
    for _ in range(40):
        said = [rng.randrange(12), "g", *[anything(rng) for _ in range(rng.randrange(9))]]
        for data in (damaged(rng, rng.choice(whole)), bytes(msgpack.packb(said)), bytes(msgpack.packb([5, said]))):
            for decode in (decode_operation, decode_hello, decode_frames):
                try:
                    decode(data)
                except (InvalidRequest, CorruptEntry):
                    pass
            assert decode_outcome(GroupId("g"), data) is not None, "none of these says that it was done"
    assert isinstance(decode_outcome(GroupId("g"), bytes(msgpack.packb([{}, "", None]))), Indeterminate)
