"""Tells people on standard error what a command waits for, once it takes a while."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from isochrone.errors import IsochroneError
from isochrone.ops.cli.progress_os import say

FIRST_S = 2.0
"""What takes no longer than this is not spoken of."""
AGAIN_S = 30.0


@asynccontextmanager
async def telling(describe: Callable[[], Awaitable[str]]) -> AsyncIterator[None]:
    """Say what `describe` finds out now and then, while the block lasts."""

    async def tell() -> None:
        pause_s = FIRST_S
        while True:
            await asyncio.sleep(pause_s)
            pause_s = AGAIN_S
            try:
                say(await describe())
            except IsochroneError as error:
                say(f"still waiting: {error}")

    task = asyncio.ensure_future(tell())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
