"""What callers are told: sessions, places, deadlines, refusals, cancellation."""

import asyncio

import pytest
from session_cluster import (
    DELAY_S,
    execute_and_refuse,
    lose_answer,
    lose_request,
    now,
    refuse,
    run_scenario,
    started,
    values,
)

from isochrone.client.writer import QUEUE_LENGTH_MAX
from isochrone.errors import (
    ConnectionLost,
    DeadlineExceeded,
    Indeterminate,
    InvalidRequest,
    LeadershipLost,
    LockHeld,
    QueueFull,
    SessionExpired,
    Unavailable,
)
from isochrone.wire.commands import SESSION_IN_FLIGHT_MAX, decode_command, encode_result
from isochrone.wire.kv import PUT, TXN
from isochrone.wire.session import ReadsAnswer, WriteAnswer

# Sessions


def test_an_expired_session_is_replaced_without_the_caller_noticing():
    async def scenario(cluster):
        async with await cluster.client() as client:
            await started(client, cluster)
            cluster.state.sessions.clear()
            results = await asyncio.gather(*(client.put("app/x", str(number)) for number in range(5)))
            assert [result.session for result in results] == [2] * 5
            assert client.statistics().sessions_opened == 2
        assert sorted(values(cluster)) == [b"0", b"1", b"2", b"3", b"4"]

    run_scenario(scenario)


def test_a_session_that_expires_between_two_attempts_leaves_the_outcome_open():
    async def scenario(cluster):
        async with await cluster.client() as client:
            await started(client, cluster)
            cluster["a"].rules.append(lose_answer)
            call = asyncio.create_task(client.put("app/x", "1"))
            await asyncio.sleep(0.2)
            cluster.state.sessions.clear()
            with pytest.raises(SessionExpired):
                await call
            before = client.statistics()
            assert (await client.put("app/x", "2")).session == 2
            assert client.statistics().attempts == before.attempts + 2
        assert values(cluster) == [b"1", b"2"]

    run_scenario(scenario)


def test_a_session_that_expired_after_sure_refusals_is_replaced():
    async def scenario(cluster):
        async with await cluster.client() as client:
            await started(client, cluster)
            cluster["a"].rules.append(refuse("Unavailable"))
            cluster.state.sessions.clear()
            assert (await client.put("app/x", "1")).session == 2
        assert values(cluster) == [b"1"]

    run_scenario(scenario)


def test_a_session_has_a_bounded_number_of_writes_in_flight():
    async def scenario(cluster):
        async with await cluster.client(timeout_s=60.0) as client:
            await started(client, cluster)
            cluster["a"].rules.append(lose_answer)
            writes = [asyncio.create_task(client.put("app/x", str(n))) for n in range(SESSION_IN_FLIGHT_MAX + 10)]
            await asyncio.sleep(0.9)
            assert len(values(cluster)) == SESSION_IN_FLIGHT_MAX
            await asyncio.sleep(1.0)  # The first write is sent again, is answered, and makes room.
            results = await asyncio.gather(*writes)
            assert max(result.sequence for result in results) == SESSION_IN_FLIGHT_MAX + 11
        assert sorted(values(cluster), key=int) == [str(n).encode() for n in range(SESSION_IN_FLIGHT_MAX + 10)]

    run_scenario(scenario)


def test_a_write_that_finds_no_place_in_time_was_not_sent():
    async def scenario(cluster):
        async with await cluster.client() as client:
            await started(client, cluster)
            cluster["a"].rules.append(lose_answer)
            writes = [asyncio.create_task(client.put("app/x", "1")) for _ in range(SESSION_IN_FLIGHT_MAX)]
            await asyncio.sleep(0.2)
            with pytest.raises(Unavailable, match="no place in the session"):
                await client.put("app/x", "2", timeout_s=0.5)
            await asyncio.gather(*writes)
        assert b"2" not in values(cluster)

    run_scenario(scenario)


def test_the_queue_for_places_is_bounded():
    async def scenario(cluster):
        async with await cluster.client() as client:
            cluster.elect(None, 2)
            await asyncio.sleep(0.2)
            writes = [asyncio.create_task(client.put("app/x", "1")) for _ in range(QUEUE_LENGTH_MAX)]
            await asyncio.sleep(0)
            with pytest.raises(QueueFull, match="wait already"):
                await client.put("app/x", "2")
            cluster.elect("a", 3)
            await asyncio.gather(*writes)
        assert len(values(cluster)) == QUEUE_LENGTH_MAX

    run_scenario(scenario)


def test_when_no_session_can_be_opened_the_write_was_not_applied():
    async def scenario(cluster):
        cluster["a"].rules.extend([lose_answer] * 10)
        async with await cluster.client() as client:
            with pytest.raises(Unavailable, match="session"):
                await client.put("app/x", "1", timeout_s=2.0)
            cluster["a"].rules.clear()
            assert (await client.put("app/x", "2")).succeeded
        assert values(cluster) == [b"2"]

    run_scenario(scenario)


