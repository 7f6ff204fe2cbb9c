"""Partial steps once more: a branch at a time, arrays of keys and values, policies restated as plain Python."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from dimoo.backbone.model import Backbone
from dimoo.denoise import Branches
from dimoo.diffusion.canvas import Canvas
from dimoo.diffusion.sampler import Query


@dataclass
class Memory:
    """What is remembered of a segment; positions count from its first context token."""

    tokens: list[int]
    """As each was when it was computed."""
    keys: list[Tensor]
    """[n, H, D] of each layer, rotated."""
    values: list[Tensor]
    step: int
    since: int
    window: tuple[int, int]
    """The first and the last position of the blocks of which some was wanted when all was computed."""
    asked: set[tuple[int, int]] = field(default_factory=set)
    """The blocks of which some was wanted since then."""
    peaks: dict[int, float] = field(default_factory=dict)
    logits: dict[tuple[int, int], Tensor] = field(default_factory=dict)
    """By position and first column."""


@dataclass
class Now:
    """What a rule is told."""

    step: int
    steps: int
    context: int
    wanted: list[int]
    tokens: list[int]
    within: tuple[int, int]
    """The first and the last position of the blocks of what is wanted."""
    written: int
    """What the sampler says."""
    unasked: int
    """How many of the wanted lie in blocks that were not asked for since all was computed."""
    memory: Memory

    @property
    def changed(self) -> set[int]:
        pairs = zip(self.tokens, self.memory.tokens, strict=True)
        return {position for position, (new, old) in enumerate(pairs) if new != old}

    @property
    def since(self) -> int:
        """Steps since everything was computed, this one included."""
        return self.memory.since + 1


Rule = Callable[[Now], set[int] | None]
"""Which positions are computed; None: all."""


def due(now: Now, warmup: float, refresh: int) -> bool:
    """The released timetable: everything up to step W = int(T warmup), then at every `refresh`-th step after it."""
    return now.step <= int(now.steps * warmup) or (now.step - int(now.steps * warmup)) % refresh == 0


def paper(share: float, warmup: float, refresh: int) -> Rule:
    """Positions at or below the quantile of all largest logits, and those whose logits nobody has looked at."""

    def rule(now: Now) -> set[int] | None:
        if due(now, warmup, refresh):
            return None
        known = sorted(now.memory.peaks.values())
        rank = share * (len(known) - 1)
        low = math.floor(rank)
        bound = known[low] + (rank - low) * (known[min(low + 1, len(known) - 1)] - known[low])
        return {position for position in range(len(now.tokens)) if now.memory.peaks.get(position, -math.inf) <= bound}

    return rule


def aimed(share: float, warmup: float, refresh: int, *, fixed: bool = False) -> Rule:
    """What changed, then those of lowest largest logits among the wanted.

    As many more than were written as the share of the wanted says, at least all whose block was not asked for since all
    was computed, that time included; or if `fixed` the share of the canvas, where that is more.
    """

    def rule(now: Now) -> set[int] | None:
        if due(now, warmup, refresh):
            return None
        peaks = dict.fromkeys(range(len(now.tokens)), math.inf)
        peaks |= {position: now.memory.peaks.get(position, -math.inf) for position in now.wanted}
        peaks |= dict.fromkeys(now.changed, -math.inf)
        if fixed:
            count = max(math.ceil(share * (len(now.tokens) - now.context)), now.written + now.unasked)
        else:
            count = now.written + max(math.ceil(share * len(now.wanted)), now.unasked)
        return set(sorted(peaks, key=lambda position: peaks[position])[:count])

    return rule


def blocks(scope: str, refresh: float = math.inf) -> Rule:
    """Everything when the block is another one, then the block: with all that follows, alone, or what is open of it."""

    def rule(now: Now) -> set[int] | None:
        start, last = now.memory.window
        if now.within[0] < start or now.within[1] > last or now.since >= refresh:
            return None
        if scope == "suffix":
            return set(range(start, len(now.tokens)))
        if scope == "block":
            return set(range(start, last + 1))
        live = now.changed | set(now.wanted)
        others = [position for position in range(len(now.tokens)) if position not in live]
        return live | set(others[: len(now.wanted) + now.written - len(live)])

    return rule


def frozen(refresh: int) -> Rule:
    """The canvas, and everything at every `refresh`-th step."""
    return lambda now: None if now.since >= refresh else set(range(now.context, len(now.tokens)))


class NaiveCached:
    """A denoiser over one row; a segment that was not asked for in the step before is computed anew."""

    def __init__(
        self, backbone: Backbone, start: Canvas, requests: dict[int, Branches], rule: Rule, *, surveyed: bool
    ) -> None:
        """`surveyed`: at whole steps the largest logits of all positions are noted, not of the wanted alone."""
        self.backbone, self.start, self.requests = backbone, start, requests
        self.rule, self.surveyed = rule, surveyed
        self.columns = {
            place: span.columns
            for span in start.spans
            for place in span.positions.tolist()
            if start.ids[place] == start.mask_id
        }
        """Of the canvas positions that are made."""
        self.memories: dict[tuple[int, str], Memory] = {}
        self.computed: list[int] = []
        """Tokens of each step, of all segments."""

    @torch.no_grad()
    def __call__(self, canvas: Canvas, queries: Sequence[Query]) -> list[Tensor]:
        self.computed.append(0)
        for name in {(query.row, branch): None for query in queries for branch in query.branches}:
            self._advance(name, canvas, queries)
        return [self._answer(query) for query in queries]

    def _advance(self, name: tuple[int, str], canvas: Canvas, queries: Sequence[Query]) -> None:
        row, branch = name
        own = [query for query in queries if query.row == row]
        asking = [query for query in own if branch in query.branches]
        shown, given = canvas.row(row).tolist(), self._given(row)
        if self.requests[row][branch].hide_given:
            shown = [canvas.mask_id if known else token for token, known in zip(shown, given, strict=True)]
        tokens = self.requests[row][branch].context.tolist() + shown
        wanted = sorted(self._place(query, branch, int(p)) for query in asking for p in query.positions)
        edges = [self._block(query, branch) for query in asking]
        within = min(first for first, _ in edges), max(last for _, last in edges)
        step, memory, chosen = own[0].step, self.memories.get(name), None
        if memory is not None and memory.step == step - 1:
            unasked = [
                len(query.positions) for query, edge in zip(asking, edges, strict=True) if edge not in memory.asked
            ]
            context = len(tokens) - len(shown)
            steps = max(query.steps for query in own)
            written = own[0].written
            now = Now(
                step=step,
                steps=steps,
                context=context,
                wanted=wanted,
                tokens=tokens,
                within=within,
                written=written,
                unasked=sum(unasked),
                memory=memory,
            )
            chosen = self.rule(now)
        if memory is None or chosen is None:
            heads, layers = (len(tokens), 2, 8), len(self.backbone.blocks)
            new = [[torch.zeros(heads, dtype=torch.float64) for _ in range(layers)] for _ in range(2)]
            memory = Memory(tokens=[-1] * len(tokens), keys=new[0], values=new[1], step=step, since=0, window=within)
            self.memories[name] = memory
        else:
            memory.since += 1
        memory.step = step
        memory.asked |= {*edges}
        positions = sorted(range(len(tokens)) if chosen is None else chosen)
        self.computed[-1] += len(positions)
        rows = dict(zip(positions, self._forward(memory, tokens, positions), strict=True))
        for query in asking:
            mine = {self._place(query, branch, int(p)) for p in query.positions}
            for position in positions:
                if (chosen is not None or self.surveyed or position in mine) and self._sees(query, branch, position):
                    logits = rows[position][slice(*query.columns)]
                    memory.peaks[position] = float(logits.float().max())
                    memory.logits[position, query.columns[0]] = logits

    def _forward(self, memory: Memory, tokens: list[int], positions: list[int]) -> Tensor:
        """Logits [k, vocabulary] of positions whose keys and values are written, all others as they are."""
        x = self.backbone.embedding.weight[[tokens[position] for position in positions]]
        turn = self.backbone.rope.rotation(torch.tensor(positions))
        for layer, block in enumerate(self.backbone.blocks):
            attention, normed = block.attention, block.attention_norm(x)
            query, key, value = (
                (normed @ part.weight.T).view(len(positions), -1, 8)
                for part in (attention.query, attention.key, attention.value)
            )
            query, key = turn.apply(query), turn.apply(key)
            memory.keys[layer][positions], memory.values[layer][positions] = key, value
            heads = []
            for head in range(4):  # two of them share a key head
                scores = query[:, head] @ memory.keys[layer][:, head // 2].T / math.sqrt(8)
                heads.append(scores.softmax(-1) @ memory.values[layer][:, head // 2])
            x = x + torch.cat(heads, -1) @ attention.output.weight.T
            x = x + block.mlp(block.mlp_norm(x))
        for position in positions:
            memory.tokens[position] = tokens[position]
        return self.backbone.norm(x) @ self.backbone.unembedding.weight.T

    def _answer(self, query: Query) -> Tensor:
        rows = []
        for branch in query.branches:
            kept = self.memories[query.row, branch].logits
            rows.append(
                torch.stack([kept[self._place(query, branch, int(p)), query.columns[0]] for p in query.positions])
            )
        return torch.stack(rows).float()

    def _given(self, row: int) -> list[bool]:
        return [token != self.start.mask_id for token in self.start.row(row).tolist()]

    def _block(self, query: Query, branch: str) -> tuple[int, int]:
        """From the first to the last position of the span's blocks in which something is wanted."""
        wanted = query.positions.tolist()
        (span,) = [span for span in self.start.spans if span.row == query.row and wanted[0] in span.positions.tolist()]
        places = span.positions.tolist()
        order = getattr(span.plan.order, "order", span.plan.order)  # the inner one of a settled order
        # After the steps of the order, all of which the rows here take, rounds of refinement know no blocks.
        size = getattr(order, "block", len(places)) if query.step < span.plan.steps else len(places)
        hit = {places.index(position) // size for position in wanted}
        inside = [place for index, place in enumerate(places) if index // size in hit]
        made = [self._place(query, branch, place) for place in inside if self.start.ids[place] == self.start.mask_id]
        return made[0], made[-1]

    def _place(self, query: Query, branch: str, position: int) -> int:
        """Of a canvas position in its segment."""
        context = self.requests[query.row][branch].context.numel()
        return position - sum(self.start.lengths[: query.row]) + context

    def _sees(self, query: Query, branch: str, position: int) -> bool:
        """Whether a query's columns tell of a position: not if it is made on others."""
        place = position - self._place(query, branch, 0)
        own = place >= sum(self.start.lengths[: query.row])
        return not own or self.columns.get(place, query.columns) == query.columns
