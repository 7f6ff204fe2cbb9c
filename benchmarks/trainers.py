"""The two trainers of `benchmarks.training`, step by step on a clock, on the same packs made beforehand."""

from __future__ import annotations

import logging
import statistics
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import lightning as L
import torch
from torch import Tensor

from benchmarks import naive_trainer
from benchmarks.timing import REST, Clock
from dimoo.denoise.objective import Noisy
from dimoo.diffusion.loss import chunked_nll
from recipes.assemble import diffusion_module
from recipes.config import DiffusionRecipe
from recipes.diffusion import DiffusionModule
from recipes.trainer import fit, precision, strategy

WARM_UP = 1
"""Steps at first that do not count."""
PARTS = ("forward", "head", "backward", "optimizer", REST)
"""Of a step. The head goes with softmax and loss, forward; what it computes again is in backward; clipping is rest."""


class Meter:
    """Seconds, tokens and losses of steps, and the parts of their time."""

    def __init__(self, device: torch.device) -> None:
        self.clock = Clock(device)
        self.seconds: list[float] = []
        self.tokens: list[int] = []
        self.losses: list[float] = []

    @contextmanager
    def step(self) -> Iterator[None]:
        """Everything inside is one step; the first ones leave no parts."""
        if len(self.seconds) == WARM_UP:
            self.clock.seconds.clear()
        before = sum(self.clock.seconds.values())
        with self.clock.part(REST):
            yield
        self.seconds.append(sum(self.clock.seconds.values()) - before)

    def learnt(self, tokens: int, loss: float) -> None:
        """What the step learnt from, and how badly it knew it."""
        self.tokens.append(tokens)
        self.losses.append(loss)

    def report(self) -> dict[str, Any]:
        """Plain numbers: speed and parts of the steps after the first ones, seconds, tokens and losses of all."""
        seconds, tokens = self.seconds[WARM_UP:], self.tokens[WARM_UP:]
        return {
            "tokens_per_s": statistics.median(count / spent for count, spent in zip(tokens, seconds, strict=True)),
            "step_seconds": statistics.median(seconds),
            "loss": self.losses[-1],
            "parts": {part: self.clock.seconds.get(part, 0.0) / len(seconds) for part in PARTS},
            "all_seconds": self.seconds,
            "all_tokens": self.tokens,
            "all_losses": self.losses,
        }


def train_naively(recipe: DiffusionRecipe) -> Meter:
    """All steps of a recipe by the naive trainer, in this process, with the recipe's weights, documents and masks."""
    module = diffusion_module(recipe).to("cuda" if torch.cuda.is_available() else "cpu")
    backbone, meter = module.backbone, Meter(module.device)
    pad_id, bf16 = module.objective.vocabulary.pad, precision(recipe.run.precision) == "bf16-mixed"
    packs = [pack for step in range(recipe.run.steps) for pack in module.corrupted(step)]
    optimizer = naive_trainer.optimizer_of(backbone, recipe.optimizer)
    _follow(optimizer, meter.clock)
    for pack in packs:
        padded = naive_trainer.pad(pack, pad_id)
        with meter.step():
            loss = naive_trainer.step(
                backbone, optimizer, padded, clip=recipe.optimizer.clip, bf16=bf16, clock=meter.clock
            )
        meter.learnt(pack.ids.numel(), loss)
    return meter


def train_ours(recipe: DiffusionRecipe) -> Meter:
    """All steps of a recipe by its own module and precision, in as many processes as it says; nothing is written."""
    made = diffusion_module(recipe)
    module = _Timed(recipe, backbone=made.backbone, builder=made.builder, source=made.source, objective=made.objective)
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)  # of this process, which does nothing else
    trainer = L.Trainer(
        max_epochs=1,
        limit_train_batches=recipe.run.steps,
        devices=recipe.run.devices,
        strategy=strategy(recipe.run),
        precision=precision(recipe.run.precision),
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        num_sanity_val_steps=0,
    )
    fit(trainer, module)
    return module.meter


class _Timed(DiffusionModule):
    """The recipe's own step, on packs made beforehand."""

    def on_train_start(self) -> None:
        """Make all packs, and let the clock follow the parts of a step."""
        self.meter = Meter(self.device)
        self._made: list[list[Noisy]] = []
        for step in range(self.recipe.run.steps):
            self._made.append(super().corrupted(step))
        optimizer, clock = self.optimizers(), self.meter.clock
        assert not isinstance(optimizer, list)
        _follow(optimizer.optimizer, clock)
        self.backbone.register_forward_pre_hook(lambda *_: clock.start("forward"))
        self.backbone.register_forward_hook(lambda *_: clock.stop())

    def corrupted(self, step: int) -> list[Noisy]:
        """As they were made."""
        return self._made[step]

    def manual_backward(self, loss: Tensor, *rest: Any, **named: Any) -> None:
        """On the clock."""
        with self.meter.clock.part("backward"):
            super().manual_backward(loss, *rest, **named)

    def training_step(self, batch: int, batch_idx: int) -> None:
        """On the clock."""
        head = self.meter.clock.timed("head", chunked_nll)
        with self.meter.step(), patch("dimoo.denoise.objective.chunked_nll", head):
            super().training_step(batch, batch_idx)
        self.meter.learnt(self.items, self.values["loss"])


def _follow(optimizer: torch.optim.Optimizer, clock: Clock) -> None:
    optimizer.register_step_pre_hook(lambda *_: clock.start("optimizer"))
    optimizer.register_step_post_hook(lambda *_: clock.stop())
