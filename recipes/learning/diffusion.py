"""Training the masked diffusion transformer with Lightning, on one device or many.

A step's examples are dealt to packs, and packs to processes: pack j of P = accumulate x processes has the examples j,
j + P, ... of the step and noise of its own, whoever computes it. So the loss and its gradient, divided by the
count of all packs together, are those of one process that takes the packs one after the other.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Generator, nn
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from dimoo.backbone.compiled import require_compiler
from dimoo.backbone.model import Backbone
from dimoo.core.errors import ConfigError, TrainingError
from dimoo.core.rng import generator
from dimoo.data.documents import DocumentBuilder
from dimoo.data.example import Source
from dimoo.denoise.objective import Loss, MaskedObjective, Noisy
from dimoo.presets.config import ModelConfig
from dimoo.tokenizers.document import Document
from dimoo.tokenizers.packing import Batch, pack
from recipes.config import DiffusionRecipe
from recipes.learning.diagnostics import predictions
from recipes.learning.guard import SpikeGuard, first_not_finite, lost, place_of
from recipes.learning.new_rows import keep_new_rows
from recipes.learning.operations import operations
from recipes.learning.optimizer import adamw, rate
from recipes.learning.packing import divided, require_room
from recipes.learning.steps import StepModule
from recipes.ranks import Ranks, whole


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
        model_config: ModelConfig,
        first_new: int = 0,
    ) -> None:
        """Put the parts together.

        Args:
            recipe: the full config.
            backbone: what is trained.
            builder: makes documents.
            source: of examples.
            objective: masks and loss.
            model_config: how the model is exported.
            first_new: the first of the ids whose rows alone are trained in the first `recipe.new_rows_steps` steps.
        """
        super().__init__()
        self.guard = SpikeGuard(recipe.optimizer.spike)
        self.recipe, self.backbone, self._first_new = recipe, backbone, first_new
        self.builder, self.source, self.objective = builder, source, objective
        self.model_config = model_config
        self._ranks = Ranks()

    def configure_model(self) -> None:
        """Give each process its part of every block, where the strategy shards the model (FSDP2)."""
        mesh = self.device_mesh
        if mesh is not None and not isinstance(self.backbone, FSDPModule):
            for block in self.backbone.blocks:
                fully_shard(block, mesh=mesh["data_parallel"])
            fully_shard(self.backbone, mesh=mesh["data_parallel"])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """AdamW on the backbone, with averages where they are kept."""
        return adamw([self.backbone], self.recipe.optimizer, average=self.recipe.ema)

    def on_fit_start(self) -> None:
        """Let the image tokenizer work where the backbone does; it is no part of this module, as it is not trained.

        Raises:
            BackendError: blocks are to be compiled, and cannot be here.
        """
        if self.recipe.compile:
            require_compiler(self.device)
        self._ranks = Ranks(rank=self.global_rank, world=self.trainer.world_size)
        if isinstance(self.builder.image_tokenizer, nn.Module):
            self.builder.image_tokenizer.to(self.device)

    def documents(self, step: int) -> dict[int, dict[int, Document]]:
        """The documents of an optimiser step that this process learns from: a function of the seed and the step.

        Returns:
            By the number of the pack that they go into, and by that of the example that each is made of.

        Raises:
            ConfigError: there are more packs than examples.
        """
        size, count = self.recipe.run.batch_size, self.recipe.accumulate * self._ranks.world
        if count > size:
            raise ConfigError(
                f"{size} examples a step cannot be dealt to {self.recipe.accumulate} packs on each of"
                f" {self._ranks.world} processes; set run.batch_size to at least {count}, or accumulate lower"
            )
        return {
            index: self._documents(step, range(size)[index::count])
            for index in range(self._ranks.rank, count, self._ranks.world)
        }

    def _documents(self, step: int, places: Sequence[int]) -> dict[int, Document]:
        numbers = [step * self.recipe.run.batch_size + place for place in places]
        examples = [self.source.example(number) for number in numbers]
        generators = [self._generator("document", step, place) for place in places]
        with torch.autocast(self.device.type, enabled=False):  # codes as the tokenizer gives them to users
            documents = self.builder.build(examples, generators)
        require_room(documents, numbers, self.recipe.pack_tokens)
        return dict(zip(numbers, documents, strict=True))

    def packs(self, step: int) -> dict[int, Batch]:
        """The same as packs, by number.

        Raises:
            ConfigError: there are more packs than examples.
        """
        return {index: pack(list(documents.values())) for index, documents in self.documents(step).items()}

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
            keep_new_rows(self.backbone, self._first_new)
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
        made = self.documents(self.steps_done).values()
        kinds, examples = lost(noisy, losses, {number: one.ids for part in made for number, one in part.items()})
        everyone = self._ranks.gathered((kinds, examples))
        named = list(self.backbone.named_parameters())
        place = place_of(
            sorted({kind for kinds, _ in everyone for kind in kinds}),
            sorted(number for _, numbers in everyone for number in numbers),
            first_not_finite(named),
            first_not_finite((name, weight.grad) for name, weight in named),
        )
        return TrainingError(
            f"the {what} at step {self.steps_done}; {place}; start again under another run.name with a lower"
            f" optimizer.lr (now {self.recipe.optimizer.lr})"
        )

    def _generator(self, *names: str | int) -> Generator:
        return generator(self.recipe.run.seed, "train", *names)
