"""Image settings and a problem's branches -> guidance, and the settings' own checks."""

import json
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest

import dimoo
from dimoo.core.config import override, parse
from dimoo.core.errors import ConfigError, RequestError
from dimoo.diffusion.config import ConstantRampConfig, CosineRampConfig, LinearRampConfig
from dimoo.diffusion.guidance import ClassifierFree, MultiCondition, NoGuidance, Renormalised
from dimoo.diffusion.guidance_steps import CosineRamp, Interval, LinearRamp, Scheduled
from dimoo.presets.config import ImageSettings, ModelConfig
from dimoo.tasks.plans import image_plan, text_plan

ALONE, WORDS = ("condition",), ("condition", "unconditional")
PICTURES = ("condition", "unconditional", "no_text", "no_image")
RELEASED = MultiCondition(scales=(("no_text", 2.5), ("no_image", 4.0)))


def guidance(branches=WORDS, **settings):
    return image_plan(ImageSettings(**settings), branches).guidance


def test_the_branches_choose_the_fold():
    assert guidance(WORDS, guidance=3.0) == ClassifierFree(scale=3.0)
    assert guidance(WORDS, guidance=0.0) == NoGuidance()
    assert guidance(ALONE, guidance=3.0) == NoGuidance()
    for branches in (PICTURES, ("condition", "no_text", "no_image")):
        assert guidance(branches, guidance=3.0) == RELEASED
    assert image_plan(ImageSettings(guidance=3.0)).guidance == ClassifierFree(scale=3.0)


def test_any_conditions():
    scales = {"no_image_2": 1.5, "unconditional": 0.5, "no_text": 0.0}
    branches = (*PICTURES, "no_image_2")
    assert guidance(branches, conditions=scales) == MultiCondition(scales=(("no_image_2", 1.5), ("unconditional", 0.5)))
    for nothing in ({}, {"no_text": 0.0}):
        assert guidance(PICTURES, conditions=nothing) == NoGuidance()


def test_the_wrappers_that_are_asked_for():
    inner = ClassifierFree(scale=2.0)
    assert guidance(guidance_interval=(0.2, 0.8)) == Interval(guidance=inner, start=0.2, stop=0.8)
    assert guidance(guidance_renormalisation=0.7) == Renormalised(guidance=inner, strength=0.7)
    assert guidance(guidance_schedule=LinearRampConfig()) == Scheduled(
        guidance=inner, ramp=LinearRamp(start=0.0, stop=1.0)
    )
    together = guidance(
        PICTURES,
        guidance_interval=(0.0, 0.8),
        guidance_schedule=CosineRampConfig(start=2.0, stop=0.5),
        guidance_renormalisation=1.0,
    )
    scheduled = Scheduled(guidance=RELEASED, ramp=CosineRamp(start=2.0, stop=0.5))
    assert together == Interval(guidance=Renormalised(guidance=scheduled, strength=1.0), start=0.0, stop=0.8)
    assert together.branches == RELEASED.branches


def test_no_guidance_is_not_wrapped():
    wrapped = {"guidance_interval": (0.2, 0.8), "guidance_renormalisation": 0.5, "guidance": 0.0}
    assert guidance(WORDS, **wrapped, guidance_schedule=LinearRampConfig()) == NoGuidance()


@pytest.mark.parametrize(
    ("branches", "conditions", "missing"),
    [
        (PICTURES, {"no_image_2": 1.0, "no_text": 1.0}, "'no_image_2'"),
        (("condition", "no_text"), {"no_text": 2.5, "no_image": 4.0}, "'no_image'"),
        (("condition", "no_depth"), {"no_text": 2.5, "no_image": 4.0}, "'no_text', 'no_image'"),
    ],
)
def test_guidance_for_a_condition_that_is_not_given(branches, conditions, missing):
    with pytest.raises(
        RequestError, match=f"takes the branch {missing}, but .* are 'condition', .*; set its scale to 0"
    ):
        guidance(branches, conditions=conditions)


def test_a_plan_passes_as_it_is_if_its_branches_are_there():
    plan = replace(image_plan(ImageSettings()), guidance=RELEASED)
    assert image_plan(plan, PICTURES) is plan
    with pytest.raises(RequestError, match="'no_text', 'no_image'"):
        image_plan(plan, WORDS)


def refused(steps):
    return pytest.raises(RequestError, match=f"does nothing in any of the {steps} steps")


