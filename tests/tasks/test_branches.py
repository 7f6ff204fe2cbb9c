"""What is left out, in one piece of code: the branches that guidance asks for are those that training drops to."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from task_cases import Spy, picture, served_by

import dimoo
from dimoo.core.rng import generator
from dimoo.presets.config import ImageSettings
from dimoo.tasks.problem import CONDITION
from dimoo.tasks.problems import problem, without
from dimoo.tokenizers.document import GIVEN
from dimoo.tokenizers.prompts import Grid, Words

ONE, TWO, THREE = (Grid.of("image", torch.full((1, 2), code)) for code in (7, 8, 9))


@pytest.mark.parametrize("negative", [None, "two dogs"])
@pytest.mark.parametrize("said", [["a cat"], ["a", "cat"], [None], [""], []])
def test_of_words_alone_the_words_can_be_left_out(said, negative):
    assert without(said, negative) == {"unconditional": [negative]}


@pytest.mark.parametrize("negative", [None, "two dogs"])
def test_of_words_and_a_picture_also_each_of_them(negative):
    assert without(["a cat", ONE], negative) == {
        "unconditional": [negative],
        "no_text": [negative, ONE],
        "no_image": ["a cat"],
    }
    assert without(["a", ONE, "cat"], negative) == {
        "unconditional": [negative],
        "no_text": [negative, ONE],
        "no_image": ["a", "cat"],
    }


@pytest.mark.parametrize("negative", [None, "two dogs"])
def test_of_several_pictures_also_each_alone(negative):
    assert without([ONE, "a", TWO, "cat", THREE], negative) == {
        "unconditional": [negative],
        "no_text": [negative, ONE, TWO, THREE],
        "no_image": ["a", "cat"],
        "no_image_1": ["a", TWO, "cat", THREE],
        "no_image_2": [ONE, "a", "cat", THREE],
        "no_image_3": [ONE, "a", TWO, "cat"],
    }


def test_pictures_alone_leave_nothing_behind():
    rest = without([ONE, TWO])
    assert rest["no_image"] == [None]
    assert rest["no_image_2"] == [ONE]


def test_a_negative_prompt_stands_where_the_words_are_left_out_and_nowhere_else(every):
    prompts, said, answer = every.prompts, ["a cat", ONE, TWO], [Grid(modality="image", shape=(1, 2))]
    plain = problem(prompts, "editing", said, answer).branches
    guided = problem(prompts, "editing", said, answer, negative="two dogs").branches
    changed = {name for name in plain if not torch.equal(plain[name].ids, guided[name].ids)}
    assert changed == {"unconditional", "no_text"}
    assert torch.equal(guided["unconditional"].ids, prompts.context("editing", "two dogs").ids)
    assert torch.equal(guided["no_text"].ids, prompts.context("editing", ["two dogs", ONE, TWO]).ids)


def test_words_are_made_without_guidance_and_have_no_branches(every):
    made = problem(every.prompts, "understanding", ["what", ONE], [Words(length=4)])
    assert list(made.branches) == [CONDITION]


@pytest.mark.parametrize("pictures", [0, 1, 3])
def test_what_is_trained_on_is_what_the_sampler_shows_the_network(every, pictures):
    """Condition dropout matches guidance: same branches, and to the token the same sequences."""
    images = tuple(picture(8, 16, seed=seed) for seed in range(pictures))
    prompts, kit = every.prompts, every.kit
    said = ["a red apple", *map(kit.grid, images)]
    task, family = ("subject", "subject") if pictures else ("generate", "text_to_image")
    known = Grid.of("image", torch.tensor([[1, 2, 3], [4, 5, 6]]))
    trained = problem(prompts, family, said, [known])
    others = {name for name in trained.branches if name != CONDITION}
    assert others == {"unconditional"} | ({"no_text", "no_image"} if pictures else set()) | (
        {f"no_image_{count + 1}" for count in range(pictures)} if pictures > 1 else set()
    )

    rng, count = generator(0, "branches"), 300 * len(others)
    drawn = Counter(trained.training_branch(1.0, rng) for _ in range(count))
    assert drawn.keys() == others
    assert all(abs(number - 300) < 5 * 300**0.5 for number in drawn.values())

    spy = Spy(every.backbone)
    model = served_by(every, spy)
    guide = ImageSettings(steps=1, guidance=1.0, conditions=dict.fromkeys(others, 1.0))
    model.run([dimoo.TaskRequest(task=task, words="a red apple", images=images, height=16, width=24)], image=guide)
    shown = []
    for name in trained.branches:
        document = trained.document(name)
        shown.append(torch.where(document.group == GIVEN, document.ids, every.config.vocabulary.mask).tolist())
    assert sorted(spy.seen[0]) == sorted(shown)
    assert len({tuple(one) for one in shown}) == len(shown)


def test_a_branch_that_no_scale_asks_for_is_not_computed(every):
    spy = Spy(every.backbone)
    model = served_by(every, spy)
    request = dimoo.TaskRequest(task="edit", words="a red apple", images=(picture(8, 8),))
    for conditions, count in (({}, 1), ({"no_text": 0.0}, 1), ({"no_image": 1.0}, 2), (None, 3)):
        spy.seen.clear()
        changes = {} if conditions is None else {"conditions": conditions}
        model.run([request], image=ImageSettings(steps=1, **changes))
        assert [len(call) for call in spy.seen] == [count]
