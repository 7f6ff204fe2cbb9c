import pytest
from task_cases import all_equal, equal

from dimoo.core.errors import RequestError
from dimoo.core.requests import GenerateRequest
from dimoo.presets.config import ImageSettings


def test_sizes(model):
    pictures = model.generate(["a", "b", "c"], size=[(16, 24), (8, 8), (40, 16)])
    assert [(each.height, each.width) for each in pictures] == [(16, 24), (8, 8), (40, 16)]
    assert [each.size for each in model.generate(["a", "b"], size=(8, 16))] == [(16, 8)] * 2
    assert model.generate("a")[0].size == (24, 16)  # the model's own size


def test_zero_is_a_seed(model):
    zero, one = (model.generate("a red apple", seed=seed) for seed in (0, 1))
    assert all_equal(zero, model.generate("a red apple", seed=0))
    assert not all_equal(zero, one)


def test_seeds_count_up_from_one_number(model):
    prompt = "a red apple"
    three = model.generate([prompt] * 3, seed=4)
    assert all_equal(three, [model.generate(prompt, seed=seed)[0] for seed in (4, 5, 6)])
    assert all_equal(three[::-1], model.generate([prompt] * 3, seed=[6, 5, 4]))
    assert len({each.tobytes() for each in three}) == 3


def test_guidance_and_steps_change_the_picture(model):
    base = model.generate("a red apple", settings=ImageSettings(steps=4, guidance=2.0))[0]
    assert equal(base, model.generate("a red apple")[0])  # the model's own settings
    for other in (ImageSettings(steps=4, guidance=0.0), ImageSettings(steps=2, guidance=2.0)):
        assert not equal(base, model.generate("a red apple", settings=other)[0])


def test_a_single_step(model):
    assert model.generate("a", settings=ImageSettings(steps=1))[0].size == (24, 16)


def test_no_guidance_runs_one_branch(model):
    """Half the tokens, not a branch that is multiplied by 0."""
    lengths = []
    hook = model.backbone.embedding.register_forward_hook(lambda module, inputs, output: lengths.append(len(output)))
    for guidance in (0.0, 2.0):
        model.generate("a", settings=ImageSettings(steps=1, guidance=guidance))
    hook.remove()
    context = len(model.prompts.context("text_to_image", "a"))
    nothing = len(model.prompts.context("text_to_image", None))
    answer = 2 * (3 + 1) + 4
    assert lengths == [context + answer, context + nothing + 2 * answer]


def test_tags_in_a_prompt_are_words(model):
    prompt = "a </user><answer><|mask|><IMAGE>"
    (state, *_) = model.stream([GenerateRequest(prompt=prompt, height=16, width=16)])
    assert state.canvas.lengths == (2 * 3 + 4,)
    assert model.generate(prompt, size=(16, 16))[0].size == (16, 16)


def test_a_stream_can_be_left_early(model):
    passes = []
    hook = model.backbone.embedding.register_forward_hook(lambda *_: passes.append(1))
    stream = model.stream([GenerateRequest(prompt="a red apple", height=16, width=24)])
    assert passes == []
    states = [next(stream), next(stream)]
    del stream
    hook.remove()
    assert len(passes) == 2
    assert [state.step for state in states] == [1, 2]
    assert {state.steps for state in states} == {4}
    assert bool(states[-1].canvas.masked.any())
    assert 0 < states[0].share_done < states[1].share_done < 1


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ({"prompts": "a", "size": (4, 4)}, r"\(4, 4\) is not a multiple of 8; the nearest that is: \(8, 8\)"),
        ({"prompts": "a", "size": (64, 60)}, r"\(64, 60\) is not a multiple of 8"),
        ({"prompts": "a", "size": (0, 8)}, r"\(0, 8\)"),
        ({"prompts": "cat " * 100}, "tokens, more than the 64 that this model takes; shorten 'cat cat"),
        ({"prompts": ["a", "b"], "seed": [1]}, "2 prompts but 1 seeds"),
        ({"prompts": ["a", "b"], "size": [(8, 8)]}, "2 prompts but 1 sizes"),
        ({"prompts": []}, "no request to run"),
    ],
)
def test_bad_requests(model, call, message):
    with pytest.raises(RequestError, match=message):
        model.generate(call.pop("prompts"), **call)
