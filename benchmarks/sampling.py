"""Seconds per picture of the bundled model, through the tasks that users call."""

from __future__ import annotations

import statistics
from contextlib import ExitStack
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import torch

from benchmarks.timing import REST, Clock, counted, watch
from dimoo.backbone.model import Backbone
from dimoo.core.requests import GenerateRequest
from dimoo.diffusion.canvas import Plan
from dimoo.tasks.assemble import load
from dimoo.tasks.compose import Settings
from dimoo.tasks.generate import generate
from dimoo.tasks.job import Job
from dimoo.tasks.model import Dimoo

PROMPT = "a big cat on a blue background"


class Timed:
    """A strategy whose calls are counted as drawing; everything else is the strategy's own."""

    def __init__(self, inner: Any, clock: Clock) -> None:
        self._inner, self._clock = inner, clock

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        """The strategy itself."""
        return self._clock.timed("draw", self._inner)(*arguments, **named)

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._inner, name)
        if name == "at":  # the guidance of a step is timed as the whole is
            return lambda *arguments: Timed(value(*arguments), self._clock)
        return self._clock.timed("draw", value) if name in ("commit", "candidates") else value


def open_model(*, random: bool) -> Dimoo:
    """The bundled model, or one with random weights in the shape that `world_base` trains."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if not random:
        return load("mini", device=device)
    from recipes import registry
    from recipes.config import DiffusionRecipe
    from recipes.learning.assemble import diffusion_module, model_of

    recipe = registry.get("world_base")
    assert isinstance(recipe, DiffusionRecipe)
    module = diffusion_module(recipe).to(device)
    if isinstance(module.builder.image_tokenizer, torch.nn.Module):
        module.builder.image_tokenizer.to(device)
    return model_of(module)


def measure(model: Dimoo, batch: int, *, repeats: int) -> dict[str, Any]:
    """Time pictures of the model's own size with its own settings, after one round that does not count.

    The parts: "attention", "mlp" and "head" of all branches; "draw" is guidance, draw, confidence and order; "pixels"
    is the image tokenizer's decoder; "rest" is prompts, embedding, norms, rotation, the canvas.
    """
    clock = Clock(model.backbone.device)
    backbone = type(model.backbone)
    seconds: list[float] = []
    with ExitStack() as stack:
        logits = stack.enter_context(counted())
        stack.enter_context(patch.object(backbone, "head", clock.timed("head", backbone.head)))
        tokenizer = type(model.kit.image_tokenizer)
        stack.enter_context(patch.object(tokenizer, "decode", clock.timed("pixels", tokenizer.decode)))
        assert isinstance(model.backbone, Backbone)
        watch(model.backbone, clock)
        for repeat in range(repeats + 1):
            if repeat == 1:
                clock.seconds.clear()
            before = sum(clock.seconds.values())
            with clock.part(REST):
                jobs = [_job(model, seed, clock) for seed in range(batch)]
                model.run(jobs)
            seconds.append(sum(clock.seconds.values()) - before)
    height, width = model.config.image_size
    taken = seconds[1:]
    return {
        "what": f"{height}x{width} picture in {model.config.image.steps} steps",
        "batch": batch,
        "seconds": statistics.median(taken) / batch,
        "all_seconds": taken,
        "parts": {name: spent / repeats / batch for name, spent in clock.seconds.items()},
        "logits": logits.report(),
    }


def _job(model: Dimoo, seed: int, clock: Clock) -> Job[Any]:
    height, width = model.config.image_size
    request = GenerateRequest(prompt=PROMPT, height=height, width=width, seed=seed)
    job = generate(model.kit, request, Settings(image=model.config.image, text=model.config.text))
    return replace(job, plans={name: timed_plan(plan, clock) for name, plan in job.plans.items()})


def timed_plan(plan: Plan, clock: Clock) -> Plan:
    """The plan whose guidance, draw, confidence and order are counted as drawing."""
    return replace(
        plan,
        guidance=Timed(plan.guidance, clock),
        draw=Timed(plan.draw, clock),
        confidence=Timed(plan.confidence, clock),
        order=Timed(plan.order, clock),
    )
