"""One timer for many: it goes off at the earliest time named, and not too often."""

import asyncio
import math

from virtual_time import run_virtual

from isochrone.client.alarm import SPACING_S, Alarm


def test_it_goes_off_at_the_earliest_time_named_and_once_for_all_that_are_due() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        waiting, looked = [0.3, 0.1, 0.2, 0.2 + SPACING_S / 2], list[float]()

        def look(now: float) -> float:
            looked.append(now)
            waiting[:] = [at for at in waiting if at > now]
            return min(waiting, default=math.inf)

        began = loop.time()
        waiting[:] = [began + at for at in waiting]
        alarm = Alarm(look)
        for at in waiting:
            alarm.set(at)
        await asyncio.sleep(1)
        assert [round(at - began, 4) for at in looked] == [0.1, 0.2, round(0.2 + SPACING_S, 4), 0.3]
        assert waiting == []

    run_virtual(main())


def test_it_is_silent_once_it_is_ended_or_nothing_waits() -> None:
    async def main() -> None:
        looked: list[float] = []

        def look(now: float) -> float:
            looked.append(now)
            return math.inf

        alarm = Alarm(look)
        alarm.set(asyncio.get_running_loop().time() + 1)
        await asyncio.sleep(3)
        assert len(looked) == 1
        alarm.set(asyncio.get_running_loop().time() + 1)
        alarm.end()
        await asyncio.sleep(3)
        assert len(looked) == 1

    run_virtual(main())
