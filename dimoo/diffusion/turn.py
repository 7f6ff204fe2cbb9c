"""A span on its way: what is remembered of its steps, and its part in one of them.

Axes: L = positions of the span, m = candidates, k = committed now, r = masked again, Br = branches, C = columns.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Generator, Tensor

from dimoo.diffusion.canvas import Canvas, Span
from dimoo.diffusion.confidence import Probability
from dimoo.diffusion.guidance import Guidance
from dimoo.diffusion.history import History
from dimoo.diffusion.orders import Recalling
from dimoo.diffusion.progress import Progress


@dataclass(frozen=True, kw_only=True, eq=False)
class Track:
    """A span between two steps, with what its order and its remasking want remembered."""

    span: Span
    history: History
    certainty: Tensor
    """float [L]: the probability of each token when it was drawn, inf where none was, and everywhere if the remasking
    does not look at it."""
    initial: Tensor
    """bool [L]: masked at the start ..."""
    starts: tuple[int, ...]
    """... and the same as offsets on the host."""
    left: int
    """How many positions are masked now. It is counted along, so that no step has to wait for the device."""
    written: int = 0
    """How many positions were written or masked again since the step before; more, if one was written twice."""
    rounds: int = 0
    """How many were begun after the order's last step."""

    @classmethod
    def start(cls, span: Span, canvas: Canvas) -> Track:
        """Before the first step, on the canvas before it."""
        order, length, device = span.plan.order, span.positions.numel(), span.positions.device
        steps = order.history if isinstance(order, Recalling) else 0
        initial = canvas.masked[span.positions]
        starts = tuple(initial.nonzero()[:, 0].tolist())
        return cls(
            span=span,
            history=History.empty(steps=steps, length=length, device=device),
            certainty=torch.full((length,), torch.inf, device=device),
            initial=initial,
            starts=starts,
            left=len(starts),
        )

    def goes_on(self, step: int) -> bool:
        """Whether the span takes part in a step: in the order's while it has masks, then in the rounds."""
        plan = self.span.plan
        if self.left:
            return self.rounds == 0 and step < plan.steps
        return self.rounds < plan.remasking.rounds and bool(self.certainty.isfinite().any())

    def reopened(self, canvas: Canvas) -> tuple[Track, Canvas]:
        """Before a step: where nothing is masked, what the next round predicts anew is masked."""
        if self.left or not self.span.plan.remasking.rounds:
            return self, canvas
        anew = self.span.positions[self.span.plan.remasking.anew(self.certainty)]
        count = anew.numel()
        return replace(self, rounds=self.rounds + 1, left=count, written=self.written + count), canvas.mask(anew)

    def stopped(self, canvas: Canvas, step: int) -> tuple[Track, Canvas]:
        """After a step: filled, if the plan's stopping rule says that it is done."""
        progress = self.progress(canvas, step)
        if not self.span.plan.stopping(canvas.ids[self.span.positions], progress):
            return self, canvas
        rest = self.span.positions[progress.open]
        filled = canvas.commit(rest, torch.full_like(rest, self.span.fill))
        return replace(self, left=0, written=self.written + self.left), filled

    def progress(self, canvas: Canvas, step: int) -> Progress:
        """How far the span has come at a step."""
        return Progress(
            step=step,
            steps=self.span.plan.steps,
            initial=self.initial,
            masked=canvas.masked[self.span.positions],
            starts=self.starts,
            left=self.left,
        )

    def turn(self, canvas: Canvas, step: int, generator: Generator) -> Turn:
        """The span's part in a step."""
        plan = self.span.plan
        progress = self.progress(canvas, min(step, plan.steps - 1))
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
        ids = torch.empty_like(span.positions)
        ids[self.candidates] = drawn + first
        certainty = track.certainty
        if plan.remasking.weighs:
            sure = torch.empty_like(certainty)
            sure[self.candidates] = Probability()(guided, drawn, generator)
            certainty = certainty.index_copy(0, chosen, sure[chosen])
        ids, count = ids[chosen], chosen.numel()
        # A mask that was drawn leaves its position masked; only where it may be is the device asked.
        masks = int((ids == self.mask_id).sum()) if span.may_draw(self.mask_id) else 0
        return Outcome(
            track=replace(
                track,
                history=history,
                certainty=certainty,
                left=track.left - count + masks + self.again.numel(),
                written=count + self.again.numel(),
            ),
            positions=span.positions[chosen],
            ids=ids,
            again=span.positions[self.again],
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class Outcome:
    """What one span did in one step."""

    track: Track
    positions: Tensor
    """int64 [k]: canvas positions that are written ..."""
    ids: Tensor
    """... int64 [k]: with these."""
    again: Tensor
    """int64 [r]: canvas positions that are masked again, none of them written."""
