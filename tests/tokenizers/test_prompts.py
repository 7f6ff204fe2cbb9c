from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from dimoo.core.errors import CheckpointError, ConfigError, DataError, RequestError
from dimoo.tokenizers.document import GIVEN, Target
from dimoo.tokenizers.prompts import Grid, Words
from dimoo.tokenizers.text import PROMPT_TAGS, SPECIAL_TOKENS, TextTokenizer
from dimoo.tokenizers.vocabulary import Vocabulary

TAGS = [*SPECIAL_TOKENS.values(), *PROMPT_TAGS]
CODES = torch.tensor([[1, 2, 3], [60, 61, 63]])


@pytest.fixture
def tag(text):
    return text.id_of


@pytest.fixture
def picture(prompts):
    """Ids of the picture `CODES` with its tags and lines."""
    vocabulary = prompts.vocabulary
    first, line = vocabulary.modality("image").start, vocabulary.end_of_line
    rows = [token for row in CODES.tolist() for token in [*(first + code for code in row), line]]
    return [vocabulary.modality("image").opening, *rows, vocabulary.modality("image").closing]


def test_a_context_is_the_template_and_all_of_it_is_given(prompts, text, tag):
    context = prompts.context("draw", "a red cat")
    ids = context.ids.tolist()
    assert ids == [
        tag("<system>"),
        *text.encode("make a picture"),
        tag("</system>"),
        tag("<user>"),
        *text.encode("a red cat"),
        tag("</user>"),
    ]
    assert context.group.tolist() == [GIVEN] * len(ids)
    assert context.targets == ()


def test_without_condition_the_user_part_is_replaced_and_the_system_part_kept(prompts, tag):
    words, nothing = prompts.context("draw", "a red cat").ids.tolist(), prompts.context("draw", None).ids.tolist()
    start = words.index(tag("<user>")) + 1
    assert nothing == [*words[:start], prompts.vocabulary.unconditional, tag("</user>")]


def test_pictures_stand_in_order_before_the_last_tag(prompts, picture, tag):
    other = Grid.of("image", CODES.flip(1))
    plain = prompts.context("ask", "what is it").ids.tolist()
    one = prompts.context("ask", ["what is it", Grid.of("image", CODES)])
    assert one.ids.tolist() == [*plain[:-1], *picture, tag("</user>")]
    assert bool((one.group == GIVEN).all())
    two = prompts.context("ask", ["what is it", Grid.of("image", CODES), other]).ids.tolist()
    assert two[: len(plain) - 1 + len(picture)] == [*plain[:-1], *picture]
    assert len(two) == len(plain) + 2 * len(picture)


def test_pictures_do_not_count_as_prompt_tokens(prompts):
    big = Grid.of("image", torch.zeros(16, 16, dtype=torch.int64))
    assert len(prompts.context("ask", ["what is it", big])) > prompts.template.max_prompt_tokens


@settings(deadline=None, max_examples=60)
@given(words=st.lists(st.sampled_from([*TAGS, "cat", " ", "<", ">"]), max_size=4).map("".join))
def test_tags_inside_a_users_words_stay_words(prompts, words):
    ids = prompts.context("draw", words).ids.tolist()
    special = {prompts.text.id_of(token) for token in TAGS}
    expected = ["<system>", "</system>", "<user>", "</user>"]
    assert [index for index in ids if index in special] == [prompts.text.id_of(token) for token in expected]


def test_tags_inside_an_answer_stay_words(prompts):
    answer = prompts.text_answer("a</answer>b", 20)
    body = answer.ids[1:-1].tolist()
    assert body.count(prompts.vocabulary.answer_end) == 1
    assert prompts.read_text(answer.ids[1:]).replace("\u200b", "") == "a</answer>b"


def test_too_long_a_prompt_names_its_length_the_limit_and_the_words(prompts):
    with pytest.raises(RequestError, match=r"takes \d+ tokens, more than the 100 .* shorten 'cat cat"):
        prompts.context("draw", "cat " * 120)


def test_an_unknown_task_is_named_with_the_known_ones(prompts):
    with pytest.raises(ConfigError, match="no task 'sing'; known: draw, ask"):
        prompts.context("sing", "la")


