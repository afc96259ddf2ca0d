"""Reads that begin together travel together, and yet each caller has its own answer, error and cancellation."""

import asyncio

import pytest
from session_cluster import KEYSPACE, Cluster, Node, Stream, lose_answer, refuse, run_scenario, serve

from isochrone.client import Client, reads
from isochrone.client.reads import QUERIES_MAX
from isochrone.errors import DeadlineExceeded, Indeterminate, InvalidRequest, RevisionCompacted
from isochrone.wire.commands import encode_query
from isochrone.wire.kv import Range
from isochrone.wire.leases import LeaseTimeToLive
from isochrone.wire.locks import LockWait
from isochrone.wire.session import ReadRequest, ReadsAnswer, ReadsRequest, WriteRequest

Message = WriteRequest | ReadRequest | ReadsRequest


def queries(node: Node) -> list[int]:
    """How many queries each request had."""
    return [len(request.queries) for request in node.requests if isinstance(request, ReadsRequest)]


async def values(client: Client, keys: list[str]) -> list[bytes | None]:
    return [result.value for result in await asyncio.gather(*(client.get(key) for key in keys))]


def test_reads_of_one_turn_are_one_request() -> None:
    async def scenario(cluster: Cluster) -> None:
        async with await cluster.client() as client:
            await client.put("app/x", "one")
            assert await values(client, ["app/x", "app/y", "app/x"]) == [b"one", None, b"one"]
            assert queries(cluster["a"]) == [3]
            await client.get("app/x")
            assert queries(cluster["a"]) == [3, 1]

    run_scenario(scenario)


def test_what_differs_in_keyspace_timeout_or_freshness_travels_apart() -> None:
    async def scenario(cluster: Cluster) -> None:
        async with await cluster.client() as client:
            await asyncio.gather(
                client.get("app/x"),
                client.get("other/x"),
                client.get("app/x", timeout_s=3.0),
                client.kv.range_nearest("app/x"),
                client.get("app/y"),
            )
            asked = [request for node in cluster.nodes.values() for request in node.requests]
            kinds = {
                (request.keyspace, request.applied, request.timeout_ms > 3000, len(request.queries))
                for request in asked
                if isinstance(request, ReadsRequest)
            }
            assert kinds == {
                (KEYSPACE, False, False, 1),
                (KEYSPACE, False, True, 2),
                (KEYSPACE, True, True, 1),
                ("other/", False, True, 1),
            }

    run_scenario(scenario)


def test_more_than_fit_into_a_request_make_several() -> None:
    async def scenario(cluster: Cluster) -> None:
        async with await cluster.client() as client:
            await values(client, ["app/x"] * (2 * QUERIES_MAX + 1))
            assert sorted(queries(cluster["a"])) == [1, QUERIES_MAX, QUERIES_MAX]

    run_scenario(scenario)


def test_what_did_not_fit_into_the_answer_is_asked_for_again() -> None:
    def some(node: Node, stream: Stream, message: Message) -> None:
        assert isinstance(message, ReadsRequest)
        push, stream.push = stream.push, answers.append  # type: ignore[method-assign]
        serve(node, stream, message)
        stream.push = push  # type: ignore[method-assign]
        answer = answers.pop()
        assert isinstance(answer, ReadsAnswer)
        push(ReadsAnswer(answer.request, answer.node, answer.revision, None, answer.payloads[:2], ()))

    answers: list[object] = []

    async def scenario(cluster: Cluster) -> None:
        async with await cluster.client() as client:
            for number in range(5):
                await client.put(f"app/{number}", str(number))
            cluster["a"].rules.extend([some, some])
            keys = [f"app/{number}" for number in range(5)]
            assert await values(client, keys) == [b"0", b"1", b"2", b"3", b"4"]
            assert queries(cluster["a"]) == [5, 3, 1]

    run_scenario(scenario)


def test_a_query_that_fails_leaves_the_others() -> None:
    def fail_second(node: Node, stream: Stream, message: Message) -> None:
        assert isinstance(message, ReadsRequest)
        error = (1, "RevisionCompacted", "gone")
        found = b"\x96\x0d\x01\x02\x00\xc2\x90"  # a range without items
        stream.push(ReadsAnswer(message.request, node.name, 1, None, (found, b"", found), (error,)))

    async def scenario(cluster: Cluster) -> None:
        async with await cluster.client() as client:
            await client.put("app/x", "one")
            cluster["a"].rules.append(fail_second)
            answers = await asyncio.gather(*(client.get("app/x") for _ in range(3)), return_exceptions=True)
            assert isinstance(answers[1], RevisionCompacted) and "gone (from a)" in str(answers[1])
            assert client.statistics().errors == {"RevisionCompacted": 1}
            assert [answer.value for answer in answers if not isinstance(answer, BaseException)] == [None, None]

    run_scenario(scenario)


