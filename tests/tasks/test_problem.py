import pytest
import torch

from dimoo.core.rng import generator
from dimoo.denoise.pack import Branch, pack
from dimoo.diffusion.canvas import Canvas
from dimoo.diffusion.guidance import CONDITION, UNCONDITIONAL
from dimoo.tasks.problem import Problem
from dimoo.tasks.problems import text_to_image, understanding
from dimoo.tokenizers.document import GIVEN, Document
from dimoo.tokenizers.prompts import Grid

CODES = torch.tensor([[1, 2, 3], [60, 61, 63]])


@pytest.fixture
def problems(model):
    grid = Grid.of("image", CODES)
    return [
        text_to_image(model.prompts, "a red apple", grid),
        understanding(model.prompts, "what is it", [grid, grid], "red apple", length=8),
    ]


def test_a_training_document_is_a_branch_and_the_answer(problems):
    for problem in problems:
        for name, context in problem.branches.items():
            document = problem.document(name)
            assert document.ids.tolist() == [*context.ids.tolist(), *problem.answer.ids.tolist()]
            assert document.group.tolist() == [GIVEN] * len(context) + problem.answer.group.tolist()
            assert document.targets == problem.answer.targets


def test_training_and_sampling_see_the_same_sequence(problems):
    """The stream of every branch of a problem is its training document: there is one prompt builder."""
    for problem in problems:
        answer = problem.answer.ids
        canvas = Canvas.start(ids=answer, lengths=(len(answer),), spans=(), mask_id=0)
        branches = {name: Branch(context=context.ids) for name, context in problem.branches.items()}
        for name in branches:
            stream = pack(canvas, [branches], [(0, name)])
            assert torch.equal(stream.tokens(canvas), problem.document(name).ids)
            assert stream.layout.positions.tolist() == list(range(len(problem.document(name))))


def test_branches(problems, model):
    image, words = problems
    assert list(image.branches) == [CONDITION, UNCONDITIONAL]
    assert torch.equal(image.branches[UNCONDITIONAL].ids, model.prompts.context("text_to_image", None).ids)
    assert list(words.branches) == [CONDITION]


@pytest.mark.parametrize("dropout", [0.0, 0.1, 0.5, 1.0])
def test_the_condition_is_dropped_at_its_rate(problems, dropout):
    rng, count = generator(0, "dropout"), 4000
    names = [problems[0].training_branch(dropout, rng) for _ in range(count)]
    deviation = (dropout * (1 - dropout) / count) ** 0.5
    assert abs(names.count(UNCONDITIONAL) / count - dropout) <= 4 * deviation
    assert set(names) <= {CONDITION, UNCONDITIONAL}


def test_several_other_branches_are_dropped_to_evenly():
    nothing = Document.given([1])
    names = ("condition", "no_text", "no_image", "unconditional")
    problem = Problem(branches=dict.fromkeys(names, nothing), answer=nothing)
    rng, count = generator(0), 6000
    drawn = [problem.training_branch(0.6, rng) for _ in range(count)]
    assert abs(drawn.count(CONDITION) / count - 0.4) < 0.03
    for name in names[1:]:
        assert abs(drawn.count(name) / count - 0.2) < 0.03


def test_what_has_no_other_branch_keeps_its_condition(problems):
    assert {problems[1].training_branch(1.0, generator(seed)) for seed in range(20)} == {CONDITION}


def test_the_draw_takes_the_same_from_the_generator_in_every_case(problems):
    """So that one example's branches do not shift the draws of the next."""
    ends = []
    for problem in problems:
        for dropout in (0.0, 1.0):
            rng = generator(0)
            problem.training_branch(dropout, rng)
            ends.append(float(torch.rand((), generator=rng)))
    assert len(set(ends)) == 1


def test_words_and_pictures_are_dropped_each_on_their_own():
    nothing = Document.given([1])
    names = ("condition", "no_text", "no_image", "unconditional")
    pictured = Problem(branches=dict.fromkeys(names, nothing), answer=nothing)
    spoken = Problem(branches=dict.fromkeys(("condition", "unconditional"), nothing), answer=nothing)
    asked = Problem(branches={CONDITION: nothing}, answer=nothing)
    count, wanted = 8000, {"condition": 0.56, "no_text": 0.14, "no_image": 0.24, "unconditional": 0.06}
    for problem, shares in (
        (pictured, wanted),
        (spoken, {"condition": 0.8, "unconditional": 0.2}),
        (asked, {"condition": 1.0}),
    ):
        rng = generator(0)
        drawn = [problem.independent_branch(words=0.2, pictures=0.3, generator=rng) for _ in range(count)]
        assert set(drawn) == shares.keys()
        for name, share in shares.items():
            assert abs(drawn.count(name) / count - share) <= 4 * (share * (1 - share) / count) ** 0.5
