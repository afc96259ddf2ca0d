"""What travels together fails apart: whatever happens to a batch, each caller is told the truth about its own call."""

import asyncio
import random
from collections import Counter

import pytest
from session_cluster import (
    Cluster,
    Rule,
    answer_twice,
    execute_and_refuse,
    lose_answer,
    lose_request,
    refuse,
    run_scenario,
    serve,
    values,
)

from isochrone.client import Client
from isochrone.errors import Indeterminate, Rejected

RULES: list[Rule] = [
    answer_twice,
    execute_and_refuse("LeadershipLost"),
    execute_and_refuse("Indeterminate"),
    lose_answer,
    lose_request,
    refuse("NotLeader"),
    refuse("QueueFull"),
    refuse("Unavailable"),
]
CALLERS, CALLS = 12, 12


async def _disturb(cluster: Cluster, rng: random.Random) -> None:
    """Leaders change, streams break, and what else may happen to a request does."""
    for term in range(2, 14):
        await asyncio.sleep(rng.uniform(0.0, 0.6))
        for node in cluster.nodes.values():
            node.rules.extend(rng.choice([serve, serve, serve, *RULES]) for _ in range(rng.randrange(20)))
        match rng.randrange(4):
            case 0:
                cluster.elect(rng.choice("ab"), term, told=rng.choice(["abc", "a", "b"]))
            case 1:
                for stream in list(rng.choice(list(cluster.nodes.values())).streams):
                    stream.reset()
            case _:
                pass
    for node in cluster.nodes.values():
        node.rules.clear()
    cluster.elect("a", 99)


async def _call(client: Client, rng: random.Random, name: str, ends: dict[str, str]) -> None:
    """Write a key, read it back, and note what was told of each write."""
    told = -1
    for number in range(CALLS):
        value = f"{name}.{number}"
        put = asyncio.ensure_future(client.put(f"app/{name}", value, timeout_s=rng.choice([0.3, 1.0, 4.0])))
        if rng.random() < 0.15:
            asyncio.get_running_loop().call_later(rng.uniform(0, 0.3), put.cancel)
        try:
            await put
            ends[value], told = "written", number
        except Rejected:
            ends[value] = "rejected"
        except (Indeterminate, asyncio.CancelledError):
            ends[value] = "open"
        try:
            found = (await client.get(f"app/{name}", timeout_s=rng.choice([0.3, 1.0, 4.0]))).value
        except (Rejected, Indeterminate):
            continue
        assert told < 0 or (found is not None and int(found.split(b".")[1]) >= told), (
            "a write that was told is not read"
        )


@pytest.mark.parametrize("seed", range(25))
def test_every_caller_is_told_the_truth_of_its_own_call(seed: int) -> None:
    async def scenario(cluster: Cluster) -> None:
        rng = random.Random(seed)
        ends: dict[str, str] = {}
        async with await cluster.client(rng=random.Random(seed)) as client:
            callers = [_call(client, rng, f"caller{number}", ends) for number in range(CALLERS)]
            await asyncio.wait_for(asyncio.gather(_disturb(cluster, rng), *callers), 300)
        effects = Counter(value.decode() for value in values(cluster))
        assert max(effects.values()) == 1, "a write took effect twice"
        assert len(ends) == CALLERS * CALLS
        for value, end in ends.items():
            assert end != "written" or effects[value] == 1
            assert end != "rejected" or effects[value] == 0, f"{value} was rejected and took effect"

    run_scenario(scenario)
