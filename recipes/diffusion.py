"""Training the masked diffusion transformer with Lightning, on one device or many.

A step's examples are dealt to packs, and packs to processes: pack j of P = accumulate x processes has the examples j,
j + P, ... of the step and noise of its own, whoever computes it. So the loss and its gradient, divided by the
count of all packs together, are those of one process that takes the packs one after the other.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Generator, nn
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.nn.parallel import DistributedDataParallel

from dimoo.backbone.compiled import require_compiler
from dimoo.backbone.model import Backbone
from dimoo.core.errors import ConfigError, TrainingError
from dimoo.core.rng import generator
from dimoo.data.documents import DocumentBuilder
from dimoo.data.example import Source
from dimoo.denoise.objective import Loss, MaskedObjective, Noisy
from dimoo.presets.config import ModelConfig
from dimoo.tokenizers.packing import Batch, pack
from recipes.config import DiffusionRecipe
from recipes.new_rows import keep_new_rows
from recipes.optimizer import adamw, rate
from recipes.packing import divided, require_room
from recipes.ranks import Ranks, whole
from recipes.steps import StepModule


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
        """AdamW on the backbone."""
        return adamw([self.backbone], self.recipe.optimizer)

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

    def packs(self, step: int) -> dict[int, Batch]:
        """The packs of an optimiser step that this process computes, by number: a function of the seed and the step.

        Raises:
            ConfigError: there are more packs than examples.
        """
        size, count = self.recipe.run.batch_size, self.recipe.accumulate * self._ranks.world
        if count > size:
            raise ConfigError(
                f"{size} examples a step cannot be dealt to {self.recipe.accumulate} packs on each of"
                f" {self._ranks.world} processes; set run.batch_size to at least {count}, or accumulate lower"
            )
        return {index: self._pack(step, index, count) for index in range(self._ranks.rank, count, self._ranks.world)}

    def _pack(self, step: int, index: int, count: int) -> Batch:
        size = self.recipe.run.batch_size
        places = range(size)[index::count]
        examples = [self.source.example(step * size + place) for place in places]
        generators = [self._generator("document", step, place) for place in places]
        with torch.autocast(self.device.type, enabled=False):  # codes as the tokenizer gives them to users
            documents = self.builder.build(examples, generators)
        require_room(documents, [step * size + place for place in places], self.recipe.pack_tokens)
        return pack(documents)

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
            TrainingError: the loss is not finite.
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
        count, items = self._ranks.sums(
            [
                sum(self.objective.count(entry) for entry in noisy),
                sum(entry.ids.numel() for entry in noisy),
            ],
            self.device,
        )
        count = count or 1.0  # nothing that counts was masked: a loss of 0
        losses = []
        for entry in noisy:
            losses.append(self.objective.loss(self.backbone, entry))
            with self._synchronised(last=len(losses) == len(noisy)):
                # Processes average their gradients, which are to be summed.
                self.manual_backward(losses[-1].terms.total * (self._ranks.world / count))
        (total,) = self._ranks.sums([sum(float(loss.terms.total.detach()) for loss in losses)], self.device)
        self._check(total / count, "loss")
        if new_rows_only:
            keep_new_rows(self.backbone, self._first_new)
        norm = whole(torch.nn.utils.clip_grad_norm_(self.backbone.parameters(), self.recipe.optimizer.clip))
        self._check(norm, "gradient norm")
        optimizer.step()
        optimizer.zero_grad()
        self.steps_done += 1
        self.items = round(items)
        if self.shown:
            kinds = self._by_kind(noisy, losses)
            self.values = {"loss": total / count, "grad_norm": norm, self.unit: float(items), **kinds}

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

    def _by_kind(self, noisy: list[Noisy], losses: list[Loss]) -> dict[str, float]:
        """The mean nll of the masked tokens of each kind that there is."""
        modalities = self.builder.prompts.vocabulary.modalities
        # All processes must name the same kinds, also those that none of its own packs has.
        kinds = ["text", "padding", *(modality.name for modality in modalities)]
        sums: dict[str, list[float]] = {kind: [0.0, 0.0] for kind in kinds}
        for part, entry in zip(losses, noisy, strict=True):
            for kind, nll in part.by_kind(entry).items():
                sums[kind][0] += float(nll.double().sum())
                sums[kind][1] += nll.numel()
        flat = self._ranks.sums([value for pair in sums.values() for value in pair], self.device)
        pairs = zip(sums, flat[::2], flat[1::2], strict=True)
        return {f"nll/{kind}": total / count for kind, total, count in pairs if count}

    def _check(self, value: float, what: str) -> None:
        if not math.isfinite(value):
            raise TrainingError(
                f"the {what} is {value} at step {self.steps_done}; start again under another run.name with a lower"
                f" optimizer.lr (now {self.recipe.optimizer.lr})"
            )

    def _generator(self, *names: str | int) -> Generator:
        return generator(self.recipe.run.seed, "train", *names)
