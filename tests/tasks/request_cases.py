"""Any request at all, and when two are the same."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np
from hypothesis import strategies as st
from PIL import Image

from dimoo.core.requests import (
    AskRequest,
    Box,
    ChatRequest,
    GenerateRequest,
    InpaintRequest,
    InterleavedRequest,
    Masked,
    Message,
    OutpaintRequest,
    PictureAnswer,
    Polygon,
    RetouchRequest,
    TaskRequest,
    TextAnswer,
)
from dimoo.tasks.records.stored import EXACT


@st.composite
def any_picture(draw: st.DrawFn) -> Image.Image:
    mode = draw(st.sampled_from(sorted(EXACT - {"I", "I;16"})))
    width, height = draw(st.integers(1, 5)), draw(st.integers(1, 5))
    values = np.random.default_rng(draw(st.integers(0, 99))).integers(0, 256, (height, width, 4), dtype=np.uint8)
    image = Image.fromarray(values).convert(mode)
    if draw(st.booleans()):
        image.getexif()[0x0112] = draw(st.integers(2, 8))
    return image


NUMBER = st.none() | st.integers(0, 2**70)
WORDS = st.text(max_size=20)
COORDINATE = st.floats(allow_nan=False, allow_infinity=False)
MARK = (
    st.builds(Box, *[st.integers(-9, 99)] * 4)
    | st.builds(Polygon, st.lists(st.tuples(COORDINATE, COORDINATE), max_size=4).map(tuple))
    | any_picture()
)
COMMON = {"negative": st.none() | WORDS, "seed": st.integers(-(2**70), 2**70)}
PICTURES = st.lists(any_picture(), max_size=2).map(tuple)
MARKS = st.lists(MARK, max_size=3).map(tuple)
ANY_REQUEST = st.one_of(
    st.builds(GenerateRequest, prompt=WORDS, height=NUMBER, width=NUMBER, **COMMON),
    st.builds(TaskRequest, task=WORDS, words=WORDS, option=WORDS, images=PICTURES, height=NUMBER, **COMMON),
    st.builds(InpaintRequest, image=any_picture(), mask=any_picture(), prompt=WORDS, **COMMON),
    st.builds(OutpaintRequest, image=any_picture(), prompt=WORDS, left=st.integers(), top=st.integers(), **COMMON),
    st.builds(
        RetouchRequest,
        image=any_picture(),
        marks=MARKS,
        prompt=st.none() | WORDS,
        feather=st.integers(0, 9),
        **COMMON,
    ),
    st.builds(AskRequest, images=PICTURES, question=WORDS, tokens=NUMBER, seed=st.integers()),
    st.builds(
        ChatRequest,
        messages=st.lists(st.builds(Message, role=WORDS, content=WORDS), max_size=3).map(tuple),
        tokens=NUMBER,
    ),
    st.builds(
        InterleavedRequest,
        parts=st.lists(WORDS | any_picture() | st.builds(Masked, any_picture(), MARKS), max_size=3).map(tuple),
        answer=st.lists(
            st.builds(PictureAnswer, height=NUMBER, width=NUMBER) | st.builds(TextAnswer, tokens=NUMBER), max_size=3
        ).map(tuple),
        family=WORDS,
        **COMMON,
    ),
)


def same(one: Any, two: Any) -> bool:
    """Equality of requests, written out field by field; pictures by what they show, hide and how they are turned."""
    if isinstance(one, Image.Image):
        pixels = [image.convert("RGBA").tobytes() for image in (one, two)]
        return bool(
            one.mode == two.mode
            and one.size == two.size
            and pixels[0] == pixels[1]
            and one.getexif().get(0x0112, 1) == two.getexif().get(0x0112, 1)
        )
    if is_dataclass(one):
        return type(one) is type(two) and all(
            same(getattr(one, field.name), getattr(two, field.name)) for field in fields(one)
        )
    if isinstance(one, tuple):
        return isinstance(two, tuple) and len(one) == len(two) and all(map(same, one, two))
    return type(one) is type(two) and bool(one == two)
