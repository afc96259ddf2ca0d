"""Link shaping, the pure part: when a frame that is sent now arrives, if it does.

A link is directed, from zone to zone, and FIFO: jitter never reorders. A frame that is lost, or that meets a
cut, vanishes without a trace; so does every frame that is on its way when a cut begins.
"""

import random
from dataclasses import dataclass

from isochrone.ids import NS_PER_MS, Nanos


@dataclass(frozen=True, slots=True)
class LinkShape:
    """How one directed link behaves."""

    delay_ms: float = 0.0
    """One way."""
    jitter_ms: float = 0.0
    """Uniform in [0, jitter_ms], on top of the delay."""
    loss: float = 0.0
    """Probability that a frame vanishes."""
    cut: bool = False
    """Nothing passes."""


@dataclass(slots=True)
class LinkSchedule:
    """The state of one directed link."""

    shape: LinkShape
    generation: int = 0
    """Raised when a cut begins; a frame sent under an older generation never arrives."""
    last_arrival: Nanos = Nanos(0)

    def reshape(self, shape: LinkShape) -> None:
        """Change the link. A cut that begins takes the frames that are on their way."""
        if shape.cut and not self.shape.cut:
            self.generation += 1
        self.shape = shape

    def arrival(self, now: Nanos, rng: random.Random) -> Nanos | None:
        """When a frame sent at `now` arrives, or None if it is lost. Never before an earlier frame of the link."""
        if self.shape.cut or (self.shape.loss and rng.random() < self.shape.loss):
            return None
        delay_ms = self.shape.delay_ms
        if self.shape.jitter_ms:
            delay_ms += rng.uniform(0.0, self.shape.jitter_ms)
        self.last_arrival = max(self.last_arrival, Nanos(now + round(delay_ms * NS_PER_MS)))
        return self.last_arrival