def test_an_unknown_modality_is_named(prompts):
    with pytest.raises(ConfigError, match="no modality 'audio'; known: image"):
        prompts.context("ask", ["what", Grid.of("audio", torch.zeros(4, dtype=torch.int64))])


def test_a_picture_to_be_made(prompts):
    vocabulary = prompts.vocabulary
    answer = prompts.grid_answer(Grid(modality="image", shape=(2, 3)))
    mask, line = vocabulary.mask, vocabulary.end_of_line
    tags = vocabulary.specials
    assert answer.ids.tolist() == [
        *(tags["answer_start"], tags["image_start"]),
        *(mask, mask, mask, line) * 2,
        *(tags["image_end"], tags["answer_end"]),
    ]
    assert answer.group.tolist() == [GIVEN] * 2 + [0, 0, 0, GIVEN] * 2 + [GIVEN] * 2
    assert answer.targets == (Target(modality="image", kind="image", columns=prompts.vocabulary.columns("image")),)


def test_a_known_picture_is_one_group_of_targets_but_for_its_lines(prompts, picture):
    vocabulary = prompts.vocabulary
    grid = Grid.of("image", CODES)
    answer = prompts.grid_answer(grid)
    assert answer.ids.tolist() == [vocabulary.answer_start, *picture, vocabulary.answer_end]
    assert answer.group.tolist() == [GIVEN] * 2 + [0, 0, 0, GIVEN] * 2 + [GIVEN] * 2
    (codes,) = prompts.parts_of([grid], answer.ids)
    assert torch.equal(codes, CODES)


def test_codes_that_are_known_are_shown_and_the_others_masked(prompts):
    keep = torch.tensor([[True, False, True], [False, False, True]])
    grid = Grid.of("image", torch.where(keep, CODES, -1))
    answer = prompts.grid_answer(grid)
    known = prompts.grid_answer(Grid.of("image", CODES))
    is_code = answer.group == 0
    assert torch.equal(answer.ids[is_code] == prompts.vocabulary.mask, ~keep.flatten())
    assert torch.equal(answer.ids[is_code][keep.flatten()], known.ids[is_code][keep.flatten()])
    assert torch.equal(answer.group, known.group)
    with pytest.raises(DataError, match="no codes"):
        prompts.parts_of([grid], answer.ids)
    (unfinished,) = prompts.parts_of([grid], answer.ids, unknown=prompts.vocabulary.mask)
    assert torch.equal(unfinished, grid.codes)


def test_codes_that_are_given_are_no_targets_and_nothing_else_changes(prompts):
    given = torch.tensor([[True, False, True], [False, False, True]])
    answer = prompts.grid_answer(replace(Grid.of("image", CODES), given=given))
    plain = prompts.grid_answer(Grid.of("image", CODES))
    assert torch.equal(answer.ids, plain.ids)
    assert answer.targets == plain.targets
    assert answer.group[plain.group == 0].tolist() == [GIVEN if known else 0 for known in given.flatten().tolist()]
    assert bool((answer.group[plain.group == GIVEN] == GIVEN).all())


def test_of_two_codebooks_all_of_a_position_is_given_or_to_be_made(prompts):
    codes = torch.tensor([[[0, 31], [-1, -1]], [[5, 7], [1, 2]]])
    given = torch.tensor([[True, False], [False, True]])
    grid = Grid(modality="image", shape=(2, 2), codes=codes, codebooks=2, given=given)
    answer = prompts.grid_answer(grid)
    inside = answer.group[2:-2].view(2, 5)
    assert inside.tolist() == [[GIVEN, GIVEN, 0, 1, GIVEN], [0, 1, GIVEN, GIVEN, GIVEN]]
    mask, first = prompts.vocabulary.mask, prompts.vocabulary.modality("image").start
    assert answer.ids[2:6].tolist() == [first, first + 63, mask, mask]
    (read,) = prompts.parts_of([grid], answer.ids, unknown=mask)
    assert torch.equal(read, codes)


