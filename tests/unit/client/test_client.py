"""Calls of the SDK against a cluster that behaves: results, routing, validation, connecting, closing."""

import asyncio

import pytest
from opentelemetry import trace
from session_cluster import lose_answer, lose_request, refuse, run_scenario

from isochrone.client import Provenance
from isochrone.client.gathering import rounded_down
from isochrone.errors import ConnectionLost, InvalidRequest, Unavailable
from isochrone.ids import ClusterId
from isochrone.wire.commands import CloseSession, OpenSession, decode_command
from isochrone.wire.kv import VALUE_BYTES_MAX
from isochrone.wire.session import TIMEOUT_MS_MAX, DirectoryResponse, WriteRequest


def test_a_write_says_what_it_did_and_where():
    async def scenario(cluster):
        async with await cluster.client() as client:
            await client.put("app/x", "one")
            result = await client.put(b"app/x", b"two")
        assert (result.succeeded, result.previous) == (True, None)
        assert (result.revision, result.timestamp) == (2, 20)
        assert (result.group, result.replica, result.provenance) == ("g", "a", Provenance.LINEARIZABLE)
        assert (result.session, result.sequence) == (1, 2)

    run_scenario(scenario)


def test_a_read_states_the_key_and_its_history():
    async def scenario(cluster):
        async with await cluster.client() as client:
            await client.put("app/x", "one")
            await client.put("app/y", "other")
            await client.put("app/x", "two")
            found = await client.get("app/x")
            absent = await client.get("app/z")
        assert (found.key, found.value, found.version) == (b"app/x", b"two", 2)
        assert (found.create_revision, found.mod_revision, found.revision, found.timestamp) == (1, 3, 3, 30)
        assert (found.group, found.replica, found.provenance) == ("g", "a", Provenance.LINEARIZABLE)
        assert (absent.value, absent.version, absent.mod_revision, absent.revision) == (None, 0, 0, 3)

    run_scenario(scenario)


def test_delete_tells_whether_the_key_was_there():
    async def scenario(cluster):
        async with await cluster.client() as client:
            await client.put("app/x", "one")
            assert (await client.delete("app/x")).succeeded is True
            assert (await client.delete("app/x")).succeeded is False
            assert (await client.get("app/x")).value is None

    run_scenario(scenario)


def test_a_failed_comparison_returns_what_it_found():
    async def scenario(cluster):
        async with await cluster.client() as client:
            assert (await client.compare_and_set("app/x", None, "one")).succeeded is True
            failed = await client.compare_and_set("app/x", None, "two")
            assert (failed.succeeded, failed.previous, failed.revision) == (False, b"one", 1)
            assert (await client.compare_and_set("app/x", "one", None)).succeeded is True
            assert (await client.compare_and_set("app/x", "one", "two")).previous is None

    run_scenario(scenario)


def test_a_key_in_no_keyspace_is_refused_with_the_known_prefixes():
    async def scenario(cluster):
        async with await cluster.client() as client:
            with pytest.raises(
                InvalidRequest, match="'nowhere/x' lies in no keyspace; known prefixes: 'app/', 'other/'"
            ):
                await client.put("nowhere/x", "1")
            with pytest.raises(InvalidRequest, match="no keyspace"):
                await client.get("app")
            assert client.statistics().attempts == 0

    run_scenario(scenario)


def test_a_wrong_request_is_refused_before_anything_is_sent():
    async def scenario(cluster):
        async with await cluster.client() as client:
            with pytest.raises(InvalidRequest, match="value has 1048577 bytes"):
                await client.put("app/x", b"v" * (VALUE_BYTES_MAX + 1))
            with pytest.raises(InvalidRequest, match="key has 0 bytes"):
                await client.get("")
            for timeout_s in (0, -1, float("inf"), float("nan")):
                with pytest.raises(InvalidRequest, match="timeout"):
                    await client.delete("app/x", timeout_s=timeout_s)
            assert client.statistics().attempts == 0

    run_scenario(scenario)


