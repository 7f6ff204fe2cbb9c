"""Guidance as sampling goes on: in which steps, and how strong. Each wraps any guidance, the others too:

Interval(guidance=Scheduled(guidance=MultiCondition(...), ramp=LinearRamp(...)), start=0.2, stop=0.8)
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Protocol

from torch import Tensor

from dimoo.core.errors import ConfigError
from dimoo.diffusion.guidance import CONDITION, Guidance, NoGuidance


class Ramp(Protocol):
    """A factor over progress: 1 is the full scales, 0 the condition alone."""

    def __call__(self, done: float) -> float:
        """The factor of a step before which the share `done` of the steps, in [0, 1), was taken."""


@dataclass(frozen=True, kw_only=True)
class ConstantRamp:
    """1 throughout."""

    def __call__(self, done: float) -> float:
        """1."""
        del done
        return 1.0


@dataclass(frozen=True, kw_only=True)
class LinearRamp:
    """start + (stop - start) u at the share u of steps done; Muse's rises from 0 (arXiv 2301.00704)."""

    start: float
    stop: float

    def __call__(self, done: float) -> float:
        """On the line."""
        return self.start + (self.stop - self.start) * done


@dataclass(frozen=True, kw_only=True)
class CosineRamp:
    """start + (stop - start) (1 - cos(pi u)) / 2: flat at both ends, steepest halfway."""

    start: float
    stop: float

    def __call__(self, done: float) -> float:
        """On the curve."""
        return self.start + (self.stop - self.start) * (1.0 - math.cos(math.pi * done)) / 2.0


@dataclass(frozen=True, kw_only=True)
class Scaled:
    """cond + f (guided - cond), f = `factor`: all scales of a guidance times f, for every one that is affine in them.

    Raises:
        ConfigError: the factor is not finite.
    """

    guidance: Guidance
    factor: float

    def __post_init__(self) -> None:
        if not math.isfinite(self.factor):
            raise ConfigError(f"guidance factor {self.factor} must be a finite number; 1 leaves the scales as they are")

    @property
    def branches(self) -> tuple[str, ...]:
        """Those of the guidance; the condition alone at factor 0."""
        return self.guidance.branches if self.factor else (CONDITION,)

    def at(self, step: int, steps: int) -> Guidance:
        """The step's guidance, scaled."""
        return replace(self, guidance=self.guidance.at(step, steps))

    def __call__(self, logits: Tensor) -> Tensor:
        """cond + f (guided - cond); at factor 1 the guided logits to the last bit."""
        if self.factor == 0.0:
            return NoGuidance()(logits)
        guided = self.guidance(logits)
        return guided if self.factor == 1.0 else logits[0] + self.factor * (guided - logits[0])


@dataclass(frozen=True, kw_only=True)
class Scheduled:
    """A guidance whose scales are multiplied by `ramp` of the share of steps done; called itself, at their full."""

    guidance: Guidance
    ramp: Ramp

    @property
    def branches(self) -> tuple[str, ...]:
        """Those of the guidance."""
        return self.guidance.branches

    def at(self, step: int, steps: int) -> Guidance:
        """The step's guidance, scaled by ramp(step / steps)."""
        return Scaled(guidance=self.guidance.at(step, steps), factor=self.ramp(step / steps))

    def __call__(self, logits: Tensor) -> Tensor:
        """The guidance at its full scales."""
        return self.guidance(logits)


@dataclass(frozen=True, kw_only=True)
class Interval:
    """Guides in the steps s of S with start <= s / S < stop; the others take the condition and compute nothing else.

    The middle of sampling gains from guidance, the ends little (Kynkäänniemi et al., arXiv 2404.07724). Called itself
    it guides.

    Raises:
        ConfigError: not 0 <= start < stop <= 1.
    """

    guidance: Guidance
    start: float
    stop: float

    def __post_init__(self) -> None:
        if not 0.0 <= self.start < self.stop <= 1.0:
            raise ConfigError(
                f"the guidance interval ({self.start}, {self.stop}) must be rising shares of the steps, as (0.2, 0.8)"
            )

    @property
    def branches(self) -> tuple[str, ...]:
        """Those of the guidance."""
        return self.guidance.branches

    def at(self, step: int, steps: int) -> Guidance:
        """The step's guidance within the interval, no guidance outside."""
        inside = self.start <= step / steps < self.stop
        return self.guidance.at(step, steps) if inside else NoGuidance()

    def __call__(self, logits: Tensor) -> Tensor:
        """The guidance as in the interval."""
        return self.guidance(logits)