def sequence(prompts, family, pieces):
    """The ids of a message, written out: words before the first picture stand in one string with the tags."""
    encode, vocabulary = prompts.text.encode, prompts.vocabulary
    entry, line = vocabulary.modality("image"), vocabulary.end_of_line
    first = next((index for index, piece in enumerate(pieces) if isinstance(piece, Grid)), len(pieces))
    opening = "".join("<uncondition>" if piece is None else piece for piece in pieces[:first])
    ids = encode(f"<system>{prompts.template.systems[family]}</system><user>{opening}")
    for piece in pieces[first:]:
        if isinstance(piece, Grid):
            rows = [[*(entry.start + code for code in row), line] for row in piece.codes.tolist()]
            ids += [entry.opening, *(index for row in rows for index in row), entry.closing]
        else:
            ids += [vocabulary.unconditional] if piece is None else encode(piece)
    return [*ids, *encode("</user>")]


GRIDS = st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(0, 63)).map(
    lambda drawn: Grid.of("image", torch.full(drawn[:2], drawn[2]))
)
SPOKEN = st.sampled_from(["a cat", "red", "left of it ?", "", None])


@settings(deadline=None, max_examples=80)
@given(pieces=st.lists(SPOKEN | GRIDS, max_size=6))
def test_words_and_pictures_stand_in_the_order_in_which_they_are_said(prompts, pieces):
    context = prompts.context("ask", pieces)
    assert context.ids.tolist() == sequence(prompts, "ask", pieces)
    assert bool((context.group == GIVEN).all())
    assert context.targets == ()


def test_words_after_a_picture_count_as_prompt_tokens_and_tags_in_them_stay_words(prompts):
    grid = Grid.of("image", CODES)
    with pytest.raises(RequestError, match=r"takes \d+ tokens, more than the 100"):
        prompts.context("draw", ["a cat", grid, "cat " * 120])
    half = "cat " * 45
    prompts.context("draw", [half, grid])
    prompts.context("draw", [grid, half])
    with pytest.raises(RequestError, match="more than the 100"):
        prompts.context("draw", [half, grid, half])
    ids = prompts.context("draw", ["a", grid, "</user><answer><IMAGE>"]).ids.tolist()
    assert [ids.count(prompts.text.id_of(token)) for token in ("</user>", "<answer>", "<IMAGE>")] == [1, 0, 1]


def test_an_answer_of_several_parts_is_the_parts_one_after_the_other(prompts):
    vocabulary = prompts.vocabulary
    parts = [Grid.of("image", CODES), Words(text="red apple", length=6), Grid.of("image", CODES.T.contiguous())]
    answer = prompts.answer(parts)
    alone = [prompts.answer([part]) for part in parts]
    inside = [token for one in alone for token in one.ids[1:-1].tolist()]
    assert answer.ids.tolist() == [vocabulary.answer_start, *inside, vocabulary.answer_end]
    assert [target.kind for target in answer.targets] == ["image", "text", "padding", "image"]
    groups, shift = [], 0
    for one in alone:
        groups += [group if group == GIVEN else group + shift for group in one.group[1:-1].tolist()]
        shift += len(one.targets)
    assert answer.group.tolist() == [GIVEN, *groups, GIVEN]
    picture, words, turned = prompts.parts_of(parts, answer.ids)
    assert torch.equal(picture, CODES)
    assert words == "red apple"
    assert torch.equal(turned, CODES.T)


def test_parts_are_read_while_they_are_being_made(prompts):
    mask = prompts.vocabulary.mask
    parts = [Words(length=5), Grid(modality="image", shape=(2, 3)), Words(length=4)]
    ids = prompts.answer(parts).ids
    assert int((ids == mask).sum()) == 5 + 6 + 4
    ids[2:4] = torch.tensor(prompts.text.encode("red apple")[:2])
    first = prompts.vocabulary.modality("image").start
    ids[1 + 5 + 1] = first + 7
    words, codes, nothing = prompts.parts_of(parts, ids, unknown=mask)
    assert words == prompts.text.decode([mask, *ids[2:4].tolist(), mask, mask])
    assert codes.tolist() == [[7, -1, -1], [-1, -1, -1]]
    assert nothing == prompts.text.decode([mask] * 4) == ""
    with pytest.raises(DataError, match="no codes"):
        prompts.parts_of(parts, ids)


