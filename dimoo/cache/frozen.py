"""A cache for long contexts: the prompt and the pictures in it are computed now and then, the canvas always."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dimoo.cache.policy import Look
from dimoo.core.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class FrozenContext:
    """The canvas at every step, everything at every `refresh`-th: a source picture changes its keys but slowly.

    Raises:
        ConfigError: `refresh` is not positive.
    """

    refresh: int = 8

    def __post_init__(self) -> None:
        if self.refresh < 1:
            raise ConfigError(f"refresh {self.refresh} must be at least 1, which computes all at every step")

    @property
    def keeps_logits(self) -> bool:
        """No: all that is wanted is on the canvas."""
        return False

    def surveys(self, step: int, steps: int) -> bool:
        """Never: certainty plays no part."""
        del step, steps
        return False

    def anew(self, look: Look) -> Tensor | None:
        """The canvas."""
        if look.since >= self.refresh:
            return None
        return torch.arange(look.context, len(look.changed), device=look.changed.device)
