from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from dimoo.core.errors import CheckpointError
from dimoo.core.tensors import load_exact
from dimoo.weights.rules import Rename, Transform, expand, to_ours, to_theirs

TRANSPOSE = Transform(to_ours=torch.t, to_theirs=torch.t)
RULES = (
    Rename("table", "model.wte.weight"),
    Rename("blocks.{i}.parts.{j}.w", "model.h_{i}_{j}.weight", TRANSPOSE),
)


def numbered(*names: str) -> dict[str, Tensor]:
    return {name: torch.full((2, 3), float(index)) for index, name in enumerate(names)}


def test_names_and_values_go_both_ways() -> None:
    theirs = numbered("model.wte.weight", "model.h_0_11.weight", "model.h_3_0.weight")
    ours = to_ours(RULES, theirs)
    assert {name: tuple(tensor.shape) for name, tensor in ours.items()} == {
        "table": (2, 3),
        "blocks.0.parts.11.w": (3, 2),
        "blocks.3.parts.0.w": (3, 2),
    }
    back = to_theirs(RULES, ours)
    assert list(back) == list(theirs)
    assert all(torch.equal(back[name], theirs[name]) for name in theirs)


@given(st.sets(st.tuples(st.integers(0, 99), st.integers(0, 99)), max_size=8))
def test_any_numbers_survive_the_round_trip(numbers: set[tuple[int, int]]) -> None:
    theirs = numbered("model.wte.weight", *(f"model.h_{i}_{j}.weight" for i, j in numbers))
    back = to_theirs(RULES, to_ours(RULES, theirs))
    assert {name: tensor.tolist() for name, tensor in back.items()} == {
        name: tensor.tolist() for name, tensor in theirs.items()
    }


def test_every_problem_is_listed() -> None:
    with pytest.raises(CheckpointError) as caught:
        to_ours(RULES, numbered("model.h_0_0.weight", "model.h_x_0.weight", "modelAwte.weight"))
    message = str(caught.value)
    assert "3 problems" in message
    for line in ("missing: model.wte.weight", "unknown: model.h_x_0.weight", "unknown: modelAwte.weight"):
        assert line in message
    with pytest.raises(CheckpointError, match=r"unknown: stray"):
        to_theirs(RULES, numbered("table", "stray"))


def test_expanded_tables_require_every_name() -> None:
    rules = expand(RULES, i=2, j=2)
    assert [rule.ours for rule in rules[1:]] == [f"blocks.{i}.parts.{j}.w" for i in (0, 1) for j in (0, 1)]
    with pytest.raises(CheckpointError) as caught:
        to_ours(rules, numbered("model.wte.weight", "model.h_0_1.weight", "model.h_2_0.weight"))
    lines = str(caught.value).splitlines()[1:]
    assert [line.strip() for line in lines] == [
        "missing: model.h_0_0.weight",
        "missing: model.h_1_0.weight",
        "missing: model.h_1_1.weight",
        "unknown: model.h_2_0.weight",
    ]


def test_expanding_some_placeholders_leaves_the_others() -> None:
    (rule,) = expand(RULES[1:], i=1)
    assert (rule.ours, rule.theirs) == ("blocks.0.parts.{j}.w", "model.h_0_{j}.weight")
    assert rule.transform is TRANSPOSE


def test_a_repeated_placeholder_is_one_number() -> None:
    rules = (Rename("x.{i}", "a.{i}.b.{i}"),)
    assert list(to_ours(rules, numbered("a.7.b.7"))) == ["x.7"]
    with pytest.raises(CheckpointError, match=r"unknown: a\.7\.b\.8"):
        to_ours(rules, numbered("a.7.b.8"))


@pytest.mark.parametrize(
    "rules",
    [(Rename("x.{i}", "a.{i}"), Rename("y.{i}", "a.{i}")), (Rename("x", "a.0"), Rename("x", "a.1"))],
)
def test_ambiguous_tables_are_refused(rules: tuple[Rename, ...]) -> None:
    with pytest.raises(CheckpointError, match="ambiguous"):
        to_ours(rules, numbered("a.0", "a.1"))


def test_rules_that_cannot_be_inverted_are_refused() -> None:
    with pytest.raises(CheckpointError, match="cannot be inverted"):
        Rename("x.{i}", "a.{j}")


def test_load_copies_and_casts() -> None:
    module = nn.Linear(3, 2)
    given_tensors = {"weight": torch.arange(6.0).view(2, 3).double(), "bias": torch.ones(2).bfloat16()}
    load_exact(module, given_tensors)
    assert module.weight.dtype == torch.float32
    assert module.weight.tolist() == [[0, 1, 2], [3, 4, 5]]
    with torch.no_grad():
        module.bias.zero_()
    assert given_tensors["bias"].tolist() == [1, 1]


def test_load_lists_every_misfit_and_changes_nothing() -> None:
    module = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 2))
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    wrong = {"0.weight": torch.ones(3, 2), "0.bias": torch.ones(2), "2.bias": torch.ones(2)}
    with pytest.raises(CheckpointError) as caught:
        load_exact(module, wrong)
    assert [line.strip() for line in str(caught.value).splitlines()[1:]] == [
        "missing: 1.weight",
        "missing: 1.bias",
        "unknown: 2.bias",
        "wrong shape: 0.weight is (3, 2), the model wants (2, 3)",
    ]
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())


def test_load_needs_a_model_with_storage() -> None:
    module = nn.Linear(3, 2, device="meta")
    tensors = {"weight": torch.ones(2, 3), "bias": torch.ones(2)}
    with pytest.raises(CheckpointError, match="to_empty"):
        load_exact(module, tensors)
    load_exact(module.to_empty(device="cpu"), tensors)
    assert module.weight.sum() == 6
