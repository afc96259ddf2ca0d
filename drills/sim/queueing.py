"""Puts items into a queue of a keyspace, and takes the first ones, noting what it was told."""

import random
from collections.abc import Callable

from isochrone.client import Client
from isochrone.client.results import Executed
from isochrone.drills.checkers.queues import QueueCall
from isochrone.errors import Indeterminate, Rejected
from isochrone.wire.kv import prefix_end
from isochrone.wire.locks import KeyResult, PutSequential, TakeFirst

TIMEOUT_S = 3.0


def queue_of(keyspace: str) -> str:
    """The prefix of a keyspace's queue."""
    return f"{keyspace}queue/"


async def use_queue(
    client: Client, keyspace: str, rng: random.Random, now_ns: Callable[[], int], calls: list[QueueCall]
) -> None:
    """Put some items, and take some; each question is noted in `calls`."""
    queue = queue_of(keyspace)
    for _ in range(rng.randrange(1, 4)):
        put, asked_ns = rng.random() < 0.5, now_ns()
        operation = PutSequential(queue.encode(), b"") if put else TakeFirst(queue.encode(), prefix_end(queue.encode()))
        answered: Executed | None = None
        try:
            answered = await client.execute(queue, operation, timeout_s=TIMEOUT_S)
        except Rejected:
            continue  # It had no effect.
        except Indeterminate:
            pass
        key = answered.result.key if answered is not None and isinstance(answered.result, KeyResult) else None
        answered_ns = None if answered is None else now_ns()
        calls.append(QueueCall(queue=queue, put=put, asked_ns=asked_ns, answered_ns=answered_ns, key=key))
