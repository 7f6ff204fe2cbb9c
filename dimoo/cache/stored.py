"""The step with a store: compute what a policy says, take the rest from earlier steps.

Axes: n = tokens of a segment (context, then canvas, of one branch of one row), k = those of them computed now,
m = wanted positions, C = columns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor

from dimoo.backbone.layout import PackedLayout
from dimoo.backbone.model import Backbone
from dimoo.cache.policy import Look, Policy
from dimoo.cache.size import CacheSize
from dimoo.cache.store import KeyValueStore, LogitStore
from dimoo.core.errors import ConfigError
from dimoo.denoise.pack import Branches, Pack, pack
from dimoo.denoise.predictor import MaskPredictor
from dimoo.diffusion.canvas import Canvas
from dimoo.diffusion.sampler import Denoiser, Query

Name = tuple[int, str]
"""(row, branch): names a segment."""


@dataclass(frozen=True, kw_only=True)
class StoredCache:
    """A policy over a store of keys, values and, where it wants them, logits.

    Raises:
        ConfigError: the bound is negative.
    """

    policy: Policy
    max_bytes: int | None = None
    """What the store of a run may take; None: no bound."""

    def __post_init__(self) -> None:
        if self.max_bytes is not None and self.max_bytes < 0:
            raise ConfigError(f"max_bytes {self.max_bytes} must be at least 0, or None for no bound")

    def denoiser(self, network: MaskPredictor, start: Canvas, requests: Mapping[int, Branches]) -> Denoiser:
        """A denoiser with an empty store.

        Raises:
            ConfigError: the network is no `Backbone`, which alone takes stored keys and values, or the store would take
                more than the bound.
        """
        if not isinstance(network, Backbone):
            raise ConfigError(
                f"a cache needs a network that takes stored keys and values, as Backbone does; {type(network).__name__}"
                " does not: use NoCache"
            )
        size = CacheSize.of(network, start, requests, logits=self.policy.keeps_logits)
        if self.max_bytes is not None and size.total > self.max_bytes:
            raise ConfigError(
                f"the cache would take {size.total:,} bytes ({size}), more than its bound of {self.max_bytes:,}; raise"
                " max_bytes, sample fewer requests together, or use no cache"
            )
        return StoredDenoiser(network, start, requests, self.policy)


@dataclass(kw_only=True, eq=False)
class _Segment:
    """What is known of one branch of one row."""

    seen: Tensor
    """int64 [n]: the tokens as they were computed."""
    peaks: Tensor
    """float [n]"""
    since: int = 0
    window: tuple[int, int] = (0, 0)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Part:
    """A segment's share of a step."""

    name: Name
    start: int
    """Of the segment in the stored stream."""
    length: int
    """n"""
    context: int
    """How many of them are context."""
    wanted: Tensor
    """int64 [m], ascending: positions whose logits are asked for."""
    anew: Tensor | None
    """int64 [k]: positions that are computed, None: all."""
    at: int
    """Where they begin among those of all segments."""

    @property
    def computed(self) -> int:
        """k"""
        return self.length if self.anew is None else self.anew.numel()

    @property
    def positions(self) -> Tensor:
        """int64 [k]: what is computed."""
        return torch.arange(self.length, device=self.wanted.device) if self.anew is None else self.anew

    def rows(self, positions: Tensor) -> Tensor:
        """Where positions int64 [j] that are computed lie among those of all segments, int64 [j]."""
        if self.anew is None:
            return positions + self.at
        places = torch.zeros(self.length, dtype=torch.int64, device=positions.device)
        places[self.anew] = torch.arange(self.computed, device=positions.device)
        return places[positions] + self.at


