import math

import pytest
import torch

from dimoo.core.errors import ConfigError
from dimoo.core.rng import generator
from dimoo.diffusion.canvas import Plan
from dimoo.diffusion.confidence import GumbelConfidence, Margin, NegativeEntropy, Probability
from dimoo.diffusion.draw import Greedy
from dimoo.diffusion.guidance import NoGuidance
from dimoo.diffusion.parallel import KLASS, AdaptiveOrder, EntropyBounded, Factor, Threshold
from dimoo.diffusion.progress import Progress
from dimoo.diffusion.stopping import NoStop


def progress(masked, step=0, steps=99, drift=None):
    flags = torch.tensor(masked, dtype=torch.bool)
    more = {} if drift is None else {"drift": torch.tensor(drift)}
    return Progress.of(step=step, steps=steps, initial=torch.ones_like(flags), masked=flags, **more)


def committed(rule, confidence, *, block=None, **changes):
    """The offsets of a fully masked span that are committed."""
    order, now = AdaptiveOrder(rule=rule, block=block), progress([True] * len(confidence), **changes)
    candidates = order.candidates(now)
    return candidates[order.commit(now, candidates, torch.tensor(confidence)[candidates], generator(0))].tolist()


def test_threshold_takes_what_is_at_least_so_sure_and_the_surest():
    assert committed(Threshold(threshold=0.75), [0.5, 0.75, 0.9, 0.74]) == [1, 2]
    assert committed(Threshold(threshold=0.75), [0.5, 0.2, 0.6, 0.6]) == [2]
    assert committed(Threshold(threshold=0.0), [0.5, 0.0]) == [0, 1]


def test_factor_by_hand():
    # (n + 1) (1 - c): 2 * .05, 3 * .1, 4 * .25, 5 * .3
    confidence = [0.7, 0.9, 0.95, 0.75]
    assert committed(Factor(factor=1.01), confidence) == [1, 2, 3]
    assert committed(Factor(factor=1.0), confidence) == [1, 2]  # below it, not at it
    assert committed(Factor(factor=0.2), confidence) == [2]
    assert committed(Factor(factor=0.01), confidence) == [2]  # none satisfies it, but one is always committed
    assert committed(Factor(factor=9.0), confidence) == [0, 1, 2, 3]


def test_entropy_bound_by_hand():
    entropy = [0.5, 0.125, 0.25, 1.0]  # sorted .125, .25, .5, 1; the sum without the largest 0, .125, .375, .875
    confidence = [-value for value in entropy]
    for bound, wanted in ((0.0, [1]), (0.1, [1]), (0.125, [1, 2]), (0.375, [0, 1, 2]), (0.875, [0, 1, 2, 3])):
        assert committed(EntropyBounded(bound=bound), confidence) == wanted


def test_klass_wants_certainty_and_steps_without_drift():
    rule = KLASS(threshold=0.5, max_drift=0.1, steps=2, fallback=3)
    confidence, still = [0.9, 0.6, 0.5, 0.8, 0.95], [0.0, 0.05, 0.0, 0.0, 0.01]
    moved = [still, [0.0, 0.05, 0.0, 0.2, math.inf]]
    assert committed(rule, confidence, drift=moved) == [0, 1]  # 2 is not above the threshold
    assert committed(KLASS(threshold=0.5, max_drift=0.1, steps=1), confidence, drift=moved) == [0, 1, 3, 4]
    assert committed(KLASS(threshold=0.7, max_drift=0.1, steps=2), confidence, drift=moved) == [0]
    nothing = [[math.inf] * 5] * 2
    assert committed(rule, confidence, drift=nothing) == [0, 3, 4]
    assert committed(KLASS(), confidence, drift=nothing) == [4]


def test_ties_go_to_the_lower_offset():
    assert committed(Threshold(), [0.5] * 4, steps=2) == [0, 1]
    assert committed(KLASS(fallback=3), [0.5] * 4, drift=[[math.inf] * 4] * 2) == [0, 1, 2]


def test_what_is_ready_counts_towards_the_least():
    confidence = [0.1, 0.95, 0.3, 0.2, 0.99, 0.1]
    assert committed(Threshold(), confidence, step=7, steps=9) == [1, 2, 4]  # 6 in 2 steps
    assert committed(Threshold(), confidence, step=8, steps=9) == [0, 1, 2, 3, 4, 5]


def test_the_block_is_the_first_with_a_mask():
    order = AdaptiveOrder(rule=Threshold(), block=3)
    for masked, wanted in (
        ([1, 1, 1, 1, 1, 1, 1], [0, 1, 2]),
        ([0, 0, 1, 1, 1, 1, 1], [2]),
        ([0, 0, 0, 1, 0, 1, 1], [3, 5]),
        ([0, 0, 0, 0, 0, 0, 1], [6]),
        ([0, 0, 0, 0, 0, 0, 0], []),
    ):
        for step in (0, 5):
            assert order.candidates(progress(masked, step=step)).tolist() == wanted
    assert AdaptiveOrder(rule=Threshold()).candidates(progress([1, 0, 1])).tolist() == [0, 2]


def test_every_block_gets_a_step():
    """Two blocks in two steps: the first is committed whole, though a half of all would be less."""
    assert committed(Threshold(), [0.1] * 5, block=4, steps=2) == [0, 1, 2, 3]
    assert committed(Threshold(), [0.1] * 5, block=4, steps=3) == [0, 1]


def test_bad_values_and_lengths():
    AdaptiveOrder(rule=Threshold(), block=4).validate(9, 3)
    with pytest.raises(ConfigError, match="2 steps are too few for the 3 blocks of 4 in 9 positions: use at least 3"):
        AdaptiveOrder(rule=Threshold(), block=4).validate(9, 2)
    with pytest.raises(ConfigError, match="steps 0"):
        AdaptiveOrder(rule=Threshold()).validate(9, 0)
    for make in (
        lambda: AdaptiveOrder(rule=Threshold(), block=0),
        lambda: Threshold(threshold=1.1),
        lambda: Factor(factor=0.0),
        lambda: EntropyBounded(bound=-0.1),
        lambda: KLASS(threshold=-0.1),
        lambda: KLASS(max_drift=0.0),
        lambda: KLASS(steps=0),
        lambda: KLASS(fallback=0),
    ):
        with pytest.raises(ConfigError):
            make()


def plan(rule, confidence):
    return Plan(
        steps=4,
        order=AdaptiveOrder(rule=rule),
        draw=Greedy(),
        confidence=confidence,
        guidance=NoGuidance(),
        stopping=NoStop(),
    )


@pytest.mark.parametrize("rule", [Threshold(), Factor(), KLASS()])
def test_rules_of_probabilities_refuse_other_scales(rule):
    for confidence in (Probability(), Margin(), lambda logits, ids, generator: ids.float()):
        plan(rule, confidence)
    for confidence in (NegativeEntropy(), GumbelConfidence()):
        with pytest.raises(ConfigError, match=r"use Probability or Margin .confidence.kind=probability or margin"):
            plan(rule, confidence)


def test_the_rule_of_entropies_refuses_what_are_none():
    plan(EntropyBounded(), NegativeEntropy())
    for confidence in (Probability(), Margin(), GumbelConfidence()):
        with pytest.raises(
            ConfigError,
            match=r"cannot read .*; use NegativeEntropy .confidence.kind=negative_entropy",
        ):
            plan(EntropyBounded(), confidence)
