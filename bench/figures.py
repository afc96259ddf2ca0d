"""What a load measured, the processor time it took, and tables of both."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import psutil


@dataclass(frozen=True, slots=True)
class Load:
    """One point: a load of a given kind with a given number of operations under way at a time."""

    in_flight: int
    operations: int
    seconds: float
    p50_ms: float
    p99_ms: float
    cpu_us: Mapping[str, float] = field(default_factory=dict)
    """Processor time per operation, by process."""

    @property
    def per_s(self) -> float:
        """Operations per second."""
        return self.operations / self.seconds


def percentile(ordered: Sequence[float], share: float) -> float:
    """The value at or below which that share of the ordered values lies (nearest rank); NaN when there are none."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else math.nan


class CpuMeter:
    """Processor time of processes from `start` on."""

    def __init__(self, processes: Mapping[str, int]) -> None:
        """`processes`: pids by name."""
        self._processes = {name: psutil.Process(pid) for name, pid in processes.items()}
        self._before: dict[str, float] = {}
        self.start()

    def start(self) -> None:
        """Count from here."""
        self._before = {name: _cpu_s(process) for name, process in self._processes.items()}

    def us_per(self, operations: int) -> dict[str, float]:
        """Microseconds per operation since `start`, by process."""
        return {
            name: (_cpu_s(process) - self._before[name]) / max(1, operations) * 1e6
            for name, process in self._processes.items()
        }


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table as text: the first column to the left, the others to the right."""
    lines = [list(header), *map(list, rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    lines.insert(1, ["-" * width for width in widths])
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )
