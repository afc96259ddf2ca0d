"""The identity of a process, as written to files and sent between processes."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ProcessId:
    """A process for good: its pid may be given to another one, its pid with its start time may not."""

    pid: int
    started: float
    """In seconds, as the system counts: since boot on Linux, since the Unix epoch elsewhere."""
