from __future__ import annotations

import json
import types
from pathlib import Path

import pytest
import torch
from tiny_recipes import Tiny

import benchmarks.timing
from benchmarks.spine import PARTS, main
from benchmarks.timing import Clock, counted
from dimoo.backbone.build import build_backbone
from dimoo.backbone.config import BackboneConfig
from dimoo.backbone.init import initialise
from dimoo.backbone.layout import PackedLayout
from dimoo.backbone.model import Backbone
from recipes import registry


def test_every_moment_belongs_to_one_part(monkeypatch: pytest.MonkeyPatch) -> None:
    moments = iter([0.0, 1.0, 3.0, 6.0, 10.0, 15.0, 21.0, 28.0])
    monkeypatch.setattr(benchmarks.timing, "time", types.SimpleNamespace(perf_counter=lambda: next(moments)))
    clock = Clock(torch.device("cpu"))
    with clock.part("rest"):  # 0
        with clock.part("mlp"):  # 1 .. 3
            pass
        clock.start("head")  # 6
        clock.turn("rest")  # 10
        clock.stop()  # 15
        clock.timed("draw", lambda: None)  # made, not called
    assert clock.seconds == {"rest": 1 + 3 + 5 + 6, "mlp": 2, "head": 4}


def test_logits_are_counted_as_the_head_makes_them() -> None:
    config = BackboneConfig(d_model=8, layers=1, heads=2, kv_heads=2, mlp_hidden=8, vocab_size=50)
    backbone = initialise(build_backbone(config), torch.Generator().manual_seed(0))
    head, encode = Backbone.head, Backbone.encode
    with counted() as seen, torch.no_grad():
        hidden = backbone(torch.arange(7), PackedLayout.of((3, 4), torch.device("cpu")))
        backbone.head(hidden[:2], slice(10, 15))
        backbone.head(hidden[:3])
    assert (seen.rows, seen.computed, seen.stream, seen.full) == (5, 2 * 5 + 3 * 50, 7, 7 * 50)
    assert seen.columns == {5, 50}
    assert (Backbone.head, Backbone.encode) == (head, encode)


def test_the_benchmark_runs_and_its_parts_add_up(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = tiny("world_base", "accumulate=1")
    monkeypatch.setattr(registry, "RECIPES", {"world_base": lambda: recipe})
    main(["--quick", "--random", "--json", str(tmp_path / "report.json")])
    report = json.loads((tmp_path / "report.json").read_text())
    assert [entry["batch"] for entry in report["training"]] == [1, 8]
    assert [entry["batch"] for entry in report["sampling"]] == [1, 8]
    for entry in report["training"]:
        assert entry["parts"].keys() == set(PARTS) - {"draw", "pixels"}
        assert sum(entry["parts"].values()) * 3 == pytest.approx(sum(entry["all_seconds"]))
        assert 0 < entry["logits"]["share"] < 1
    for entry in report["sampling"]:
        assert entry["parts"].keys() == set(PARTS) - {"data", "optimizer"}
        assert sum(entry["parts"].values()) * entry["batch"] == pytest.approx(sum(entry["all_seconds"]))
        # Only masked positions, and of the 1,056 ids only the 32 codes of an image.
        assert entry["logits"]["columns"] == [32]
        assert entry["logits"]["rows"] < entry["logits"]["stream_tokens"]
    shown = capsys.readouterr().out
    assert all(part in shown for part in PARTS)
