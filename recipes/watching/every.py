"""What looks at a run every so many steps, with examples of its own."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import lightning as L

from dimoo.data.example import Source
from recipes.learning.diffusion import DiffusionModule
from recipes.learning.tokenizer import TokenizerModule


class EverySteps(L.Callback):
    """Every so many steps `look`, with these examples of a source, which are the same each time."""

    def __init__(self, source: Source, numbers: Sequence[int], *, every: int) -> None:
        super().__init__()
        self._source, self._numbers, self._every = source, numbers, every

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Look, where it is time."""
        del outputs, batch, batch_idx
        assert isinstance(pl_module, TokenizerModule | DiffusionModule)
        if pl_module.steps_done % self._every == 0:
            self.look(trainer, pl_module, pl_module.steps_done)

    @abstractmethod
    def look(self, trainer: L.Trainer, module: TokenizerModule | DiffusionModule, step: int) -> None:
        """Look at the run after so many steps."""
