"""Orders and stopping rules of one's own: what they say on the host and on the device comes to the same."""

from dataclasses import dataclass

import pytest
import torch
from sampler_oracle import MASK, TEXT, FakeDenoiser

from dimoo.core.rng import generator
from dimoo.diffusion.canvas import Canvas, Plan, Span
from dimoo.diffusion.confidence import Probability
from dimoo.diffusion.draw import Greedy
from dimoo.diffusion.guidance import NoGuidance
from dimoo.diffusion.sampler import sample
from dimoo.diffusion.settled import SettledOrder

LENGTH, STEPS = 10, 6


@dataclass(frozen=True)
class Sure:
    """What is surer than the middle, and in the last step all."""

    flags: bool

    def validate(self, length, steps):
        assert length == LENGTH

    def candidates(self, progress):
        return progress.masked.nonzero()[:, 0]

    def commit(self, progress, candidates, confidence, generator):
        sure = (confidence >= confidence.median()) | (progress.step + 1 == progress.steps)
        return sure if self.flags else candidates[sure]


@dataclass(frozen=True)
class Enough:
    """Stops once so many were committed."""

    count: int
    host: bool

    def __call__(self, ids, standing):
        done = (standing.initial & ~standing.masked).sum() >= self.count
        return bool(done) if self.host else done


def states(rows):
    """Of rows (order, stopping)."""
    spans = tuple(
        Span(
            row=row,
            positions=torch.arange(LENGTH) + LENGTH * row,
            columns=TEXT,
            plan=Plan(
                steps=STEPS,
                order=order,
                draw=Greedy(),
                confidence=Probability(),
                guidance=NoGuidance(),
                stopping=stopping,
            ),
            forbidden=(MASK,),
            fill=row,
        )
        for row, (order, stopping) in enumerate(rows)
    )
    ids = torch.full((LENGTH * len(rows),), MASK)
    canvas = Canvas.start(ids=ids, lengths=(LENGTH,) * len(rows), spans=spans, mask_id=MASK)
    return list(sample(FakeDenoiser(), canvas, [generator(row) for row in range(len(rows))]))


@pytest.mark.parametrize("wrapped", [False, True])
def test_host_and_device_say_the_same(wrapped):
    def order(flags):
        return SettledOrder(order=Sure(flags), max_drift=1e-6) if wrapped else Sure(flags)

    runs = [
        states(
            [(order(flags), Enough(6, host)), (order(not flags), Enough(99, not host)), (Sure(flags), Enough(9, host))]
        )
        for flags in (False, True)
        for host in (False, True)
    ]
    counts = [[int((state.committed // LENGTH == row).sum()) for state in runs[0]] for row in range(3)]
    assert counts == [[6, 0, 0], [6, 3, 1], [6, 3, 0]]
    assert (runs[0][-1].canvas.row(2) == 2).any()  # filled
    for run in runs[1:]:
        for one, other in zip(runs[0], run, strict=True):
            assert torch.equal(one.canvas.ids, other.canvas.ids)
            assert torch.equal(one.committed, other.committed)
            assert one.share_done == other.share_done
