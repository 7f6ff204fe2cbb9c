"""The two trainers of `benchmarks.training`, step by step on a clock, on the same packs made beforehand."""

from __future__ import annotations

import logging
import statistics
import time
from contextlib import ExitStack
from typing import Any
from unittest.mock import patch

import lightning as L
import torch

from benchmarks import naive_trainer
from benchmarks.timing import REST, Clock
from dimoo.core.errors import ConfigError
from dimoo.diffusion.loss import chunked_nll
from recipes.config import DiffusionRecipe
from recipes.learning.assemble import diffusion_module
from recipes.learning.diffusion import DiffusionModule
from recipes.running.trainer import fit, precision, strategy

WARM_UP = 1
"""Steps at first that do not count."""
PARTS = ("forward", "head", "backward", "optimizer", REST)
"""Of a step. The head goes with softmax and loss, forward; what it computes again is in backward; clipping is rest."""


class Meter:
    """Seconds, tokens and losses of steps, and the parts of their time.

    Seconds of the processor, of all threads of this process, say on a busy machine what seconds on the wall do not.
    """

    def __init__(self, device: torch.device) -> None:
        self.clock = Clock(device)
        self.seconds: list[float] = []
        self.cpu_seconds: list[float] = []
        self.tokens: list[int] = []
        self.losses: list[float] = []
        self.head_rows: list[int] = []
        self._before, self._cpu_before = 0.0, 0.0

    def begin(self) -> None:
        """A step begins; the first ones leave no parts."""
        if len(self.seconds) == WARM_UP:
            self.clock.seconds.clear()
        self._before, self._cpu_before = sum(self.clock.seconds.values()), time.process_time()
        self.clock.start(REST)

    def end(self, tokens: int, loss: float, head_rows: int) -> None:
        """It has ended, has learnt from so many tokens, knew them so badly, and made logits for so many positions."""
        self.clock.stop()
        self.seconds.append(sum(self.clock.seconds.values()) - self._before)
        self.cpu_seconds.append(time.process_time() - self._cpu_before)
        self.tokens.append(tokens)
        self.losses.append(loss)
        self.head_rows.append(head_rows)

    def follow(self, optimizer: torch.optim.Optimizer) -> None:
        """Let the optimizer's steps be a part."""
        optimizer.register_step_pre_hook(lambda *_: self.clock.start("optimizer"))
        optimizer.register_step_post_hook(lambda *_: self.clock.stop())

    def report(self) -> dict[str, Any]:
        """Plain numbers: speed and parts of the steps after the first ones, seconds, tokens and losses of all."""
        seconds, tokens = self.seconds[WARM_UP:], self.tokens[WARM_UP:]
        return {
            "tokens_per_s": statistics.median(count / spent for count, spent in zip(tokens, seconds, strict=True)),
            "step_seconds": statistics.median(seconds),
            "step_cpu_seconds": statistics.median(self.cpu_seconds[WARM_UP:]),
            "loss": self.losses[-1],
            "head_rows": statistics.median(self.head_rows[WARM_UP:]),
            "parts": {part: self.clock.seconds.get(part, 0.0) / len(seconds) for part in PARTS},
            "all_seconds": self.seconds,
            "all_tokens": self.tokens,
            "all_losses": self.losses,
        }


def train_naively(recipe: DiffusionRecipe) -> Meter:
    """All steps of a recipe by the naive trainer, in this process, with the recipe's weights, documents and masks.

    Raises:
        ConfigError: the recipe divides a step.
    """
    module = diffusion_module(recipe).to("cuda" if torch.cuda.is_available() else "cpu")
    backbone, meter = module.backbone, Meter(module.device)
    pad_id, bf16 = module.objective.vocabulary.pad, precision(recipe.run.precision) == "bf16-mixed"
    steps = [module.corrupted(step) for step in range(recipe.run.steps)]
    if any(len(packs) > 1 for packs in steps):
        raise ConfigError(
            "the naive trainer takes a step in one piece; set accumulate, pack_tokens, complementary back"
        )
    optimizer = naive_trainer.optimizer_of(backbone, recipe.optimizer)
    meter.follow(optimizer)
    clip = recipe.optimizer.clip
    for (pack,) in steps:
        padded = naive_trainer.pad(pack, pad_id)
        meter.begin()
        loss = naive_trainer.step(backbone, optimizer, padded, clip=clip, bf16=bf16, clock=meter.clock)
        meter.end(pack.ids.numel(), loss, padded.ids.numel())
    return meter


def train_ours(recipe: DiffusionRecipe) -> Meter:
    """All steps of a recipe by its own module and precision, in as many processes as it says; nothing is written."""
    module = diffusion_module(recipe)
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)  # of this process, which does nothing else
    with ExitStack() as stack:
        watched = _Watched(stack)
        trainer = L.Trainer(
            max_epochs=1,
            limit_train_batches=recipe.run.steps,
            devices=recipe.run.devices,
            strategy=strategy(recipe.run),
            precision=precision(recipe.run.precision),
            callbacks=[watched],
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            enable_checkpointing=False,
            num_sanity_val_steps=0,
        )
        fit(trainer, module)
    return watched.meter


class _Watched(L.Callback):
    """The recipe's own steps on a clock, on packs made beforehand; what it puts in place goes with the stack."""

    meter: Meter

    def __init__(self, stack: ExitStack) -> None:
        super().__init__()
        self._stack = stack
        self._rows: list[int] = []

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Make all packs, and let the clock follow the parts of a step."""
        assert isinstance(pl_module, DiffusionModule)
        self.meter = Meter(pl_module.device)
        clock, made = self.meter.clock, [pl_module.corrupted(step) for step in range(pl_module.recipe.run.steps)]
        self._rows = [sum(pack.rows.numel() for pack in packs) for packs in made]
        backward, head = clock.timed("backward", pl_module.manual_backward), clock.timed("head", chunked_nll)
        self._stack.enter_context(patch.object(pl_module, "corrupted", made.__getitem__))
        self._stack.enter_context(patch.object(pl_module, "manual_backward", backward))
        self._stack.enter_context(patch("dimoo.denoise.objective.chunked_nll", head))
        self.meter.follow(trainer.optimizers[0])
        pl_module.backbone.register_forward_pre_hook(lambda *_: clock.start("forward"))
        pl_module.backbone.register_forward_hook(lambda *_: clock.stop())

    def on_train_batch_start(self, *_: Any) -> None:
        """A step begins."""
        self.meter.begin()

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        """It has ended."""
        del trainer
        assert isinstance(pl_module, DiffusionModule)
        self.meter.end(pl_module.items, pl_module.values["loss"], self._rows[pl_module.steps_done - 1])
