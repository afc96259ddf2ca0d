"""What a node keeps for all its clients: counted where it is kept, and given up where it is most."""

from http2_client import Client, prefixed
from hypothesis import given
from hypothesis import strategies as st

from isochrone.wire.budget import Budget, Share
from isochrone.wire.http2 import frames
from isochrone.wire.http2.calls import UnaryMethod
from isochrone.wire.http2.endpoint import COUNTED_BYTES
from isochrone.wire.http2.limits import Limits


class Holders:
    """Some that keep bytes, and who of them was cut off, in order."""

    def __init__(self, bytes_max: int, count: int) -> None:
        self.budget = Budget(bytes_max)
        self.cut_off: list[int] = []
        self.shares = [self._share(number) for number in range(count)]

    def _share(self, number: int) -> Share:
        return Share(self.budget, lambda: self.cut_off.append(number))


def test_who_keeps_most_is_cut_off_first_and_only_as_many_as_needed() -> None:
    holders = Holders(100, 4)
    for share, kept_bytes in zip(holders.shares, (20, 50, 29, 1), strict=True):
        share.set(kept_bytes)
    assert holders.cut_off == [] and holders.budget.kept_bytes == 100
    holders.shares[3].set(2)
    assert holders.cut_off == [1] and holders.budget.kept_bytes == 51
    holders.shares[0].set(90)
    assert holders.cut_off == [1, 0] and holders.budget.cut_off == 2
    holders.shares[0].set(90)
    assert holders.budget.kept_bytes == 31, "who was cut off counts no more"


def test_of_equals_the_first_is_cut_off() -> None:
    holders = Holders(10, 3)
    for share in reversed(holders.shares):
        share.set(5)
    assert holders.cut_off == [2]


def test_one_that_is_beyond_the_budget_alone_is_cut_off_by_its_own_growth() -> None:
    holders = Holders(10, 2)
    holders.shares[1].set(10)
    holders.shares[0].set(11)
    assert holders.cut_off == [0] and holders.budget.kept_bytes == 10


SETS = st.lists(st.tuples(st.integers(0, 7), st.one_of(st.none(), st.integers(0, 60))), max_size=60)


@given(SETS)
def test_no_more_is_ever_kept_than_the_budget_and_the_sum_is_right(sets: list[tuple[int, int | None]]) -> None:
    holders = Holders(100, 8)
    kept = [0] * 8
    over: set[int] = set()
    for number, kept_bytes in sets:
        if kept_bytes is None:
            holders.shares[number].end()
            over.add(number)
            kept[number] = 0
            continue
        if number not in over:
            kept[number] = kept_bytes
        holders.shares[number].set(kept_bytes)
        while sum(kept) > 100:
            largest = holders.cut_off[len(over & set(holders.cut_off))]
            assert kept[largest] == max(kept)
            kept[largest] = 0
            over.add(largest)
        assert [share.kept_bytes for share in holders.shares] == kept
        assert holders.budget.kept_bytes == sum(kept) <= 100
        assert set(holders.budget.shares) == {share for share in holders.shares if share.kept_bytes}
    assert len(holders.cut_off) == len(set(holders.cut_off)) == holders.budget.cut_off


class Counted(Client):
    """A connection that is counted as a server does."""

    def __init__(self) -> None:
        self.counts: list[int] = []
        methods = {"/t/Echo": UnaryMethod(lambda call, message: call.answer(message))}
        super().__init__(methods, Limits(backlog_bytes=20 * COUNTED_BYTES), grown=self._count)

    def _count(self) -> None:
        self.counts.append(self.connection.count())


def test_answers_that_are_not_taken_are_counted_in_steps() -> None:
    client = Counted()
    client.send(frames.SETTINGS, 0, 0, frames.INITIAL_WINDOW_SIZE.to_bytes(2, "big") + bytes(4))
    client.read()
    for _ in range(12):
        client.call(bytes(COUNTED_BYTES // 2))
        client.read()
    assert 4 <= len(client.counts) <= 6
    assert all(
        later - earlier >= COUNTED_BYTES for earlier, later in zip(client.counts, client.counts[1:], strict=False)
    )
    assert client.connection.backlog_bytes - client.counts[-1] <= COUNTED_BYTES


def test_answers_that_are_taken_are_never_worth_counting() -> None:
    client = Counted()
    for _ in range(100):
        client.call(bytes(COUNTED_BYTES // 2))
        client.read()
        client.send(frames.WINDOW_UPDATE, 0, 0, COUNTED_BYTES.to_bytes(4, "big"))
    assert client.counts == [] and client.connection.backlog_bytes == 0


def test_a_backlog_that_comes_anew_is_counted_anew() -> None:
    client = Counted()
    for _ in range(2):
        for _ in range(3):
            client.call(bytes(COUNTED_BYTES - 100))
        assert len(client.counts) == 3
        client.counts.clear()
        client.read()
        client.send(frames.WINDOW_UPDATE, 0, 0, (4 * COUNTED_BYTES).to_bytes(4, "big"))
        assert client.connection.count() < COUNTED_BYTES


def test_requests_that_are_not_whole_are_counted() -> None:
    client = Counted()
    stream = client.open()
    whole = prefixed(bytes(90_000))
    for at in range(0, 80_000, 10_000):
        client.data(stream, whole[at : at + 10_000])
    assert client.counts and client.counts[-1] > 60_000
    assert client.connection.count() == 80_000 + client.connection.backlog_bytes
    client.data(stream, whole[80_000:], end=True)
    assert client.connection.count() == client.connection.backlog_bytes
