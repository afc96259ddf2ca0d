"""Heartbeat and election timers from the round trips between voters, and what makes a setting unsafe.

- heartbeat = max(100 ms, tail RTT between voters), so that an answer is back before the next heartbeat leaves;
- base T of the election timeout = max(1 s, 10 x RTT) inside a region, max(1 s, 5 x heartbeat) across regions.

The tail RTT of a group is the largest P90 (or P95, or 1.25 x median) over all pairs of its voters, for any of them may
lead. A setting of one's own may go below the round figures of 100 ms and 1 s, never below the ratios: a heartbeat
under the tail RTT or a T under five heartbeats deposes healthy leaders.
"""

import math
from dataclasses import dataclass

HEARTBEAT_MIN_MS = 100
ELECTION_TIMEOUT_MIN_MS = 1000
HEARTBEATS_PER_ELECTION_TIMEOUT = 5
RTTS_PER_ELECTION_TIMEOUT = 10


@dataclass(frozen=True, slots=True)
class Timers:
    """Timers of a group, in whole milliseconds."""

    heartbeat_ms: int
    election_timeout_ms: int


def derive_timers(tail_rtt_ms: float, across_regions: bool, heartbeat_ms: int | None = None) -> Timers:
    """The timers for a tail RTT between voters, with the heartbeat given or derived."""
    heartbeat = heartbeat_ms or max(HEARTBEAT_MIN_MS, math.ceil(tail_rtt_ms))
    return Timers(
        heartbeat, max(ELECTION_TIMEOUT_MIN_MS, _election_timeout_floor_ms(tail_rtt_ms, heartbeat, across_regions))
    )


def _election_timeout_floor_ms(tail_rtt_ms: float, heartbeat_ms: int, across_regions: bool) -> int:
    floor = HEARTBEATS_PER_ELECTION_TIMEOUT * heartbeat_ms
    return floor if across_regions else max(floor, math.ceil(RTTS_PER_ELECTION_TIMEOUT * tail_rtt_ms))


def timer_faults(timers: Timers, tail_rtt_ms: float, across_regions: bool) -> list[tuple[str, str, str]]:
    """What makes timers unsafe, as (field, found, allowed)."""
    faults: list[tuple[str, str, str]] = []
    heartbeat_floor = math.ceil(tail_rtt_ms)
    if timers.heartbeat_ms < heartbeat_floor:
        allowed = (
            f"at least {heartbeat_floor} ms, the P90 round trip between its voters: else heartbeats overtake answers"
        )
        faults.append(("heartbeat_ms", f"{timers.heartbeat_ms} ms", allowed))
    floor = _election_timeout_floor_ms(tail_rtt_ms, timers.heartbeat_ms, across_regions)
    if timers.election_timeout_ms < floor:
        ratios = "five heartbeats" if across_regions else "five heartbeats and ten round trips"
        allowed = f"at least {floor} ms, {ratios}: else healthy leaders are deposed"
        faults.append(("election_timeout_ms", f"{timers.election_timeout_ms} ms", allowed))
    return faults
