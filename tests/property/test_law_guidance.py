import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from dimoo.core.rng import generator
from dimoo.diffusion.guidance import ClassifierFree, MultiCondition, NoGuidance, Renormalised
from dimoo.diffusion.guidance_steps import ConstantRamp, CosineRamp, Interval, LinearRamp, Scaled, Scheduled

SCALES = st.floats(0.125, 16, width=16)
SEEDS = st.integers(0, 999)
SHARES = st.floats(0, 1)
STEPS = st.integers(1, 40).flatmap(lambda steps: st.tuples(st.integers(0, steps - 1), st.just(steps)))
"""(step, steps)"""

FACTORS = st.floats(0, 3, width=16)
RAMPS = st.just(ConstantRamp()) | st.builds(LinearRamp, start=FACTORS, stop=FACTORS)
RAMPS |= st.builds(CosineRamp, start=FACTORS, stop=FACTORS)
FOLDS = st.just(NoGuidance()) | st.builds(ClassifierFree, scale=SCALES)
FOLDS |= st.builds(MultiCondition, scales=st.tuples(st.tuples(st.just("a"), SCALES), st.tuples(st.just("b"), SCALES)))


def intervals(inner):
    ends = st.tuples(SHARES, SHARES).filter(lambda pair: pair[0] != pair[1]).map(sorted)
    return st.builds(lambda guidance, pair: Interval(guidance=guidance, start=pair[0], stop=pair[1]), inner, ends)


GUIDANCES = st.recursive(
    FOLDS,
    lambda inner: (
        intervals(inner)
        | st.builds(Scheduled, guidance=inner, ramp=RAMPS)
        | st.builds(Renormalised, guidance=inner, strength=SHARES)
    ),
    max_leaves=3,
)
"""Any composition."""


def branches(count, seed):
    return torch.randn(count, 3, 7, generator=generator(seed), dtype=torch.float64)


@settings(deadline=None)
@given(SEEDS)
def test_scale_zero_is_the_condition(seed):
    condition = branches(1, seed)
    for guidance in (ClassifierFree(scale=0.0), MultiCondition(scales=(("a", 0.0), ("b", 0.0)))):
        assert guidance.branches == ("condition",)
        assert torch.equal(guidance(condition), condition[0])


@settings(deadline=None)
@given(SCALES, SCALES, st.floats(0, 1), SEEDS)
def test_affine_in_scale(first, second, mix, seed):
    logits = branches(2, seed)
    middle = mix * first + (1 - mix) * second

    def one(scale):
        return ClassifierFree(scale=scale)(logits)

    def many(scale):
        return MultiCondition(scales=(("a", scale),))(logits)

    for guided in (one, many):
        expected = mix * guided(first) + (1 - mix) * guided(second)
        torch.testing.assert_close(guided(middle), expected, rtol=1e-9, atol=1e-9)
        # The line passes through the condition at scale 0.
        torch.testing.assert_close(2 * guided(first) - guided(2 * first), logits[0], rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(one(first), many(first), rtol=1e-9, atol=1e-9)


@settings(deadline=None)
@given(SCALES, SEEDS)
def test_equal_branches_change_nothing_and_inputs_stay(scale, seed):
    logits = branches(1, seed).expand(3, -1, -1).clone()
    before = logits.clone()
    torch.testing.assert_close(ClassifierFree(scale=scale)(logits[:2]), logits[0], rtol=1e-9, atol=1e-9)
    both = MultiCondition(scales=(("a", scale), ("b", scale)))
    torch.testing.assert_close(both(logits), logits[0], rtol=1e-9, atol=1e-9)
    assert torch.equal(logits, before)


@settings(deadline=None)
@given(GUIDANCES, STEPS, SEEDS)
def test_a_step_needs_no_other_branches_and_folds_them(guidance, when, seed):
    step = guidance.at(*when)
    assert step.branches[0] == guidance.branches[0] == "condition"
    assert set(step.branches) <= set(guidance.branches)
    assert step.branches == tuple(name for name in guidance.branches if name in step.branches)
    logits = branches(len(step.branches), seed)
    before = logits.clone()
    guided = step(logits)
    assert guided.shape == logits.shape[1:]
    assert bool(guided.isfinite().all())
    assert torch.equal(logits, before)
    if step.branches == ("condition",):
        torch.testing.assert_close(guided, logits[0], rtol=1e-9, atol=1e-9)


@settings(deadline=None)
@given(GUIDANCES, STEPS, SEEDS)
def test_wrappers_that_do_nothing_are_the_inner_one(guidance, when, seed):
    inner = guidance.at(*when)
    logits = branches(len(inner.branches), seed)
    for outer in (
        Interval(guidance=guidance, start=0.0, stop=1.0),
        Scheduled(guidance=guidance, ramp=ConstantRamp()),
        Renormalised(guidance=guidance, strength=0.0),
    ):
        assert outer.branches == guidance.branches
        assert outer.at(*when).branches == inner.branches
        assert torch.equal(outer.at(*when)(logits), inner(logits))


@settings(deadline=None)
@given(GUIDANCES, SHARES, SHARES, STEPS)
def test_an_interval_guides_inside_and_takes_the_condition_outside(guidance, first, second, when):
    assume(first != second)
    start, stop = sorted((first, second))
    step = Interval(guidance=guidance, start=start, stop=stop).at(*when)
    inside = start <= when[0] / when[1] < stop
    assert step == (guidance.at(*when) if inside else NoGuidance())


@settings(deadline=None)
@given(SCALES, FACTORS, SEEDS)
def test_scaling_multiplies_the_scales(scale, factor, seed):
    logits = branches(3, seed)
    one = Scaled(guidance=ClassifierFree(scale=scale), factor=factor)
    two = Scaled(guidance=MultiCondition(scales=(("a", scale), ("b", 1.0))), factor=factor)
    for guidance, plain in (
        (one, ClassifierFree(scale=scale * factor)),
        (two, MultiCondition(scales=(("a", scale * factor), ("b", factor)))),
    ):
        assert guidance.branches == plain.branches
        given_logits = logits[: len(plain.branches)]
        torch.testing.assert_close(guidance(given_logits), plain(given_logits), rtol=1e-9, atol=1e-9)


@settings(deadline=None)
@given(FOLDS, SHARES, SEEDS)
def test_renormalisation_draws_the_spread_to_the_conditions_and_keeps_the_ranking(inner, strength, seed):
    logits = branches(len(inner.branches), seed)
    guided, condition = inner(logits), logits[0]

    def spread(values):
        return values.std(dim=-1, correction=0)

    whole = Renormalised(guidance=inner, strength=1.0)(logits)
    torch.testing.assert_close(spread(whole), spread(condition), rtol=1e-9, atol=1e-9)
    part = Renormalised(guidance=inner, strength=strength)(logits)
    mixed = strength * spread(condition) + (1 - strength) * spread(guided)
    torch.testing.assert_close(spread(part), mixed, rtol=1e-9, atol=1e-9)
    assert torch.equal(part.argsort(dim=-1), guided.argsort(dim=-1))
