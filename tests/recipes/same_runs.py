"""Whether a run that was broken off left what one in one go leaves, bit for bit."""

from __future__ import annotations

from pathlib import Path

from tiny_recipes import checkpoint, differences, files


def assert_same_run(a: Path, b: Path) -> None:
    """Weights, averages, optimisers, counters, logs and exports."""
    left, right = checkpoint(a), checkpoint(b)
    assert left["steps_done"] == 7
    # The loops also count restarts.
    for state in (left, right):
        del state["loops"]
    assert list(differences(left, right)) == []
    assert (a / "csv/metrics.csv").read_text() == (b / "csv/metrics.csv").read_text()
    left, right = files(a / "export"), files(b / "export")
    for export in (left, right):
        export.pop("README.md", None)  # generated from the rest, the name among it
    assert left == right
    assert len(left) >= 2


def renamed(export: Path, before: str, after: str) -> None:
    """A model has its name in its config; an image tokenizer has none."""
    path = export / "config.json"
    path.write_text(path.read_text().replace(f'"{before}"', f'"{after}"'))
