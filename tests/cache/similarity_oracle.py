"""dLLM-Cache once more: a branch, a layer and a token at a time, over the paper's four stores."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import torch
from torch import Tensor

from dimoo.backbone.build import build_backbone
from dimoo.backbone.config import BackboneConfig
from dimoo.backbone.init import initialise
from dimoo.backbone.model import Backbone
from dimoo.cache.similarity import SimilarityCache
from dimoo.core.rng import generator
from dimoo.denoise import Branches
from dimoo.diffusion.canvas import Canvas
from dimoo.diffusion.sampler import Query

HEADS, KEY_HEADS, LAYERS = 4, 2, 3
ResultT = TypeVar("ResultT")


def deep() -> Backbone:
    """Three layers, of which two choose what they compute."""
    config = BackboneConfig(d_model=32, layers=LAYERS, heads=HEADS, kv_heads=KEY_HEADS, mlp_hidden=48, vocab_size=36)
    model = initialise(build_backbone(config), generator(0, "similarity"))
    for parameter in model.parameters():
        if parameter.ndim == 2:
            parameter.data.mul_(6.0)
    return model.eval()


def mlp_tokens(network: Backbone, run: Callable[[], ResultT]) -> tuple[ResultT, list[list[int]]]:
    """What `run` gives, and how many tokens each layer's MLP saw, [calls][layers]."""
    seen: list[list[int]] = [[] for _ in network.blocks]
    hooks = [
        block.mlp.register_forward_hook(lambda module, inputs, output, own=own: own.append(len(output)))
        for block, own in zip(network.blocks, seen, strict=True)
    ]
    try:
        result = run()
    finally:
        for hook in hooks:
            hook.remove()
    return result, [list(call) for call in zip(*seen, strict=True)]


@dataclass
class Layer:
    """What a layer stores of each token, by its place in the segment."""

    key: dict[int, Tensor] = field(default_factory=dict)
    value: dict[int, Tensor] = field(default_factory=dict)
    attention: dict[int, Tensor] = field(default_factory=dict)
    mlp: dict[int, Tensor] = field(default_factory=dict)


@dataclass
class Segment:
    came: int
    last: int
    tokens: list[int]
    layers: list[Layer]


class NaiveSimilarity:
    """A denoiser; `spent` is how many tokens each MLP saw, [calls][layers]."""

    def __init__(self, backbone: Backbone, start: Canvas, requests: dict[int, Branches], cache: SimilarityCache):
        self.backbone, self.start, self.requests, self.cache = backbone, start, requests, cache
        self.segments: dict[tuple[int, str], Segment] = {}
        self.spent: list[list[int]] = []

    @torch.no_grad()
    def __call__(self, canvas: Canvas, queries: Sequence[Query]) -> list[Tensor]:
        self.spent.append([0] * LAYERS)
        names = {(query.row, branch): query for query in queries for branch in query.branches}
        hidden = {name: self._segment(name, canvas, query.step, query.written) for name, query in names.items()}
        answers = []
        for query in queries:
            rows = []
            for branch in query.branches:
                context = self.requests[query.row][branch].context.numel()
                first = sum(canvas.lengths[: query.row])
                rows.append([hidden[query.row, branch][int(p) - first + context] for p in query.positions])
            states = torch.stack([self.backbone.norm(torch.stack(row)) for row in rows])
            weight = self.backbone.unembedding.weight[slice(*query.columns)]
            answers.append((states @ weight.T).float())
        return answers

    def _segment(self, name: tuple[int, str], canvas: Canvas, step: int, written: int) -> list[Tensor]:
        """The hidden states of its tokens after the last block."""
        row, branch = name
        request = self.requests[row][branch]
        shown = canvas.row(row).tolist()
        if request.hide_given:
            known = (self.start.row(row) != canvas.mask_id).tolist()
            shown = [canvas.mask_id if given else token for token, given in zip(shown, known, strict=True)]
        tokens, context = request.context.tolist() + shown, request.context.numel()
        before = self.segments.get(name)
        if before is None or before.last != step - 1:
            before = Segment(came=step, last=step, tokens=tokens, layers=[Layer() for _ in range(LAYERS)])
        age = step - before.came
        changed = [place for place in range(context, len(tokens)) if tokens[place] != before.tokens[place]]
        hidden = [self.backbone.embedding.weight[token] for token in tokens]
        for index, (block, kept) in enumerate(zip(self.backbone.blocks, before.layers, strict=True)):
            answer = list(range(context, len(tokens)))
            if index > 0 and age % self.cache.answer_refresh:
                answer = self._least_similar(block, kept, hidden, answer, changed, written)
            prompt = [] if age % self.cache.prompt_refresh else list(range(context))
            self._compute(block, kept, hidden, prompt + answer)
            self.spent[-1][index] += len(prompt + answer)
            hidden = [state + kept.attention[place] + kept.mlp[place] for place, state in enumerate(hidden)]
        self.segments[name] = Segment(came=before.came, last=step, tokens=tokens, layers=before.layers)
        return hidden

    def _least_similar(self, block, kept: Layer, hidden, answer: list[int], changed: list[int], written: int):
        count = max(math.ceil(self.cache.share * len(answer)), written)
        cosines = {}
        for place in answer:
            new, old = block.attention.value.weight @ block.attention_norm(hidden[place]), kept.value[place]
            cosines[place] = float(new @ old / (new.norm() * old.norm()))
        return sorted(answer, key=lambda place: (place not in changed, cosines[place], place))[:count]

    def _compute(self, block, kept: Layer, hidden: list[Tensor], places: list[int]) -> None:
        attention, queries = block.attention, {}
        for place in places:
            normed = block.attention_norm(hidden[place])
            queries[place] = self._rotated(attention.query.weight @ normed, place)
            kept.key[place] = self._rotated(attention.key.weight @ normed, place)
            kept.value[place] = attention.value.weight @ normed
        keys, values = (
            torch.stack([store[place] for place in range(len(hidden))]).view(-1, KEY_HEADS, 8)
            for store in (kept.key, kept.value)
        )
        for place in places:
            heads = []
            for head, query in enumerate(queries[place].view(HEADS, 8)):
                own = head // (HEADS // KEY_HEADS)
                heads.append((keys[:, own] @ query / math.sqrt(8)).softmax(0) @ values[:, own])
            kept.attention[place] = attention.output.weight @ torch.cat(heads)
            kept.mlp[place] = block.mlp(block.mlp_norm(hidden[place] + kept.attention[place]))

    def _rotated(self, vector: Tensor, place: int) -> Tensor:
        """Pairs (x_j, x_{j + 4}) of each head as complex numbers, turned by place / theta^(j / 4)."""
        halves = vector.view(-1, 2, 4)
        angles = place * self.backbone.rope.theta ** (-torch.arange(4, dtype=vector.dtype) / 4)
        turned = torch.complex(halves[:, 0], halves[:, 1]) * torch.polar(torch.ones_like(angles), angles)
        return torch.stack([turned.real, turned.imag], 1).flatten()
