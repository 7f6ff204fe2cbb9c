import math
import statistics

import pytest
import torch

from dimoo.core.errors import ConfigError
from dimoo.core.peak import peak_bytes
from dimoo.core.rng import generator
from dimoo.diffusion import rowwise
from dimoo.diffusion.guidance import ClassifierFree, MultiCondition, NoGuidance, Renormalised

LOGITS = torch.randn(3, 4, 5, generator=generator(0))


def test_formulas():
    c, u, v = LOGITS
    assert torch.equal(NoGuidance()(LOGITS[:1]), c)
    torch.testing.assert_close(ClassifierFree(scale=4.0)(LOGITS[:2]), 5 * c - 4 * u)
    torch.testing.assert_close(ClassifierFree(scale=4.0)(LOGITS[:2]), u + 5 * (c - u), rtol=1e-5, atol=1e-5)
    both = MultiCondition(scales=(("no_text", 2.5), ("no_image", 4.0)))
    assert both.branches == ("condition", "no_text", "no_image")
    torch.testing.assert_close(both(LOGITS), c + 2.5 * (c - u) + 4.0 * (c - v))


@pytest.mark.parametrize("scale", [0.3, 2.5, 4.0, 11.7])
def test_rounding_is_that_of_the_terms(scale):
    """Against float64: the error is that of (1 + g) cond and g uncond, each rounded to float32."""
    logits = 10 * torch.randn(3, 50, 331, generator=generator(1))
    c, u, v = logits.double()
    pairs = (
        (ClassifierFree(scale=scale)(logits[:2]), (1 + scale) * c - scale * u),
        (
            MultiCondition(scales=(("a", scale), ("b", 1.3)))(logits),
            c + scale * (c - u) + 1.3 * (c - v),
        ),
    )
    for found, exact in pairs:
        bound = 3 * 2.0**-24 * ((2.3 + scale) * c.abs() + scale * u.abs() + 1.3 * v.abs())
        assert bool(((found.double() - exact).abs() <= bound).all())


@pytest.mark.parametrize(
    ("guidance", "made"),
    [
        (NoGuidance(), 0),
        (ClassifierFree(scale=4.0), 1),
        (MultiCondition(scales=(("a", 2.5), ("b", 4.0))), 1),
        (Renormalised(guidance=MultiCondition(scales=(("a", 2.5), ("b", 4.0))), strength=0.5), 2),
    ],
)
def test_the_result_is_the_one_tensor_of_its_size_that_is_made(guidance, made, monkeypatch):
    """Renormalisation needs the guided logits beside it; its spreads are those of a few rows at a time."""
    monkeypatch.setattr(rowwise, "CACHED", 1 << 10)
    logits = torch.randn(len(guidance.branches), 300, 512, generator=generator(0))
    before = logits.clone()
    size = logits[0].nbytes
    assert made * size <= peak_bytes(lambda: guidance(logits)) < (made + 0.05) * size
    assert torch.equal(logits, before)


def test_zero_scales_need_no_branch():
    assert ClassifierFree(scale=0.0).branches == ("condition",)
    half = MultiCondition(scales=(("no_text", 0.0), ("no_image", 4.0)))
    assert half.branches == ("condition", "no_image")
    c, _, v = LOGITS
    torch.testing.assert_close(half(LOGITS[[0, 2]]), c + 4.0 * (c - v))


@pytest.mark.parametrize(
    "guidance",
    [
        NoGuidance(),
        ClassifierFree(scale=1.0),
        MultiCondition(scales=(("a", 1.0),)),
        Renormalised(guidance=ClassifierFree(scale=1.0), strength=0.5),
    ],
)
def test_wrong_number_of_branches(guidance):
    with pytest.raises(ConfigError, match="3 branches, it wants"):
        guidance(LOGITS)


def test_simple_guidance_is_the_same_at_every_step():
    for guidance in (NoGuidance(), ClassifierFree(scale=1.0), MultiCondition(scales=(("a", 1.0),))):
        assert [guidance.at(step, 3) for step in range(3)] == [guidance] * 3


@pytest.mark.parametrize("strength", [0.0, 0.25, 1.0])
def test_renormalised_position_by_position(strength):
    inner = ClassifierFree(scale=4.0)
    found = Renormalised(guidance=inner, strength=strength)(LOGITS[:2])
    for row, guided, condition in zip(found.tolist(), inner(LOGITS[:2]).tolist(), LOGITS[0].tolist(), strict=True):
        ratio = statistics.pstdev(condition) / statistics.pstdev(guided)
        assert row == pytest.approx([(1 - strength + strength * ratio) * value for value in guided], rel=1e-5)


@pytest.mark.parametrize("columns", [1, 5, 8191])
def test_logits_without_spread_are_not_renormalised(columns):
    flat = torch.full((2, 4, columns), 0.1)
    flat[1] = 1.0
    inner = ClassifierFree(scale=2.0)
    assert torch.equal(Renormalised(guidance=inner, strength=1.0)(flat), inner(flat))


def test_bad_settings():
    for strength in (-0.1, 1.1, math.nan):
        with pytest.raises(ConfigError, match="must lie in"):
            Renormalised(guidance=NoGuidance(), strength=strength)
    with pytest.raises(ConfigError, match="finite"):
        ClassifierFree(scale=math.inf)
    with pytest.raises(ConfigError, match="finite"):
        MultiCondition(scales=(("a", math.nan),))
    for names in (("condition",), ("a", "a")):
        with pytest.raises(ConfigError, match="distinct"):
            MultiCondition(scales=tuple((name, 1.0) for name in names))
