"""The step with a store: compute what a policy says, take the rest from earlier steps.

Axes: n = tokens of a segment (context, then canvas, of one branch of one row), k = those of them computed now,
m = wanted positions, C = columns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice

import torch
from torch import Tensor

from dimoo.backbone.layout import PackedLayout
from dimoo.backbone.model import Backbone
from dimoo.cache.needs import as_backbone, check_bound, check_no_look_back, check_room
from dimoo.cache.part import Part, Segment
from dimoo.cache.policy import Foreseeing, Look, Policy
from dimoo.cache.segments import Arrangement, Name, wanted_by
from dimoo.cache.size import CacheSize
from dimoo.cache.store import KeyValueStore, LogitStore
from dimoo.core.device import Count, read
from dimoo.core.errors import ConfigError
from dimoo.denoise.pack import Branches
from dimoo.denoise.predictor import MaskPredictor
from dimoo.diffusion.canvas import Canvas
from dimoo.diffusion.sampler import Denoiser, Query


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
        check_bound(self.max_bytes)

    def denoiser(self, network: MaskPredictor, start: Canvas, requests: Mapping[int, Branches]) -> Denoiser:
        """A denoiser with an empty store.

        Raises:
            ConfigError: the network is no `Backbone`, which alone takes stored keys and values, or the store would take
                more than the bound, or logits are kept and an order looks at how predictions change.
        """
        backbone = as_backbone(network)
        if self.policy.keeps_logits:
            check_no_look_back(self.policy, start, requests)
        check_room(CacheSize.of(backbone, start, requests, logits=self.policy.keeps_logits), self.max_bytes)
        return StoredDenoiser(backbone, start, requests, self.policy)


class StoredDenoiser:
    """A `Denoiser` that computes what its policy says, over a store of its own.

    Segments whose rows are finished leave the store; a branch that comes later (guidance that begins at some step) is
    computed whole when it comes, and so is one that was not asked for in the step before. With a policy that computes
    all at every step the results are those of `BackboneDenoiser`, bit for bit.
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
        # All that there may be, as making one reads where masks are; they take memory when they are written to.
        self._logits = {
            (span.row, span.columns): LogitStore(start, span.row, span.columns)
            for span in start.spans
            if policy.keeps_logits and span.row in requests
        }
        self._segments: dict[Name, Segment] = {}
        self._arrangement: Arrangement | None = None

    @property
    def bytes(self) -> int:
        """What is kept at present, on the device."""
        return self._store.bytes + sum(kept.bytes for kept in self._logits.values())

    @torch.no_grad()
    def __call__(self, canvas: Canvas, queries: Sequence[Query]) -> list[Tensor]:
        """Logits [branches, m, C] of each query."""
        arranged = self._arranged(queries)
        stream = arranged.packed.tokens(canvas)
        parts = self._parts(arranged, stream, queries)
        if all(part.anew is None for part in parts):
            index, layout, tokens = None, arranged.packed.layout, stream
        else:
            index = torch.cat([part.positions + part.start for part in parts])
            layout, tokens = _partial(parts, index), stream[index]
        hidden = self._backbone(tokens, layout, self._store.writing(index))
        for part in parts:
            self._remember(part, stream)
        for kept in self._logits.values():
            kept.begin()
        answers = [self._answer(query, hidden, parts) for query in queries]
        self._foresee(parts)
        return answers

    @property
    def open_counts(self) -> list[Count]:
        """What the policy needs to know at the next step."""
        return [count for segment in self._segments.values() for count in segment.ahead]

    def told(self, numbers: Sequence[int]) -> None:
        """Be told what `open_counts` are, in their order."""
        rest = iter(numbers)
        for segment in self._segments.values():
            segment.ahead = tuple(islice(rest, len(segment.ahead)))

    def _arranged(self, queries: Sequence[Query]) -> Arrangement:
        """The layout of the wanted segments, the store arranged like it."""
        wanted = wanted_by(queries)
        if self._arrangement is None or self._arrangement.names != wanted:
            arranged = Arrangement.of(self._start, self._requests, wanted)
            self._rearrange(arranged)
            self._arrangement = arranged
        return self._arrangement

    def _rearrange(self, arranged: Arrangement) -> None:
        """Drop what is known of segments that left, and move the rest together."""
        self._segments = {name: segment for name, segment in self._segments.items() if name in arranged.ranges}
        rows = {row for row, _ in arranged.names}
        for (row, _), kept in self._logits.items():
            if row not in rows:
                kept.clear()
        if self._arrangement is not None:
            self._store.rearrange(*arranged.shared(self._arrangement), arranged.total)

    def _parts(self, arranged: Arrangement, stream: Tensor, queries: Sequence[Query]) -> list[Part]:
        """What is computed of each segment."""
        (known,) = read([self.open_counts])  # nothing is, where the sampler has told
        self.told(known)
        parts, at = list[Part](), 0
        for (row, name), (start, stop) in arranged.ranges.items():
            asking = [query for query in queries if query.row == row and name in query.branches]
            shift = arranged.packed.offsets[row, name] - start
            wanted = torch.cat([query.positions for query in asking]).sort().values + shift
            part = Part(
                name=(row, name),
                start=start,
                length=stop - start,
                context=arranged.contexts[row, name],
                wanted=wanted,
                asking=tuple(asking),
                shift=shift,
                anew=None,
                at=at,
            )
            anew = self._anew(part, stream[start:stop])
            if anew is not None and anew.numel() == 0:
                raise ConfigError(
                    f"{self._policy} computes nothing anew; let it give at least one position, or None for all"
                )
            parts.append(replace(part, anew=anew))
            at += parts[-1].computed
        return parts

    def _anew(self, part: Part, tokens: Tensor) -> Tensor | None:
        """What the policy says; everything of a segment that is new, or was not asked for in the step before.

        Next to other rows a row that idles leaves the store, alone it would not: both must give the same.
        """
        segment = self._segments.get(part.name)
        if segment is None or segment.step + 1 != part.step:
            return None
        return self._policy.anew(
            Look(
                step=part.step,
                steps=part.steps,
                since=segment.since + 1,
                context=part.context,
                wanted=part.wanted,
                within=part.within,
                window=segment.window,
                changed=tokens != segment.seen,
                written=part.written,
                peaks=segment.peaks,
                unseen=part.unseen(segment.looked),
                told=tuple(map(int, segment.ahead)),
            )
        )

    def _remember(self, part: Part, stream: Tensor) -> None:
        tokens = stream[part.start : part.start + part.length]
        if part.anew is None:
            segment = self._segments[part.name] = Segment(
                seen=tokens.clone(),
                peaks=torch.full((part.length,), -torch.inf, device=stream.device),
                window=part.within,
                step=part.step,
            )
        else:
            segment = self._segments[part.name]
            segment.seen[part.anew] = tokens[part.anew]
            segment.step = part.step
            segment.since += 1
        segment.looked |= {query.region for query in part.asking if query.region.complete}

    def _foresee(self, parts: Sequence[Part]) -> None:
        """Ask the policy what it has to know at the next step."""
        if isinstance(self._policy, Foreseeing):
            for part in parts:
                segment = self._segments[part.name]
                segment.ahead = self._policy.ahead(part.step, part.steps, segment.peaks)

    def _answer(self, query: Query, hidden: Tensor, parts: Sequence[Part]) -> Tensor:
        """Logits [branches, m, C] of a query."""
        named = {part.name: part for part in parts}
        own = [named[query.row, name] for name in query.branches]
        offsets = query.positions - sum(self._start.lengths[: query.row])
        asked = [offsets + part.context for part in own]
        if self._policy.keeps_logits:
            survey = self._policy.surveys(own[0].step, own[0].steps)
            looked = [
                wanted if part.anew is None and not survey else part.positions
                for part, wanted in zip(own, asked, strict=True)
            ]
        else:
            looked = asked
        rows = torch.cat([part.rows(positions) for part, positions in zip(own, looked, strict=True)])
        logits = self._backbone.head(hidden[rows], slice(*query.columns))
        if self._policy.keeps_logits:
            store = self._logits[query.row, query.columns]
            pieces = torch.split(logits, [positions.numel() for positions in looked])
            for part, positions, piece in zip(own, looked, pieces, strict=True):
                store.write(part.name[1], positions - part.context, piece)
                self._see(part, positions, piece, store)
            if looked is not asked and any(one is not other for one, other in zip(looked, asked, strict=True)):
                return store.read(query.branches, offsets).float()
        return logits.float().view(len(own), offsets.numel(), -1)

    def _see(self, part: Part, positions: Tensor, logits: Tensor, store: LogitStore) -> None:
        """Note the largest logits [k, C] of positions int64 [k]: those over their own columns, if they have some."""
        peaks = self._segments[part.name].peaks
        largest = logits.amax(dim=1).float()
        peaks[positions] = torch.where(store.may_see(positions - part.context), largest, peaks[positions])


def _partial(parts: Sequence[Part], index: Tensor) -> PackedLayout:
    """The layout of a step that computes the stream positions `index` int64 [k]; every segment counts from 0."""
    starts = torch.cat([index.new_full((part.computed,), part.start) for part in parts])
    return PackedLayout(
        positions=index - starts,
        query_lengths=tuple(part.computed for part in parts),
        key_lengths=tuple(part.length for part in parts),
    )
