"""How simulated cases fail, and how they are made smaller. Pure.

A smaller case counts only if it fails in the same way: with the same verdict and, for a violation, the same invariant
or check, or the same exception from the same function. Otherwise shrinking would slide from one fault to another.
"""

import re
from collections.abc import Callable
from dataclasses import replace
from functools import partial

from isochrone.drills.sim.case import Case, SimResult, SimVerdict
from isochrone.drills.sim.schedule import Schedule
from isochrone.drills.swarm.shrink import Pass, Shrinker, drop_items, lower_number

DURATION_MS_MIN = 1_000
"""Shortest safety phase that is tried; options allow no shorter one."""

_RAISED = re.compile(r'^ *File "[^"\n]*", line \d+, in (\S+)\n(?: {4,}.*\n)*(\w[\w.]*)(?::|$)', re.MULTILINE)
"""The last frame of a traceback, and the class of what was raised there."""


def failure_of(result: SimResult) -> str:
    """A name for the way in which a run failed; runs that fail alike have the same. For one that did not, its verdict.

    Examples: `violation: one leader per term`, `violation: KeyError in apply`, `no progress`.
    """
    if result.verdict not in (SimVerdict.VIOLATION, SimVerdict.CRASHED):
        return result.verdict.value
    raised = _RAISED.findall(result.reason)
    if raised:
        function, error = raised[-1]
        return f"{result.verdict}: {error.rpartition('.')[2]} in {function}"
    return f"{result.verdict}: {result.reason.partition(':')[0]}"


def _with_duration(case: Case, duration_ms: int) -> Case:
    """The case with a shorter safety phase; faults end with it at the latest."""
    schedule = tuple(
        replace(fault, duration_ms=min(fault.duration_ms, duration_ms - fault.at_ms))
        for fault in case.schedule
        if fault.at_ms < duration_ms
    )
    return replace(case, options=replace(case.options, duration_ms=duration_ms), schedule=schedule)


def _with_schedule(case: Case, schedule: Schedule) -> Case:
    return replace(case, schedule=schedule)


def _with_rate(case: Case, rate_per_s: int) -> Case:
    return replace(case, options=replace(case.options, rate_per_s=float(rate_per_s)))


def _shorten_faults(shrinker: Shrinker[Case]) -> None:
    """Shorten each fault."""
    for number in range(len(shrinker.best.schedule)):

        def duration_ms(case: Case, number: int = number) -> int:
            return case.schedule[number].duration_ms

        def with_duration(case: Case, duration_ms: int, number: int = number) -> Case:
            before, fault, after = case.schedule[:number], case.schedule[number], case.schedule[number + 1 :]
            return replace(case, schedule=(*before, replace(fault, duration_ms=duration_ms), *after))

        lower_number(shrinker, duration_ms, with_duration, floor=1)


def _calm_options(shrinker: Shrinker[Case]) -> None:
    """Take what makes the world unkind away, one thing after another."""
    calm: tuple[Callable[[Case], Case], ...] = (
        # What faults were drawn from is of no interest once they are there.
        lambda case: replace(case, options=replace(case.options, fault_weights=())),
        lambda case: replace(case, options=replace(case.options, coordination=False)),
        lambda case: replace(case, options=replace(case.options, recipes=False)),
        lambda case: replace(case, options=replace(case.options, shuffle=False)),
        lambda case: replace(case, options=replace(case.options, small_limits=False)),
        lambda case: replace(case, options=replace(case.options, small_logs=False)),
        lambda case: replace(case, options=replace(case.options, log_cap_bytes=0)),
        lambda case: replace(case, options=replace(case.options, lease_reads=False)),
        lambda case: replace(case, options=replace(case.options, prefers_one=False)),
        lambda case: replace(case, options=replace(case.options, quorum_shift=0)),
        lambda case: replace(case, options=replace(case.options, loss=0.0)),
        lambda case: replace(case, options=replace(case.options, duplicate=0.0)),
        lambda case: replace(case, options=replace(case.options, reorder=0.0)),
        lambda case: replace(case, options=replace(case.options, jitter=0.0)),
        lambda case: replace(case, options=replace(case.options, clock_offset_ms_max=0.0)),
        lambda case: replace(case, options=replace(case.options, clocks_honest=True)),
        lambda case: replace(case, options=replace(case.options, sync_ms_max=case.options.sync_ms_min)),
    )
    for each in calm:
        shrinker.attempt(each(shrinker.best))


PASSES: tuple[Pass[Case], ...] = (
    partial(
        lower_number,
        number_of=lambda case: case.options.duration_ms,
        with_number=_with_duration,
        floor=DURATION_MS_MIN,
    ),
    partial(drop_items, items_of=lambda case: case.schedule, with_items=_with_schedule),
    partial(lower_number, number_of=lambda case: int(case.options.rate_per_s), with_number=_with_rate, floor=1),
    _calm_options,
    _shorten_faults,
)
"""What is tried, in order: what makes every further attempt cheaper comes first."""
