"""Training the masked diffusion transformer with Lightning, on one device."""

from __future__ import annotations

import math

import torch
from torch import Generator, nn

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

RANK = 0
"""Of the only process, in the names of its random streams."""


class DiffusionModule(StepModule):
    """One optimiser step: examples -> documents -> pack(s) -> corrupt -> loss over the count of all -> update."""

    unit = "tokens"

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
        self.builder, self.source, self._objective = builder, source, objective

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """AdamW on the backbone."""
        return adamw([self.backbone], self.recipe.optimizer)

    def on_fit_start(self) -> None:
        """Let the image tokenizer work where the backbone does; it is no part of this module, as it is not trained."""
        if isinstance(self.builder.image_tokenizer, nn.Module):
            self.builder.image_tokenizer.to(self.device)

    def packs(self, step: int) -> list[Batch]:
        """The packs of an optimiser step: a function of the seed and the step alone."""
        size = self.recipe.run.batch_size
        examples = [self.source.example(index) for index in range(step * size, (step + 1) * size)]
        with torch.autocast(self.device.type, enabled=False):  # codes as the tokenizer gives them to users
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
        count = sum(self._objective.count(entry) for entry in noisy)
        losses = []
        for entry in noisy:
            losses.append(self._objective.loss(self.backbone, entry))
            self.manual_backward(losses[-1].terms.total * (1 / count))
        value = sum(float(loss.terms.total.detach()) for loss in losses) / count
        self._check(value, "loss")
        norm = float(torch.nn.utils.clip_grad_norm_(self.backbone.parameters(), self.recipe.optimizer.clip))
        self._check(norm, "gradient norm")
        optimizer.step()
        optimizer.zero_grad()
        self.steps_done += 1
        self.items = sum(entry.ids.numel() for entry in noisy)
        if self.shown:
            kinds = self._by_kind(noisy, losses)
            self.values = {"loss": value, "grad_norm": norm, self.unit: float(self.items), **kinds}

    def _by_kind(self, noisy: list[Noisy], losses: list[Loss]) -> dict[str, float]:
        kinds: dict[str, list[torch.Tensor]] = {}
        for part, entry in zip(losses, noisy, strict=True):
            for kind, nll in part.by_kind(entry).items():
                kinds.setdefault(kind, []).append(nll)
        pooled = {kind: torch.cat(parts) for kind, parts in kinds.items()}
        return {f"nll/{kind}": float(nll.mean()) for kind, nll in pooled.items() if nll.numel()}

    def _check(self, value: float, what: str) -> None:
        if not math.isfinite(value):
            raise TrainingError(
                f"the {what} is {value} at step {self.steps_done}; start again under another run.name with a lower"
                f" optimizer.lr (now {self.recipe.optimizer.lr})"
            )

    def _generator(self, *names: str | int) -> Generator:
        return generator(self.recipe.run.seed, "train", RANK, *names)
