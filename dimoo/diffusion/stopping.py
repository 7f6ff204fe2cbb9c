"""When a row is finished before its last step. Axis: L = positions of one span of one row."""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from operator import or_
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from dimoo.core.device import sent
from dimoo.core.errors import ConfigError
from dimoo.diffusion.progress import Standing


class Stopping(Protocol):
    """Decides after a step whether the rest is not worth computing."""

    def __call__(self, ids: Tensor, standing: Standing) -> bool | Tensor:
        """Whether to stop, given the span's ids int64 [L] and where it stands after the step's commits.

        What follows from them is best left on the device, as a tensor of one element: the sampler reads it, once a step
        for all rows together. A bool is for what the host knows.
        """


def said(rule: Stopping, ids: Tensor, standing: Standing) -> bool | Tensor:
    """What a rule says: a bool, or bool [] on the device of the ids.

    Raises:
        ConfigError: it says something else.
    """
    answer = rule(ids, standing)
    if isinstance(answer, Tensor) and answer.numel() == 1:
        return sent(answer, ids.device, torch.bool).reshape(())
    if isinstance(answer, bool | np.bool_):
        return bool(answer)
    raise ConfigError(f"{rule} said {answer!r} of a span; a stopping rule says a bool, or a tensor of one element")


@dataclass(frozen=True, kw_only=True)
class NoStop:
    """Never before the end."""

    def __call__(self, ids: Tensor, standing: Standing) -> bool:
        """False."""
        del ids, standing
        return False


@dataclass(frozen=True, kw_only=True)
class StopAtToken:
    """Once `token` was committed and nothing before it is still masked.

    Given tokens do not count: the prompt may contain the token, and a text canvas ends with a given one.
    """

    token: int

    def __call__(self, ids: Tensor, standing: Standing) -> Tensor:
        """Whether the token stands at the end of a finished beginning, bool []."""
        no_mask_up_to_here = standing.masked.cumsum(dim=-1) == 0
        return ((ids == self.token) & standing.initial & no_mask_up_to_here).any()


@dataclass(frozen=True, kw_only=True)
class AnyStop:
    """As soon as one of `rules` says so; without rules, never."""

    rules: tuple[Stopping, ...]

    def __call__(self, ids: Tensor, standing: Standing) -> bool | Tensor:
        """Whether any rule stops; bool [] if one of them leaves that on the device."""
        stops: bool | Tensor = reduce(or_, (said(rule, ids, standing) for rule in self.rules), False)
        return stops
