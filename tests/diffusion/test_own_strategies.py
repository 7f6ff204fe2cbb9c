"""Orders and stopping rules of one's own: what they say on the host and on the device comes to the same."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from sampler_oracle import MASK, TEXT, FakeDenoiser

from dimoo.core.errors import ConfigError
from dimoo.core.rng import generator
from dimoo.diffusion.canvas import Canvas, Plan, Span
from dimoo.diffusion.confidence import Probability
from dimoo.diffusion.draw import Greedy
from dimoo.diffusion.guidance import NoGuidance
from dimoo.diffusion.remasking import Refinement
from dimoo.diffusion.sampler import sample
from dimoo.diffusion.settled import SettledOrder
from dimoo.diffusion.stopping import AnyStop, NoStop, said

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


@dataclass(frozen=True)
class Says:
    """Stops after the step that says so, in its own words."""

    words: Callable[[bool], object]
    step: int = 1
    seen: list = field(default_factory=list)

    def __call__(self, ids, standing):
        self.seen.append((standing.step, standing.steps))
        return self.words(standing.step == self.step)


def states(rows, **changes):
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
                **changes,
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


WORDS = {
    "bool": bool,
    "numpy": np.bool_,
    "tensor": torch.tensor,
    "one element": lambda stop: torch.tensor([[stop]]),
    "number": lambda stop: torch.tensor(3 * stop),
}


@pytest.mark.parametrize("words", WORDS)
@pytest.mark.parametrize("together", [False, True])
def test_a_rule_may_say_it_in_several_ways(words, together):
    rule = Says(WORDS[words])
    rule = AnyStop(rules=(NoStop(), rule, Says(torch.tensor, step=99))) if together else rule
    seen = states([(Sure(flags=False), NoStop()), (Sure(flags=False), rule)])
    lefts = [state.canvas.masked.view(2, LENGTH).sum(dim=1).tolist() for state in seen]
    assert lefts == [[4, 4], [1, 0], [0, 0]]
    assert int((seen[1].committed >= LENGTH).sum()) == 3  # so the fourth was filled


def test_what_a_rule_says_stays_with_the_canvas():
    """A tensor of one's own device is sent to where the flags are."""
    ids, standing = torch.zeros(3, device="meta", dtype=torch.int64), None
    answer = said(lambda ids, standing: torch.tensor([1]), ids, standing)
    assert (answer.device.type, answer.dtype, answer.shape) == ("meta", torch.bool, ())


@pytest.mark.parametrize("words", [lambda stop: None, lambda stop: "no", lambda stop: torch.zeros(2)])
@pytest.mark.parametrize("together", [False, True])
def test_a_rule_that_says_neither_yes_nor_no_is_named(words, together):
    rule = Says(words)
    with pytest.raises(ConfigError, match=r"Says.* said .*a stopping rule says a bool, or a tensor of one element"):
        states([(Sure(flags=True), AnyStop(rules=(rule,)) if together else rule)])


def test_rounds_stand_at_the_last_step():
    rule = Says(bool, step=99)
    states([(Sure(flags=True), rule)], remasking=Refinement(rounds=2))
    assert rule.seen == [(step, STEPS) for step in (0, 1, 2, 5, 5)]
