"""Task examples -> documents: training reads the very context that a request of the task would be sampled from."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

import dimoo
from dimoo.backbone.build import build_backbone
from dimoo.backbone.config import BackboneConfig
from dimoo.backbone.init import initialise
from dimoo.core.errors import DataError
from dimoo.core.rng import generator
from dimoo.data.config import WorldSourceConfig
from dimoo.data.documents import DocumentBuilder
from dimoo.data.example import Example, TaskExample
from dimoo.data.world.source import WorldSource
from dimoo.data.world.tasks import KINDS, WorldTask, task_case
from dimoo.presets.config import ModelConfig
from dimoo.presets.tasks import STANDARD, TaskText
from dimoo.tasks.dispatch import job_of
from dimoo.tasks.model import Dimoo
from dimoo.tasks.problem import Problem
from dimoo.tokenizers.document import GIVEN, Document
from dimoo.tokenizers.image.build import build_image_tokenizer
from dimoo.tokenizers.image.config import ImageTokenizerConfig, PatchNetworkConfig, VectorQuantizerConfig
from dimoo.tokenizers.template import PromptTemplate
from dimoo.tokenizers.text import SPECIAL_TOKENS, TextTokenizer
from dimoo.tokenizers.vocabulary import Vocabulary
from dimoo.weights.hub import MINI
from dimoo.weights.layout import TEXT
from recipes.named.world import ALL_TASKS, SYSTEMS, TASKS, mini_world, world_all

CODES = 64
MIXTURE = world_all().mixture
WORLD = mini_world()


def make_model() -> Dimoo:
    """An untrained model with the table of the recipe of all tasks."""
    text = TextTokenizer.load(MINI / TEXT)
    image = build_image_tokenizer(
        ImageTokenizerConfig(network=PatchNetworkConfig(width=8), quantizer=VectorQuantizerConfig(size=CODES, dim=4)),
        torch.Generator().manual_seed(0),
    )
    ids = {name: text.id_of(token) for name, token in SPECIAL_TOKENS.items()}
    opening, closing = ids.pop("image_start"), ids.pop("image_end")
    vocabulary = Vocabulary(text_size=text.size, **ids).with_modality("image", CODES, opening=opening, closing=closing)
    shape = BackboneConfig(d_model=8, layers=1, heads=1, kv_heads=1, mlp_hidden=8, vocab_size=vocabulary.size)
    config = ModelConfig(
        name="all",
        backbone=shape,
        vocabulary=vocabulary,
        template=PromptTemplate(systems=SYSTEMS, max_prompt_tokens=256),
        tasks=TASKS,
        answer_tokens=MIXTURE.question_tokens,
        caption_tokens=MIXTURE.caption_tokens,
    )
    backbone = initialise(build_backbone(shape), generator(0))
    return Dimoo(config, backbone=backbone, text_tokenizer=text, image_tokenizer=image)


MODEL = make_model()


def builder(tasks: dict[str, TaskText] = TASKS, **changes: float) -> DocumentBuilder:
    assert MODEL.kit.image_tokenizer is not None
    return DocumentBuilder(
        prompts=MODEL.prompts,
        image_tokenizer=MODEL.kit.image_tokenizer,
        mixture=MIXTURE.model_copy(update={"dropout": 0.0, **changes}),
        tasks=tasks,
    )


def document(example: TaskExample, **changes: float) -> Document:
    (made,) = builder(**changes).build([Example(tasks=(example,))], [generator(0)])
    return made


def picture(array: NDArray[np.uint8]) -> Image.Image:
    return Image.fromarray(array)


def request(example: TaskExample, size: tuple[int, int]) -> dimoo.Request:
    """What a user would ask to get the example's answer."""
    if example.task == "inpaint":
        assert example.image is not None
        assert example.given is not None
        mask = picture((~example.given).astype(np.uint8) * 255)
        return dimoo.InpaintRequest(image=picture(example.image), mask=mask, prompt=example.words)
    height, width = (None, None) if example.image is None else size
    return dimoo.TaskRequest(
        task=example.task,
        words=example.words,
        option=example.option,
        images=tuple(map(picture, example.images)),
        height=height,
        width=width,
    )


def sampled(example: TaskExample) -> Problem:
    """What the sampler would start from."""
    size = (0, 0) if example.image is None else example.image.shape[:2]
    asked = request(example, (size[0], size[1]))
    return job_of(MODEL.kit, asked, image=MODEL.config.image, text=MODEL.config.text).problem


