"""What a task hands on, to training and sampling alike: the contexts of its branches and the answer to denoise."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Generator

from dimoo.diffusion.guidance import CONDITION
from dimoo.tokenizers.document import Document, join


@dataclass(frozen=True, kw_only=True, eq=False)
class Problem:
    """A request in tokens.

    Sampling puts every branch's context in front of the same answer, whose masked targets are to be filled.
    Training puts one of them in front of the known answer: "condition" mostly, another one where the condition is
    dropped. So dropout in training always matches the branches that guidance uses.
    """

    branches: Mapping[str, Document]
    """Context by branch name; "condition" first."""
    answer: Document

    def document(self, branch: str = CONDITION) -> Document:
        """One training sequence: a branch's context and the answer."""
        return join([self.branches[branch], self.answer])

    def training_branch(self, dropout: float, generator: Generator) -> str:
        """Draw the branch to train on: "condition", or with probability `dropout` one of the others evenly."""
        others = [name for name in self.branches if name != CONDITION]
        draws = torch.rand(2, generator=generator).tolist()
        if not others or draws[0] >= dropout:
            return CONDITION
        return others[int(draws[1] * len(others))]
