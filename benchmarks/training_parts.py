"""Parts of a training step of a diffusion recipe, and its tokens per second, run through the recipe itself."""

from __future__ import annotations

import statistics
import tempfile
from contextlib import ExitStack
from typing import Any
from unittest.mock import patch

import torch

from benchmarks.timing import REST, Clock, counted, watch
from dimoo.core.config import override
from dimoo.diffusion.loss import chunked_nll
from recipes import registry
from recipes.learning.diffusion import DiffusionModule
from recipes.run import run

WARM_UP = 2


def measure(batch: int, *, steps: int) -> dict[str, Any]:
    """Time `steps` optimiser steps of `world_base` on scenes of its last phase, after two that do not count.

    The parts: "data" renders, tokenizes and packs; "attention" and "mlp" are forward and backward; "head" is the
    head with softmax and loss, forward and backward; "optimizer" is AdamW; "rest" is embedding, norms, rotation,
    corruption, clipping.
    """
    seconds: list[float] = []
    clock = Clock(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    step, packs, backward = DiffusionModule.training_step, DiffusionModule.packs, DiffusionModule.manual_backward

    def timed_step(self: DiffusionModule, ticks: int, index: int) -> None:
        if self.steps_done == 0:
            watch(self.backbone, clock)
            # Backward begins in the loss and the head; from the backbone's output on it is the backbone's.
            self.backbone.register_forward_hook(
                lambda *made: made[-1].register_hook(lambda _: clock.turn(REST)) and None
            )
        if self.steps_done == WARM_UP:
            clock.seconds.clear()
        before = sum(clock.seconds.values())
        with clock.part(REST):
            step(self, ticks, index)
        seconds.append(sum(clock.seconds.values()) - before)
        tokens.append(self.items)

    tokens: list[int] = []
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        recipe = override(
            registry.get("world_base"),
            [
                f"run.folder={folder}",
                f"run.batch_size={batch}",
                f"run.steps={WARM_UP + steps}",
                "run.log_every=1000000",
            ],
        )
        assert recipe.accumulate == 1, "with several packs a step, backward is not one stretch that can be split"  # type: ignore[union-attr]
        last = recipe.source.phases[-1].model_copy(update={"share": 1.0})  # type: ignore[union-attr]
        recipe = recipe.model_copy(update={"source": recipe.source.model_copy(update={"phases": (last,)})})
        stack.enter_context(patch.object(DiffusionModule, "training_step", timed_step))
        stack.enter_context(patch.object(DiffusionModule, "packs", clock.timed("data", packs)))
        stack.enter_context(patch.object(DiffusionModule, "manual_backward", clock.timed("head", backward)))
        stack.enter_context(patch("dimoo.denoise.objective.chunked_nll", clock.timed("head", chunked_nll)))
        stack.enter_context(patch.object(torch.optim.AdamW, "step", clock.timed("optimizer", torch.optim.AdamW.step)))
        logits = stack.enter_context(counted())
        run(recipe)
    taken, learnt = seconds[WARM_UP:], tokens[WARM_UP:]
    return {
        "what": "training step of world_base",
        "batch": batch,
        "seconds": statistics.median(taken),
        "all_seconds": taken,
        "tokens_per_second": sum(learnt) / sum(taken),
        "parts": {name: spent / steps for name, spent in clock.seconds.items()},
        "logits": logits.report(),
    }
