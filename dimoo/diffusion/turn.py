"""A span on its way: what is remembered of its steps, and its part in one of them.

Only the start waits for the device. What a step leaves to it is passed on as a `Count`, for the sampler to read.

Axes: L = positions of the span, m = candidates, k = committed now, r = masked again, Br = branches, C = columns.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, replace

import torch
from torch import Generator, Tensor

from dimoo.core.device import Count
from dimoo.diffusion.canvas import Canvas, Span
from dimoo.diffusion.confidence import Probability
from dimoo.diffusion.guidance import Guidance
from dimoo.diffusion.history import History
from dimoo.diffusion.orders import Blockwise, Recalling
from dimoo.diffusion.progress import Progress, Standing, flagged, places
from dimoo.diffusion.stopping import said


@dataclass(frozen=True, kw_only=True)
class Region:
    """Where positions lie, as the host knows without asking the device: canvas positions of one span."""

    first: int
    """None of them lies before this one ..."""
    last: int
    """... or after this one."""
    complete: bool
    """Whether they are all of the span that is masked between them."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Track:
    """A span between two steps, with what its order and its remasking want remembered."""

    span: Span
    history: History
    certainty: Tensor
    """float [L]: the probability of each token when it was drawn, inf where there is no drawn one, and everywhere if
    the remasking does not look at it."""
    initial: Tensor
    """bool [L]: masked at the start ..."""
    starts: tuple[int, ...]
    """... and the same as offsets on the host ..."""
    where: tuple[int, ...]
    """... and as canvas positions."""
    left: int
    """How many positions are masked now. It is counted along, so that a step need not wait for the device."""
    written: int = 0
    """How many positions were written or masked again since the step before; more, if one was written twice."""
    stays: bool = True
    """Whether what was committed has stayed so far: nothing was masked again, no mask drawn."""
    rounds: int = 0
    """How many were begun after the order's last step."""
    filled: int = 0
    """How many positions an early stop has filled."""

    @classmethod
    def start(cls, span: Span, canvas: Canvas) -> Track:
        """Before the first step, on the canvas before it."""
        order, length, device = span.plan.order, span.positions.numel(), span.positions.device
        steps = order.history if isinstance(order, Recalling) else 0
        initial = canvas.masked[span.positions]
        starts, positions = tuple(initial.nonzero()[:, 0].tolist()), span.positions.tolist()
        return cls(
            span=span,
            history=History.empty(steps=steps, length=length, device=device),
            certainty=torch.full((length,), torch.inf, device=device),
            initial=initial,
            starts=starts,
            where=tuple(positions[start] for start in starts),
            left=len(starts),
        )

    @property
    def drawn(self) -> int:
        """When nothing is masked: how many positions hold a token that was drawn, and not given or filled."""
        return len(self.starts) - self.filled

    def goes_on(self, step: int) -> bool:
        """Whether the span takes part in a step: in the order's while it has masks, then in the rounds."""
        plan = self.span.plan
        if self.left:
            return self.rounds == 0 and step < plan.steps
        return self.rounds < plan.remasking.rounds and self.drawn > 0

    def reopened(self, canvas: Canvas) -> tuple[Track, Canvas]:
        """Before a step: where nothing is masked, what the next round predicts anew is masked."""
        if self.left or not self.span.plan.remasking.rounds:
            return self, canvas
        anew = self.span.positions[self.span.plan.remasking.anew(self.certainty, self.drawn)]
        count = anew.numel()
        opened = replace(self, rounds=self.rounds + 1, left=count, written=self.written + count, stays=False)
        return opened, canvas.mask(anew)

    def stops(self, canvas: Canvas, step: int) -> bool | Tensor:
        """After a step: whether the plan's stopping rule says that the span is done.

        Raises:
            ConfigError: it says neither yes nor no.
        """
        span = self.span
        standing = Standing(
            step=self._of_order(step),
            steps=span.plan.steps,
            initial=self.initial,
            masked=canvas.masked[span.positions],
            starts=self.starts,
        )
        return said(span.plan.stopping, canvas.ids[span.positions], standing)

    def turn(self, canvas: Canvas, step: int, generator: Generator) -> Turn:
        """The span's part in a step."""
        plan = self.span.plan
        progress = Progress(
            step=self._of_order(step),
            steps=plan.steps,
            initial=self.initial,
            masked=canvas.masked[self.span.positions],
            starts=self.starts,
            left=self.left,
        )
        if self.rounds:
            again, candidates = progress.masked.new_empty(0, dtype=torch.int64), progress.open
        else:
            again = plan.remasking.again(plan.order, progress, self.certainty, generator)
            progress = replace(progress, remasked=again.numel())
            candidates = plan.order.candidates(progress)
        return Turn(
            track=self,
            progress=progress,
            candidates=candidates,
            again=again,
            mask_id=canvas.mask_id,
            guidance=plan.guidance.at(progress.step, plan.steps),
        )

    def _of_order(self, step: int) -> int:
        """The order's step: rounds are taken as its last, also where it was done before."""
        return self.span.plan.steps - 1 if self.rounds else step


