"""What is done by hand for speed agrees with protobuf, byte for byte."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from isochrone.errors import InvariantViolation
from isochrone.wire.commands import decode_result, encode_result
from isochrone.wire.etcd.answers_grpc import Speaker, answer_of
from isochrone.wire.etcd.generated import rpc_pb2 as pb
from isochrone.wire.etcd.plain import KEPT_ITEMS_MAX, PLAIN_BYTES_MAX, PlainAnswers, plain_put, plain_range
from isochrone.wire.kv import COMPACT, PUT, RANGE
from isochrone.wire.records import set_record

KEYS = st.binary(max_size=200)
VALUES = st.binary(max_size=300) | st.integers(0, PLAIN_BYTES_MAX + 10).map(bytes)
POSITIVE = st.integers(1, (1 << 63) - 1)


@given(KEYS, st.booleans())
def test_a_plain_read_is_understood(key: bytes, serializable: bool) -> None:
    request = pb.RangeRequest(key=key, serializable=serializable).SerializeToString()
    found = plain_range(request)
    assert found == ((key, serializable) if key and len(request) < 128 else None)


@given(KEYS, VALUES)
def test_a_plain_put_is_understood(key: bytes, value: bytes) -> None:
    request = pb.PutRequest(key=key, value=value).SerializeToString()
    if (found := plain_put(request)) is not None:
        assert found == (key, value)
    else:
        assert not 0 < len(key) < 128 or not value or len(value) >= 1 << 14


@pytest.mark.parametrize(
    "request_",
    [
        pb.RangeRequest(key=b"k", range_end=b"l"),
        pb.RangeRequest(key=b"k", limit=1),
        pb.RangeRequest(key=b"k", revision=3, serializable=True),
        pb.RangeRequest(key=b"k", serializable=True, keys_only=True),
        pb.PutRequest(key=b"k", value=b"v", lease=7),
        pb.PutRequest(key=b"k", value=b"v", prev_kv=True),
        pb.PutRequest(key=b"k", ignore_value=True),
        pb.PutRequest(value=b"v"),
        pb.RangeRequest(),
    ],
)
def test_whatever_asks_for_more_is_left_to_protobuf(request_: pb.RangeRequest | pb.PutRequest) -> None:
    data = request_.SerializeToString()
    assert (plain_put if isinstance(request_, pb.PutRequest) else plain_range)(data) is None


@given(
    st.binary(max_size=40) | st.builds(lambda head, rest: head + rest, st.sampled_from([b"\n\x01k", b"\n\x02k"]), KEYS)
)
@example(b"\n\x01k8\x018\x01")
@example(b"\n\x01k\x12\x01v\x12\x01w")
@example(b"\n\x01k\x12\x80\x00")
def test_whatever_is_taken_apart_means_the_same_to_protobuf(data: bytes) -> None:
    if (read := plain_range(data)) is not None:
        assert pb.RangeRequest.FromString(data) == pb.RangeRequest(key=read[0], serializable=read[1])
    if (put := plain_put(data)) is not None:
        assert pb.PutRequest.FromString(data) == pb.PutRequest(key=put[0], value=put[1])


@given(
    st.tuples(
        st.binary(min_size=1, max_size=200), st.binary(max_size=200), *[POSITIVE] * 2, st.integers(1, 1 << 31), POSITIVE
    )
    | st.none(),
    POSITIVE,
    st.integers(0, 1 << 40),
    st.integers(1, (1 << 64) - 1),
)
def test_answers_have_the_bytes_that_protobuf_gives_them(
    item: tuple[bytes, bytes, int, int, int, int] | None, revision: int, term: int, member: int
) -> None:
    records: tuple[bytes, ...] = ()
    if item is not None:
        key, value, created, modified, version, lease = item
        records = (
            set_record(
                key, value, revision=modified, place=0, created=created, version=version, timestamp=1, lease=lease
            ),
        )
    speaker, answers = Speaker(7, member), PlainAnswers(7, member)
    for packed in ((RANGE, revision, 5, len(records), False, records), (PUT, revision, 5, None)):
        expected = answer_of(decode_result(encode_result(packed)), speaker.header(revision, term)).SerializeToString()
        assert answers.answer(packed, term) == expected
        assert answers.answer(packed, term) == expected, "also from what was kept"


def test_a_result_of_another_kind_is_a_fault() -> None:
    with pytest.raises(InvariantViolation):
        PlainAnswers(1, 1).answer((COMPACT, 1, 1), 1)


def test_what_is_kept_is_bounded() -> None:
    answers = PlainAnswers(1, 1)
    for number in range(3 * KEPT_ITEMS_MAX):
        record = set_record(b"k", b"v", revision=number, place=0, created=1, version=1, timestamp=1, lease=0)
        answers.answer((RANGE, number, 1, 1, False, (record,)), 1)
        assert len(answers._items) <= KEPT_ITEMS_MAX
    large = set_record(b"k", bytes(10_000), revision=1, place=0, created=1, version=1, timestamp=1, lease=0)
    answers.answer((RANGE, 1, 1, 1, False, (large,)), 1)
    assert large not in answers._items