def case(task: WorldTask, kind: str, seed: int) -> TaskExample:
    canvas = None if task in ("subject", "compare", "chat") else (32, 32)
    rng = np.random.default_rng([seed, len(kind)])
    try:
        return task_case(WORLD, rng, task, canvas=canvas, kind=kind).example
    except dimoo.ConfigError:  # no room on the small canvas
        return task_case(WORLD, rng, task, kind=kind).example


@pytest.mark.parametrize(("task", "kind"), [(task, kind) for task, kinds in KINDS.items() for kind in kinds])
def test_a_document_is_the_context_of_its_request_and_the_known_answer(task: WorldTask, kind: str) -> None:
    example = case(task, kind, 0)
    made, start = document(example), sampled(example)
    context, mask = start.branches["condition"], MODEL.config.vocabulary.mask
    length = len(context)
    assert torch.equal(made.ids[:length], context.ids)
    assert bool((made.group[:length] == GIVEN).all())
    # The answer is as long, and what the sampler has to make is what training may mask: neither more nor less.
    ids, group = made.ids[length:], made.group[length:]
    assert len(ids) == len(start.answer)
    assert torch.equal(group != GIVEN, start.answer.ids == mask)
    assert torch.equal(ids[group == GIVEN], start.answer.ids[group == GIVEN])
    # And it is the right one.
    first, stop = MODEL.config.vocabulary.columns("image")
    codes, behind = [index - first for index in ids.tolist() if first <= index < stop], 1
    if example.image is None:
        assert codes == []
    else:
        assert codes == MODEL.kit.encode(picture(example.image)).flatten().tolist()
        behind += codes_length(example.image)
    if example.text is not None:
        assert MODEL.prompts.read_text(ids[behind:]) == example.text


