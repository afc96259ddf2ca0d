"""When sockets send what has gathered: in the next turn of the loop, or at the end of work that is known to be all.

To wait a turn of the loop lets more gather, and costs that turn: the loop asks the system for news meanwhile. Whoever
does the work of a whole process in turns of its own knows better when there is nothing left to gather.
"""

import asyncio
from collections.abc import Callable
from typing import TypeVar, final

T = TypeVar("T")


@final
class Departures:
    """Those of the sockets of one event loop, in whose thread all methods are called."""

    def __init__(self) -> None:
        self._working = False
        self._waiting: list[Callable[[], None]] = []

    def soon(self, flush: Callable[[], None]) -> None:
        """Have a socket send what it has: at the end of the work that runs, or in the next turn of the loop."""
        if self._working:
            self._waiting.append(flush)
        else:
            asyncio.get_running_loop().call_soon(flush)

    def together(self, work: Callable[[], T]) -> T:
        """Work, and have all sockets that then have something to send do so. Not to be called from within itself.

        Raises what the work raises. What a socket raises is not the work's: the loop is told, as in `soon`.
        """
        self._working = True
        try:
            return work()
        finally:
            self._working = False
            self._flush_all()

    def _flush_all(self) -> None:
        waiting, self._waiting = self._waiting, []
        for flush in waiting:
            try:
                flush()
            except Exception as error:
                told = {"message": f"a socket cannot send: {flush}", "exception": error}
                asyncio.get_running_loop().call_exception_handler(told)
