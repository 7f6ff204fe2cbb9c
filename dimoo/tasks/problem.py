"""What a task hands on, to training and sampling alike: the contexts of its branches and the answer to denoise."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Generator

from dimoo.diffusion.guidance import CONDITION, UNCONDITIONAL
from dimoo.tokenizers.document import Document, join

NO_TEXT, NO_IMAGE = "no_text", "no_image"
"""Of a prompt with pictures: the branches that leave out the words, or the pictures. `NO_IMAGE` + "_2" leaves out the
second of several."""


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

    def independent_branch(self, *, words: float, pictures: float, generator: Generator) -> str:
        """Draw the branch to train on where words and pictures are each left out on their own.

        Pictures are left out all together: branches that lack one of several are never drawn. Words and pictures both
        left out is "unconditional", which is also what is left of a request of words alone without them.

        Args:
            words: probability that the words are left out.
            pictures: probability that the pictures are, all of them.
            generator: draws.
        """
        silent, blind = (torch.rand(2, generator=generator) < torch.tensor([words, pictures])).tolist()
        pictured = NO_IMAGE in self.branches
        dropped = [part for part, gone in ((NO_TEXT, silent), (NO_IMAGE, blind and pictured)) if gone]
        if not dropped or UNCONDITIONAL not in self.branches:
            return CONDITION
        return dropped[0] if pictured and len(dropped) == 1 else UNCONDITIONAL
