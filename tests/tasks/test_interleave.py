"""Interleaved messages: any words and pictures in, any pictures and words out, denoised together."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from task_cases import Spy, equal, picture, served_by

import dimoo
from dimoo.core.errors import RequestError
from dimoo.presets.config import ImageSettings, TextSettings
from dimoo.tasks.dispatch import job_of
from dimoo.tokenizers.document import GIVEN

ONE, TWO = picture(16, 8, 1), picture(8, 24, 2)
PICTURE, WORDS = dimoo.PictureAnswer(height=8, width=16), dimoo.TextAnswer(tokens=5)


def request(*parts, answer=(PICTURE,), **changes):
    return dimoo.InterleavedRequest(parts=parts, answer=answer, **changes)


def job(model, asked):
    return job_of(model.kit, asked, image=model.config.image, text=model.config.text)


@pytest.mark.parametrize(
    "parts",
    [("a cat",), (ONE,), ("a cat", ONE), (ONE, "a cat"), ("a", ONE, "cat", TWO, "left"), (ONE, TWO, "a", "cat")],
)
def test_words_and_pictures_stand_in_their_order(every, parts):
    grids = [part if isinstance(part, str) else every.kit.grid(part) for part in parts]
    made = job(every, request(*parts)).problem
    assert torch.equal(made.branches["condition"].ids, every.prompts.context("other", grids).ids)
    assert made.branches.keys() == (
        {"condition", "unconditional"}
        | ({"no_text", "no_image"} if any(part in (ONE, TWO) for part in parts) else set())
        | ({"no_image_1", "no_image_2"} if ONE in parts and TWO in parts else set())
    )


def test_the_family_is_the_requests(every):
    other = job(every, request("a cat", family="editing")).problem
    assert torch.equal(other.branches["condition"].ids, every.prompts.context("editing", ["a cat"]).ids)
    with pytest.raises(RequestError, match="not taught the task family 'song'"):
        job(every, request("a cat", family="song"))


def test_order_and_content_matter(every):
    results = [
        every.run([request(*parts, seed=2)])[0][0]
        for parts in (("a", ONE, "cat"), ("a", "cat", ONE), (ONE, "a", "cat"), ("a", TWO, "cat"))
    ]
    assert len({made.tobytes() for made in results}) == 4


def test_a_picture_and_words_are_two_spans_of_one_row_of_one_sampler(every):
    spy = Spy(every.backbone)
    model = served_by(every, spy, image=ImageSettings(steps=3, guidance=0.0))
    asked = request("a cat", answer=(PICTURE, WORDS), seed=2)
    stream = model.stream([asked])
    states = list(stream)
    made, words = stream.results()[0]
    (image, text) = states[-1].canvas.spans
    assert (image.row, text.row) == (0, 0)
    assert image.columns == model.config.vocabulary.columns("image")
    assert text.columns == model.config.vocabulary.columns("text")
    assert [image.positions.numel(), text.positions.numel()] == [2, 5]
    assert isinstance(made, Image.Image)
    assert isinstance(words, str)
    # One sequence a step, in which the network sees both: as many steps as the longer of the two takes, not their sum.
    assert [len(call) for call in spy.seen] == [1] * 5
    length = len(every.prompts.context("other", ["a cat"])) + 2 + (2 + 3) + 5
    assert {len(sequence) for call in spy.seen for sequence in call} == {length}


def test_each_sees_what_is_made_of_the_other(every):
    """Words or a picture that are made faster leave the other with other tokens: nothing else of it has changed."""
    start, stop = every.config.vocabulary.columns("image")
    asked = request("a cat", answer=(dimoo.PictureAnswer(height=24, width=40), dimoo.TextAnswer(tokens=12)), seed=2)

    def tokens(**settings):
        *_, last = every.stream([asked], **settings)
        ids = last.canvas.ids
        return [ids[span.positions].tolist() for span in last.canvas.spans]

    picture, words = tokens()
    assert all(start <= index < stop for index in picture)
    assert tokens(text=TextSettings(steps_per_token=0.2))[0] != picture
    assert tokens(image=ImageSettings(steps=1, guidance=2.0))[1] != words


@pytest.mark.parametrize("answer", [(WORDS, PICTURE), (PICTURE, WORDS, PICTURE), (WORDS,), (PICTURE, PICTURE)])
def test_the_answer_has_the_parts_that_were_asked_for_in_order(every, answer):
    made = every.run([request("a cat", ONE, answer=answer)])[0]
    assert isinstance(made, tuple)
    assert [isinstance(part, str) for part in made] == [part is WORDS for part in answer]
    assert all(part.size == (16, 8) for part in made if not isinstance(part, str))


def test_words_of_different_lengths(every):
    answer = (dimoo.TextAnswer(tokens=2), dimoo.TextAnswer(tokens=9), dimoo.TextAnswer())
    asked = request(ONE, answer=answer)
    groups = job(every, asked).problem.answer.group
    assert [int((groups == index).sum()) for index in range(3)] == [2, 9, every.config.caption_tokens]
    assert all(isinstance(part, str) for part in every.run([asked])[0])


def test_sizes_that_are_not_said_are_the_models_own(every):
    asked = request("a", answer=(dimoo.PictureAnswer(), dimoo.PictureAnswer(height=8), dimoo.PictureAnswer(width=8)))
    assert [made.size for made in every.run([asked])[0]] == [(24, 16), (24, 8), (8, 16)]


# ---- a picture that the answer starts from

REGION = np.zeros((24, 16), bool)
REGION[3:9, 2:10] = True
START = dimoo.Masked(picture(24, 16, 5), (dimoo.Box(2, 3, 10, 9),))


def test_an_answer_may_start_from_a_masked_picture(every):
    asked = request("a red cat", START, ONE, answer=(WORDS, dimoo.PictureAnswer(), dimoo.PictureAnswer()), seed=3)
    made = job(every, asked).problem
    grid = every.kit.grid(ONE)
    assert torch.equal(made.branches["condition"].ids, every.prompts.context("other", ["a red cat", grid]).ids)
    words, first, second = every.run([asked])[0]
    old, new = np.asarray(START.image), np.asarray(first)
    assert np.array_equal(old[~REGION], new[~REGION])
    assert (old != new).any(-1)[REGION].mean() > 0.9
    assert second.size == (16, 24)  # made whole, as large as the picture that the answer starts from
    assert (np.asarray(second) != old).any(-1).mean() > 0.9
    assert isinstance(words, str)

    known = every.kit.encode(START.image) + every.config.vocabulary.modality("image").start
    frozen = torch.ones(3, 2, dtype=torch.bool)
    frozen[:2] = False
    for state in every.stream([asked]):
        ids = state.canvas.ids[1 + 5 + 1 :][: 3 * 3].view(3, 3)[:, :2]
        assert torch.equal(ids[frozen], known[frozen])


def test_a_masked_picture_alone_is_retouching_without_words(every):
    """The same message, but for the family."""
    asked = request(START, family="text_to_image", answer=(dimoo.PictureAnswer(),), seed=3)
    (made,) = every.run([asked])[0]
    assert equal(made, every.retouch(START.image, START.marks, None, seed=3))
    told = request("a cat", START, family="text_to_image", answer=(dimoo.PictureAnswer(),), seed=3)
    assert equal(every.run([told])[0][0], every.retouch(START.image, START.marks, "a cat", seed=3))


def test_targets_are_what_is_wanted_and_no_more(every):
    answer = job(every, request("a", START, answer=(dimoo.PictureAnswer(), WORDS))).problem.answer
    mask = every.config.vocabulary.mask
    assert int((answer.ids == mask).sum()) == 4 + 5
    assert bool((answer.group[answer.ids == mask] != GIVEN).all())


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (request(), r"parts must be 1 to 16 entries in a tuple, not \(\)"),
        (request("a", answer=()), r"answer must be 1 to 16 entries in a tuple, not \(\)"),
        (request(*["a"] * 17), "parts must be 1 to 16 entries"),
        (request("a", answer=(WORDS,) * 17), "answer must be 1 to 16 entries"),
        (dimoo.InterleavedRequest(parts="a cat", answer=(WORDS,)), "parts must be 1 to 16 entries in a tuple, not 'a"),
        (dimoo.InterleavedRequest(parts=ONE, answer=(WORDS,)), "parts must be 1 to 16 entries in a tuple"),
        (request("a", answer=PICTURE), "answer must be 1 to 16 entries in a tuple"),
        (request("a", answer=("words",)), "an answer is made of PictureAnswer and TextAnswer, not str"),
        (request("a", 7), "the part, unless a picture, 7 must be a string"),
        (request("a", None), "the part, unless a picture, None must be a string"),
        (request(START, START), "2 pictures are masked; an answer can start from one"),
        (request(START, answer=(WORDS,)), r"the answer has no picture; add PictureAnswer\(\)"),
        (request(START), "the masked picture is 24x16, the answer's is not; leave its size out"),
        (request(dimoo.Masked("cat.png", ())), "must be a Pillow image, not str"),
        (request(dimoo.Masked(ONE, ()), answer=(dimoo.PictureAnswer(),)), "there is no mark"),
        (request(dimoo.Masked(picture(12, 8), (dimoo.Box(0, 0, 8, 8),)), answer=(WORDS, PICTURE)), "not a multiple"),
        (request("a", answer=(dimoo.PictureAnswer(height=12),)), r"\(12, 24\) is not a multiple of 8"),
        (request("a", answer=(dimoo.TextAnswer(tokens=0),)), "an answer of 0 tokens"),
        (request("a", answer=(WORDS,), negative="b"), "a negative prompt guides pictures, but the answer has none"),
        (request("a", family=7), "the family 7 must be a string"),
        (request("a", seed=None), "seed None must be a whole number"),
        (request(ONE, "cat " * 99), "more than the 64"),
    ],
)
def test_what_cannot_be_is_refused(every, asked, message):
    with pytest.raises(RequestError, match=message):
        every.run([asked])