def test_a_question_for_the_leader_that_is_asked_elsewhere_leaves_the_others() -> None:
    async def scenario(cluster: Cluster) -> None:
        async with await cluster.client() as client:
            await client.put("app/x", "one")
            wrong = (client.query_nearest("app/x", query) for query in (LeaseTimeToLive(1), LockWait(b"app/l", 1, 1)))
            answers = await asyncio.gather(client.kv.range_nearest("app/x"), *wrong, return_exceptions=True)
            assert [type(answer) for answer in answers[1:]] == [InvalidRequest] * 2
            assert not isinstance(answers[0], BaseException)
            asked = [request for node in cluster.nodes.values() for request in node.requests]
            assert [len(request.queries) for request in asked if isinstance(request, ReadsRequest)] == [1]

    run_scenario(scenario)


def test_a_refusal_is_that_of_all_and_is_tried_elsewhere() -> None:
    async def scenario(cluster: Cluster) -> None:
        async with await cluster.client() as client:
            await client.put("app/x", "one")
            cluster["a"].rules.append(refuse("NotLeader", "b"))
            cluster.elect("b", 2, told="b")
            assert await values(client, ["app/x", "app/x"]) == [b"one", b"one"]
            assert (queries(cluster["a"])[-1], queries(cluster["b"])) == (2, [2])

    run_scenario(scenario)


def test_no_answer_in_time_is_told_to_each() -> None:
    async def scenario(cluster: Cluster) -> None:
        async with await cluster.client() as client:
            cluster["a"].rules.extend([lose_answer] * 9)
            calls = (client.get("app/x", timeout_s=2.0), client.get("app/y", timeout_s=2.0))
            answers = await asyncio.gather(*calls, return_exceptions=True)
            assert [type(answer) for answer in answers] == [DeadlineExceeded] * 2
            assert client.statistics().errors == {"DeadlineExceeded": 2}

    run_scenario(scenario)


def test_a_caller_that_is_cancelled_leaves_the_others() -> None:
    async def scenario(cluster: Cluster) -> None:
        async with await cluster.client() as client:
            await client.put("app/x", "one")
            first, second = (asyncio.create_task(client.get("app/x")) for _ in range(2))
            await asyncio.sleep(0)
            first.cancel()
            assert (await second).value == b"one"
            with pytest.raises(asyncio.CancelledError):
                await first

    run_scenario(scenario)


def test_nobody_waits_for_a_batch_that_broke(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("a fault of ours")

    def refuse_one(node: Node, stream: Stream, message: Message) -> None:
        assert isinstance(message, ReadsRequest)
        stream.push(ReadsAnswer(message.request, node.name, 1, None, (b"",), ((0, "RevisionCompacted", "gone"),)))

    async def scenario(cluster: Cluster) -> None:
        async with await cluster.client() as client:
            await client.get("app/x")
            monkeypatch.setattr(reads, "told_error", broken)
            cluster["a"].rules.append(refuse_one)
            answers = await asyncio.gather(client.get("app/x"), client.get("app/y"), return_exceptions=True)
            assert [str(answer) for answer in answers] == ["a fault of ours"] * 2

    run_scenario(scenario)


def test_more_answers_than_questions_are_no_answer() -> None:
    def too_many(node: Node, stream: Stream, message: Message) -> None:
        assert isinstance(message, ReadsRequest)
        stream.push(ReadsAnswer(message.request, node.name, 1, None, (b"", b""), ()))

    async def scenario(cluster: Cluster) -> None:
        async with await cluster.client() as client:
            await client.put("app/x", "one")
            cluster["a"].rules.append(too_many)
            with pytest.raises(Indeterminate, match="what was not asked"):
                await client.get("app/x")

    run_scenario(scenario)


def test_a_plain_query_has_no_more_fields_than_it_needs() -> None:
    assert len(encode_query(Range(b"k"))) < len(encode_query(Range(b"k", limit=1)))