@dataclass(frozen=True, kw_only=True, eq=False)
class Turn:
    """One span's part in one step."""

    track: Track
    progress: Progress
    candidates: Tensor
    """int64 [m]: offsets within the span whose logits are wanted; none if the step idles."""
    again: Tensor
    """int64 [r]: committed offsets that are masked again at the end of the step."""
    mask_id: int
    guidance: Guidance
    """The plan's, at this step: the branches that it does not need now are not computed."""

    def region(self) -> Region:
        """Where the candidates lie."""
        track, order = self.track, self.track.span.plan.order
        block = order.block_at(self.progress) if isinstance(order, Blockwise) and not track.rounds else None
        first, stop = 0, len(track.where)
        if block is not None:
            first, stop = (bisect_left(track.starts, offset) for offset in block)
        # What came back may lie before the block.
        where = track.where[first if track.stays else 0 : stop]
        complete = (block is not None and track.stays) or self.candidates.numel() == track.left
        return Region(first=min(where), last=max(where), complete=complete)

    def idle(self) -> Outcome:
        """What comes of it without logits: nothing."""
        none = self.candidates[:0]
        return Outcome(
            track=self.track,
            positions=none,
            ids=none,
            flags=none.bool(),
            chosen=none,
            again=none,
            committed=0,
            masks=0,
        )

    def taken(self, logits: Tensor, generator: Generator) -> Outcome:
        """What comes of it, by logits [Br, m, C] of the guidance's branches."""
        track, span, plan = self.track, self.track.span, self.track.span.plan
        first = span.columns[0]
        guided = self.guidance(logits)
        if span.forbidden:
            guided = guided.clone()
            for index in span.forbidden:
                guided[:, index - first] = -torch.inf
        drawn = plan.draw(guided, generator)
        confidence = plan.confidence(guided, drawn, generator)
        history = track.history.after(self.candidates, guided)
        if track.rounds:
            chosen = self.candidates
        else:
            progress = replace(self.progress, drift=history.drift)
            chosen = plan.order.commit(progress, self.candidates, confidence, generator)
        flags, committed = flagged(chosen, self.candidates, span.positions.numel())
        ids = drawn + first
        certainty = track.certainty
        if plan.remasking.weighs:
            # inf for all that is masked after the step: where a stop fills, it then stands for that.
            token = flags & (ids != self.mask_id)
            sure = torch.where(token, Probability()(guided, drawn, generator), torch.inf)
            certainty = certainty.index_copy(0, self.candidates, sure).index_fill(0, self.again, torch.inf)
        return Outcome(
            track=replace(track, history=history, certainty=certainty),
            positions=span.positions[self.candidates],
            ids=ids,
            flags=flags,
            chosen=chosen if chosen.dtype == torch.bool else span.positions[chosen],
            again=span.positions[self.again],
            committed=committed,
            # A mask that was drawn leaves its position masked; only where it may be is the device asked.
            masks=(flags & (ids == self.mask_id)).sum() if span.may_draw(self.mask_id) else 0,
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class Outcome:
    """What one span did in one step."""

    track: Track
    """With what is remembered, but not yet counted."""
    positions: Tensor
    """int64 [m]: canvas positions of the candidates ..."""
    ids: Tensor
    """... int64 [m]: what was drawn there ..."""
    flags: Tensor
    """... bool [m]: and where that is written."""
    chosen: Tensor
    """The same flags if the order gave flags; if it gave offsets, the canvas positions int64 [k] of those."""
    again: Tensor
    """int64 [r]: canvas positions that are masked again, none of them written."""
    committed: Count
    """k, how many are written ..."""
    masks: Count
    """... and how many of them with the mask."""

    @property
    def counts(self) -> tuple[Count, Count]:
        """What `counted` wants to know."""
        return self.committed, self.masks

    def counted(self, committed: int, masks: int, stop: int) -> Track:
        """The span after the step, all its numbers being known, and whether it stopped."""
        track, again = self.track, self.again.numel()
        left = track.left - committed + masks + again
        filled = left if stop else 0
        return replace(
            track,
            left=left - filled,
            written=committed + again + filled,
            stays=track.stays and not masks and not again,
            filled=track.filled + filled,
        )

    def written(self, committed: int) -> Tensor:
        """Canvas positions int64 [k] that are written, their number being known."""
        if self.chosen.dtype == torch.bool:
            return self.positions[places(self.chosen, committed)]
        return self.chosen
