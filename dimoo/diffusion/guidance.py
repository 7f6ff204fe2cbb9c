"""How the predictions under several conditions are folded into one.

`NoGuidance`, `ClassifierFree` and `MultiCondition` fold; `Renormalised` wraps any guidance, as those of
`guidance_steps` do.

Axes: Br = branches in the order of `branches`, M = masked positions, C = columns.

Scales here follow the released model: 0 is no guidance and g = w - 1 for the convention found elsewhere,
uncond + w (cond - uncond), where 1 is no guidance. Suppress columns (logits of -inf) after guidance, not
before: the difference of two infinities is not a number.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from dimoo.core.errors import ConfigError
from dimoo.diffusion.rowwise import rowwise

CONDITION, UNCONDITIONAL = "condition", "unconditional"
"""The branches of classifier-free guidance; others may have any name."""


class Guidance(Protocol):
    """Folds the branches' logits."""

    @property
    def branches(self) -> tuple[str, ...]:
        """The branches it may ever need, "condition" first; those of scale 0 are not needed."""

    def at(self, step: int, steps: int) -> Guidance:
        """The guidance of a step, 0 <= `step` < `steps`; it needs no other branches than this one, perhaps fewer."""

    def __call__(self, logits: Tensor) -> Tensor:
        """Logits [Br, M, C] -> [M, C].

        Raises:
            ConfigError: there are not as many branches as `branches` names.
        """


@dataclass(frozen=True, kw_only=True)
class NoGuidance:
    """The condition alone."""

    @property
    def branches(self) -> tuple[str, ...]:
        """The condition."""
        return (CONDITION,)

    def at(self, step: int, steps: int) -> Guidance:
        """The same at every step."""
        del step, steps
        return self

    def __call__(self, logits: Tensor) -> Tensor:
        """The only branch."""
        (condition,) = _split(logits, self.branches)
        return condition


@dataclass(frozen=True, kw_only=True)
class ClassifierFree:
    """(1 + g) cond - g uncond, g = `scale` (arXiv 2207.12598).

    Equal to uncond + w (cond - uncond) with w = 1 + g.

    Raises:
        ConfigError: the scale is not finite.
    """

    scale: float

    def __post_init__(self) -> None:
        _check_scale(UNCONDITIONAL, self.scale)

    @property
    def branches(self) -> tuple[str, ...]:
        """The condition, and the unconditional branch unless the scale is 0."""
        return (CONDITION,) if self.scale == 0.0 else (CONDITION, UNCONDITIONAL)

    def at(self, step: int, steps: int) -> Guidance:
        """The same at every step."""
        del step, steps
        return self

    def __call__(self, logits: Tensor) -> Tensor:
        """(1 + g) cond - g uncond."""
        condition, *others = _split(logits, self.branches)
        return _away(condition, [(self.scale, other) for other in others])


@dataclass(frozen=True, kw_only=True)
class MultiCondition:
    """cond + sum_i g_i (cond - without_i): each scale strengthens what its branch leaves out.

    Image-to-image takes ("no_text", 2.5), which keeps the image, and ("no_image", 4.0), which keeps the text.
    This is not the nested form of InstructPix2Pix, uncond + w_i (image - uncond) + w_t (cond - image).

    Raises:
        ConfigError: a branch is named twice or is the condition itself, or a scale is not finite.
    """

    scales: tuple[tuple[str, float], ...]

    def __post_init__(self) -> None:
        names = [name for name, _ in self.scales]
        if CONDITION in names or len(set(names)) < len(names):
            raise ConfigError(f"guidance branches {names} must be distinct and other than 'condition'")
        for name, scale in self.scales:
            _check_scale(name, scale)

    @property
    def branches(self) -> tuple[str, ...]:
        """The condition, then the branches of scale other than 0 in the order given."""
        return (CONDITION, *(name for name, scale in self.scales if scale != 0.0))

    def at(self, step: int, steps: int) -> Guidance:
        """The same at every step."""
        del step, steps
        return self

    def __call__(self, logits: Tensor) -> Tensor:
        """cond + sum_i g_i (cond - without_i)."""
        condition, *others = _split(logits, self.branches)
        scales = [scale for _, scale in self.scales if scale != 0.0]
        return _away(condition, list(zip(scales, others, strict=True)))


@dataclass(frozen=True, kw_only=True)
class Renormalised:
    """guided (1 - r + r std(cond) / std(guided)), r = `strength`, std over the columns of each position.

    Guidance widens the spread of the logits, which sharpens the prediction as a low temperature does; at strength 1
    their spread is the condition's again (section 3.4 of Lin et al., arXiv 2305.08891, has it for pictures).

    Raises:
        ConfigError: the strength is not in [0, 1].
    """

    guidance: Guidance
    strength: float

    def __post_init__(self) -> None:
        if not 0.0 <= self.strength <= 1.0:
            raise ConfigError(f"renormalisation {self.strength} must lie in [0, 1]; 0 leaves the guided logits alone")

    @property
    def branches(self) -> tuple[str, ...]:
        """Those of the guidance."""
        return self.guidance.branches

    def at(self, step: int, steps: int) -> Guidance:
        """The step's guidance, renormalised."""
        return replace(self, guidance=self.guidance.at(step, steps))

    def __call__(self, logits: Tensor) -> Tensor:
        """The guided logits, their spread drawn towards the condition's; where they have none they stay."""
        guided = self.guidance(logits)
        spread, wanted = (rowwise(_spread, values) for values in (guided, logits[0]))
        ratio = torch.where(spread > 0, wanted / spread, torch.ones_like(spread))
        # Written around 1, so that strength 0 and an equal spread change no bit.
        return guided * (1.0 + self.strength * (ratio - 1.0))[:, None]


def _away(condition: Tensor, others: Sequence[tuple[float, Tensor]]) -> Tensor:
    """(1 + sum_i g_i) cond - sum_i g_i other_i; the condition itself where there are no others."""
    if not others:
        return condition
    # In place: the result is the one tensor of its size that is made.
    result = condition * (1.0 + sum(scale for scale, _ in others))
    for scale, other in others:
        result.sub_(other, alpha=scale)
    return result


def _spread(values: Tensor) -> Tensor:
    """[M, C] -> the standard deviation of each row, [M]; measured from the first column, so that equal ones give 0."""
    apart = values - values[:, :1]
    return apart.sub_(apart.mean(dim=-1, keepdim=True)).square_().mean(dim=-1).sqrt()


def _check_scale(name: str, scale: float) -> None:
    if not math.isfinite(scale):
        raise ConfigError(f"guidance scale {scale} of {name!r} must be a finite number; 0 is no guidance")


def _split(logits: Tensor, branches: tuple[str, ...]) -> tuple[Tensor, ...]:
    if len(logits) != len(branches):
        raise ConfigError(f"guidance got logits of {len(logits)} branches, it wants {len(branches)}: {branches}")
    return logits.unbind(0)