def test_requests_go_straight_to_the_leader_with_the_time_that_is_left():
    async def scenario(cluster):
        async with await cluster.client(timeout_s=4.0) as client:
            await client.put("app/x", "1")
            await client.get("app/x", timeout_s=0.25)
            assert client.statistics().attempts == 3
        assert cluster["b"].requests == cluster["c"].requests == []
        read = cluster["a"].requests[2]
        assert read.timeout_ms == pytest.approx(250, abs=1)
        assert (read.group, read.keyspace) == ("g", "app/")

    run_scenario(scenario)


def test_a_deadline_that_no_request_can_state_is_stated_as_the_longest():
    async def scenario(cluster):
        async with await cluster.client(timeout_s=1e300) as client:
            await client.put("app/x", "1")
            await client.get("app/x", timeout_s=1e18)
        *writes, read = cluster["a"].requests[:3]
        assert read.timeout_ms == TIMEOUT_MS_MAX
        assert [write.timeout_ms for write in writes] == [rounded_down(TIMEOUT_MS_MAX)] * 2

    run_scenario(scenario)


def test_each_keyspace_has_one_session_however_many_writes_start_at_once():
    async def scenario(cluster):
        async with await cluster.client() as client:
            await asyncio.gather(*(client.put(f"app/{number}", "1") for number in range(20)))
            await asyncio.gather(*(client.put(f"other/{number}", "1") for number in range(20)))
            assert client.statistics().sessions_opened == cluster.state.opened == 2
        assert len(cluster.state.effects) == 40

    run_scenario(scenario)


def test_the_mark_tells_the_group_what_it_may_forget():
    async def scenario(cluster):
        async with await cluster.client() as client:
            for _ in range(3):
                await client.put("app/x", "1")
            await asyncio.gather(*(client.put("app/x", "2") for _ in range(3)))
            await client.put("app/x", "3")
        places = [(command.sequence, command.acknowledged) for command in cluster["a"].commands()]
        assert places == [(1, 0), (2, 1), (3, 2), (4, 3), (5, 3), (6, 3), (7, 6)]

    run_scenario(scenario)


def test_a_write_carries_the_current_trace():
    async def scenario(cluster):
        context = trace.SpanContext(0xABC, 0xDEF, is_remote=False, trace_flags=trace.TraceFlags(1))
        async with await cluster.client() as client:
            await client.put("app/x", "1")
            with trace.use_span(trace.NonRecordingSpan(context)):
                await client.put("app/x", "2")
        writes = [message for message in cluster["a"].requests if isinstance(message, WriteRequest)]
        assert writes[1].trace == b""
        assert writes[2].trace == bytes(14) + b"\x0a\xbc" + bytes(6) + b"\x0d\xef" + b"\x01"

    run_scenario(scenario)


# Connecting and closing


def test_connecting_works_through_the_one_endpoint_that_answers():
    async def scenario(cluster):
        cluster["a"].cut = True
        endpoints = ["nobody:1", "a:1", "b:1"]
        async with await cluster.client(endpoints=endpoints, timeout_s=2.0) as client:
            cluster.elect("b", 2)
            await client.put("app/x", "1")
        assert len(cluster.state.effects) == 1

    run_scenario(scenario)


def test_without_any_answer_connecting_fails_and_names_each_endpoint():
    async def scenario(cluster):
        cluster["a"].cut = True
        with pytest.raises(Unavailable) as caught:
            await cluster.client(endpoints=["nobody:1", "a:1"], timeout_s=5.0)
        assert "nobody:1: connection to nobody:1 refused" in str(caught.value)
        assert "a:1: no answer within" in str(caught.value)

    run_scenario(scenario)


def test_connecting_needs_an_endpoint_and_a_timeout():
    async def scenario(cluster):
        with pytest.raises(InvalidRequest, match="no endpoint"):
            await cluster.client(endpoints=[])
        with pytest.raises(InvalidRequest, match="timeout"):
            await cluster.client(timeout_s=0)
        assert cluster.connects == 0

    run_scenario(scenario)


def test_a_node_of_another_cluster_is_not_talked_to():
    async def scenario(cluster):
        async with await cluster.client() as client:
            cluster.identity = ClusterId("intruder")
            with pytest.raises(Unavailable, match="nothing was sent"):
                await client.put("app/x", "1", timeout_s=2.0)
        assert cluster["a"].requests == []

    run_scenario(scenario)


