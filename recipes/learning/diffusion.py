"""Training the masked diffusion transformer with Lightning, on one device or many.

A step's examples are dealt to packs, and packs to processes: pack j of P = accumulate x processes has the examples j,
j + P, ... of the step and noise of its own, whoever computes it. So the loss and its gradient, divided by the
count of all packs together, are those of one process that takes the packs one after the other.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Generator, nn
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from dimoo.backbone.compiled import require_compiler
from dimoo.backbone.model import Backbone
from dimoo.core.errors import TrainingError
from dimoo.core.rng import generator
from dimoo.data.build import digest_of
from dimoo.data.documents import DocumentBuilder
from dimoo.data.example import Source
from dimoo.denoise.objective import Loss, MaskedObjective, Noisy
from dimoo.presets.config import ModelConfig
from dimoo.tokenizers.document import Document
from dimoo.tokenizers.packing import Batch, pack
from recipes.config import DiffusionRecipe
from recipes.learning.diagnostics import predictions
from recipes.learning.feeding import Ahead
from recipes.learning.guard import SpikeGuard, first_not_finite, lost, place_of
from recipes.learning.kept import by_name, hold_what_is_trained, require_base
from recipes.learning.making import StepDocuments
from recipes.learning.new_rows import keep_new_rows
from recipes.learning.operations import operations
from recipes.learning.optimizer import adamw, rate
from recipes.learning.packing import divided
from recipes.learning.steps import StepModule, require_alike
from recipes.ranks import Ranks, whole


class DiffusionModule(StepModule):
    """One optimiser step: examples -> documents -> pack(s) -> corrupt -> loss over the count of all -> update."""

    unit = "tokens"

    def __init__(
        self,
        recipe: DiffusionRecipe,
        *,
        backbone: Backbone,
        fill: Callable[[Backbone], None],
        builder: DocumentBuilder,
        source: Source,
        objective: MaskedObjective,
        model_config: ModelConfig,
        first_new: Callable[[], int] = lambda: 0,
        base: str | None = None,
    ) -> None:
        """Put the parts together.

        Args:
            recipe: the full config.
            backbone: what is trained; on the meta device if each process is to hold but a part of it.
            fill: gives it its first weights in place, when it is there.
            builder: makes documents.
            source: of examples.
            objective: masks and loss.
            model_config: how the model is exported.
            first_new: tells the first of the ids whose rows alone are trained in the first `recipe.new_rows_steps`
                steps; later nobody asks.
            base: fingerprint of the weights that are frozen, where there are some; checkpoints hold but the others.
        """
        tokenizers = {
            "text_tokenizer": model_config.text_fingerprint,
            "image_tokenizer": model_config.image_fingerprint,
        }
        super().__init__(data={"source": digest_of(source), **tokenizers})
        self.guard = SpikeGuard(recipe.optimizer.spike)
        self.recipe, self.backbone, self._first_new = recipe, backbone, first_new
        self._fill, self._base = fill, base
        self.builder, self.source, self.objective = builder, source, objective
        self.model_config = model_config
        self._ranks = Ranks()
        hold_what_is_trained(self)

    def configure_model(self) -> None:
        """Give each process its part of every block, where the strategy shards the model (FSDP2).

        A backbone on the meta device is divided first and filled then, so that it is nowhere whole.
        """
        mesh = self.device_mesh
        if mesh is None or isinstance(self.backbone, FSDPModule):
            return
        for block in self.backbone.blocks:
            fully_shard(block, mesh=mesh["data_parallel"])
        fully_shard(self.backbone, mesh=mesh["data_parallel"])
        if self.backbone.device.type == "meta":
            self.backbone.to_empty(device=mesh.device_type)
            self._fill(self.backbone)
        # Lightning asks each module for its own weights, and knows none that a checkpoint lacks: see `base`.
        self.strict_loading = self._base is None

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep also which base the adapters belong to, and the optimiser's state by the names of weights."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["base"] = self._base
        names = {weight: name for name, weight in self.named_parameters()}
        if self.device_mesh is None:
            (optimizer,) = self.trainer.optimizers
            order = [names[weight] for group in optimizer.param_groups for weight in group["params"]]
        else:  # as Lightning counts them
            order = list(names.values())
        checkpoint["optimizer_states"] = [by_name(state, order) for state in checkpoint["optimizer_states"]]

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Go on where the checkpoint was.

        Raises:
            CheckpointError: its adapters belong to another base.
        """
        super().on_load_checkpoint(checkpoint)
        require_base(self._base, checkpoint.get("base"))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """AdamW on the backbone, with averages where they are kept."""
        return adamw([self.backbone], self.recipe.optimizer, average=self.recipe.ema)

    def on_fit_start(self) -> None:
        """Let the image tokenizer work where the backbone does; it is no part of this module, as it is not trained.

        Raises:
            BackendError: blocks are to be compiled, and cannot be here.
            DataError: the processes do not learn from the same.
        """
        if self.recipe.compile:
            require_compiler(self.device)
        self._ranks = Ranks(rank=self.global_rank, world=self.trainer.world_size)
        require_alike(self._ranks.gathered(self.data))
        if isinstance(self.builder.image_tokenizer, nn.Module):
            self.builder.image_tokenizer.to(self.device)

    def on_train_start(self) -> None:
        """Let the workers begin, where there are some."""
        if self.recipe.run.workers:
            steps = range(self.steps_done, self.recipe.run.steps)
            self.fed_by(Ahead(self._maker.on_cpu(), steps=steps, workers=self.recipe.run.workers))

    @property
    def _maker(self) -> StepDocuments:
        return StepDocuments(recipe=self.recipe, builder=self.builder, source=self.source, ranks=self._ranks)

    def made(self, step: int) -> dict[int, dict[int, Document]]:
        """The documents of an optimiser step that this process learns from; see `StepDocuments`."""
        with torch.autocast(self.device.type, enabled=False):  # codes as the tokenizer gives them to users
            return self._maker(step)

    def packs(self, step: int) -> dict[int, Batch]:
        """The same as packs, by number, made by the workers where there are some.

        Raises:
            ConfigError: there are more packs than examples.
        """
        return {index: pack(list(documents.values())) for index, documents in self.taken(step).items()}

    def corrupted(self, step: int) -> list[Noisy]:
        """The same packs with masks; and once more with the others, where masks are complementary."""
        packs = self.packs(step).items()
        noisy = [self.objective.corrupt(entry, self._generator("noise", step, index)) for index, entry in packs]
        if self.recipe.complementary:
            noisy += map(self.objective.complement, noisy[:])
        return [part for entry in noisy for part in divided(entry, self.recipe.pack_tokens)]

    def training_step(self, batch: int, batch_idx: int) -> None:
        """One optimiser step over all its packs.

        Raises:
            TrainingError: the loss or a gradient is not finite, or too many steps in a row were left out.
        """
        del batch, batch_idx
        step, optimizer = self.steps_done, self.optimizers()
        assert not isinstance(optimizer, list)
        new_rows_only = step < self.recipe.new_rows_steps
        for group in optimizer.param_groups:
            group["lr"] = self.recipe.optimizer.lr * rate(self.recipe.optimizer, step, self.recipe.run.steps)
        # The first group has the matrices; old rows, whose gradients are 0 then, are not to shrink.
        optimizer.param_groups[0]["weight_decay"] = 0.0 if new_rows_only else self.recipe.optimizer.weight_decay
        noisy = self.corrupted(step)
        count, items, self.operations = self._ranks.sums(
            [
                sum(self.objective.count(entry) for entry in noisy),
                sum(entry.ids.numel() for entry in noisy),
                sum(operations(self.recipe, self.backbone, noisy).values()),
            ],
            self.device,
        )
        count = count or 1.0  # nothing that counts was masked: a loss of 0
        losses = []
        for entry in noisy:
            losses.append(self.objective.loss(self.backbone, entry, measure=self.shown))
            with self._synchronised(last=len(losses) == len(noisy)):
                # Processes average their gradients, which are to be summed.
                self.manual_backward(losses[-1].terms.total * (self._ranks.world / count))
        (total,) = self._ranks.sums([sum(float(loss.terms.total.detach()) for loss in losses)], self.device)
        if not math.isfinite(total):
            raise self._not_finite(f"loss is {total / count}", noisy, losses)
        if new_rows_only:
            keep_new_rows(self.backbone, self._first_new())
        weights = list(self.backbone.parameters())
        total_norm = get_total_norm([weight.grad for weight in weights if weight.grad is not None])
        norm = whole(total_norm)
        if not math.isfinite(norm):
            raise self._not_finite(f"gradient norm is {norm}", noisy, losses)
        if step == self.recipe.new_rows_steps:
            self.guard.restart()
        if not self.guard.skips(norm):
            clip_grads_with_norm_(weights, self.recipe.optimizer.clip, total_norm)
            optimizer.step()
        optimizer.zero_grad()
        self.steps_done += 1
        self.items = round(items)
        self.values = {"loss": total / count, "grad_norm": norm, self.unit: float(items)}
        if self.shown:
            found = predictions(self.kinds(), noisy, losses, self._ranks, self.device)
            self.values = {**self.values, **found.shown}
            self.details = {"lr": optimizer.param_groups[0]["lr"], **self.guard.values(), **found.details}

    @contextmanager
    def _synchronised(self, *, last: bool) -> Iterator[None]:
        """Gradients are exchanged in the step's last backward pass, and added up before."""
        if self._ranks.world == 1:
            yield
            return
        model = self.trainer.strategy.model
        if isinstance(model, DistributedDataParallel):
            before, model.require_backward_grad_sync = model.require_backward_grad_sync, last
            yield
            model.require_backward_grad_sync = before
        else:
            assert isinstance(self.backbone, FSDPModule)
            self.backbone.set_requires_gradient_sync(last)
            yield

    def kinds(self) -> list[str]:
        """Every kind of target: all processes must name the same, also those that none of its own packs has."""
        return ["text", "padding", *(modality.name for modality in self.builder.prompts.vocabulary.modalities)]

    def _not_finite(self, what: str, noisy: list[Noisy], losses: list[Loss]) -> TrainingError:
        """What to raise, with the places that all processes know of; all must ask."""
        made = self.taken(self.steps_done).values()
        kinds, examples = lost(noisy, losses, {number: one.ids for part in made for number, one in part.items()})
        everyone = self._ranks.gathered((kinds, examples))
        named = list(self.backbone.named_parameters())
        first, size = self.steps_done * self.recipe.run.batch_size, self.recipe.run.batch_size
        place = place_of(
            sorted({kind for kinds, _ in everyone for kind in kinds}),
            sorted(number for _, numbers in everyone for number in numbers),
            first_not_finite(named),
            first_not_finite((name, weight.grad) for name, weight in named),
        )
        return TrainingError(
            f"the {what} at step {self.steps_done + 1}, of examples {first} to {first + size - 1}; {place}; start again"
            f" under another run.name with a lower optimizer.lr (now {self.recipe.optimizer.lr})"
        )

    def _generator(self, *names: str | int) -> Generator:
        return generator(self.recipe.run.seed, "train", *names)
