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
    rounds: int = 0
    """How many were begun after the order's last step."""

    @classmethod
    def start(cls, span: Span) -> Track:
        """Before the first step."""
        order, length, device = span.plan.order, span.positions.numel(), span.positions.device
        steps = order.history if isinstance(order, Recalling) else 0
        return cls(
            span=span,
            history=History.empty(steps=steps, length=length, device=device),
            certainty=torch.full((length,), torch.inf, device=device),
        )

    def goes_on(self, canvas: Canvas, step: int) -> bool:
        """Whether the span takes part in a step: in the order's while it has masks, then in the rounds."""
        plan = self.span.plan
        if bool(canvas.masked[self.span.positions].any()):
            return self.rounds == 0 and step < plan.steps
        return self.rounds < plan.remasking.rounds and bool(self.certainty.isfinite().any())

    def reopened(self, canvas: Canvas) -> tuple[Track, Canvas]:
        """Before a step: where nothing is masked, what the next round predicts anew is masked."""
        if not self.span.plan.remasking.rounds or bool(canvas.masked[self.span.positions].any()):
            return self, canvas
        anew = self.span.positions[self.span.plan.remasking.anew(self.certainty)]
        return replace(self, rounds=self.rounds + 1), canvas.mask(anew)

    def turn(self, canvas: Canvas, start: Canvas, step: int, generator: Generator) -> Turn:
        """The span's part in a step; `start` is the canvas before the first one."""
        plan = self.span.plan
        progress = canvas.progress(self.span, start, min(step, plan.steps - 1))
        if self.rounds:
            again, candidates = progress.masked.new_empty(0, dtype=torch.int64), progress.masked.nonzero()[:, 0]
        else:
            again = plan.remasking.again(plan.order, progress, self.certainty, generator)
            progress = replace(progress, remasked=again.numel())
            candidates = plan.order.candidates(progress)
        return Turn(
            track=self,
            progress=progress,
            candidates=candidates,
            again=again,
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
    guidance: Guidance
    """The plan's, at this step: the branches that it does not need now are not computed."""

    def taken(self, logits: Tensor, generator: Generator) -> Outcome:
        """What comes of it, by logits [Br, m, C] of the guidance's branches."""
        track, span, plan = self.track, self.track.span, self.track.span.plan
        first = span.columns[0]
        guided = self.guidance(logits)
        if span.forbidden:
            guided = guided.clone()
            guided[:, [index - first for index in span.forbidden]] = -torch.inf
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
            certainty = certainty.index_copy(0, chosen, sure[chosen]).index_fill(0, self.again, torch.inf)
        return Outcome(
            track=replace(track, history=history, certainty=certainty),
            positions=span.positions[chosen],
            ids=ids[chosen],
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