def test_a_refusal_to_open_a_session_reaches_the_caller_at_once():
    async def scenario(cluster):
        cluster["a"].rules.append(refuse("QueueFull"))
        async with await cluster.client() as client:
            begun = now()
            with pytest.raises(QueueFull):
                await client.put("app/x", "1")
            assert now() - begun < 1
            assert (await client.put("app/x", "2")).succeeded

    run_scenario(scenario)


# Errors and deadlines


def test_a_deadline_that_passes_before_anything_was_sent_is_a_rejection():
    async def scenario(cluster):
        async with await cluster.client() as client:
            await started(client, cluster)
            cluster.elect(None, 2)
            await asyncio.sleep(0.2)
            begun = now()
            with pytest.raises(Unavailable, match="nothing was sent"):
                await client.put("app/x", "1", timeout_s=3.0)
            assert now() - begun == pytest.approx(3.0)
            with pytest.raises(Unavailable, match="nothing was sent"):
                await client.get("app/x", timeout_s=3.0)

    run_scenario(scenario)


def test_a_deadline_that_passes_after_sending_leaves_the_outcome_open():
    async def scenario(cluster):
        async with await cluster.client() as client:
            await started(client, cluster)
            cluster["a"].rules.extend([lose_answer] * 20)
            begun = now()
            with pytest.raises(DeadlineExceeded):
                await client.put("app/x", "1", timeout_s=2.5)
            assert now() - begun == pytest.approx(2.5)
            with pytest.raises(DeadlineExceeded):
                await client.get("app/x", timeout_s=2.5)
        assert values(cluster) == [b"1"]

    run_scenario(scenario)


def test_a_write_given_up_does_not_hold_back_the_mark():
    async def scenario(cluster):
        async with await cluster.client() as client:
            await started(client, cluster)
            cluster["a"].rules.append(lose_request)
            with pytest.raises(DeadlineExceeded):
                await client.put("app/x", "1", timeout_s=0.5)
            await client.put("app/x", "2")
        last = cluster["a"].commands()[-1]
        assert (last.sequence, last.acknowledged) == (3, 2)
        assert values(cluster) == [b"2"]

    run_scenario(scenario)


def test_a_sure_refusal_reaches_the_caller_as_its_class():
    async def scenario(cluster):
        async with await cluster.client() as client:
            before = await started(client, cluster)
            cluster["a"].rules.append(refuse("QueueFull"))
            with pytest.raises(QueueFull, match=r"as the test wants \(from a\)"):
                await client.put("app/x", "1")
            assert client.statistics().attempts == before.attempts + 1

    run_scenario(scenario)


def test_a_sure_refusal_does_not_hide_an_earlier_attempt_that_took_effect():
    async def scenario(cluster):
        async with await cluster.client() as client:
            await started(client, cluster)
            cluster["a"].rules.append(lose_answer)
            cluster["a"].rules.extend([refuse("QueueFull")] * 1000)
            with pytest.raises(DeadlineExceeded):
                await client.put("app/x", "1")
        assert values(cluster) == [b"1"]

    run_scenario(scenario)


def test_a_stored_refusal_is_told_though_an_earlier_attempt_was_not_answered():
    async def scenario(cluster):
        async with await cluster.client() as client:
            await started(client, cluster)
            cluster["a"].rules.extend([lose_request, refuse("LockHeld", stored=True)])
            with pytest.raises(LockHeld):
                await client.put("app/x", "1")
            await client.put("app/x", "2")
        assert [command.sequence for command in cluster["a"].commands()[1:]] == [2, 2, 3]
        assert cluster["a"].commands()[-1].acknowledged == 2

    run_scenario(scenario)


def test_lost_leadership_is_settled_by_the_stored_result():
    async def scenario(cluster):
        async with await cluster.client() as client:
            await started(client, cluster)
            cluster["a"].rules.append(execute_and_refuse("LeadershipLost"))
            call = asyncio.create_task(client.put("app/x", "1"))
            await asyncio.sleep(0.12)
            cluster.elect("b", 2)
            assert (await call).replica == "b"
        assert values(cluster) == [b"1"]

    run_scenario(scenario)


def test_lost_leadership_without_a_successor_stays_open():
    async def scenario(cluster):
        async with await cluster.client() as client:
            await started(client, cluster)
            cluster["a"].rules.append(execute_and_refuse("LeadershipLost"))
            call = asyncio.create_task(client.put("app/x", "1", timeout_s=3.0))
            cluster.elect(None, 2)
            with pytest.raises(DeadlineExceeded) as caught:
                await call
            assert isinstance(caught.value.__cause__, LeadershipLost)

    run_scenario(scenario)


