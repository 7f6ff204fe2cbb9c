"""Training the masked diffusion transformer with Lightning."""

from __future__ import annotations

from typing import Any

import lightning as L
import torch
from torch import Generator
from torch.utils.data import DataLoader

from dimoo.backbone.model import Backbone
from dimoo.core.errors import TrainingError
from dimoo.core.rng import generator
from dimoo.data.documents import DocumentBuilder
from dimoo.data.example import Source
from dimoo.denoise.objective import Loss, MaskedObjective, Noisy
from dimoo.tokenizers.packing import Batch, pack
from recipes.config import DiffusionRecipe
from recipes.optimizer import adamw, rate
from recipes.steps import step_loader


class DiffusionModule(L.LightningModule):
    """One optimiser step: examples -> documents -> pack(s) -> corrupt -> loss over the global count -> update."""

    def __init__(
        self,
        recipe: DiffusionRecipe,
        *,
        backbone: Backbone,
        builder: DocumentBuilder,
        source: Source,
        objective: MaskedObjective,
    ) -> None:
        super().__init__()
        # By hand, since the loss is divided by a count that spans packs and ranks.
        self.automatic_optimization = False
        self.recipe, self.backbone = recipe, backbone
        self.builder, self._source, self._objective = builder, source, objective
        self.steps_done = 0

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """AdamW on the backbone."""
        return adamw([self.backbone], self.recipe.optimizer)

    def train_dataloader(self) -> DataLoader[int]:
        """Ticks; `packs` makes the data."""
        return step_loader()

    def packs(self, step: int) -> list[Batch]:
        """The packs of an optimiser step on this rank: a function of the seed, the step and the rank alone."""
        size = self.recipe.run.batch_size // self.trainer.world_size
        first = step * self.recipe.run.batch_size + self.global_rank * size
        examples = [self._source.example(index) for index in range(first, first + size)]
        documents = self.builder.build(examples, self._generator("documents", step))
        count = min(self.recipe.accumulate, len(documents))
        return [pack(documents[index::count]) for index in range(count)]

    def training_step(self, batch: int, batch_idx: int) -> None:
        """One optimiser step over all its packs.

        Raises:
            TrainingError: the loss is not finite.
        """
        del batch, batch_idx
        step, optimizer = self.steps_done, self.optimizers()
        assert not isinstance(optimizer, list)
        for group in optimizer.param_groups:
            group["lr"] = self.recipe.optimizer.lr * rate(self.recipe.optimizer, step, self.recipe.run.steps)
        noisy = [
            self._objective.corrupt(entry, self._generator("noise", step, index))
            for index, entry in enumerate(self.packs(step))
        ]
        count = self._over_ranks(sum(self._objective.count(entry) for entry in noisy))
        losses = []
        for entry in noisy:
            losses.append(self._objective.loss(self.backbone, entry))
            # DDP averages gradients over ranks; the factor makes that the sum that the global count wants.
            self.manual_backward(losses[-1].terms.total * (self.trainer.world_size / count))
        value = self._over_ranks(sum(float(loss.terms.total.detach()) for loss in losses)) / count
        self._check(value, "loss")
        norm = torch.nn.utils.clip_grad_norm_(self.backbone.parameters(), self.recipe.optimizer.clip)
        self._check(float(norm), "gradient norm")
        optimizer.step()
        optimizer.zero_grad()
        self.steps_done += 1
        self._log(value, float(norm), noisy, losses)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the position in the data."""
        checkpoint["steps_done"] = self.steps_done

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Go on where the checkpoint was."""
        self.steps_done = checkpoint["steps_done"]

    def _log(self, loss: float, norm: float, noisy: list[Noisy], losses: list[Loss]) -> None:
        tokens = sum(entry.ids.numel() for entry in noisy) * self.trainer.world_size
        values = {"loss": loss, "grad_norm": norm, "tokens": float(tokens)}
        for kind in dict.fromkeys(kind for loss_, entry in zip(losses, noisy, strict=True) for kind in loss_.by_kind(entry)):
            nll = torch.cat(
                [loss_.by_kind(entry).get(kind, loss_.nll[:0]) for loss_, entry in zip(losses, noisy, strict=True)]
            )
            values[f"nll/{kind}"] = float(nll.mean())
        self.log_dict(values)

    def _over_ranks(self, value: float) -> float:
        if self.trainer.world_size == 1:
            return value
        total = torch.tensor(value, dtype=torch.float64, device=self.device)
        return float(self.trainer.strategy.reduce(total, reduce_op="sum"))

    def _check(self, value: float, what: str) -> None:
        if not torch.isfinite(torch.tensor(value)):
            raise TrainingError(
                f"the {what} is {value} at step {self.steps_done}; lower optimizer.lr (now"
                f" {self.recipe.optimizer.lr}) and resume from the last checkpoint"
            )

    def _generator(self, *names: str | int) -> Generator:
        return generator(self.recipe.run.seed, "train", self.global_rank, *names)
