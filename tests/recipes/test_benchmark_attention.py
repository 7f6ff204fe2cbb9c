from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend

import benchmarks.blocks
from benchmarks.attention import BASE, PACKS, QUICK_PACKS, QUICK_STREAMS, attend_all, main
from benchmarks.blocks import compare

CPU = torch.device("cpu")
HERE, ELSEWHERE = {"naive", "padded", "sdpa"}, {"varlen", "flex", "xformers"}


@pytest.fixture(autouse=True)
def _no_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmarks.blocks, "CompileCounterWithBackend", lambda _: CompileCounterWithBackend("eager"))


@pytest.mark.parametrize("pack", ["64 sequences of 30 to 150", "cached step, 100 queries, 2 branches"])
def test_what_runs_is_right_and_what_does_not_says_why(pack: str) -> None:
    rows = {row.backend: row for row in attend_all(pack, PACKS[pack], CPU, torch.float32, repeats=1)}
    assert rows.keys() == HERE | ELSEWHERE
    for name in HERE:
        seconds, error = rows[name].seconds, rows[name].error
        assert seconds is not None
        assert seconds > 0
        assert error is not None
        assert error < 1e-5
        assert rows[name].reason == ""
    for name in ELSEWHERE:
        assert rows[name].seconds is None
        assert "runs on CUDA only" in rows[name].reason


def test_a_pack_is_as_long_as_it_says() -> None:
    ragged = [keys for _, keys in PACKS["64 sequences of 30 to 150"]]
    assert (len(ragged), min(ragged), max(ragged)) == (64, 30, 150)
    assert [sum(queries for queries, _ in pairs) for pairs in PACKS.values()][:2] == [2108, 8 * 2108]


def test_blocks_are_compared_with_one_compilation_of_each_half() -> None:
    small = BASE.model_copy(update={"d_model": 24, "mlp_hidden": 32})
    (row,) = compare(small, {"some": (5, 3, 3)}, CPU, torch.float32, repeats=2)
    assert (row.tokens, row.compilations, row.error) == (11, 2, 0.0)
    assert row.ratio == row.eager_seconds / row.compiled_seconds
    assert min(row.eager_seconds, row.compiled_seconds, row.first_seconds) > 0


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("COLUMNS", "190")
    threads = torch.get_num_threads()
    main(["--quick", "--json", str(tmp_path / "report.json")])
    assert torch.get_num_threads() == threads
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["dtype"] == "float32"
    assert [row["pack"] for row in report["attention"]] == [pack for pack in QUICK_PACKS for _ in HERE | ELSEWHERE]
    assert [row["stream"] for row in report["blocks"]] == list(QUICK_STREAMS)
    shown = capsys.readouterr().out
    for name in ELSEWHERE:
        assert f"{name}: attention='{name}' runs on CUDA only" in shown
