"""dLLM-Cache: recompute the tokens whose values turned most (Liu et al. 2025, arXiv 2506.06295).

A policy of `StoredCache` plans before the step. This cache decides in every layer, from what the layer sees.

Axes: S = stream tokens of all segments (context, then canvas, of one branch of one row), n = those of them that a step
carries through the layers, k = those of them that a layer computes, H = key/value heads, D = head width, d = model
width.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import cast

import torch
from torch import Tensor
from torch.nn.functional import normalize

from dimoo.backbone.block import Block
from dimoo.backbone.layout import PackedLayout
from dimoo.backbone.model import Backbone
from dimoo.backbone.rope import Rotation
from dimoo.cache.carried import Choice, Part, Step
from dimoo.cache.needs import as_backbone, check_bound, check_room
from dimoo.cache.segments import Arrangement, Name, wanted_by
from dimoo.cache.size import CacheSize
from dimoo.cache.store import KeyValueStore, OutputStore
from dimoo.core.device import sent
from dimoo.core.errors import ConfigError
from dimoo.denoise.pack import Branches
from dimoo.denoise.predictor import MaskPredictor
from dimoo.diffusion.canvas import Canvas
from dimoo.diffusion.sampler import Denoiser, Query


@dataclass(frozen=True, kw_only=True)
class SimilarityCache:
    """The context now and then; of the canvas, in each layer, the tokens whose values are least like the stored ones.

    The context is computed every `prompt_refresh` steps, the whole canvas every `answer_refresh` steps. In between,
    layer l projects the values v of all canvas tokens and compares them to the stored ones u,
    cos_j = u_j v_j / |u_j| |v_j|, over all heads together. The ceil(share * canvas tokens) with the lowest cosine, the
    first of equals, run through the block (query, key, value, attention, MLP) and replace what is stored of them. For
    the others the stored addition of the block is reused, h_{l+1} = h_l + (attention + MLP)_l, and they are attended to
    with their stored key and value.

    What differs from the paper, or it leaves open:
    - Tokens that changed since the last step (just committed) are taken first. They count within the share; where
      more were written, so many are taken.
    - The first layer computes the whole canvas always. Its values depend on nothing but the token, so they cannot say
      whose attention is out of date; and no addition of it needs to be stored.
    - Attention's and the MLP's addition are always replaced and reused together, so their sum is stored: with keys and
      values three stores instead of four. Of the context it is not stored: who would read it?
    - A token that is not computed keeps the value of its last computation, so that slow changes add up until they are
      noticed; the released code stores the value of each step.
    - Steps count from the one at which a segment comes. One that was not asked for in the step before comes anew.

    Raises:
        ConfigError: a value is out of range.
    """

    share: float = 0.25
    """rho, the part of the canvas that a layer computes between refreshes."""
    prompt_refresh: int = 25
    """K_p, in steps."""
    answer_refresh: int = 7
    """K_r, in steps."""
    max_bytes: int | None = None
    """What the store of a run may take; None: no bound."""

    def __post_init__(self) -> None:
        if not 0.0 < self.share <= 1.0:
            raise ConfigError(f"share {self.share} must lie in (0, 1]: the part of the canvas that is computed anew")
        for name, steps in (("prompt_refresh", self.prompt_refresh), ("answer_refresh", self.answer_refresh)):
            if steps < 1:
                raise ConfigError(f"{name} {steps} must be at least 1, which computes it at every step")
        check_bound(self.max_bytes)

    def denoiser(self, network: MaskPredictor, start: Canvas, requests: Mapping[int, Branches]) -> Denoiser:
        """A denoiser with an empty store.

        Raises:
            ConfigError: the network is no `Backbone`, or the store would take more than the bound.
        """
        backbone = as_backbone(network)
        check_room(CacheSize.of(backbone, start, requests, outputs=True), self.max_bytes)
        return SimilarityDenoiser(backbone, start, requests, self)


class SimilarityDenoiser:
    """A `Denoiser` that computes what `SimilarityCache` says, over a store of its own.

    Segments whose rows are finished leave the store; a branch that comes later is computed whole when it comes.
    """

    def __init__(
        self, backbone: Backbone, start: Canvas, requests: Mapping[int, Branches], cache: SimilarityCache
    ) -> None:
        """Args:
        backbone: the transformer.
        start: the canvas before the first step.
        requests: the branches of the rows that are served.
        cache: what is computed anew.
        """
        self._backbone, self._start, self._requests, self._cache = backbone, start, requests, cache
        self._blocks = cast("list[Block]", list(backbone.blocks))
        self._store, self._outputs = KeyValueStore(len(self._blocks)), OutputStore(len(self._blocks), slots=1)
        self._arrangement: Arrangement | None = None
        self._seen = start.ids[:0]
        self._came: dict[Name, int] = {}
        self._last: dict[Name, int] = {}

    @property
    def bytes(self) -> int:
        """What is kept at present, on the device."""
        return self._store.bytes + self._outputs.bytes

    @torch.no_grad()
    def __call__(self, canvas: Canvas, queries: Sequence[Query]) -> list[Tensor]:
        """Logits [branches, m, columns] of each query."""
        arranged = self._arranged(wanted_by(queries))
        stream = arranged.packed.tokens(canvas)
        step = self._step(arranged, stream, self._ages(queries), {query.row: query.written for query in queries})
        hidden = self._backbone.norm(self._through(stream[step.live], step))
        self._seen = stream
        return [self._answer(query, hidden, step) for query in queries]

    def _arranged(self, names: tuple[Name, ...]) -> Arrangement:
        """The layout of the segments, the stores arranged like it. What is new in it has been seen as no token."""
        before = self._arrangement
        if before is not None and before.names == names:
            return before
        now = self._arrangement = Arrangement.of(self._start, self._requests, names)
        if before is None:
            self._seen = torch.full_like(now.packed.template, -1)
            self._outputs = OutputStore(len(self._blocks), slots=now.canvases + 1)
        else:
            old, new = now.shared(before)
            seen = torch.full_like(now.packed.template, -1)
            seen[new] = self._seen[old]
            self._seen = seen
            self._store.rearrange(old, new, now.total)
            self._outputs.rearrange(before.slots[old], now.slots[new], now.canvases + 1)
        return now

    def _ages(self, queries: Sequence[Query]) -> dict[Name, int]:
        """Steps since each segment came."""
        now = {(query.row, name): query.step for query in queries for name in query.branches}
        self._came = {
            name: self._came[name] if self._last.get(name) == step - 1 else step for name, step in now.items()
        }
        self._last = now
        return {name: step - self._came[name] for name, step in now.items()}

    def _step(
        self, arranged: Arrangement, stream: Tensor, ages: Mapping[Name, int], written: Mapping[int, int]
    ) -> Step:
        """What is carried and computed of each segment."""
        parts = [self._part(arranged, name, ages[name]) for name in arranged.names]
        lengths = [part.length for part in parts]
        bounds = [0, *accumulate(lengths)][:-1]
        live = torch.cat([torch.arange(part.start, part.stop, device=stream.device) for part in parts])
        slots = arranged.slots[live]
        segment = sent(torch.arange(len(parts)).repeat_interleave(torch.tensor(lengths)), live.device)
        forced = (slots == arranged.canvases) | (stream[live] != self._seen[live])
        counts = [self._count(part, written[row]) for part, (row, _) in zip(parts, arranged.names, strict=True)]
        positions = arranged.packed.layout.positions[live]
        keys = arranged.packed.layout.key_lengths
        return Step(
            live=live,
            slots=slots,
            forced=forced,
            first={
                name: bound + part.length - part.canvas
                for name, part, bound in zip(arranged.names, parts, bounds, strict=True)
            },
            rotation=self._backbone.rope.rotation(positions),
            layout=PackedLayout(positions=positions, query_lengths=tuple(lengths), key_lengths=keys),
            choice=None if counts == lengths else Choice.of(segment, bounds, counts, keys),
        )

    def _part(self, arranged: Arrangement, name: Name, age: int) -> Part:
        """By the timetable."""
        (start, stop), context = arranged.ranges[name], arranged.contexts[name]
        return Part(
            start=start if age % self._cache.prompt_refresh == 0 else start + context,
            stop=stop,
            canvas=stop - start - context,
            whole=age % self._cache.answer_refresh == 0,
        )

    def _count(self, part: Part, written: int) -> int:
        """How many tokens of a segment a layer computes, when so many of its row were written since the step before."""
        share = 1.0 if part.whole else self._cache.share
        return part.length - part.canvas + min(part.canvas, max(math.ceil(share * part.canvas), written))

    def _through(self, tokens: Tensor, step: Step) -> Tensor:
        """Tokens int64 [n] -> hidden states [n, d] after the last block."""
        first, *others = self._blocks
        hidden: Tensor = self._backbone.embed(tokens)
        hidden = first(hidden, step.rotation, step.layout, self._store.writing(step.live))
        for layer, block in enumerate(others, start=1):
            if step.choice is None:
                before, hidden = hidden, block(hidden, step.rotation, step.layout, self._store.writing(step.live))
                self._outputs.write(layer, step.slots, hidden - before)
            else:
                hidden = self._partly(layer, block, hidden, step, step.choice)
        return hidden

    def _partly(self, layer: int, block: Block, hidden: Tensor, step: Step, choice: Choice) -> Tensor:
        """Hidden states [n, d] after a block that computes k of them."""
        chosen = choice.most(self._urgency(layer, block, hidden, step))
        rotation = Rotation(cos=step.rotation.cos[chosen], sin=step.rotation.sin[chosen])
        rows = hidden[chosen]
        fresh = block(rows, rotation, choice.layout, self._store.writing(step.live[chosen]))
        after = hidden + self._outputs.read(layer, step.slots)
        after[chosen] = fresh
        self._outputs.write(layer, step.slots[chosen], fresh - rows)
        return after

    def _urgency(self, layer: int, block: Block, hidden: Tensor, step: Step) -> Tensor:
        """|v / |v| - u / |u|| = sqrt(2 - 2 cos(v, u)) of each token's new and stored values, [n]; inf where forced.

        The distance has the order of the cosine, but that of values which hardly turned drowns in rounding.
        """
        new: Tensor = block.attention.value(block.attention_norm(hidden))
        old = self._store.values(layer, step.live).flatten(1)
        turned: Tensor = torch.linalg.vector_norm(normalize(new.float(), dim=1) - normalize(old.float(), dim=1), dim=1)
        return turned.masked_fill(step.forced, torch.inf)

    def _answer(self, query: Query, hidden: Tensor, step: Step) -> Tensor:
        """Logits [branches, m, columns] of a query."""
        offsets = query.positions - sum(self._start.lengths[: query.row])
        rows = torch.cat([offsets + step.first[query.row, name] for name in query.branches])
        logits = self._backbone.head(hidden[rows], slice(*query.columns)).float()
        return logits.view(len(query.branches), offsets.numel(), -1)
