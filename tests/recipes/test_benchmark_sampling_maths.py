from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from benchmarks.sampling_maths import QUICK_SHAPES, main, measure, parts


def test_both_versions_are_the_same_formula() -> None:
    """But for the noise of the draws."""
    for name, part in parts(40, 200).items():
        plain, ours = part.plain(), part.ours()
        assert (plain.shape, plain.dtype) == (ours.shape, ours.dtype)
        if name.startswith("draw"):
            assert bool((ours < 200).all())
        elif not name.startswith("Gumbel"):
            torch.testing.assert_close(ours, plain, rtol=1e-5, atol=2e-5)


def test_memory_is_less_where_it_is_large() -> None:
    rows = {row.part: row for row in measure([(200, 8192)], repeats=1)}
    assert all(row.seconds > 0 and row.plain_seconds > 0 and row.ratio > 0 for row in rows.values())
    assert rows["draw"].plain_bytes > 2 * rows["draw"].bytes
    assert all(row.bytes <= row.plain_bytes for row in rows.values())


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("COLUMNS", "140")
    threads = torch.get_num_threads()
    main(["--quick", "--json", str(tmp_path / "report.json")])
    assert torch.get_num_threads() == threads
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["machine"]["threads"] == 1
    assert len(report["rows"]) == len(parts(1, 300)) * len(QUICK_SHAPES)
    assert all(row["ratio"] == row["plain_seconds"] / row["seconds"] for row in report["rows"])
    shown = capsys.readouterr().out
    assert all(name in shown for name in parts(1, 300))
