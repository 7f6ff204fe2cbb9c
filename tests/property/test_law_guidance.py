import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dimoo.core.rng import generator
from dimoo.diffusion.guidance import ClassifierFree, MultiCondition

SCALES = st.floats(0.125, 16, width=16)
SEEDS = st.integers(0, 999)


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
