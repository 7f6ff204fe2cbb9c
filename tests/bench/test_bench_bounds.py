from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from bench_cases import TINY
from torch import nn

from benchmarks import bounds
from benchmarks.bounds import PARTS, main, measure
from dimoo.bench.methods import METHODS
from dimoo.bench.shapes import Shape
from dimoo.diffusion.schedules import Cosine, remaining

NAMED = {method.name: method for method in METHODS}


@pytest.fixture
def shape(monkeypatch: pytest.MonkeyPatch) -> Shape:
    monkeypatch.setattr(bounds, "SHAPES", {"small": TINY})
    return TINY


def test_the_products_are_those_of_the_network(shape: Shape) -> None:
    """In each step both branches, whole, and the head of what is masked."""
    (bound,) = measure(shape, ["image"], [NAMED["uncached"]], repeats=1)
    width, hidden, steps = 32, 48, shape.image_steps
    canvas = 4 * (6 + 1) + 4  # row ends, and both ends of picture and answer
    tokens, pairs = 7 + 3 + 2 * canvas, (7 + canvas) ** 2 + (3 + canvas) ** 2
    layers = 2 * (2 * tokens * (4 * width**2 + 3 * width * hidden) + 4 * pairs * width)
    masked = 24 + sum(remaining(Cosine(), 24, step, steps) for step in range(steps - 1))
    assert bound.products == steps * layers + 2 * 2 * masked * width * shape.codes


def test_parts_are_shares_of_a_whole(shape: Shape) -> None:
    methods = [NAMED["max_logit_fast"], NAMED["masked_block"], NAMED["threshold"], NAMED["frozen_context"]]
    found = measure(shape, ["image", "edit", "text"], methods, repeats=1)
    assert [(bound.task, bound.method) for bound in found] == [
        ("image", "max_logit_fast"),
        ("edit", "max_logit_fast"),
        ("edit", "frozen_context"),
        ("text", "masked_block"),
    ]
    for bound in found:
        assert bound.parts.keys() == set(PARTS)
        assert sum(bound.parts.values()) == pytest.approx(1.0)
        assert min(bound.parts.values()) > 0
        assert bound.share == bound.floor / bound.seconds


def test_no_hook_stays(shape: Shape, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[nn.Module] = []
    of = bounds.RandomModel.of

    def kept(*args: object, **named: object) -> object:
        model = of(*args, **named)  # type: ignore[arg-type]
        made.append(model.network)
        return model

    monkeypatch.setattr(bounds.RandomModel, "of", kept)
    measure(shape, ["image"], [NAMED["uncached"]], repeats=1)
    (network,) = made
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())
    assert "head" not in vars(network)


def test_the_command(
    shape: Shape, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    main(["--quick", "--task", "image", "--method", "uncached", "--json", str(tmp_path / "report.json")])
    report = json.loads((tmp_path / "report.json").read_text())
    (row,) = report["rows"]
    assert row["share"] == row["floor"] / row["seconds"]
    assert report["machine"]["threads"] == torch.get_num_threads()
    shown = capsys.readouterr().out
    assert all(name in shown for name in (*PARTS, "uncached", "floor / seconds"))


def test_nothing_to_measure_is_said(shape: Shape, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--quick", "--task", "image", "--method", "masked_block"])
    assert "masked_block makes no image" in capsys.readouterr().err