@pytest.mark.parametrize("branches", [WORDS, PICTURES])
@pytest.mark.parametrize("steps", [1, 2, 4, 7, 16])
@pytest.mark.parametrize(("start", "stop"), [(0.0, 0.01), (0.3, 0.4), (0.26, 0.49), (0.5, 0.51), (0.9, 1.0)])
def test_an_interval_holds_a_step_or_is_refused(start, stop, steps, branches):
    holds = any(start * steps <= step < stop * steps for step in range(steps))
    settings = ImageSettings(steps=steps, guidance_interval=(start, stop))
    with nullcontext() if holds else refused(steps):
        image_plan(settings, branches)
    off = settings.model_copy(update={"guidance": 0.0, "conditions": {}})
    assert image_plan(off, branches).guidance == NoGuidance()  # nothing is asked for, so nothing is refused


def test_a_schedule_or_a_plan_that_never_guides_is_refused_too():
    rising = {"guidance_schedule": LinearRampConfig()}
    with refused(1):
        guidance(steps=1, **rising)
    assert isinstance(guidance(steps=2, **rising), Scheduled)
    plan = replace(image_plan(ImageSettings(steps=4)), guidance=Interval(guidance=RELEASED, start=0.3, stop=0.4))
    with refused(4):
        image_plan(plan, PICTURES)
    with refused(4):
        text_plan(plan, tokens=4, stops=(), branches=PICTURES)


def test_a_text_plan_takes_the_branches_that_are_there():
    plan = replace(image_plan(ImageSettings()), guidance=RELEASED)
    assert text_plan(plan, tokens=4, stops=(), branches=PICTURES) is plan
    with pytest.raises(RequestError, match="'no_text', 'no_image'"):
        text_plan(plan, tokens=4, stops=())


# The settings themselves


def test_settings_survive_json():
    settings = ImageSettings(
        conditions={"no_image_1": 1.0},
        guidance_interval=(0.25, 0.75),
        guidance_schedule=LinearRampConfig(start=1.0, stop=0.0),
        guidance_renormalisation=0.5,
    )
    for each in (settings, ImageSettings()):
        assert parse(ImageSettings, json.loads(each.model_dump_json())) == each
    changed = override(settings, ["conditions.no_image_1=3", "guidance_interval=[0,1]", "guidance_schedule.stop=0.5"])
    assert changed.conditions == {"no_image_1": 3.0}
    assert changed.guidance_interval == (0.0, 1.0)
    assert changed.guidance_schedule == LinearRampConfig(start=1.0, stop=0.5)


@pytest.mark.parametrize(
    "values",
    [
        {"conditions": {"no_text": float("inf")}},
        {"conditions": {"no_text": float("nan")}},
        {"conditions": {"condition": 1.0}},
        {"conditions": {"no_imag": 3.0}},
        {"conditions": {"no_images": 3.0}},
        {"conditions": {"no_image_0": 3.0}},
        {"conditions": {"no_image_": 3.0}},
        {"conditions": {"not_no_text": 3.0}},
        {"guidance_interval": (0.5, 0.5)},
        {"guidance_interval": (-0.1, 0.5)},
        {"guidance_interval": (0.5, 1.5)},
        {"guidance_schedule": {"kind": "linear", "end": 1.0}},
        {"guidance_renormalisation": 1.5},
        {"guidance_scale": 1.0},
    ],
)
def test_bad_settings(values):
    with pytest.raises(ConfigError):
        ImageSettings(**values)


def test_configs_from_before_the_conditions_still_parse():
    path = Path(dimoo.__file__).parent / "assets" / "mini" / "config.json"
    values = json.loads(path.read_text(encoding="utf-8"))
    for key in ("conditions", "guidance_interval", "guidance_schedule", "guidance_renormalisation"):
        values["image"].pop(key, None)
    image = parse(ModelConfig, values).image
    assert image.conditions == {"no_text": 2.5, "no_image": 4.0}
    assert image_plan(image).guidance == ClassifierFree(scale=image.guidance)
    values["image"]["condition"] = {}
    with pytest.raises(ConfigError, match="condition"):
        parse(ModelConfig, values)


def test_the_defaults_of_two_settings_are_not_one_object():
    first, second = ImageSettings(), ImageSettings()
    first.conditions["no_text"] = 9.0
    assert second.conditions == ImageSettings().conditions == {"no_text": 2.5, "no_image": 4.0}
    assert ImageSettings().guidance_schedule == ConstantRampConfig()
