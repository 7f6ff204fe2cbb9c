"""Retouching sessions: codes and pixels outside the marks are the very ones of the step before, however often."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from task_cases import box, equal, picture

import dimoo
from dimoo.core.requests import Box, Polygon
from dimoo.diffusion.config import GreedyConfig
from dimoo.diffusion.sampler import sample
from dimoo.presets.config import ImageSettings
from dimoo.tasks import engine
from dimoo.tasks.plans import image_plan
from dimoo.tasks.records.record import told_of
from dimoo.tasks.records.remake import remake

MARKS = [
    Box(0, 0, 12, 9),
    [Polygon(((18.1, 4.2), (31.3, 6.1), (24.2, 15.3))), Box(2, 17, 7, 24)],
    box(24, 32, (8, 8, 24, 16)),
]
"""One after the other on a picture of 24 x 32; they overlap."""


@pytest.fixture
def original():
    return picture(24, 32)


def selected(mark):
    """bool [24, 32], mark by mark and pixel by pixel."""
    several, region = mark if isinstance(mark, list) else [mark], np.zeros((24, 32), dtype=bool)
    for one in several:
        if isinstance(one, Box):
            region[one.top : one.bottom, one.left : one.right] = True
        elif isinstance(one, Polygon):
            (ax, ay), (bx, by), (cx, cy) = one.points
            y, x = np.mgrid[:24, :32] + 0.5
            side = [
                (qx - px) * (y - py) - (qy - py) * (x - px)
                for (px, py), (qx, qy) in (((ax, ay), (bx, by)), ((bx, by), (cx, cy)), ((cx, cy), (ax, ay)))
            ]
            region |= np.all(np.array(side) > 0, axis=0) | np.all(np.array(side) < 0, axis=0)
        else:
            region |= np.asarray(one) >= 128
    return region


def test_what_is_outside_stays_over_repeats(model, original):
    before, session = original.tobytes(), dimoo.Retouching(model, original)
    assert equal(session.picture, original)
    assert torch.equal(session.codes, model.kit.encode(original))
    drifted = False
    for seed, mark in enumerate(MARKS):
        pixels, codes = np.asarray(session.picture), session.codes
        drifted |= not torch.equal(model.kit.encode(session.picture), codes)
        made = np.asarray(session.retouch(mark, "a red apple", seed=seed))
        inside = selected(mark)
        touched = torch.from_numpy(inside.reshape(3, 8, 4, 8).any(axis=(1, 3)))
        assert 0 < int(touched.sum()) < 12
        assert np.array_equal(made[~inside], pixels[~inside])
        assert np.mean(np.any(made[inside] != pixels[inside], axis=-1)) > 0.5
        assert torch.equal(session.codes[~touched], codes[~touched])
        assert not torch.equal(session.codes[touched], codes[touched])
    assert drifted  # a picture that is encoded again gives other codes: without the grid the tokens would not stay
    assert original.tobytes() == before


def test_the_network_is_shown_the_codes_of_the_session(model, original, monkeypatch):
    starts = []
    monkeypatch.setattr(
        engine, "sample", lambda denoiser, start, draws: starts.append(start) or sample(denoiser, start, draws)
    )
    session = dimoo.Retouching(model, original)
    mask, first = model.config.vocabulary.mask, model.config.vocabulary.modality("image").start
    for seed, mark in enumerate(MARKS):
        known = session.codes
        session.retouch(mark, seed=seed)
        ids = starts[-1].ids[2:-2].view(3, 5)[:, :4]
        touched = torch.from_numpy(selected(mark).reshape(3, 8, 4, 8).any(axis=(1, 3)))
        assert torch.equal(ids, torch.where(touched, mask, known + first))


def test_inside_is_the_decoded_grid_and_it_fades_in(model, original):
    """alpha = min(1, d / (feather + 1)), d the distance to the nearest pixel outside."""
    for feather in (0, 2, 3):
        session = dimoo.Retouching(model, original)
        made = np.asarray(session.retouch(Box(8, 0, 24, 16), "a cat", feather=feather)).astype(float)
        decoded = np.asarray(model.kit.decode(session.codes)).astype(float)
        y, x = np.mgrid[:24, :32]
        distance = np.minimum(np.minimum(x - 7, 24 - x), 16 - y).clip(0)  # the top is the border of the picture
        alpha = np.minimum(1, distance / (feather + 1))[..., None]
        wanted = alpha * decoded + (1 - alpha) * np.asarray(original)
        assert np.abs(made - wanted).max() <= 0.5
        assert feather == 0 or np.any((alpha > 0) & (alpha < 1))


def test_the_first_step_is_a_retouch(model, original):
    session = dimoo.Retouching(model, original)
    settings = ImageSettings(steps=3, guidance=1.0)
    for mark in MARKS[:2]:
        made = session.retouch(mark, "a cat", feather=1, negative="a dog", seed=4, settings=settings)
        wanted = model.retouch(original, mark, "a cat", feather=1, negative="a dog", seed=4, settings=settings)
        assert equal(made, wanted)
        session.undo()
    assert not equal(made, model.retouch(original, mark, "a cat", feather=1, negative="a dog", seed=4))


def test_undo_and_redo_are_exact(model, original):
    session = dimoo.Retouching(model, original)
    pictures, codes = [session.picture], [session.codes]
    for seed, mark in enumerate(MARKS):
        pictures.append(session.retouch(mark, seed=seed))
        codes.append(session.codes)
    assert len({each.tobytes() for each in pictures}) == 4
    for index in (2, 1, 0):
        assert equal(session.undo(), pictures[index])
        assert equal(session.picture, pictures[index])
        assert torch.equal(session.codes, codes[index])
        assert len(session.history) == index
    with pytest.raises(dimoo.RequestError, match="there is nothing to undo; the picture is as it was opened"):
        session.undo()
    for index in (1, 2, 3):
        assert equal(session.redo(), pictures[index])
        assert torch.equal(session.codes, codes[index])
        assert len(session.history) == index
    with pytest.raises(dimoo.RequestError, match="there is nothing to redo; this is the last step"):
        session.redo()


def test_a_new_step_replaces_what_was_undone(model, original):
    session = dimoo.Retouching(model, original)
    session.retouch(MARKS[0], seed=0)
    session.retouch(MARKS[1], seed=1)
    session.retouch(MARKS[0], seed=3)
    session.undo()
    session.undo()
    made = session.retouch(MARKS[2], seed=2)
    with pytest.raises(dimoo.RequestError, match="nothing to redo"):
        session.redo()
    assert [step.seed for step in session.history] == [0, 2]
    assert equal(session.picture, made)


def test_the_history_makes_the_picture_again(model, original):
    session = dimoo.Retouching(model, original)
    settings = ImageSettings(steps=2, guidance=1.0)
    session.retouch(MARKS[0], "a cat", feather=1, seed=3, settings=settings)
    session.retouch(MARKS[1], seed=4)
    session.retouch(MARKS[2], "a red apple", negative="a dog", seed=5)
    assert [(step.prompt, step.feather, step.negative, step.seed, step.settings) for step in session.history] == [
        ("a cat", 1, None, 3, settings),
        (None, 0, None, 4, model.config.image),
        ("a red apple", 0, "a dog", 5, model.config.image),
    ]
    assert session.history[0].marks == (MARKS[0],)
    assert session.history[1].marks == tuple(MARKS[1])
    again = dimoo.Retouching(model, original)
    for step in session.history:
        again.retouch(**vars(step))
    assert equal(again.picture, session.picture)
    assert torch.equal(again.codes, session.codes)


def test_what_a_call_fills_in_is_the_same_in_a_session(model, original):
    assert equal(dimoo.Retouching(model, original).retouch(MARKS[0]), model.retouch(original, MARKS[0]))


def test_a_picture_of_a_session_is_made_again_from_its_file(model, original, tmp_path):
    session = dimoo.Retouching(model, original)
    session.retouch(MARKS[0], "a cat", seed=3, settings=ImageSettings(steps=2, draw=GreedyConfig()))
    session.retouch([*MARKS[1], MARKS[2]], feather=2, negative="a dog", seed=4)
    dimoo.save_picture(session.picture, tmp_path / "two.png")
    dimoo.save_picture(session.undo(), tmp_path / "one.png")
    wanted = [session.picture, session.redo()]
    for steps, (name, made) in enumerate(zip(("one", "two"), wanted, strict=True), start=1):
        record = dimoo.read_record(tmp_path / f"{name}.png")
        told = told_of(record)
        assert len(told.steps) == steps
        assert equal(told.image, original)
        again = remake(model, record)
        assert equal(again, made)
        assert again.info["dimoo"].record() == record
        assert equal(dimoo.Retouching.resumed(model, told).undo(), (original, *wanted)[steps - 1])
    with pytest.raises(dimoo.DataError, match="tells of a Session"):
        dimoo.request_of(record)


def test_behind_a_ready_plan_there_is_no_record(model, original):
    session = dimoo.Retouching(model, original)
    assert "dimoo" in session.retouch(MARKS[0]).info
    assert "dimoo" not in session.retouch(MARKS[0], settings=image_plan(ImageSettings(steps=2))).info
    assert "dimoo" not in session.retouch(MARKS[1]).info
    session.undo()
    session.undo()
    assert "dimoo" in session.retouch(MARKS[1]).info


def test_seeds_prompts_and_steps_before_matter(model, original):
    def made(seed, prompt, before=None):
        session = dimoo.Retouching(model, original)
        if before is not None:
            session.retouch(before)
        return session.retouch(Box(8, 8, 24, 24), prompt, seed=seed)

    base = made(0, "a cat")
    assert equal(base, made(0, "a cat"))
    assert not equal(base, made(1, "a cat"))
    assert not equal(base, made(0, "two blue apples"))
    inside = (8, 8, 24, 24)
    assert not equal(base.crop(inside), made(0, "a cat", before=Box(0, 0, 8, 8)).crop(inside))


def test_what_is_handed_out_is_a_copy(model, original):
    session = dimoo.Retouching(model, original)
    session.retouch(MARKS[0])
    shown, codes = session.picture, session.codes
    session.picture.paste(0, (0, 0, 32, 24))
    session.codes.zero_()
    session.undo()
    session.redo().paste(0, (0, 0, 32, 24))
    assert equal(session.picture, shown)
    assert torch.equal(session.codes, codes)


@pytest.mark.parametrize(
    ("marks", "changes", "message"),
    [
        ([], {}, "there is no mark"),
        (Box(0, 0, 40, 8), {}, "reaches out of the picture"),
        (Image.new("L", (8, 8), 255), {}, "make the mask as large"),
        (Box(0, 0, 8, 8), {"feather": -1}, "negative"),
        (Box(0, 0, 8, 8), {"prompt": "cat " * 100}, "more than the 64"),
        (Box(0, 0, 8, 8), {"seed": 0.5}, "whole number"),
    ],
)
def test_a_step_that_cannot_be_leaves_the_session_as_it_was(model, original, marks, changes, message):
    session = dimoo.Retouching(model, original)
    session.retouch(MARKS[0])
    after = session.retouch(MARKS[1])
    session.undo()
    with pytest.raises(dimoo.RequestError, match=message):
        session.retouch(marks, **changes)
    assert len(session.history) == 1
    assert equal(session.redo(), after)


def test_pictures_that_cannot_be_opened(model):
    with pytest.raises(dimoo.RequestError, match="not a multiple of 8"):
        dimoo.Retouching(model, picture(24, 30))
    with pytest.raises(dimoo.RequestError, match="must be a Pillow image"):
        dimoo.Retouching(model, "photo.png")