@pytest.mark.parametrize("name", ["FutureError", "Indeterminate", "IsochroneError", "InvariantViolation"])
def test_an_error_that_says_nothing_of_the_effect_is_indeterminate(name):
    async def scenario(cluster):
        async with await cluster.client() as client:
            await started(client, cluster)
            cluster["a"].rules.append(refuse(name))
            with pytest.raises(Indeterminate):
                await client.put("app/x", "1")

    run_scenario(scenario)


def test_an_answer_of_another_kind_leaves_the_outcome_open():
    def answer_as_reads(node, stream, message):
        stream.push(ReadsAnswer(message.requests[0], node.name, 1, None, (b"",), ()))

    def answer_as_writes(node, stream, message):
        stream.push(WriteAnswer((message.request,), node.name, 1, (b"",)))

    async def scenario(cluster):
        async with await cluster.client() as client:
            await started(client, cluster)
            for rule, call in ((answer_as_reads, client.put("app/x", "1")), (answer_as_writes, client.get("app/x"))):
                cluster["a"].rules.append(rule)
                with pytest.raises(Indeterminate, match="a answered what was not asked"):
                    await call
            assert client.statistics().errors == {"Indeterminate": 2}
            await client.put("app/x", "2")
        last = cluster["a"].commands()[-1]
        assert (last.sequence, last.acknowledged) == (3, 2)

    run_scenario(scenario)


def test_a_result_that_this_release_does_not_know_leaves_the_outcome_open():
    unknown = [
        encode_result((99, 1, 10)),
        encode_result((PUT, 1)),
        encode_result((TXN, 1, 10, True, [(99, 1)])),
        b"\xc1",
    ]

    async def scenario(cluster):
        async with await cluster.client() as client:
            await started(client, cluster)
            for number, payload in enumerate(unknown):

                def answer(node, stream, message, payload=payload):
                    node.cluster.state.apply(decode_command(message.commands[0]))
                    stream.push(WriteAnswer(message.requests, node.name, 1, (payload,)))

                cluster["a"].rules.append(answer)
                with pytest.raises(Indeterminate, match="malformed result"):
                    await client.put("app/x", str(number))
        assert values(cluster) == [b"0", b"1", b"2", b"3"]

    run_scenario(scenario)


def test_a_write_that_cannot_be_sent_does_not_hold_back_the_mark():
    async def scenario(cluster):
        async with await cluster.client() as client:
            await started(client, cluster)
            with pytest.raises(InvalidRequest, match="64 bits"):
                await client.kv.put("app/x", "1", lease=1 << 64)
            await client.put("app/x", "2")
        last = cluster["a"].commands()[-1]
        assert (last.sequence, last.acknowledged) == (3, 2)

    run_scenario(scenario)


def test_cancellation_leaves_nothing_behind():
    async def scenario(cluster):
        async with await cluster.client() as client:
            await started(client, cluster)
            cluster["a"].rules.append(lose_answer)
            sent = asyncio.create_task(client.put("app/x", "1"))
            await asyncio.sleep(0.2)
            cluster.elect(None, 2)
            await asyncio.sleep(0.2)
            unsent = asyncio.create_task(client.put("app/x", "2"))
            unopened = asyncio.create_task(client.put("other/x", "3"))
            await asyncio.sleep(0.2)
            for task in (sent, unsent, unopened):
                task.cancel()
            await asyncio.gather(sent, unsent, unopened, return_exceptions=True)
            assert all(task.cancelled() for task in (sent, unsent, unopened))
            cluster.elect("b", 3)
            await asyncio.sleep(2)
            assert not client._dispatcher.busy
            assert not client._dispatcher._pending
            await client.put("app/x", "4")
        last = cluster["b"].commands()[-1]
        assert (last.sequence, last.acknowledged) == (4, 3)
        assert values(cluster) == [b"1", b"4"]

    run_scenario(scenario)


@pytest.mark.parametrize("turns", range(6))
def test_a_call_cancelled_at_the_moment_it_gets_its_place_gives_it_back(turns):
    async def scenario(cluster):
        async with await cluster.client() as client:
            call = asyncio.create_task(client.put("app/x", "1"))
            # Connecting takes two delays, opening the session two more; a few turns later the call has its place.
            await asyncio.sleep(4 * DELAY_S)
            for _ in range(turns):
                await asyncio.sleep(0)
            call.cancel()
            await asyncio.gather(call, return_exceptions=True)
            await client.put("app/x", "2")
        last = cluster["a"].commands()[-1]
        assert last.acknowledged == last.sequence - 1

    run_scenario(scenario)


def test_connection_loss_on_close_is_indeterminate_only_for_what_was_sent():
    async def scenario(cluster):
        client = await cluster.client()
        await started(client, cluster)
        cluster["a"].rules.append(lose_answer)
        call = asyncio.create_task(client.get("app/x"))
        await asyncio.sleep(0.2)
        await client.close()
        with pytest.raises(ConnectionLost):
            await call

    run_scenario(scenario)
