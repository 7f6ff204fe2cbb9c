import math
from dataclasses import replace

import pytest
import torch
from sampler_oracle import CODES, MASK, TEXT

from dimoo.core.errors import ConfigError
from dimoo.core.rng import generator
from dimoo.diffusion.canvas import Canvas, Plan, Span
from dimoo.diffusion.confidence import GumbelConfidence, Probability
from dimoo.diffusion.draw import Greedy
from dimoo.diffusion.guidance import NoGuidance
from dimoo.diffusion.orders import BlockOrder, MaskGITOrder
from dimoo.diffusion.parallel import KLASS, AdaptiveOrder, Threshold
from dimoo.diffusion.progress import Progress
from dimoo.diffusion.sampler import sample
from dimoo.diffusion.schedules import Linear
from dimoo.diffusion.settled import SettledOrder
from dimoo.diffusion.spread import HaltonOrder
from dimoo.diffusion.stopping import NoStop

MASKGIT = MaskGITOrder(schedule=Linear())


def committed(order, drift, confidence=(0.5, 0.9, 0.5, 0.5)):
    masked = torch.tensor([True, True, True, False])
    now = Progress.of(step=0, steps=4, initial=masked, masked=masked, drift=torch.tensor(drift))
    candidates = order.candidates(now)
    return candidates[order.commit(now, candidates, torch.tensor(confidence)[candidates], generator(0))].tolist()


def test_all_at_once_when_all_have_settled():
    order = SettledOrder(order=MASKGIT, max_drift=0.1, steps=2)
    still = [0.0, 0.05, 0.09, math.inf]  # the last is given
    assert committed(order, [still, still]) == [0, 1, 2]
    for moved in ([0.0, 0.1, 0.0, 0.0], [0.0, 0.0, math.inf, 0.0]):
        assert committed(order, [still, moved]) == [1]
        assert committed(order, [moved, still]) == [1]
        assert committed(replace(order, steps=1), [still, moved]) == [0, 1, 2]


def test_confidence_may_be_asked_for_besides():
    still = [[0.0] * 4] * 2
    assert committed(SettledOrder(order=MASKGIT, least_confidence=0.5), still) == [0, 1, 2]
    assert committed(SettledOrder(order=MASKGIT, least_confidence=0.51), still) == [1]


def test_it_asks_for_what_the_inner_order_asks_for():
    inner = AdaptiveOrder(rule=KLASS(steps=4), block=2)
    order = SettledOrder(order=inner, steps=2)
    assert order.history == 4
    assert SettledOrder(order=MASKGIT, steps=3).history == 3
    with pytest.raises(ConfigError, match="1 steps are too few"):
        order.validate(4, 1)
    with pytest.raises(ConfigError, match="cannot read"):
        order.suits(GumbelConfidence())
    SettledOrder(order=MASKGIT).suits(GumbelConfidence())
    with pytest.raises(ConfigError, match="HaltonOrder predicts each cell once"):
        SettledOrder(order=HaltonOrder(schedule=Linear(), grid=(2, 2)))
    with pytest.raises(ConfigError, match="max_drift"):
        SettledOrder(order=MASKGIT, max_drift=0.0)
    with pytest.raises(ConfigError, match="steps 0"):
        SettledOrder(order=MASKGIT, steps=0)


class Calming:
    """Predictions that move by less and less from call to call, and not at all from the third on."""

    def __init__(self):
        self.calls = 0

    def __call__(self, canvas, queries):
        rng = generator(min(self.calls, 2))
        self.calls += 1
        table = torch.randn(len(canvas.ids), 20, generator=rng)
        return [table[query.positions, : query.columns[1] - query.columns[0]][None] for query in queries]


def counts(order, columns, steps=24):
    plan = Plan(
        steps=steps,
        order=order,
        draw=Greedy(),
        confidence=Probability(),
        guidance=NoGuidance(),
        stopping=NoStop(),
    )
    span = Span(row=0, positions=torch.arange(12), columns=columns, plan=plan, forbidden=(MASK,) * (columns == TEXT))
    canvas = Canvas.start(ids=torch.full((12,), MASK), lengths=(12,), spans=(span,), mask_id=MASK)
    denoiser = Calming()
    states = list(sample(denoiser, canvas, [generator(0)]))
    assert not states[-1].canvas.masked.any()
    return [state.committed.numel() for state in states]


def test_a_picture_ends_when_its_predictions_stand_still():
    assert counts(MASKGIT, CODES) == [1] * 12
    # Calls 2, 3, 4 (from 0) give the same: the first drift of 0 is that of call 3, the second of call 4.
    assert counts(SettledOrder(order=MASKGIT, steps=1), CODES) == [1, 1, 1, 9]
    assert counts(SettledOrder(order=MASKGIT, steps=2), CODES) == [1, 1, 1, 1, 8]


def test_a_block_ends_for_itself():
    """With fixed steps the next block waits for its turn, and nothing is computed meanwhile; otherwise it is next."""
    settled = SettledOrder(order=BlockOrder(block=6), steps=1)
    assert counts(settled, TEXT, 12) == [1, 1, 1, 3, 0, 0, 1, 5]
    adaptive = AdaptiveOrder(rule=Threshold(threshold=1.0), block=6)
    assert counts(adaptive, TEXT, 12) == [1] * 12
    assert counts(SettledOrder(order=adaptive, steps=1), TEXT, 12) == [1, 1, 1, 3, 1, 5]
