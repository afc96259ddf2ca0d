"""Calls of the SDK under faults of nodes and links: leader changes, lost frames, silent and broken connections."""

import asyncio

import pytest
from session_cluster import (
    answer_twice,
    lose_answer,
    lose_request,
    now,
    refuse,
    run_scenario,
    serve,
    started,
    values,
)

from isochrone.errors import (
    DeadlineExceeded,
    Unavailable,
)

# Leader changes


def test_without_a_leader_a_call_waits_unsent_and_goes_out_at_the_news():
    async def scenario(cluster):
        async with await cluster.client() as client:
            before = await started(client, cluster)
            cluster.elect(None, 2)
            await asyncio.sleep(0.2)
            call = asyncio.create_task(client.put("app/x", "1"))
            await asyncio.sleep(5)
            assert client.statistics().attempts == before.attempts
            cluster.elect("b", 3)
            elected = now()
            assert (await call).replica == "b"
            assert now() - elected < 0.2
            assert client.statistics().attempts == before.attempts + 1

    run_scenario(scenario)


def test_a_pending_write_moves_to_a_new_leader_at_once_and_takes_effect_once():
    async def scenario(cluster):
        async with await cluster.client() as client:
            before = await started(client, cluster)
            cluster["a"].rules.append(lose_answer)
            call = asyncio.create_task(client.put("app/x", "1"))
            await asyncio.sleep(0.2)
            cluster["a"].cut = True
            cluster.elect("b", 2, told="bc")
            elected = now()
            result = await call
            assert now() - elected < 0.2
            assert (result.replica, result.succeeded) == ("b", True)
            statistics = client.statistics()
            assert statistics.retransmissions == before.retransmissions + 1
            assert statistics.leader_changes == before.leader_changes + 1
        assert values(cluster) == [b"1"]
        assert cluster["a"].commands()[-1] == cluster["b"].commands()[0]

    run_scenario(scenario)


def test_a_lost_push_is_made_good_by_the_next_ping():
    async def scenario(cluster):
        async with await cluster.client() as client:
            await started(client, cluster)
            cluster.elect(None, 2)
            await asyncio.sleep(0.2)
            call = asyncio.create_task(client.put("app/x", "1"))
            await asyncio.sleep(0.2)
            for node in cluster.nodes.values():
                node.believe(3, "b", push=False)
            elected = now()
            await call
            assert now() - elected < 1.5

    run_scenario(scenario)


def test_a_hint_is_followed_at_once():
    async def scenario(cluster):
        async with await cluster.client() as client:
            before = await started(client, cluster)
            for node in cluster.nodes.values():
                node.believe(2, "b", push=False)
            begun = now()
            assert (await client.put("app/x", "1")).replica == "b"
            assert now() - begun < 0.25
            assert client.statistics().attempts == before.attempts + 2
        assert values(cluster) == [b"1"]

    run_scenario(scenario)


def test_two_nodes_that_name_each_other_are_not_asked_in_a_loop():
    async def scenario(cluster):
        async with await cluster.client() as client:
            before = await started(client, cluster)
            cluster["a"].rules.extend([refuse("NotLeader", "b")] * 1000)
            cluster["b"].rules.extend([refuse("NotLeader", "a")] * 1000)
            with pytest.raises(Unavailable, match="refused every attempt"):
                await client.put("app/x", "1", timeout_s=10.0)
            assert 10 < client.statistics().attempts - before.attempts < 50
        assert values(cluster) == []

    run_scenario(scenario)


def test_a_leader_that_refuses_for_want_of_a_quorum_is_asked_again_after_a_while():
    async def scenario(cluster):
        async with await cluster.client() as client:
            await started(client, cluster)
            cluster["a"].rules.extend([refuse("NotLeader", None), refuse("Unavailable")])
            begun = now()
            assert (await client.put("app/x", "1")).replica == "a"
            assert now() - begun < 0.5

    run_scenario(scenario)


