"""All keys of a group as they were at one revision, some at a time, while writes and others' requests go on."""

import asyncio
from collections.abc import AsyncIterator
from itertools import islice

from isochrone.errors import RevisionCompacted
from isochrone.regions.state.model import GroupData
from isochrone.wire.records import record_key

SLICE_RECORDS = 1_000
"""So many records are handled before others have their turn."""


async def slices(data: GroupData, revision: int) -> AsyncIterator[list[bytes]]:
    """Records in lists that are not empty, in order of the keys.

    Raises:
        RevisionCompacted: a compaction has passed the revision, before or meanwhile.
    """
    for state in data.keyspaces.values():
        start = b""
        while True:
            if data.compacted > revision:
                raise RevisionCompacted(f"required revision {revision} has been compacted, up to {data.compacted}")
            records = list(islice(state.history.between(start, None, revision), SLICE_RECORDS))
            if not records:
                break
            start = record_key(records[-1]) + b"\0"
            yield records
            await asyncio.sleep(0)
