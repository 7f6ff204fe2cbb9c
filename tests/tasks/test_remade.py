"""Retouching and extrapolation: what lies outside is frozen in tokens and kept in pixels."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from task_cases import box, equal, picture, served_by

import dimoo
from dimoo.core.errors import RequestError
from dimoo.tasks.dispatch import job_of
from dimoo.tasks.inpaint import surrounded
from dimoo.tasks.unencoded import Unencoded
from dimoo.tokenizers.prompts import Grid

CORNER, PATCH = dimoo.Box(0, 0, 9, 8), dimoo.Polygon(((17, 10), (31, 10), (31, 23), (17, 23)))
"""In a picture of 24 x 32, which is 3 x 4 codes of 8 x 8."""
PIXELS = np.zeros((24, 32), bool)
PIXELS[:8, :9] = True
PIXELS[10:23, 17:31] = True
MADE = torch.tensor([[1, 1, 0, 0], [0, 0, 1, 1], [0, 0, 1, 1]]).bool()
"""The codes that have a pixel of the two."""


@pytest.fixture
def original():
    return picture(24, 32)


def request(original, **changes):
    return dimoo.RetouchRequest(**{"image": original, "marks": (CORNER, PATCH), "prompt": "a cat", **changes})


def codes_of(model, canvas, shape):
    """The ids of an answer's one picture, without its lines."""
    height, width = shape
    return canvas.row(0)[2:-2].view(height, width + 1)[:, :-1]


def alike(one, two, where):
    """Whether two pictures agree at all pixels of `where`."""
    return np.array_equal(np.asarray(one)[where], np.asarray(two)[where])


def test_of_several_regions_only_their_pixels_change(model, original):
    made = model.retouch(original, (CORNER, PATCH), "a cat", seed=3)
    assert alike(made, original, ~PIXELS)
    changed = (np.asarray(made) != np.asarray(original)).any(-1)
    assert changed[PIXELS].mean() > 0.9


def test_codes_without_a_pixel_of_a_region_are_frozen_at_every_step(model, original):
    known = model.kit.encode(original) + model.config.vocabulary.modality("image").start
    mask = model.config.vocabulary.mask
    states = list(model.stream([request(original)]))
    assert len(states) == 4
    for state in states:
        ids = codes_of(model, state.canvas, (3, 4))
        assert torch.equal(ids[~MADE], known[~MADE])
    first = codes_of(model, states[0].canvas, (3, 4))
    assert bool((first[MADE] == mask).any())
    assert round(states[0].share_done * int(MADE.sum())) == states[0].committed.numel()
    assert not torch.equal(codes_of(model, states[-1].canvas, (3, 4))[MADE], known[MADE])


def test_a_hard_retouch_is_inpainting(model, original):
    mask = Image.fromarray(PIXELS.astype(np.uint8) * 255)
    assert equal(
        model.retouch(original, (CORNER, PATCH), "a cat", seed=1), model.inpaint(original, mask, "a cat", seed=1)
    )
    painted = model.retouch(original, mask, "a cat", seed=1)
    assert equal(painted, model.retouch(original, [CORNER, PATCH], "a cat", seed=1))
    one = model.retouch(original, CORNER, "a cat", seed=1)
    assert equal(one, model.retouch(original, [CORNER], "a cat", seed=1))


def distances(region):
    """The naive distance of each pixel of a region to the nearest pixel outside it."""
    outside = np.argwhere(~region)
    found = np.zeros(region.shape)
    for place in np.argwhere(region):
        found[tuple(place)] = np.sqrt(((outside - place) ** 2).sum(1).min())
    return found


def test_a_feather_fades_inside_the_region_alone(model, original):
    hard = np.asarray(model.retouch(original, (CORNER, PATCH), "a cat", seed=3), dtype=float)
    soft = model.retouch(original, (CORNER, PATCH), "a cat", seed=3, feather=3)
    alpha = np.minimum(distances(PIXELS) / 4, 1)[..., None]
    wanted = alpha * hard + (1 - alpha) * np.asarray(original, dtype=float)
    assert np.abs(np.asarray(soft) - wanted).max() <= 0.5 + 1e-4
    assert alike(soft, original, ~PIXELS)
    assert not equal(soft, model.retouch(original, (CORNER, PATCH), "a cat", seed=3))


def branches(model, asked):
    return job_of(model.kit, asked, image=model.config.image, text=model.config.text).problem.branches


def test_without_a_prompt_nothing_is_said(model, original):
    made = branches(model, request(original, prompt=None))
    nothing = model.prompts.context("text_to_image", None).ids
    assert torch.equal(made["condition"].ids, nothing)
    assert torch.equal(made["unconditional"].ids, nothing)
    told = branches(model, request(original, prompt="a cat", negative="two dogs"))
    assert torch.equal(told["condition"].ids, model.prompts.context("text_to_image", "a cat").ids)
    assert torch.equal(told["unconditional"].ids, model.prompts.context("text_to_image", "two dogs").ids)
    assert not equal(model.retouch(original, CORNER), model.retouch(original, CORNER, "two blue cats in a row"))


def test_a_negative_prompt_matters(model, original):
    base = model.retouch(original, PATCH, "a cat", seed=1)
    assert not equal(base, model.retouch(original, PATCH, "a cat", negative="two blue cats in a row", seed=1))


def test_retouching_its_own_result(model, original):
    once = model.retouch(original, CORNER, "a cat", seed=1)
    twice = model.retouch(once, PATCH, "two dogs", seed=2)
    assert alike(twice, original, ~PIXELS)
    assert alike(twice, once, np.pad(np.ones((8, 9), bool), ((0, 16), (0, 23))))


SIDES = {"left": 8, "right": 16, "top": 24, "bottom": 0}


