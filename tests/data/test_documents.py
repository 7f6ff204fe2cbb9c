"""Examples -> documents: what is asked, what is given, what is to be predicted."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch
from torch import Tensor

from dimoo.core.errors import DataError
from dimoo.core.rng import generator
from dimoo.data.config import DropoutConfig, MixtureConfig
from dimoo.data.documents import DocumentBuilder
from dimoo.data.example import Example, TaskExample
from dimoo.data.world import WorldSource
from dimoo.diffusion.guidance import CONDITION, UNCONDITIONAL
from dimoo.presets.families import TEXT_TO_IMAGE, UNDERSTANDING
from dimoo.tasks.problems import CAPTION_REQUEST, text_to_image, understanding
from dimoo.tokenizers.document import GIVEN, Document
from dimoo.tokenizers.image.build import build_image_tokenizer
from dimoo.tokenizers.image.config import ImageTokenizerConfig, PatchNetworkConfig, VectorQuantizerConfig
from dimoo.tokenizers.prompts import Grid, Prompts
from dimoo.tokenizers.template import PromptTemplate
from dimoo.tokenizers.text import SPECIAL_TOKENS, TextTokenizer
from dimoo.tokenizers.vocabulary import Vocabulary
from dimoo.weights.hub import MINI
from dimoo.weights.layout import TEXT
from recipes import registry
from recipes.config import DiffusionRecipe

CODES = 16
IMAGE_TOKENIZER = build_image_tokenizer(
    ImageTokenizerConfig(network=PatchNetworkConfig(width=8), quantizer=VectorQuantizerConfig(size=CODES, dim=4)),
    torch.Generator().manual_seed(0),
)


def make_prompts() -> Prompts:
    text = TextTokenizer.load(MINI / TEXT)
    ids = {name: text.id_of(token) for name, token in SPECIAL_TOKENS.items()}
    opening, closing = ids.pop("image_start"), ids.pop("image_end")
    vocabulary = Vocabulary(text_size=text.size, **ids).with_modality("image", CODES, opening=opening, closing=closing)
    systems = {TEXT_TO_IMAGE: "draw", UNDERSTANDING: "answer"}
    return Prompts(text=text, vocabulary=vocabulary, template=PromptTemplate(systems=systems))


PROMPTS = make_prompts()
LITTLE = PROMPTS.template.model_copy(update={"max_prompt_tokens": 30})


def builder(*, image_tokenizer: object = IMAGE_TOKENIZER, **mixture: float) -> DocumentBuilder:
    weights = {"text_to_image": 0.0, "question": 0.0, "caption": 0.0, "dropout": 0.0, **mixture}
    return DocumentBuilder(
        prompts=PROMPTS,
        image_tokenizer=image_tokenizer,  # type: ignore[arg-type]
        mixture=MixtureConfig.model_validate(weights),
    )


def example(index: int, size: tuple[int, int] = (16, 24)) -> Example:
    image = np.random.default_rng(index).integers(0, 256, (*size, 3), dtype=np.uint8)
    return Example(image=image, caption=f"a cat number {index}", qa=(("what is it", "a cat"), ("how many", str(index))))


def codes(example: Example) -> Grid:
    assert example.image is not None
    pixels = torch.from_numpy(example.image).permute(2, 0, 1)[None].float() / 255
    return Grid.of("image", IMAGE_TOKENIZER.encode(pixels)[0])


def same(a: Document, b: Document) -> bool:
    return torch.equal(a.ids, b.ids) and torch.equal(a.group, b.group) and a.targets == b.targets


def key(document: Document) -> tuple[int, ...]:
    return tuple(document.ids.tolist())


def test_training_shows_what_sampling_shows() -> None:
    one = example(1)
    grid, caption = codes(one), one.caption
    assert caption is not None
    (drawn,) = builder(text_to_image=1).build([one], [generator(0)])
    assert same(drawn, text_to_image(PROMPTS, caption, grid).document())
    (told,) = builder(caption=1, caption_tokens=12).build([one], [generator(0)])
    wanted = understanding(PROMPTS, CAPTION_REQUEST, [grid], caption, length=12)
    assert same(told, wanted.document())
    (asked,) = builder(question=1, question_tokens=5).build([one], [generator(0)])
    answers = [understanding(PROMPTS, question, [grid], answer, length=5).document() for question, answer in one.qa]
    assert any(same(asked, answer) for answer in answers)


def test_targets_are_the_answer_alone() -> None:
    one = example(2)
    vocabulary = PROMPTS.vocabulary
    (drawn,) = builder(text_to_image=1).build([one], [generator(0)])
    assert [target.kind for target in drawn.targets] == ["image"]
    grid = codes(one).codes
    assert grid is not None
    start, _ = vocabulary.columns("image")
    assert (drawn.ids[drawn.group == 0] - start).tolist() == grid.flatten().tolist()
    (told,) = builder(caption=1, caption_tokens=15).build([one], [generator(0)])
    assert [target.kind for target in told.targets] == ["text", "padding"]
    words = PROMPTS.text.encode(one.caption or "")
    assert told.ids[told.group == 0].tolist() == [*words, vocabulary.answer_end]
    assert told.ids[told.group == 1].tolist() == [vocabulary.pad] * (15 - len(words) - 1)
    codes_read = told.ids[(told.group == GIVEN) & (told.ids >= start)] - start
    assert codes_read.tolist() == grid.flatten().tolist()


def test_of_a_pair_both_sides_are_targets_and_the_tokens_are_those_of_text_to_image() -> None:
    one = example(2)
    (pair,) = builder(pair=1).build([one], [generator(0)])
    (drawn,) = builder(text_to_image=1).build([one], [generator(0)])
    assert torch.equal(pair.ids, drawn.ids)
    assert [target.kind for target in pair.targets] == ["text", "image"]
    assert pair.targets[0].columns == PROMPTS.vocabulary.columns("text")
    assert PROMPTS.text.decode(pair.ids[pair.group == 0].tolist()) == one.caption
    assert torch.equal(pair.group == 1, drawn.group == 0)
    (dropped,) = builder(pair=1, dropout=1.0).build([one], [generator(0)])
    assert same(dropped, text_to_image(PROMPTS, one.caption or "", codes(one)).document(UNCONDITIONAL))
    (silent,) = builder(pair=1).build([replace(one, caption="")], [generator(0)])
    assert [target.kind for target in silent.targets] == ["image"]


def test_the_words_of_a_request_with_pictures_cannot_be_learnt() -> None:
    image = example(1).image
    assert image is not None
    task = TaskExample(task="ask", words="what is it", images=(image,), text="a cat", learn_words=True)
    with pytest.raises(DataError, match=r"'ask' example cannot be learnt"):
        builder(text_to_image=1).build([Example(tasks=(task,))], [generator(0)])


def test_conditions_can_be_dropped_each_on_their_own_and_answers_learnt_in_blocks() -> None:
    one = example(1)
    dropped = builder(text_to_image=1).mixture.model_copy(update={"dropout": DropoutConfig(words=1.0, pictures=0.0)})
    (made,) = replace(builder(text_to_image=1), mixture=dropped).build([one], [generator(0)])
    assert same(made, text_to_image(PROMPTS, one.caption or "", codes(one)).document(UNCONDITIONAL))
    told = [
        builder(caption=1, caption_tokens=12, text_block=5).build([one], [generator(seed)])[0] for seed in range(20)
    ]
    assert {int((document.group != GIVEN).sum()) for document in told} == {5, 2}


def test_weights_and_dropout_are_frequencies() -> None:
    one = example(3, (8, 8))
    grid = codes(one)
    problem = text_to_image(PROMPTS, one.caption or "", grid)
    names = {
        key(problem.document(CONDITION)): "image",
        key(problem.document(UNCONDITIONAL)): "image without words",
        key(understanding(PROMPTS, CAPTION_REQUEST, [grid], one.caption, length=24).document()): "caption",
    }
    for index, (question, answer) in enumerate(one.qa):
        names[key(understanding(PROMPTS, question, [grid], answer, length=8).document())] = f"question {index}"
    count = 1500
    made = builder(text_to_image=2, question=1, caption=1, dropout=0.3)
    seen = Counter(names[key(document)] for document in made.build([one] * count, [generator(1)] * count))
    wanted = {"image": 0.35, "image without words": 0.15, "caption": 0.25, "question 0": 0.125, "question 1": 0.125}
    assert seen.keys() == wanted.keys()
    for name, share in wanted.items():
        # Five standard deviations of a binomial count.
        assert abs(seen[name] - share * count) < 5 * (count * share * (1 - share)) ** 0.5


def test_an_example_is_asked_only_what_it_can_answer() -> None:
    image = example(4).image
    mixture = {"text_to_image": 1.0, "question": 1.0, "caption": 1.0}
    asked = builder(**mixture).build(
        [Example(image=image, qa=(("what", "a cat"),))] * 20,
        [generator(0)] * 20,
    )
    assert len({key(document) for document in asked}) == 1
    assert {target.kind for target in asked[0].targets} == {"text", "padding"}
    told = builder(**mixture).build([Example(image=image, caption="a cat")] * 40, [generator(0)] * 40)
    assert {tuple(target.kind for target in document.targets) for document in told} == {("image",), ("text", "padding")}
    with pytest.raises(DataError, match=r"caption None and 0 questions has nothing"):
        builder(**mixture).build([Example(image=image)], [generator(0)])
    with pytest.raises(DataError, match=r"caption 'a cat' and 0 questions has nothing"):
        builder(question=1).build([Example(image=image, caption="a cat")], [generator(0)])


def test_an_empty_caption_is_a_caption() -> None:
    (document,) = builder(text_to_image=1).build([Example(image=example(0).image, caption="")], [generator(0)])
    assert same(document, text_to_image(PROMPTS, "", codes(example(0))).document())


def test_a_picture_is_needed_and_texts_must_fit() -> None:
    with pytest.raises(DataError, match=r"caption 'words' has no picture"):
        builder(text_to_image=1).build([Example(caption="words")], [generator(0)])
    with pytest.raises(DataError, match=r"words 'describe the picture': .* more than the 3 .*mixture\.caption_tokens"):
        builder(caption=1, caption_tokens=3).build([example(5)], [generator(0)])


class Counting:
    """The tokenizer, with a list of the batches that it was given."""

    modality = "image"
    codebooks = 1

    def __init__(self) -> None:
        self.batches: list[tuple[int, ...]] = []

    def encode(self, media: Tensor) -> Tensor:
        self.batches.append(tuple(media.shape))
        return IMAGE_TOKENIZER.encode(media)


def test_pictures_of_one_size_are_encoded_together_and_each_keeps_its_place() -> None:
    sizes = [(16, 24), (24, 16), (16, 24), (8, 8), (24, 16)]
    examples = [example(index, size) for index, size in enumerate(sizes)]
    counting = Counting()
    documents = builder(image_tokenizer=counting, text_to_image=1).build(examples, [generator(0)] * len(examples))
    assert sorted(counting.batches) == [(1, 3, 8, 8), (2, 3, 16, 24), (2, 3, 24, 16)]
    for one, document in zip(examples, documents, strict=True):
        assert same(document, text_to_image(PROMPTS, one.caption or "", codes(one)).document())


def test_the_generator_decides_everything_and_examples_stay_as_they_are() -> None:
    examples = [example(index) for index in range(30)]
    before = [one.image.copy() for one in examples if one.image is not None]
    made = builder(text_to_image=1, question=1, caption=1, dropout=0.5)
    torch.manual_seed(0)
    first = made.build(examples, [generator(3)] * len(examples))
    torch.manual_seed(1)
    again = made.build(examples, [generator(3)] * len(examples))
    other = made.build(examples, [generator(4)] * len(examples))
    assert all(map(same, first, again))
    assert not all(map(same, first, other))
    for one, image in zip(examples, before, strict=True):
        np.testing.assert_array_equal(one.image, image)


OF_THE_WORLD = [name for name, recipe in registry.RECIPES.items() if recipe().source.kind == "world"]


@pytest.mark.parametrize("name", [name for name in OF_THE_WORLD if registry.get(name).kind == "diffusion"])
def test_what_a_recipe_says_about_its_world_fits(name: str) -> None:
    """Else a run would stop at the first long caption, hours after its start."""
    recipe = registry.get(name)
    assert isinstance(recipe, DiffusionRecipe)
    assert recipe.source.kind == "world"
    text = PROMPTS.text
    for world in {phase.world.model_dump_json(): phase.world for phase in recipe.source.phases}.values():
        examples = [WorldSource(world, 0).example(index) for index in range(1000)]
        captions = {one.caption for one in examples if one.caption}
        answers = {answer for one in examples for _, answer in one.qa}
        prompts = captions | {question for one in examples for question, _ in one.qa}
        assert max(len(text.encode(caption)) for caption in captions) < recipe.mixture.caption_tokens
        assert max(len(text.encode(answer)) for answer in answers) < recipe.mixture.question_tokens
        assert max(len(text.encode(prompt)) for prompt in prompts) < recipe.template.max_prompt_tokens - 10


def test_what_passes_the_check_can_be_built_whatever_is_drawn_and_what_does_not_cannot() -> None:
    """With many seeds, so that every question of an example is drawn."""
    short = Example(image=example(0).image, caption="a cat", qa=(("what is it", "a cat"), ("how many", "one")))
    mixtures = [
        {"text_to_image": 1.0},
        {"caption": 1.0},
        {"question": 1.0},
        {"pair": 1.0},
        {"text_to_image": 0.5, "caption": 0.2, "question": 0.3},
    ]
    answers = [("a cat", True), ("a cat " * 30, False)]
    outcomes = Counter[bool]()
    for weights in mixtures:
        for (caption, _), (answer, _), dropped in product(answers, answers, (False, True)):
            qa = () if dropped else (short.qa[0], ("how many", answer))
            one = replace(short, caption=caption, qa=qa)
            able = replace(builder(**weights), prompts=replace(PROMPTS, template=LITTLE))
            try:
                able.check(one)
                passed = True
            except DataError:
                passed = False
            try:
                able.build([one] * 40, [generator(seed) for seed in range(40)])
                assert passed
            except DataError:
                assert not passed
            outcomes[passed] += 1
    assert min(outcomes.values()) > 5


def test_a_check_makes_no_documents(monkeypatch: pytest.MonkeyPatch) -> None:
    """It counts tokens alone: making all that may be asked of every row would take many times as long."""
    made: list[object] = []
    monkeypatch.setattr("dimoo.tokenizers.prompts.join", made.append)
    builder(text_to_image=1, caption=1, question=1, pair=1).check(example(0))
    assert made == []


def test_a_check_says_what_is_too_long_and_which_setting_to_raise() -> None:
    long = replace(example(1), caption="cat " * 40, qa=(("what", "a cat " * 20), ("which", "a cat " * 20)))
    with pytest.raises(DataError) as raised:
        builder(caption=1, question=1).check(long)
    first, second = str(raised.value).split("; shorten it, or raise ")[:2]
    assert first.endswith("more than the 24 that are planned for it")
    assert second.startswith("mixture.caption_tokens; the answer takes ")
    assert str(raised.value).endswith(
        "more than the 8 that are planned for it; shorten it, or raise mixture.question_tokens"
    )
    little = replace(builder(text_to_image=1), prompts=replace(PROMPTS, template=LITTLE))
    with pytest.raises(
        DataError, match=r"the prompt takes \d+ tokens, more than the 30 .*, or raise template.max_prompt"
    ):
        little.check(long)
