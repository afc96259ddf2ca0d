"""The SDK: a typed asyncio client that finds leaders, repeats what was lost, and says what is certain.

::

    async with await Client.connect(["127.0.0.1:7001"], region="us-east-1") as client:
        await client.put("orders/1", "new")
        result = await client.get("orders/1")
"""

from isochrone.client.client import Client
from isochrone.client.elections import Election, Leader
from isochrone.client.fences import Dialect, FenceGate
from isochrone.client.held_together import HeldSession
from isochrone.client.kv import Kv
from isochrone.client.leases import Lease
from isochrone.client.locks import Lock
from isochrone.client.results import Executed, Provenance, Queried, ReadResult, Statistics, WriteResult
from isochrone.client.watches import Watcher, WatchEvent, WatchGap

__all__ = [
    "Client",
    "Dialect",
    "Election",
    "Executed",
    "FenceGate",
    "HeldSession",
    "Kv",
    "Leader",
    "Lease",
    "Lock",
    "Provenance",
    "Queried",
    "ReadResult",
    "Statistics",
    "WatchEvent",
    "WatchGap",
    "Watcher",
    "WriteResult",
]