def test_a_leading_witness_is_not_asked():
    async def scenario(cluster):
        async with await cluster.client() as client:
            await started(client, cluster)
            cluster.elect("c", 2)
            await asyncio.sleep(0.2)
            call = asyncio.create_task(client.put("app/x", "1"))
            await asyncio.sleep(2)
            assert cluster["c"].requests == []
            cluster.elect("b", 3)
            assert (await call).replica == "b"

    run_scenario(scenario)


def test_a_leader_that_resigns_is_no_longer_asked():
    async def scenario(cluster):
        async with await cluster.client() as client:
            before = await started(client, cluster)
            cluster["a"].believe(1, None)
            await asyncio.sleep(0.2)
            with pytest.raises(Unavailable, match=r"no leader is known.*nothing was sent"):
                await client.put("app/x", "1", timeout_s=3.0)
            assert client.statistics().attempts == before.attempts

    run_scenario(scenario)


# Lost and repeated frames


@pytest.mark.parametrize("rule", [lose_request, lose_answer])
def test_a_write_that_is_not_answered_is_sent_again_and_takes_effect_once(rule):
    async def scenario(cluster):
        async with await cluster.client() as client:
            before = await started(client, cluster)
            cluster["a"].rules.append(rule)
            begun = now()
            assert (await client.put("app/x", "1")).sequence == 2
            assert 1.0 < now() - begun < 1.5
            assert client.statistics().retransmissions == before.retransmissions + 1
        first, second = cluster["a"].commands()[-2:]
        assert first == second
        assert values(cluster) == [b"1"]

    run_scenario(scenario)


def test_retransmissions_grow_rarer():
    async def scenario(cluster):
        async with await cluster.client() as client:
            before = await started(client, cluster)
            cluster["a"].rules.extend([lose_answer] * 1000)
            with pytest.raises(DeadlineExceeded):
                await client.put("app/x", "1", timeout_s=60.0)
            assert client.statistics().attempts - before.attempts == 6  # at 0, 1, 3, 7, 15, 31 s
        assert values(cluster) == [b"1"]

    run_scenario(scenario)


def test_a_group_that_is_slow_is_given_more_time():
    async def scenario(cluster):
        def late(seconds):
            return lambda *request: asyncio.get_running_loop().call_later(seconds, serve, *request)

        async with await cluster.client() as client:
            await started(client, cluster)
            cluster["a"].rules.extend([late(0.8)] * 20 + [late(2.0)])
            await asyncio.gather(*(client.put("app/x", "1") for _ in range(20)))
            await client.put("app/x", "2")
            assert client.statistics().retransmissions == 0
        assert len(values(cluster)) == 21

    run_scenario(scenario)


def test_a_repeated_answer_is_ignored():
    async def scenario(cluster):
        async with await cluster.client() as client:
            await started(client, cluster)
            cluster["a"].rules.append(answer_twice)
            assert (await client.put("app/x", "1")).sequence == 2
            assert (await client.put("app/x", "2")).sequence == 3
        assert values(cluster) == [b"1", b"2"]

    run_scenario(scenario)


def test_a_late_refusal_that_comes_with_the_answer_is_ignored():
    async def scenario(cluster):
        def answer_and_refuse_the_first(node, stream, message):
            serve(node, stream, message)
            refuse("Unavailable")(node, stream, node.requests[-2])

        async with await cluster.client() as client:
            await started(client, cluster)
            cluster["a"].rules.extend([lose_answer, answer_and_refuse_the_first])
            assert (await client.put("app/x", "1")).sequence == 2
            assert (await client.put("app/x", "2")).sequence == 3

    run_scenario(scenario)