def test_an_address_where_another_node_answers_is_not_used():
    async def scenario(cluster):
        async with await cluster.client() as client:
            cluster["a"].address, cluster["c"].address = cluster["c"].address, cluster["a"].address
            with pytest.raises(Unavailable, match="nothing was sent"):
                await client.put("app/x", "1", timeout_s=2.0)
        assert cluster["c"].requests == []

    run_scenario(scenario)


def test_closing_ends_the_session_and_the_connections():
    async def scenario(cluster):
        client = await cluster.client()
        await client.put("app/x", "1")
        await client.close()
        await client.close()
        operations = [decode_command(message.commands[0]).operation for message in cluster["a"].requests]
        assert isinstance(operations[0], OpenSession)
        assert operations[-1] == CloseSession()
        assert cluster.state.sessions == {}
        assert [node.streams for node in cluster.nodes.values()] == [[], [], []]
        with pytest.raises(InvalidRequest, match="closed"):
            await client.get("app/x")

    run_scenario(scenario)


@pytest.mark.parametrize("error", ["InvalidRequest", "QueueFull", "SessionExpired", "NobodyKnows"])
def test_closing_ends_the_connections_whatever_the_group_says_of_the_session(error):
    async def scenario(cluster):
        client = await cluster.client()
        await client.put("app/x", "1")
        cluster["a"].rules.append(refuse(error))
        await client.close()
        assert [node.streams for node in cluster.nodes.values()] == [[], [], []]

    run_scenario(scenario)


def test_news_that_come_while_a_client_closes_open_no_connection():
    async def scenario(cluster):
        cluster["c"].refuses_connections = True
        client = await cluster.client()
        await client.get("app/x")
        (stream,) = cluster["b"].streams
        closing = asyncio.create_task(client.close())
        news = DirectoryResponse(0, cluster.routes)
        asyncio.get_running_loop().call_soon(stream._deliver, news, True)  # right after the closing has begun
        await closing
        connects = cluster.connects
        await asyncio.sleep(5)
        assert cluster.connects == connects

    run_scenario(scenario)


def test_closing_that_is_cancelled_still_ends_the_connections():
    async def scenario(cluster):
        client = await cluster.client()
        await client.put("app/x", "1")
        cluster["a"].rules.append(lose_request)
        closing = asyncio.create_task(client.close())
        await asyncio.sleep(0.2)
        closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing
        assert [node.streams for node in cluster.nodes.values()] == [[], [], []]

    run_scenario(scenario)


def test_closing_tells_each_call_under_way_what_is_known_of_it():
    async def scenario(cluster):
        client = await cluster.client()
        await client.put("app/x", "0")
        cluster["a"].rules.append(lose_answer)
        sent = asyncio.create_task(client.put("app/x", "1"))
        await asyncio.sleep(0.2)
        cluster.elect(None, 2)
        await asyncio.sleep(0.2)
        waiting = asyncio.create_task(client.put("app/x", "2"))
        unopened = asyncio.create_task(client.put("other/x", "3"))
        await asyncio.sleep(0.2)
        closing = asyncio.create_task(client.close())
        await asyncio.sleep(0.01)
        assert sent.done() and waiting.done() and unopened.done()
        results = await asyncio.gather(sent, waiting, unopened, return_exceptions=True)
        await closing
        assert [type(result) for result in results] == [ConnectionLost, Unavailable, Unavailable]

    run_scenario(scenario)


def test_a_lost_question_for_the_directory_is_asked_again():
    async def scenario(cluster):
        cluster["b"].directory_requests_lost = 1
        async with await cluster.client(timeout_s=3.0) as client:
            await client.put("app/x", "1")

    run_scenario(scenario)


def test_messages_that_come_with_the_greeting_are_heard():
    async def scenario(cluster):
        for node in cluster.nodes.values():
            node.tells_at_once = True
        async with await cluster.client() as client:
            await asyncio.wait_for(client.put("app/x", "1"), 0.5)

    run_scenario(scenario)


def test_a_connection_that_ends_while_it_is_opened_is_opened_again():
    async def scenario(cluster):
        cluster["b"].connections_that_die_early = 2
        async with await cluster.client() as client:
            await client.put("app/x", "1")
            assert client.statistics().reconnects == 0

    run_scenario(scenario)
