from __future__ import annotations

import json
from itertools import groupby
from pathlib import Path

import pytest
import torch

import benchmarks.memory
from benchmarks.memory import main
from dimoo.presets.config import ModelConfig
from dimoo.presets.lumina_dimoo_8b import lumina_dimoo_8b


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> ModelConfig:
    """The released model at a small width, with small pictures."""
    released = lumina_dimoo_8b()
    shape = {"d_model": 64, "layers": 1, "heads": 2, "kv_heads": 2, "mlp_hidden": 128}
    config = released.model_copy(
        update={"backbone": released.backbone.model_copy(update=shape), "image_size": (128, 128)}
    )
    monkeypatch.setattr(benchmarks.memory, "lumina_dimoo_8b", lambda: config)
    return config


def test_the_numbers(small: ModelConfig, capsys: pytest.CaptureFixture[str]) -> None:
    main(["--json"])
    report = json.loads(capsys.readouterr().out)
    needs = report["needs"]
    assert (report["prompt_tokens"], report["answer_tokens"]) == (64, small.answer_tokens)
    groups = [key for key, _ in groupby((need["dtype"], need["task"]) for need in needs)]
    tasks = ("text_to_image", "image_to_image", "understanding")
    assert groups == [(dtype, task) for dtype in ("bfloat16", "float32") for task in tasks]
    assert [(need["height"], need["width"]) for need in needs[:3]] == [(64, 64), (128, 128), (96, 192)]
    assert needs[1]["tokens"] == 2 * (64 + 8 * 9 + 4)
    parameters = 2 * 134_548 * 64 + (4 * 64 * 64 + 3 * 64 * 128 + 2 * 64) + 64
    half, full = needs[0], needs[9]
    assert (half["dtype"], full["dtype"]) == ("bfloat16", "float32")
    assert full["weights"] - half["weights"] == 2 * parameters
    assert half["codec"] == full["codec"]
    assert all(need["total"] == need["weights"] + max(need["activations"], need["codec"]) for need in needs)


def test_the_table_in_markdown(
    small: ModelConfig, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(benchmarks.memory, "PRECISIONS", {"float16": torch.float16})
    main(["--markdown"])
    lines = [line.strip() for line in capsys.readouterr().out.splitlines() if line.strip()]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert len(cells) == 2 + 9
    assert {len(row) for row in cells} == {8}
    assert set("".join(cells[1])) <= set("-:")
    assert cells[3][:4] == ["float16", "text to image", "128 x 128", "280"]


def test_the_table_in_the_docs_is_what_it_prints(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--markdown"])
    printed = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    text = (Path(__file__).parents[2] / "docs" / "checkpoints.md").read_text(encoding="utf-8")
    block = text.partition("<!-- memory -->")[2].partition("<!-- /memory -->")[0]
    assert printed == block.strip().splitlines()
    assert len(printed) == 2 + 2 * 3 * 3
