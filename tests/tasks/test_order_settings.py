"""Orders, early ends and remasking as settings of a request."""

from __future__ import annotations

import json
import math

import pytest
import torch
from task_cases import all_equal, box, equal, mixture, picture

import dimoo
from dimoo.core.config import override, parse
from dimoo.core.errors import ConfigError, RequestError
from dimoo.diffusion.config import MarginConfig, NegativeEntropyConfig, ProbabilityConfig
from dimoo.diffusion.order_config import (
    BlockOrderConfig,
    EntropyBoundedOrderConfig,
    EqualSharesConfig,
    FactorOrderConfig,
    HaltonOrderConfig,
    KLASSOrderConfig,
    RefinementConfig,
    ReMDMConfig,
    SettledConfig,
    StratifiedOrderConfig,
    ThresholdOrderConfig,
)
from dimoo.diffusion.orders import BlockOrder
from dimoo.diffusion.parallel import KLASS, AdaptiveOrder, Threshold
from dimoo.diffusion.remasking import Refinement
from dimoo.diffusion.settled import SettledOrder
from dimoo.diffusion.spread import HaltonOrder
from dimoo.presets.config import ImageSettings, TextSettings
from dimoo.tasks.plans import image_plan, text_plan

SURE = {"confidence": ProbabilityConfig(), "steps": 4}
PICTURES = [
    ImageSettings(steps=4, order=HaltonOrderConfig()),
    ImageSettings(steps=4, order=StratifiedOrderConfig(offset=2), remasking=ReMDMConfig(eta=0.8, by_confidence=True)),
    ImageSettings(steps=4, remasking=RefinementConfig(rounds=2, share=0.4)),
    ImageSettings(order=ThresholdOrderConfig(threshold=0.3), **SURE),
    ImageSettings(order=KLASSOrderConfig(threshold=0.1, max_drift=9.0, steps=1), **SURE),
    ImageSettings(early_stop=SettledConfig(max_drift=9.0, steps=1), **SURE),
]
TEXTS = [
    TextSettings(order=ThresholdOrderConfig(threshold=0.2), block=2),
    TextSettings(order=FactorOrderConfig(factor=1.5)),
    TextSettings(order=EntropyBoundedOrderConfig(bound=2.0), confidence=NegativeEntropyConfig()),
    TextSettings(order=KLASSOrderConfig(), confidence=MarginConfig(), steps_per_token=0.6, block=3),
    TextSettings(early_stop=SettledConfig(max_drift=5.0, steps=1), remasking=RefinementConfig()),
]


@pytest.mark.parametrize("settings", [*({"image": image} for image in PICTURES), *({"text": text} for text in TEXTS)])
def test_a_request_alone_equals_the_request_in_a_batch(model, settings):
    """Of every task, any sizes: rows end at different steps."""
    together = model.run(mixture(), **settings)
    assert all_equal(together, [model.run([request], **settings)[0] for request in mixture()])
    assert all_equal(together, model.run(mixture(), **settings))
    stream = model.stream(mixture(), **settings)
    assert all_equal(stream.results(), together)
    assert all_equal(model.replay(mixture(), stream.record(), **settings).results(), together)