def codes_length(image: NDArray[np.uint8]) -> int:
    """Tokens of a picture in an answer: its rows, their ends, and its tags."""
    height, width = (side // 8 for side in image.shape[:2])
    return height * (width + 1) + 2


@pytest.mark.parametrize("kind", KINDS["inpaint"])
def test_codes_whose_pixels_are_all_given_are_no_targets(kind: str) -> None:
    for seed in range(5):
        example = case("inpaint", kind, seed)
        assert example.image is not None
        assert example.given is not None
        made = document(example)
        height, width = (side // 8 for side in example.image.shape[:2])
        blocks = example.given.reshape(height, 8, width, 8).all(axis=(1, 3))
        grid = made.group[-2 - height * (width + 1) : -2].view(height, width + 1)
        assert torch.equal(grid[:, :-1] == GIVEN, torch.from_numpy(blocks))
        assert bool((grid[:, -1] == GIVEN).all())
        assert 0 < int((made.group == 0).sum()) < height * width


def test_a_code_with_one_missing_pixel_is_a_target() -> None:
    image = np.random.default_rng(0).integers(0, 256, (16, 24, 3), dtype=np.uint8)
    given = np.ones((16, 24), bool)
    given[8, 15] = False
    made = document(TaskExample(task="inpaint", words="a cat", image=image, given=given))
    assert (made.group[-2 - 8 : -2] == GIVEN).tolist() == [True] * 5 + [False] + [True] * 2
    all_given = TaskExample(task="inpaint", words="a cat", image=image, given=np.ones((16, 24), bool))
    assert int((document(all_given).group == 0).sum()) == 0
    none = TaskExample(task="inpaint", words="a cat", image=image, given=np.zeros((16, 24), bool))
    assert torch.equal(document(none).group, document(replace(none, given=None)).group)


@pytest.mark.parametrize(("task", "kind"), [("edit", "edit_remove"), ("subject", "subject_two"), ("chat", "chat_fact")])
def test_dropout_takes_the_branches_of_the_request_evenly(task: WorldTask, kind: str) -> None:
    example = case(task, kind, 1)
    start = sampled(example)
    names = {tuple(branch.ids.tolist()): name for name, branch in start.branches.items()}
    assert len(names) == len(start.branches)
    count, length = 300, len(start.answer)
    made = builder(dropout=0.6).build([Example(tasks=(example,))] * count, [generator(0)] * count)
    seen = Counter(names[tuple(one.ids[:-length].tolist())] for one in made)
    others = [name for name in start.branches if name != "condition"]
    share = {"condition": 0.4 if others else 1.0, **dict.fromkeys(others, 0.6 / max(1, len(others)))}
    for name, wanted in share.items():
        # Five standard deviations of a binomial count.
        assert abs(seen[name] - wanted * count) <= 5 * (count * wanted * (1 - wanted)) ** 0.5
    answers = {tuple(one.ids[-length:].tolist()) for one in made}
    assert len(answers) == 1


def test_of_several_tasks_each_is_drawn() -> None:
    examples = (case("predict", "predict_canny", 0), case("chat", "chat_fact", 0), case("edit", KINDS["edit"][0], 0))
    lengths = {len(document(one)): one.task for one in examples}
    assert len(lengths) == 3
    made = builder().build([Example(tasks=examples)] * 150, [generator(0)] * 150)
    seen = Counter(lengths[len(one)] for one in made)
    assert all(abs(seen[one.task] - 50) < 30 for one in examples)


def test_every_task_of_the_recipe_fits() -> None:
    """Else a run would stop at the first long message, hours after its start."""
    assert set(ALL_TASKS) - {"picture"} == set(KINDS)
    source = world_all().source
    assert isinstance(source, WorldSourceConfig)
    assert MIXTURE.dropout > 0
    seen = set()
    for phase in source.phases:
        world = WorldSource(phase.world, 0, tasks=phase.tasks)
        examples = [world.example(index) for index in range(150)]
        builder(dropout=MIXTURE.dropout).build(examples, [generator(0)] * len(examples))
        seen |= {task.task for one in examples for task in one.tasks}
    assert seen >= {"edit", "inpaint", "subject", "style", "restyle", "control", "predict", "view", "ask"}
    text, longest = MODEL.prompts.text, {"ask": MIXTURE.question_tokens, "chat": MIXTURE.caption_tokens}
    for task in ("compare", "chat", "illustrate"):
        for kind in KINDS[task]:  # type: ignore[index]
            for seed in range(20):
                one = case(task, kind, seed)  # type: ignore[arg-type]
                assert len(text.encode(one.text or "")) < longest.get(one.task, MIXTURE.caption_tokens)
                document(one)


@pytest.mark.parametrize(
    ("example", "message"),
    [
        (TaskExample(task="chat", words="hello", text="cat " * 99), "of task 'chat' .* planned for it; sho"),
        (TaskExample(task="chat", words="cat " * 400, text="a"), "more than the 256"),
        (TaskExample(task="sing", words="la", text="la"), "no task 'sing'"),
        (TaskExample(task="edit", words="a cat", text="a"), "takes 1 pictures, not 0"),
        (TaskExample(task="predict", option="normals", text="a"), "takes 1 pictures"),
    ],
)
def test_an_example_that_does_not_fit_is_named(example: TaskExample, message: str) -> None:
    with pytest.raises(DataError, match=message):
        document(example)


def test_how_a_task_is_said_is_the_tables() -> None:
    example = case("predict", "predict_canny", 0)
    other = {**TASKS, "predict": TASKS["predict"].model_copy(update={"text": "see {option}"})}
    (made,) = builder(other).build([Example(tasks=(example,))], [generator(0)])
    assert not torch.equal(made.ids[:20], document(example).ids[:20])
    refused = {**TASKS, "predict": TASKS["predict"].model_copy(update={"options": {}, "text": "map"})}
    with pytest.raises(DataError, match="takes no option"):
        builder(refused).build([Example(tasks=(example,))], [generator(0)])


def test_a_mixture_says_how_long_words_are() -> None:
    chat, compare = case("chat", "chat_fact", 0), case("compare", "compare_what", 0)
    for example, changed, kept in (
        (chat, "caption_tokens", "question_tokens"),
        (compare, "question_tokens", "caption_tokens"),
    ):
        base = len(document(example))
        longer = getattr(MIXTURE, changed) + 3
        assert len(document(example, **{changed: longer})) == base + 3
        assert len(document(example, **{kept: getattr(MIXTURE, kept) + 3})) == base


def test_the_builders_own_table_is_the_standard_one() -> None:
    example = [Example(tasks=(case("predict", "predict_canny", 0),))]
    assert MODEL.kit.image_tokenizer is not None
    own = DocumentBuilder(prompts=MODEL.prompts, image_tokenizer=MODEL.kit.image_tokenizer, mixture=MIXTURE)
    (made,) = own.build(example, [generator(0)] * len(example))
    (standard,) = builder(STANDARD, dropout=MIXTURE.dropout).build(example, [generator(0)] * len(example))
    (other,) = builder(TASKS, dropout=MIXTURE.dropout).build(example, [generator(0)] * len(example))
    assert torch.equal(made.ids, standard.ids)
    assert not torch.equal(made.ids[:20], other.ids[:20])  # it calls the map by another name