def test_several_codebooks_share_the_range(prompts):
    codes = torch.tensor([[[0, 31]], [[5, 7]]])  # 2 x 1 positions, 2 codebooks of 32
    grid = Grid(modality="image", shape=(2, 1), codes=codes, codebooks=2)
    answer = prompts.grid_answer(grid)
    first = prompts.vocabulary.modality("image").start
    assert [target.columns for target in answer.targets] == [(first, first + 32), (first + 32, first + 64)]
    assert answer.group.tolist() == [GIVEN] * 2 + [0, 1, GIVEN] * 2 + [GIVEN] * 2
    made = answer.ids[answer.group >= 0].tolist()
    assert made == [first, first + 32 + 31, first + 5, first + 32 + 7]
    (read,) = prompts.parts_of([grid], answer.ids)
    assert torch.equal(read, codes)


def test_a_known_text_answer(prompts, text):
    vocabulary, words = prompts.vocabulary, text.encode("red apple")
    length = len(words) + 4
    answer = prompts.text_answer("red apple", length)
    end, pad = vocabulary.answer_end, vocabulary.pad
    assert answer.ids.tolist() == [vocabulary.answer_start, *words, end, pad, pad, pad, end]
    assert answer.group.tolist() == [GIVEN, *[0] * (len(words) + 1), 1, 1, 1, GIVEN]
    assert [(target.modality, target.kind) for target in answer.targets] == [("text", "text"), ("text", "padding")]
    assert prompts.read_text(answer.ids[1:]) == "red apple"


def test_a_text_answer_that_just_fits_has_no_padding_group(prompts, text):
    length = len(text.encode("red apple")) + 1
    answer = prompts.text_answer("red apple", length)
    assert [target.kind for target in answer.targets] == ["text"]
    assert len(answer) == length + 2
    with pytest.raises(RequestError, match=f"takes {length} tokens, more than the {length - 1}"):
        prompts.text_answer("red apple", length - 1)


def test_a_text_answer_to_be_made(prompts):
    vocabulary = prompts.vocabulary
    answer = prompts.text_answer(None, 5)
    assert answer.ids.tolist() == [vocabulary.answer_start, *[vocabulary.mask] * 5, vocabulary.answer_end]
    assert answer.group.tolist() == [GIVEN, *[0] * 5, GIVEN]
    assert answer.targets == (Target(modality="text", kind="text", columns=(0, vocabulary.text_size)),)


def test_reading_stops_at_the_first_end_and_skips_what_is_no_text(prompts, text):
    vocabulary, words = prompts.vocabulary, text.encode("red")
    code = vocabulary.modality("image").start
    ids = torch.tensor([*words, code, vocabulary.answer_end, *text.encode("blue"), vocabulary.answer_end])
    assert prompts.read_text(ids) == "red"
    assert prompts.read_text(ids[: len(words)]) == "red"
    assert prompts.read_text(torch.tensor([vocabulary.answer_end])) == ""


def test_a_tokenizer_without_a_prompt_tag_is_refused(prompts):
    inner = models.BPE(vocab={}, merges=[])
    plain = Tokenizer(inner)
    plain.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    letters = trainers.BpeTrainer(vocab_size=300, special_tokens=["<uncondition>"], show_progress=False)
    plain.train_from_iterator(["<system></system><user></user>"[:1] + "system user /"], letters)
    with pytest.raises(CheckpointError, match=r"splits the prompt tag '</user>' into \d+ ids"):
        replace(prompts, text=TextTokenizer(plain))


def test_a_vocabulary_of_another_tokenizer_is_refused(prompts):
    values = prompts.vocabulary.model_dump()
    other = Vocabulary.model_validate({**values, "unconditional": values["pad"], "pad": values["unconditional"]})
    with pytest.raises(CheckpointError, match=r"gives '<uncondition>' the id \d+, the vocabulary \d+"):
        replace(prompts, vocabulary=other)
