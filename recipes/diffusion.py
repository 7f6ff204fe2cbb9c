"""Training the masked diffusion transformer with Lightning."""

from __future__ import annotations

import torch
from torch import Generator

from dimoo.backbone.model import Backbone
from dimoo.core.errors import TrainingError
from dimoo.core.rng import generator
from dimoo.data.documents import DocumentBuilder
from dimoo.data.example import Source
from dimoo.denoise.objective import Loss, MaskedObjective, Noisy
from dimoo.tokenizers.packing import Batch, pack
from recipes.config import DiffusionRecipe
from recipes.optimizer import adamw, rate
from recipes.steps import StepModule


class DiffusionModule(StepModule):
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
        self.recipe, self.backbone = recipe, backbone
        self.builder, self._source, self._objective = builder, source, objective

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """AdamW on the backbone."""
        return adamw([self.backbone], self.recipe.optimizer)

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
        self.values = self._measure(value, float(norm), noisy, losses)

    def _measure(self, loss: float, norm: float, noisy: list[Noisy], losses: list[Loss]) -> dict[str, float]:
        tokens = sum(entry.ids.numel() for entry in noisy) * self.trainer.world_size
        kinds: dict[str, list[torch.Tensor]] = {}
        for part, entry in zip(losses, noisy, strict=True):
            for kind, nll in part.by_kind(entry).items():
                kinds.setdefault(kind, []).append(nll)
        pooled = {kind: torch.cat(parts) for kind, parts in kinds.items()}
        means = {f"nll/{kind}": float(nll.mean()) for kind, nll in pooled.items() if nll.numel()}
        return {"loss": loss, "grad_norm": norm, "tokens": float(tokens), **means}

    def _over_ranks(self, value: float) -> float:
        if self.trainer.world_size == 1:
            return value
        total = torch.tensor(value, dtype=torch.float64, device=self.device)
        return float(self.trainer.strategy.reduce(total, reduce_op="sum"))

    def _check(self, value: float, what: str) -> None:
        if not torch.isfinite(torch.tensor(value)):
            raise TrainingError(
                f"the {what} is {value} at step {self.steps_done}; start again under another run.name with a lower"
                f" optimizer.lr (now {self.recipe.optimizer.lr})"
            )

    def _generator(self, *names: str | int) -> Generator:
        return generator(self.recipe.run.seed, "train", self.global_rank, *names)