def test_halton_fills_a_region_in_its_order_and_keeps_the_rest(model):
    original, region = picture(24, 32), box(24, 32, (5, 3, 14, 17))  # codes (0..2, 0..1) of 3 x 4
    settings = ImageSettings(steps=3, order=HaltonOrderConfig(offset=1))
    stream = model.stream([dimoo.InpaintRequest(image=original, mask=region, prompt="a")], image=settings)
    order = HaltonOrder(schedule=image_plan(settings, grids=[(3, 4)]).order.schedule, grid=(3, 4), offset=1)
    wanted = [cell for cell in order.cells.tolist() if cell % 4 < 2]
    taken = []
    for state in stream:
        offsets = state.committed - 2  # <answer><IMAGE>
        taken.append((offsets // 5 * 4 + offsets % 5).tolist())
    assert [sorted(cells) for cells in taken] == [sorted(wanted[:2]), wanted[2:3], sorted(wanted[3:])]
    known = model.kit.encode(original) + model.config.vocabulary.modality("image").start
    assert torch.equal(state.canvas.ids[2:-2].view(3, 5)[:, 2:4], known[:, 2:])


def test_pictures_of_one_answer_must_be_of_one_size(every):
    def asked(*sizes):
        answer = tuple(dimoo.PictureAnswer(height=height, width=width) for height, width in sizes)
        return dimoo.InterleavedRequest(parts=("a cat",), answer=answer)

    for order in (HaltonOrderConfig(), StratifiedOrderConfig()):
        settings = ImageSettings(steps=2, order=order, guidance=0.0)
        assert len(every.run([asked((16, 24), (16, 24))], image=settings)[0]) == 2
        with pytest.raises(RequestError, match=f"order {order.kind!r}.* is 2 x 3, 3 x 2; ask for pictures of one size"):
            every.run([asked((16, 24), (24, 16))], image=settings)
    assert len(every.run([asked((16, 24), (24, 16))], image=ImageSettings(steps=2, guidance=0.0))[0]) == 2


@pytest.mark.parametrize("grids", [(), [(8,)], [(2, 8, 8)]])
def test_an_order_over_a_picture_needs_one(grids):
    with pytest.raises(RequestError, match="order 'halton' walks over one picture"):
        image_plan(ImageSettings(order=HaltonOrderConfig()), grids=grids)
    image_plan(ImageSettings(), grids=grids)


def test_a_plan_of_another_grid_is_refused(model):
    plan = image_plan(ImageSettings(order=HaltonOrderConfig()), grids=[(4, 4)])
    with pytest.raises(ConfigError, match="grid of 4 x 4 cells, but 6 positions"):
        model.generate("a cat", settings=plan)


def test_a_text_plan_has_the_settings_order():
    def order(**settings):
        return text_plan(TextSettings(**settings), tokens=8, stops=()).order

    assert order(block=3) == order(order=EqualSharesConfig(), block=3) == BlockOrder(block=3)
    assert order() == BlockOrder(block=8)
    adaptive = AdaptiveOrder(rule=Threshold(threshold=0.8), block=3)
    assert order(order=ThresholdOrderConfig(threshold=0.8), block=3) == adaptive
    assert order(order=KLASSOrderConfig()) == AdaptiveOrder(rule=KLASS(), block=8)
    settled = order(order=ThresholdOrderConfig(threshold=0.8), block=3, early_stop=SettledConfig(steps=3))
    assert settled == SettledOrder(order=adaptive, steps=3)
    refined = text_plan(TextSettings(remasking=RefinementConfig(share=0.5)), tokens=8, stops=())
    assert refined.remasking == Refinement(share=0.5)


@pytest.mark.parametrize("share", [0.25, 0.5, 1.0])
@pytest.mark.parametrize("block", [None, 3])
def test_steps_per_token_bound_the_steps(model, share, block):
    blocks = 1 if block is None else math.ceil(12 / block)
    most = max(1, round(12 * share / blocks)) * blocks
    request = dimoo.AskRequest(images=(picture(16, 16),), question="what", tokens=12)
    for threshold, count in ((1.0, most), (0.0, blocks)):
        order = ThresholdOrderConfig(threshold=threshold)
        states = list(model.stream([request], text=TextSettings(order=order, steps_per_token=share, block=block)))
        assert model.config.vocabulary.answer_end not in states[-1].canvas.ids[:-1]  # else it may end early
        assert len(states) == count
        assert states[0].steps == most


def test_what_does_not_go_together_is_refused_before_anything_is_computed(model):
    for settings, message in (
        (ImageSettings(order=ThresholdOrderConfig()), "cannot read the confidence GumbelConfidence"),
        (ImageSettings(order=BlockOrderConfig(block=2), remasking=ReMDMConfig(eta=0.5)), "not BlockOrder"),
        (ImageSettings(order=HaltonOrderConfig(), early_stop=SettledConfig()), "HaltonOrder predicts each cell once"),
    ):
        with pytest.raises(ConfigError, match=message):
            model.stream([dimoo.GenerateRequest(prompt="a cat")], image=settings)
    with pytest.raises(ConfigError, match="cannot read the confidence Probability"):
        model.ask(picture(16, 16), "what", settings=TextSettings(order=EntropyBoundedOrderConfig()))


def test_settings_survive_json_and_are_overridden():
    for settings in (*PICTURES, *TEXTS):
        assert parse(type(settings), json.loads(settings.model_dump_json())) == settings
    halton = override(ImageSettings(), ['order={"kind":"halton"}', "steps=8"])
    changed = override(halton, ["order.offset=3", "order.schedule.kind=cosine", 'remasking={"kind":"remdm","eta":0.1}'])
    assert changed.order.offset == 3
    assert changed.order.schedule.kind == "cosine"
    assert changed.remasking == ReMDMConfig(eta=0.1)
    assert override(changed, ["remasking.strategy=cap"]).remasking.strategy == "cap"
    text = override(TextSettings(), ['order={"kind":"threshold","threshold":0.8}', 'early_stop={"kind":"settled"}'])
    assert text.order == ThresholdOrderConfig(threshold=0.8)
    assert text.early_stop == SettledConfig()
    for wrong in (['order={"kind":"halton"}'], ['order={"kind":"maskgit"}'], ['remasking={"kind":"remdm","eta":0.1}']):
        with pytest.raises(ConfigError):
            override(TextSettings(), wrong)


def test_every_setting_shows_in_the_picture(model):
    plain = model.generate("a cat", settings=ImageSettings(steps=4), size=(32, 32))
    for settings in PICTURES:
        assert not equal(model.generate("a cat", settings=settings, size=(32, 32)), plain)
