"""Caches for text that is made in blocks: what lies outside the block waits for the next one.

Axes: n = tokens of the segment.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from typing_extensions import assert_never

from dimoo.cache.policy import Look
from dimoo.core.errors import ConfigError
from dimoo.diffusion.progress import places

Scope = Literal["suffix", "block", "masked"]


@dataclass(frozen=True, kw_only=True)
class BlockCache:
    """Everything at the first step of each block, then the block alone (Fast-dLLM, arXiv 2505.22618).

    `scope` says what of the block, between two whole steps:
    - "suffix": it and all that follows; what lies before it is stored (the paper's prefix cache);
    - "block": it alone (the dual cache);
    - "masked": what is still masked in it or was committed in the step before. A token is stored one step after it was
      committed, as in dKV-Cache (arXiv 2505.15781).

    A picture, whose order knows no blocks, is one block, and so is a text in rounds of refinement.
    `refresh` computes everything again after so many steps also within a block; None: never.

    Raises:
        ConfigError: a value is out of range.
    """

    scope: Scope = "block"
    refresh: int | None = None

    def __post_init__(self) -> None:
        if self.refresh is not None and self.refresh < 1:
            raise ConfigError(f"refresh {self.refresh} must be at least 1, or None to wait for the next block")

    @property
    def keeps_logits(self) -> bool:
        """No: all that is wanted lies in the block."""
        return False

    def surveys(self, step: int, steps: int) -> bool:
        """Never: certainty plays no part."""
        del step, steps
        return False

    def anew(self, look: Look) -> Tensor | None:
        """The block, or what its scope leaves of it."""
        (start, end), device = look.window, look.changed.device
        if self.refresh is not None and look.since >= self.refresh:
            return None
        if look.within[0] < start or look.within[1] > end:
            return None
        match self.scope:
            case "suffix":
                return torch.arange(start, look.changed.numel(), device=device)
            case "block":
                return torch.arange(start, end + 1, device=device)
            case "masked":
                # Nothing that is wanted was written, unless its mask came back: then others are computed as well.
                live = look.changed.index_fill(0, look.wanted, True)
                return places(live, look.wanted.numel() + look.written).sort().values
            case _:
                assert_never(self.scope)
