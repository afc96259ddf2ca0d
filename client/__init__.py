"""The SDK: a typed asyncio client that finds leaders, repeats what was lost, and says what is certain.

::

    async with await Client.connect(["127.0.0.1:7001"], region="us-east-1") as client:
        await client.put("orders/1", "new")
        result = await client.get("orders/1")

`docs/sdk.md` is a guide with examples that run.
"""

from isochrone.client.answers import FOREVER
from isochrone.client.barriers import Barrier, DoubleBarrier
from isochrone.client.client import Client
from isochrone.client.elections import Election, Leader
from isochrone.client.fences import Dialect, FenceGate
from isochrone.client.held_together import HeldSession
from isochrone.client.kv import Kv
from isochrone.client.leases import Lease
from isochrone.client.lock_paths import PathLock
from isochrone.client.locks import Lock
from isochrone.client.members import Member, Membership, MembersView
from isochrone.client.queues import Claim, Queue, QueueItem, WorkQueue
from isochrone.client.results import (
    Executed,
    Provenance,
    Queried,
    ReadResult,
    StaleRange,
    Statistics,
    WriteResult,
)
from isochrone.client.watches import Watcher, WatchEvent, WatchGap
from isochrone.wire.locks import LockMode

__all__ = [
    "FOREVER",
    "Barrier",
    "Claim",
    "Client",
    "Dialect",
    "DoubleBarrier",
    "Election",
    "Executed",
    "FenceGate",
    "HeldSession",
    "Kv",
    "Leader",
    "Lease",
    "Lock",
    "LockMode",
    "Member",
    "MembersView",
    "Membership",
    "PathLock",
    "Provenance",
    "Queried",
    "Queue",
    "QueueItem",
    "ReadResult",
    "StaleRange",
    "Statistics",
    "WatchEvent",
    "WatchGap",
    "Watcher",
    "WorkQueue",
    "WriteResult",
]