class StoredDenoiser:
    """A `Denoiser` that computes what its policy says, over a store of its own.

    Segments whose rows are finished leave the store; a branch that comes later (guidance that begins at some step) is
    computed whole when it comes. With a policy that computes all at every step the results are those of
    `BackboneDenoiser`, bit for bit.
    """

    def __init__(self, backbone: Backbone, start: Canvas, requests: Mapping[int, Branches], policy: Policy) -> None:
        """Args:
        backbone: the transformer.
        start: the canvas before the first step.
        requests: the branches of the rows that are served.
        policy: what is computed anew.
        """
        self._backbone, self._start, self._requests, self._policy = backbone, start, requests, policy
        self._store = KeyValueStore(len(backbone.blocks))
        self._logits: dict[tuple[int, tuple[int, int]], LogitStore] = {}
        self._segments: dict[Name, _Segment] = {}
        self._packed: tuple[tuple[Name, ...], Pack] | None = None

    @property
    def bytes(self) -> int:
        """What is kept at present, on the device."""
        return self._store.bytes + sum(kept.bytes for kept in self._logits.values())

    @torch.no_grad()
    def __call__(self, canvas: Canvas, queries: Sequence[Query]) -> list[Tensor]:
        """Logits [branches, m, C] of each query."""
        packed = self._arranged(queries)
        stream = packed.tokens(canvas)
        parts = self._parts(packed, stream, queries)
        if all(part.anew is None for part in parts):
            index, layout, tokens = None, packed.layout, stream
        else:
            index = torch.cat([part.positions + part.start for part in parts])
            layout, tokens = _partial(parts, index), stream[index]
        hidden = self._backbone(tokens, layout, self._store.writing(index))
        for part in parts:
            self._remember(part, stream)
        return [self._answer(query, hidden, parts) for query in queries]

    def _arranged(self, queries: Sequence[Query]) -> Pack:
        """The layout of the wanted segments, the store arranged like it."""
        wanted = tuple(dict.fromkeys((query.row, name) for query in queries for name in query.branches))
        if self._packed is None or self._packed[0] != wanted:
            packed = pack(self._start, self._requests, wanted)
            self._rearrange(wanted, packed)
            self._packed = wanted, packed
        return self._packed[1]

    def _rearrange(self, wanted: Sequence[Name], packed: Pack) -> None:
        """Drop what is known of segments that left, and move the rest together."""
        self._segments = {name: segment for name, segment in self._segments.items() if name in wanted}
        rows = {row for row, _ in wanted}
        self._logits = {key: kept for key, kept in self._logits.items() if key[0] in rows}
        if self._packed is not None:
            before, now = _ranges(*self._packed), _ranges(wanted, packed)
            kept = [name for name in wanted if name in before]
            old, new = (
                torch.cat([torch.arange(0), *(torch.arange(*ranges[name]) for name in kept)]).to(packed.template.device)
                for ranges in (before, now)
            )
            self._store.rearrange(old, new, packed.layout.keys)

    def _parts(self, packed: Pack, stream: Tensor, queries: Sequence[Query]) -> list[_Part]:
        """What is computed of each segment."""
        assert self._packed is not None
        parts: list[_Part] = []
        at = 0
        for (row, name), (start, stop) in _ranges(*self._packed).items():
            asking = [query for query in queries if query.row == row and name in query.branches]
            shift = packed.offsets[row, name] - start
            wanted = torch.cat([query.positions for query in asking]).sort().values + shift
            context = self._requests[row][name].context.numel()
            anew = self._anew((row, name), stream[start:stop], wanted, context, asking)
            parts.append(
                _Part(
                    name=(row, name), start=start, length=stop - start, context=context, wanted=wanted, anew=anew, at=at
                )
            )
            at += parts[-1].computed
        return parts

    def _anew(self, name: Name, tokens: Tensor, wanted: Tensor, context: int, asking: Sequence[Query]) -> Tensor | None:
        """What the policy says; everything of a segment that is new."""
        segment = self._segments.get(name)
        if segment is None:
            return None
        anew = self._policy.anew(
            Look(
                step=max(query.step for query in asking),
                steps=max(query.steps for query in asking),
                since=segment.since + 1,
                context=context,
                wanted=wanted,
                window=segment.window,
                changed=tokens != segment.seen,
                peaks=segment.peaks,
            )
        )
        if anew is not None and anew.numel() == 0:
            raise ConfigError(
                f"{self._policy} computes nothing anew; let it give at least one position, or None for all"
            )
        return anew

    def _remember(self, part: _Part, stream: Tensor) -> None:
        tokens = stream[part.start : part.start + part.length]
        if part.anew is None:
            self._segments[part.name] = _Segment(
                seen=tokens.clone(),
                peaks=torch.full((part.length,), -torch.inf, device=stream.device),
                window=(int(part.wanted[0]), int(part.wanted[-1]) + 1),
            )
        else:
            segment = self._segments[part.name]
            segment.seen[part.anew] = tokens[part.anew]
            segment.since += 1

    def _answer(self, query: Query, hidden: Tensor, parts: Sequence[_Part]) -> Tensor:
        """Logits [branches, m, C] of a query."""
        named = {part.name: part for part in parts}
        own = [named[query.row, name] for name in query.branches]
        offsets = query.positions - sum(self._start.lengths[: query.row])
        asked = [offsets + part.context for part in own]
        if self._policy.keeps_logits:
            survey = self._policy.surveys(query.step, query.steps)
            looked = [
                wanted if part.anew is None and not survey else part.positions
                for part, wanted in zip(own, asked, strict=True)
            ]
        else:
            looked = asked
        rows = torch.cat([part.rows(positions) for part, positions in zip(own, looked, strict=True)])
        logits = self._backbone.head(hidden[rows], slice(*query.columns))
        if self._policy.keeps_logits:
            store = self._stored(query)
            pieces = torch.split(logits, [positions.numel() for positions in looked])
            for part, positions, piece in zip(own, looked, pieces, strict=True):
                store.write(part.name[1], positions - part.context, piece)
                self._see(part, positions, piece, store)
            if looked is not asked and any(one is not other for one, other in zip(looked, asked, strict=True)):
                return store.read(query.branches, offsets).float()
        return logits.float().view(len(own), offsets.numel(), -1)

    def _see(self, part: _Part, positions: Tensor, logits: Tensor, store: LogitStore) -> None:
        """Note the largest logits [k, C] of positions int64 [k]: those over their own columns, if they have some."""
        peaks = self._segments[part.name].peaks
        largest = logits.amax(dim=1).float()
        peaks[positions] = torch.where(store.may_see(positions - part.context), largest, peaks[positions])

    def _stored(self, query: Query) -> LogitStore:
        key = query.row, query.columns
        if key not in self._logits:
            self._logits[key] = LogitStore(self._start, *key)
        return self._logits[key]


def _ranges(names: Sequence[Name], packed: Pack) -> dict[Name, tuple[int, int]]:
    """Where each segment (start, stop) lies in the stream."""
    bounds = [0, *accumulate(packed.layout.key_lengths)]
    return {name: (bounds[index], bounds[index + 1]) for index, name in enumerate(names)}


def _partial(parts: Sequence[_Part], index: Tensor) -> PackedLayout:
    """The layout of a step that computes the stream positions `index` int64 [k]; every segment counts from 0."""
    starts = torch.cat([index.new_full((part.computed,), part.start) for part in parts])
    return PackedLayout(
        positions=index - starts,
        query_lengths=tuple(part.computed for part in parts),
        key_lengths=tuple(part.length for part in parts),
    )