def test_a_late_refusal_does_not_disturb_the_attempt_that_followed():
    async def scenario(cluster):
        async with await cluster.client() as client:
            before = await started(client, cluster)
            late = refuse("NotLeader", None)
            cluster["a"].rules.append(lambda *request: asyncio.get_running_loop().call_later(0.3, late, *request))
            cluster["b"].rules.append(lambda *request: asyncio.get_running_loop().call_later(0.9, serve, *request))
            call = asyncio.create_task(client.put("app/x", "1"))
            await asyncio.sleep(0.1)
            cluster.elect("b", 2)
            assert (await call).replica == "b"
            assert client.statistics().attempts == before.attempts + 2
        assert values(cluster) == [b"1"]

    run_scenario(scenario)


def test_an_opening_that_is_not_answered_is_repeated():
    async def scenario(cluster):
        cluster["a"].rules.append(lose_answer)
        async with await cluster.client() as client:
            assert (await client.put("app/x", "1")).session == 2
            assert client.statistics().sessions_opened == 1
        assert values(cluster) == [b"1"]

    run_scenario(scenario)


# Connections


def test_a_broken_connection_is_opened_again_and_the_write_finds_its_result():
    async def scenario(cluster):
        async with await cluster.client() as client:
            before = await started(client, cluster)
            cluster["a"].rules.append(lose_answer)
            call = asyncio.create_task(client.put("app/x", "1"))
            await asyncio.sleep(0.2)
            cluster["a"].streams[0].reset()
            broken = now()
            assert (await call).sequence == 2
            assert now() - broken < 0.3  # A delay to connect again, two to connect, two for the answer.
            assert client.statistics().reconnects == before.reconnects + 1
        assert values(cluster) == [b"1"]

    run_scenario(scenario)


def test_a_silent_connection_is_given_up_and_opened_anew():
    async def scenario(cluster):
        async with await cluster.client(timeout_s=30.0) as client:
            before = await started(client, cluster)
            [stream] = cluster["a"].streams
            stream.is_open = False  # The node forgot it; the client is not told.
            cluster["a"].streams.remove(stream)
            begun = now()
            assert (await client.put("app/x", "1")).succeeded
            assert now() - begun < 6
            assert client.statistics().reconnects == before.reconnects + 1
        assert values(cluster) == [b"1"]

    run_scenario(scenario)


def test_a_silent_connection_is_found_without_any_call():
    async def scenario(cluster):
        async with await cluster.client() as client:
            before = await started(client, cluster)
            cluster["a"].cut = True
            await asyncio.sleep(20)
            assert cluster["a"].streams == []
            cluster["a"].cut = False
            await asyncio.sleep(5)
            assert client.statistics().reconnects == before.reconnects + 1

    run_scenario(scenario)


def test_an_idle_client_pings_seldom_and_keeps_its_connections():
    async def scenario(cluster):
        async with await cluster.client() as client:
            before = await started(client, cluster)
            pings = cluster["a"].pings
            await asyncio.sleep(100)
            assert 15 <= cluster["a"].pings - pings <= 21
            assert client.statistics().reconnects == before.reconnects

    run_scenario(scenario)


def test_a_node_that_refuses_connections_is_tried_ever_less_often():
    async def scenario(cluster):
        async with await cluster.client() as client:
            await started(client, cluster)
            cluster["a"].refuses_connections = True
            cluster["a"].streams[0].reset()
            connects = cluster.connects
            await asyncio.sleep(60)
            assert 50 < cluster.connects - connects < 120
            cluster["a"].refuses_connections = False
            assert (await client.put("app/x", "1")).replica == "a"
            await asyncio.sleep(2)
            cluster["a"].streams[0].reset()
            again = now()
            await client.put("app/x", "2")
            assert now() - again < 0.3

    run_scenario(scenario)


def test_a_node_that_ends_every_stream_at_once_is_tried_ever_less_often():
    async def scenario(cluster):
        async with await cluster.client() as client:
            await started(client, cluster)
            connects = cluster.connects
            until = now() + 60
            while now() < until:
                for stream in list(cluster["a"].streams):
                    stream.reset()
                await asyncio.sleep(0.02)
            assert 40 < cluster.connects - connects < 120

    run_scenario(scenario)
