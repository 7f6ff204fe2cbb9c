"""What a run will take, before it starts: parameters, memory by part and operations per step.

The recipe's own first step is taken on the meta device, on its own documents, with its own packs, where tensors have
shapes and no numbers. Two things are assumed: what a fused attention kernel holds, and that with bf16 everything is in
bf16. Autocast keeps the residual stream in float32, so activations of bf16 runs are somewhat more than is said.

A run begins with less: a process of a sharded one has its part of the weights and a tensor, or two of a table that
grows, which is less than what it gathers in a step.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.table import Table
from torch import Tensor, nn

from dimoo.backbone.block import Attention
from dimoo.backbone.build import build_backbone
from dimoo.backbone.config import BackboneConfig
from dimoo.backbone.layout import PackedLayout
from dimoo.backbone.lora import adapters
from dimoo.backbone.model import Backbone
from dimoo.core.errors import ConfigError
from dimoo.core.peak import peak_bytes
from recipes.config import DiffusionRecipe, Recipe
from recipes.learning.assemble import diffusion_module
from recipes.learning.operations import operations, sizes
from recipes.running.absent import present
from recipes.running.trainer import precision, sharded

MASTER = 4
"""Bytes of a weight, of its gradient and of each of its two moments: they are float32 in every precision."""


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """What a recipe takes."""

    parameters: dict[str, int]
    """By part of the network."""
    processes: int
    tokens: int
    """Of the first step, on all processes together."""
    masked: int
    """Tokens of it whose loss is computed."""
    operations: dict[str, float]
    """Multiplications and additions of a step, forward and backward, by part; what is computed a second time to save
    memory does not count."""
    memory: dict[str, int]
    """Bytes in one process, by part."""
    note: str = ""
    """What stood in for files that are not here."""

    @property
    def total_operations(self) -> float:
        """Of all parts, of a step."""
        return sum(self.operations.values())

    def table(self) -> Table:
        """To be printed."""
        title = f"{self.processes} process{'es' * (self.processes > 1)}"
        table = Table(title=title, title_justify="left", caption=self.note or None, caption_justify="left")
        for name in ("what", "part", "value"):
            table.add_column(name, justify="right" if name == "value" else "left")
        for title, parts, scale, unit in (
            ("parameters", self.parameters, 1e6, "M"),
            ("memory of a process", self.memory, 1e9, "GB"),
            ("operations of a step", self.operations, 1e12, "TFLOP"),
        ):
            for name, value in {**parts, "all": sum(parts.values())}.items():
                table.add_row(title, name, f"{value / scale:,.3f} {unit}")
            table.add_section()
        table.add_row("tokens of a step", "all", f"{self.tokens:,}")
        table.add_row("tokens of a step", "masked", f"{self.masked:,}")
        return table


def estimate(recipe: Recipe) -> Estimate:
    """What a recipe takes.

    Of one step, the first: with data of other lengths, or later in a curriculum, steps differ.

    Raises:
        ConfigError: the recipe trains no transformer.
            Or it needs files that are not here, and nothing can stand in for them; see `present`.
        CheckpointError: a tokenizer cannot be read.
    """
    if not isinstance(recipe, DiffusionRecipe):
        raise ConfigError(f"--estimate looks at recipes of kind 'diffusion', not {recipe.kind!r}")
    kind = torch.bfloat16 if precision(recipe.run.precision) == "bf16-mixed" else torch.float32
    world = recipe.run.devices * recipe.run.nodes
    shape = _fused(recipe.backbone, kind)
    # One process that takes the packs of all of them in turn: it has their documents and masks.
    alone = recipe.model_copy(update={"accumulate": recipe.accumulate * world, "compile": False})
    with tempfile.TemporaryDirectory() as scratch:
        here, note = present(alone, Path(scratch))
        module = diffusion_module(here, shape)
        noisy = module.corrupted(0)
    backbone = module.backbone
    largest = max(noisy, key=lambda entry: entry.ids.numel())
    parameters = _parameters(backbone)
    for parameter in backbone.parameters():  # gradients are counted by themselves
        if parameter.requires_grad:
            parameter.grad = torch.zeros_like(parameter)
    step = peak_bytes(lambda: torch.autograd.backward(module.objective.loss(backbone, largest).terms.total))
    return Estimate(
        parameters=parameters,
        processes=world,
        tokens=sum(entry.ids.numel() for entry in noisy),
        masked=sum(entry.rows.numel() for entry in noisy),
        operations=operations(recipe, backbone, noisy),
        memory={
            **_held(recipe, backbone),
            "activations": step,
        },
        note=note,
    )


def _parameters(backbone: Backbone) -> dict[str, int]:
    def count(module: nn.Module) -> int:
        return sum(parameter.numel() for parameter in module.parameters())

    parts = {"embedding": backbone.embedding, "blocks": backbone.blocks, "norm": backbone.norm}
    counts = {name: count(module) for name, module in {**parts, "head": backbone.unembedding}.items()}
    added = sum(layer.A.numel() + layer.B.numel() for layer in adapters(backbone).values())
    return {**counts, "blocks": counts["blocks"] - added, "adapters": added} if added else counts


def _held(recipe: DiffusionRecipe, backbone: Backbone) -> dict[str, int]:
    """What stays from step to step; weights that are not trained have no gradients, moments or average."""
    (count, trained), split = sizes(backbone), sharded(recipe.run)
    processes = recipe.run.devices * recipe.run.nodes if split else 1
    own, learnt = -(-count // processes), -(-trained // processes)
    held = {"weights": MASTER * own, "gradients": MASTER * learnt, "AdamW": 2 * MASTER * learnt}
    if recipe.ema:
        held["average"] = MASTER * learnt
    if split:
        # What belongs to no block, and a block while it is computed, is whole, and so are its gradients.
        blocks, inside = sizes(backbone.blocks)
        layers = recipe.backbone.layers
        held["gathered"] = MASTER * (count - blocks + blocks // layers + trained - inside + inside // layers)
    return held


def _fused(config: BackboneConfig, kind: torch.dtype) -> Backbone:
    """The network on the meta device, with attention that holds what fused kernels hold."""
    with torch.device("meta"):
        backbone = build_backbone(config).to(kind)
    for module in backbone.modules():
        if isinstance(module, Attention):
            module.backend = _Fused()
    return backbone


class _Fused:
    """Attention that keeps its inputs, its output and a sum for each query and head."""

    def attend(self, query: Tensor, key: Tensor, value: Tensor, layout: PackedLayout) -> Tensor:
        """See `AttentionBackend.attend`; the output is empty."""
        del layout
        out: Tensor = _Kernel.apply(query, key, value)  # type: ignore[no-untyped-call]
        return out


class _Kernel(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        out, sums = torch.empty_like(query), query.new_empty(query.shape[:2], dtype=torch.float32)
        ctx.save_for_backward(query, key, value, out, sums)
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        del gradients
        query, key, value, _, _ = ctx.saved_tensors
        return torch.empty_like(query), torch.empty_like(key), torch.empty_like(value)
