import math

import pytest
import torch
from sampler_oracle import CODES, MASK, FakeDenoiser

from dimoo.core.errors import ConfigError
from dimoo.core.rng import generator
from dimoo.diffusion.canvas import Canvas, Plan, Span
from dimoo.diffusion.confidence import Probability
from dimoo.diffusion.draw import Greedy
from dimoo.diffusion.guidance import ClassifierFree, MultiCondition, NoGuidance, Renormalised
from dimoo.diffusion.guidance_steps import ConstantRamp, CosineRamp, Interval, LinearRamp, Scaled, Scheduled
from dimoo.diffusion.orders import MaskGITOrder
from dimoo.diffusion.sampler import run, sample
from dimoo.diffusion.schedules import Linear
from dimoo.diffusion.stopping import NoStop

LOGITS = torch.randn(3, 4, 5, generator=generator(0))
FREE = ClassifierFree(scale=3.0)
BOTH = MultiCondition(scales=(("no_text", 2.5), ("no_image", 4.0)))
RISE = LinearRamp(start=0.0, stop=1.0)


def test_ramps():
    quarters = (0.0, 0.25, 0.5, 0.75)
    assert [ConstantRamp()(u) for u in quarters] == [1.0] * 4
    assert [LinearRamp(start=0.0, stop=2.0)(u) for u in quarters] == [0.0, 0.5, 1.0, 1.5]
    assert [LinearRamp(start=1.0, stop=0.0)(u) for u in quarters] == [1.0, 0.75, 0.5, 0.25]
    cosine = [CosineRamp(start=2.0, stop=1.0)(u) for u in quarters]
    assert cosine == pytest.approx([2.0, 1.5 + math.sqrt(0.125), 1.5, 1.5 - math.sqrt(0.125)])


def test_scheduled_scales_of_each_step():
    guidance = Scheduled(guidance=BOTH, ramp=RISE)
    assert guidance.branches == BOTH.branches
    assert guidance.at(0, 4).branches == ("condition",)
    assert torch.equal(guidance.at(0, 4)(LOGITS[:1]), LOGITS[0])
    for step in (1, 2, 3):
        factor = step / 4
        wanted = MultiCondition(scales=(("no_text", 2.5 * factor), ("no_image", 4.0 * factor)))
        torch.testing.assert_close(guidance.at(step, 4)(LOGITS), wanted(LOGITS), rtol=1e-5, atol=1e-5)


def test_factor_one_changes_no_bit():
    assert torch.equal(Scaled(guidance=BOTH, factor=1.0)(LOGITS), BOTH(LOGITS))
    assert torch.equal(Scheduled(guidance=BOTH, ramp=ConstantRamp()).at(2, 7)(LOGITS), BOTH(LOGITS))


@pytest.mark.parametrize(
    ("start", "stop", "steps", "guided"),
    [
        (0.0, 1.0, 4, [0, 1, 2, 3]),
        (0.25, 0.75, 4, [1, 2]),
        (0.3, 0.8, 10, [3, 4, 5, 6, 7]),
        (0.0, 0.01, 4, [0]),
        (0.9, 1.0, 4, []),
        (0.0, 1.0, 1, [0]),
    ],
)
def test_interval_steps(start, stop, steps, guided):
    guidance = Interval(guidance=FREE, start=start, stop=stop)
    assert guidance.branches == FREE.branches
    assert [guidance.at(step, steps) for step in range(steps)] == [
        FREE if step in guided else NoGuidance() for step in range(steps)
    ]


def test_wrappers_pass_the_step_on_to_what_they_wrap():
    inner = Interval(guidance=FREE, start=0.5, stop=1.0)
    for outer in (
        Interval(guidance=inner, start=0.0, stop=1.0),
        Scheduled(guidance=inner, ramp=ConstantRamp()),
        Renormalised(guidance=inner, strength=0.5),
        Scaled(guidance=inner, factor=2.0),
    ):
        assert [outer.at(step, 2).branches for step in (0, 1)] == [("condition",), FREE.branches]
        assert torch.equal(outer.at(0, 2)(LOGITS[:1]), LOGITS[0])


def test_called_themselves_the_wrappers_guide_in_full():
    for outer in (Interval(guidance=FREE, start=0.2, stop=0.4), Scheduled(guidance=FREE, ramp=RISE)):
        assert torch.equal(outer(LOGITS[:2]), FREE(LOGITS[:2]))


def test_bad_settings():
    for start, stop in ((0.5, 0.5), (0.8, 0.2), (-0.1, 0.5), (0.5, 1.1), (math.nan, 1.0)):
        with pytest.raises(ConfigError, match="rising shares"):
            Interval(guidance=FREE, start=start, stop=stop)
    with pytest.raises(ConfigError, match="finite"):
        Scheduled(guidance=FREE, ramp=lambda done: math.inf).at(0, 1)


# In the sampler


def canvas(*guidances, steps=4, codes=8):
    """A row of codes for each guidance."""
    spans = [
        Span(
            row=index,
            positions=torch.arange(index * codes, (index + 1) * codes),
            columns=CODES,
            plan=Plan(
                steps=steps,
                order=MaskGITOrder(schedule=Linear()),
                draw=Greedy(),
                confidence=Probability(),
                guidance=guidance,
                stopping=NoStop(),
            ),
        )
        for index, guidance in enumerate(guidances)
    ]
    ids = torch.full((codes * len(guidances),), MASK)
    return Canvas.start(ids=ids, lengths=(codes,) * len(guidances), spans=tuple(spans), mask_id=MASK)


def test_a_step_computes_the_branches_that_it_needs_alone():
    denoiser = FakeDenoiser()
    start = canvas(
        Interval(guidance=FREE, start=0.25, stop=0.75), Scheduled(guidance=BOTH, ramp=RISE), NoGuidance(), FREE
    )
    run(denoiser, start, [generator(0)] * 4)
    one, two, three = ("condition",), FREE.branches, BOTH.branches
    assert [[query.branches for query in queries] for queries in denoiser.asked] == [
        [one, one, one, two],
        [two, three, one, two],
        [two, three, one, two],
        [one, three, one, two],
    ]


def test_each_step_is_folded_by_its_own_guidance():
    """Until the interval begins the run is that without guidance; from then on it is another one."""
    seen = [
        list(sample(FakeDenoiser(), canvas(guidance), [generator(0)]))
        for guidance in (NoGuidance(), Interval(guidance=FREE, start=0.5, stop=1.0))
    ]
    same = [torch.equal(first.canvas.ids, second.canvas.ids) for first, second in zip(*seen, strict=True)]
    assert same == [True, True, False, False]


def test_the_number_of_steps_is_the_spans_own():
    """A span of two steps beside one of four is at its half after one step."""
    halves = Interval(guidance=FREE, start=0.5, stop=1.0)
    short, long = canvas(halves, steps=2).spans[0], canvas(halves, halves).spans[1]
    start = Canvas.start(ids=torch.full((16,), MASK), lengths=(8, 8), spans=(short, long), mask_id=MASK)
    denoiser = FakeDenoiser()
    run(denoiser, start, [generator(0)] * 2)
    assert [[len(query.branches) for query in queries] for queries in denoiser.asked] == [[1, 1], [2, 1], [2], [2]]
