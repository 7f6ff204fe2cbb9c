import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import dimoo
from dimoo.core.config import parse
from dimoo.core.errors import ConfigError
from dimoo.tokenizers.vocabulary import TEXT, Vocabulary

SPECIALS = ("mask", "pad", "end_of_text", "end_of_line", "unconditional", "answer_start", "answer_end")
VALUES = {"text_size": 20, **{name: index for index, name in enumerate(SPECIALS)}}


def image(**changes):
    return {"name": "image", "start": 20, "size": 16, "opening": 7, "closing": 8, **changes}


@st.composite
def grown(draw):
    """A vocabulary with some modalities, and their sizes."""
    sizes = draw(st.lists(st.integers(1, 50), max_size=4))
    text_size = draw(st.integers(len(SPECIALS) + 2 * len(sizes), 60))
    ids = draw(st.permutations(range(text_size)))
    vocabulary = Vocabulary(text_size=text_size, **dict(zip(SPECIALS, ids, strict=False)))
    for index, size in enumerate(sizes):
        opening, closing = ids[len(SPECIALS) + 2 * index : len(SPECIALS) + 2 * index + 2]
        before = vocabulary
        vocabulary = before.with_modality(f"m{index}", size, opening=opening, closing=closing)
        assert before.modalities == vocabulary.modalities[:-1]  # appended, and the old one is untouched
        assert vocabulary.modality(f"m{index}").start == before.size
        assert vocabulary.size == before.size + size
    return vocabulary, sizes


@settings(deadline=None, max_examples=50)
@given(grown())
def test_ranges_are_disjoint_and_cover_every_id(case):
    vocabulary, sizes = case
    names = [TEXT, *(f"m{index}" for index in range(len(sizes)))]
    ids = [index for name in names for index in range(*vocabulary.columns(name))]
    assert ids == list(range(vocabulary.size))


@settings(deadline=None, max_examples=50)
@given(grown())
def test_specials_are_distinct_text_ids_and_all_is_kept_by_json(case):
    vocabulary, sizes = case
    specials = vocabulary.specials
    assert len(specials) == len(set(specials.values())) == len(SPECIALS) + 2 * len(sizes)
    assert all(0 <= index < vocabulary.text_size for index in specials.values())
    assert parse(Vocabulary, vocabulary.model_dump(mode="json")) == vocabulary


def test_a_gap_between_ranges_is_allowed():
    vocabulary = parse(Vocabulary, {**VALUES, "modalities": [image(start=30)]})
    assert vocabulary.columns("image") == (30, 46)
    assert vocabulary.size == 46
    assert vocabulary.with_modality("audio", 4, opening=9, closing=10).columns("audio") == (46, 50)


def test_the_released_shape():
    vocabulary = parse(Vocabulary, {**VALUES, "text_size": 126_356}).with_modality(
        "image", 8192, opening=126_349, closing=126_350
    )
    assert vocabulary.columns("image") == (126_356, 134_548)
    assert vocabulary.size == 134_548


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pad": 0}, "two special tokens share an id"),
        ({"pad": 0, "end_of_text": 0}, "two special tokens share an id"),
        ({"pad": 3}, "two special tokens share an id"),
        ({"answer_end": None, "modalities": [image()]}, "with modalities needs the special tokens answer_end"),
        (
            {"unconditional": None, "end_of_line": None, "modalities": [image()]},
            "needs the special tokens end_of_line, unconditional",
        ),
        ({"mask": 20}, "special token mask has id 20, outside the text ids 0..19"),
        ({"mask": -1}, "special token mask has id -1"),
        ({"modalities": [image(opening=0)]}, "two special tokens share an id"),
        ({"modalities": [image(closing=25)]}, "special token image_end has id 25"),
        ({"modalities": [image(start=19)]}, "the range of 'image' starts at 19, inside ids below 20"),
        (
            {"modalities": [image(), image(name="audio", start=35, opening=9, closing=10)]},
            "the range of 'audio' starts at 35, inside ids below 36",
        ),
        (
            {"modalities": [image(), image(start=36, opening=9, closing=10)]},
            "'image' is listed twice",
        ),
        ({"modalities": [image(name="text")]}, "'text' is listed twice"),
        ({"modalities": [image(size=0)]}, "modalities.0.size"),
        ({"extra": 1}, "extra"),
    ],
)
def test_contradictions_are_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        parse(Vocabulary, {**VALUES, **changes})


def test_a_duplicate_is_refused_by_its_name():
    vocabulary = parse(Vocabulary, {**VALUES, "modalities": [image()]})
    with pytest.raises(ConfigError, match="'image' is listed twice"):
        vocabulary.with_modality("image", 4, opening=9, closing=10)
    with pytest.raises(ConfigError, match="share an id"):
        vocabulary.with_modality("audio", 4, opening=7, closing=10)
    with pytest.raises(ConfigError, match="size"):
        vocabulary.with_modality("audio", 0, opening=9, closing=10)


def test_an_unknown_modality_is_named_with_the_known_ones():
    vocabulary = parse(Vocabulary, {**VALUES, "modalities": [image()]})
    with pytest.raises(ConfigError, match="no modality 'video'; known: image"):
        vocabulary.columns("video")
    with pytest.raises(ConfigError, match="known: none"):
        parse(Vocabulary, VALUES).modality("image")


LLADA = {"text_size": 126_464, "mask": 126_336, "pad": 126_081, "end_of_text": 126_081}


def test_a_text_only_vocabulary_has_three_special_tokens_and_its_pad_may_be_its_end():
    vocabulary = parse(Vocabulary, LLADA)
    assert vocabulary.specials == {"mask": 126_336, "pad": 126_081, "end_of_text": 126_081}
    assert vocabulary.size == 126_464
    assert parse(Vocabulary, vocabulary.model_dump(mode="json")) == vocabulary
    assert [vocabulary.special(name) for name in vocabulary.specials] == [126_336, 126_081, 126_081]


@pytest.mark.parametrize("name", SPECIALS[3:])
def test_what_a_text_only_vocabulary_lacks_is_named_with_the_way_to_it(name):
    with pytest.raises(ConfigError, match=rf"no special token '{name}'; known: mask, pad, end_of_text; .* dimoo.grow"):
        parse(Vocabulary, LLADA).special(name)


def test_special_ids_by_name():
    vocabulary = parse(Vocabulary, {**VALUES, "modalities": [image()]})
    assert {name: vocabulary.special(name) for name in (*SPECIALS, "image_start", "image_end")} == {
        **{name: VALUES[name] for name in SPECIALS},
        "image_start": 7,
        "image_end": 8,
    }
    with pytest.raises(ConfigError, match=r"no special token 'audio_start'; known: mask, .*, image_end$"):
        vocabulary.special("audio_start")


def test_a_text_only_vocabulary_cannot_take_a_modality_as_it_is():
    with pytest.raises(
        ConfigError, match="needs the special tokens end_of_line, unconditional, answer_start, answer_end"
    ):
        parse(Vocabulary, LLADA).with_modality("image", 8192, opening=126_349, closing=126_350)


def test_the_bundled_vocabulary_is_written_as_it_was():
    path = Path(dimoo.__file__).parent / "assets" / "mini" / "config.json"
    stored = json.loads(path.read_text(encoding="utf-8"))["vocabulary"]
    assert parse(Vocabulary, stored).model_dump(mode="json") == stored