def test_a_picture_grows_and_stays_in_the_middle(model, original):
    made = model.outpaint(original, "a cat", seed=2, **SIDES)
    assert made.size == (8 + 32 + 16, 24 + 24)
    old = np.zeros((48, 56), bool)
    old[24:48, 8:40] = True
    assert np.array_equal(np.asarray(made)[24:48, 8:40], np.asarray(original))
    *_, last = model.stream([dimoo.OutpaintRequest(image=original, prompt="a cat", seed=2, **SIDES)])
    codes = codes_of(model, last.canvas, (6, 7)) - model.config.vocabulary.modality("image").start
    assert alike(made, model.kit.decode(codes), ~old)
    assert equal(made, model.outpaint(original, "a cat", seed=2, **SIDES))
    assert not equal(made, model.outpaint(original, "a cat", seed=3, **SIDES))


def test_the_codes_of_the_picture_are_frozen_and_all_others_made(model, original):
    asked = dimoo.OutpaintRequest(image=original, prompt="a cat", seed=2, **SIDES)
    stream = model.stream([asked])
    states = list(stream)
    known = model.kit.encode(original) + model.config.vocabulary.modality("image").start
    for state in states:
        assert torch.equal(codes_of(model, state.canvas, (6, 7))[3:, 1:5], known)
    assert round(states[0].committed.numel() / states[0].share_done) == 6 * 7 - 3 * 4
    start, stop = model.config.vocabulary.columns("image")
    last = codes_of(model, states[-1].canvas, (6, 7))
    assert bool(((last >= start) & (last < stop)).all())


class FarSeeing(Unencoded):
    """An image tokenizer each of whose codes depends on every pixel of the picture."""

    def encode(self, media):
        codes = self.tokenizer.encode(media)
        return (codes + (media.sum() * 1000).long()) % self.codebook_size


def test_the_codes_are_those_of_the_picture_alone_however_far_the_tokenizer_sees(model, original):
    seeing = served_by(model, model.backbone, tokenizer=FarSeeing(model.kit.pictures))
    asked = dimoo.OutpaintRequest(image=original, prompt="a cat", **SIDES)
    first, *_ = seeing.stream([asked])
    known = seeing.kit.encode(original)
    assert not torch.equal(known, model.kit.encode(original))
    start = seeing.config.vocabulary.modality("image").start
    assert torch.equal(codes_of(seeing, first.canvas, (6, 7))[3:, 1:5], known + start)


def test_several_codebooks_grow_too(model):
    grid = Grid.of("image", torch.arange(12).view(2, 3, 2), 2)
    around = surrounded(model.kit, grid, {"left": 8, "right": 0, "top": 16, "bottom": 8})
    assert around.shape == (5, 4)
    wanted = torch.full((5, 4, 2), -1)
    wanted[2:4, 1:] = grid.codes
    assert torch.equal(around.codes, wanted)


def test_outpainting_may_be_repeated_on_its_result(model, original):
    once = model.outpaint(original, "a cat", right=8)
    twice = model.outpaint(once, "a cat", left=16, bottom=8)
    assert twice.size == (56, 32)
    assert np.array_equal(np.asarray(twice)[:24, 16:], np.asarray(once))


def test_outpainting_is_inpainting_of_a_larger_picture(model, original):
    canvas = Image.new("RGB", (40, 24), (128, 128, 128))
    canvas.paste(original, (0, 0))
    mask = box(24, 40, (32, 0, 40, 24))
    assert equal(model.outpaint(original, "a cat", right=8, seed=4), model.inpaint(canvas, mask, "a cat", seed=4))


@pytest.mark.parametrize(
    ("sides", "message"),
    [
        ({}, "all margins are 0"),
        ({"left": 12}, "left 12 is not a multiple of 8; the next that is: 16"),
        ({"left": 8, "bottom": 1}, "bottom 1 is not a multiple of 8; the next that is: 8"),
        ({"top": -8, "left": 8}, "the top margin -8 is negative"),
        ({"right": 8.0}, r"right 8\.0 must be a whole number"),
    ],
)
def test_margins_that_cannot_be(model, original, sides, message):
    with pytest.raises(RequestError, match=message):
        model.outpaint(original, "a cat", **sides)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"marks": ()}, "there is no mark"),
        ({"marks": (dimoo.Box(0, 0, 33, 8),)}, "reaches out of the picture"),
        ({"marks": (dimoo.Box(8, 0, 8, 8),)}, "is empty"),
        ({"marks": (dimoo.Polygon(((0, 0), (8, 8))),)}, "an outline needs at least 3"),
        ({"marks": ("left half",)}, "mark, unless a Box or a Polygon, must be a Pillow image, not str"),
        ({"marks": (box(32, 24, (0, 0, 8, 8)),)}, "the mask is 32x24 but the image is 24x32"),
        ({"feather": -1}, "feather width -1 is negative"),
        ({"feather": 0.5}, r"feather 0\.5 must be a whole number"),
        ({"image": picture(20, 32)}, r"\(20, 32\) is not a multiple of 8"),
        ({"image": "cat.png"}, "must be a Pillow image, not str"),
        ({"prompt": 7}, "the prompt 7 must be a string"),
        ({"negative": 7}, "the negative prompt 7 must be a string"),
        ({"prompt": "cat " * 99}, "more than the 64"),
    ],
)
def test_bad_retouches(model, original, changes, message):
    with pytest.raises(RequestError, match=message):
        model.run([request(original, **changes)])


def test_a_picture_that_is_off_the_grid_is_not_outpainted(model):
    with pytest.raises(RequestError, match=r"\(20, 32\) is not a multiple of 8"):
        model.outpaint(picture(20, 32), "a", right=8)
