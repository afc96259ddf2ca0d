"""A swarm: seed after seed in worker processes, until the time is over, and one seed at least.

Each run that does not hold is kept as a case file. The first one of each kind of failure is made smaller as well, by
the next worker that is free, before further seeds are begun. What is under way when the time is over, and shrinking
that has been asked for, is brought to its end.
"""

import asyncio
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, final

from isochrone.drills.sim.case import SimResult, SimVerdict
from isochrone.drills.sim.options import Mode
from isochrone.drills.sim.run_os import draw_case
from isochrone.drills.swarm.cases import failure_of
from isochrone.drills.swarm.jobs_os import Shrunk, run_seed, shrink_case
from isochrone.drills.swarm.kept_os import replay_command, write_case
from isochrone.drills.swarm.tally import KeptFailure, Tally
from isochrone.drills.swarm.workers_os import Worker, WorkerFailed
from isochrone.drills.workload import run_together

SHRINK_LIMIT_S = 60.0
SHRUNK_MAX = 10
"""Kinds of failure of which an example is made smaller: a swarm that finds more has found enough."""
KEPT_MAX = 20
"""Runs of each kind of failure that are kept; more of them are only counted."""
RUN_LIMIT_S = 600.0
"""A run that takes longer than this and its virtual duration hangs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SwarmPlan:
    """What a swarm runs."""

    minutes: float
    seeds: int | None
    """At most so many runs; None bounds them by time alone."""
    jobs: int
    """Worker processes."""
    first_seed: int
    mode: Mode
    topology: str | None
    duration_ms: int | None
    directory: Path
    """Where runs that do not hold are kept."""


@final
class Swarm:
    """See the module. `tally` holds what has been run, also if the swarm is cancelled."""

    def __init__(self, plan: SwarmPlan, say: Callable[[str], None]) -> None:
        self.plan = plan
        self.tally = Tally()
        self._say = say
        self._next_seed = plan.first_seed
        self._to_shrink: deque[tuple[SimResult, KeptFailure]] = deque()
        self._kinds: Counter[str] = Counter()
        """Runs that did not hold, by failure."""
        self._shrunk = 0

    async def run(self) -> None:
        """Run until the time is over or all seeds are run. Cancellation ends the workers.

        Raises:
            OSError: a case cannot be written, or a worker cannot be started.
        """
        begun_s = asyncio.get_running_loop().time()
        await run_together([self._work(begun_s) for _ in range(self.plan.jobs)])

    async def _work(self, begun_s: float) -> None:
        """What one worker process does."""
        loop = asyncio.get_running_loop()
        async with Worker[Any](RUN_LIMIT_S + (self.plan.duration_ms or 0) / 1000) as worker:
            while True:
                if self._to_shrink:
                    await self._shrink(worker, *self._to_shrink.popleft())
                elif self._goes_on(loop.time() - begun_s):
                    seed, self._next_seed = self._next_seed, self._next_seed + 1
                    self._take(await self._run(worker, seed))
                    self.tally.elapsed_s = loop.time() - begun_s
                else:
                    return

    def _goes_on(self, elapsed_s: float) -> bool:
        begun = self._next_seed - self.plan.first_seed
        if self.plan.seeds is not None and begun >= self.plan.seeds:
            return False
        return begun == 0 or elapsed_s < self.plan.minutes * 60

    async def _run(self, worker: Worker[SimResult], seed: int) -> SimResult:
        plan = self.plan
        try:
            return await worker.call(partial(run_seed, seed, plan.mode, plan.topology, plan.duration_ms))
        except WorkerFailed as error:
            return SimResult(
                case=draw_case(seed, plan.mode, plan.topology, plan.duration_ms),
                verdict=SimVerdict.CRASHED,
                reason=f"the worker: {error}",
                trace_hash="",
                virtual_s=0.0,
                wall_s=0.0,
                cpu_s=0.0,
                events=0,
            )

    def _take(self, result: SimResult) -> None:
        self.tally.add(result)
        if result.verdict is SimVerdict.HOLDS:
            return
        failure, seed = failure_of(result), result.case.options.seed
        self._kinds[failure] += 1
        if self._kinds[failure] > KEPT_MAX:
            return
        file = self.plan.directory / f"seed-{seed}.json"
        write_case(file, result)
        kept = self.tally.keep(result, str(file))
        last = "; more of the same are only counted" if self._kinds[failure] == KEPT_MAX else ""
        self._say(f"seed {seed}: {failure}; replay it with: {replay_command(file)}{last}")
        # Where the worker failed there is nothing to compare with; where a check gave up, more of the same is no news.
        comparable = result.trace_hash and result.verdict is not SimVerdict.UNKNOWN
        if comparable and self._kinds[failure] == 1 and self._shrunk < SHRUNK_MAX:
            self._shrunk += 1
            self._to_shrink.append((result, kept))

    async def _shrink(self, worker: Worker[Shrunk], result: SimResult, kept: KeptFailure) -> None:
        self._say(f"seed {kept.seed}: looking for a smaller case, for at most {SHRINK_LIMIT_S:g} s")
        try:
            shrunk = await worker.call(partial(shrink_case, result, SHRINK_LIMIT_S))
        except WorkerFailed as error:
            self._say(f"seed {kept.seed}: no smaller case: {str(error).splitlines()[-1]}")
            return
        file = self.plan.directory / f"seed-{kept.seed}-shrunk.json"
        write_case(file, shrunk.result)
        kept.shrunk = str(file)
        self._say(f"seed {kept.seed}: {describe_shrunk(result, shrunk)}; replay it with: {replay_command(file)}")


def describe_shrunk(first: SimResult, shrunk: Shrunk) -> str:
    """How much smaller a case became, in words."""
    before, after = first.case, shrunk.result.case
    ending = "" if shrunk.complete else ", and it could be smaller yet"
    return (
        f"{failure_of(first)} with {len(after.schedule)} of {len(before.schedule)} faults in "
        f"{after.options.duration_ms / 1000:g} of {before.options.duration_ms / 1000:g} s, "
        f"{after.options.rate_per_s:g} of {before.options.rate_per_s:g} operations per second "
        f"({shrunk.attempts} attempts{ending})"
    )
