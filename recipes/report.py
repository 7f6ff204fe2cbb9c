"""A run as one page, while it goes on or after it: python -m recipes.report RUN."""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image
from rich.console import Console

from dimoo.core.errors import ConfigError, DimooError
from dimoo.evaluation.page import inline, page, table
from recipes import registry
from recipes.config import DiffusionRecipe, Recipe, TokenizerRecipe
from recipes.running.claim import CONFIG, kind_in, leaves
from recipes.running.environment import read_environment
from recipes.watching import logs
from recipes.watching.curves import Points, plot

FILE = "report.html"
CURVES = {
    "Loss": r"loss",
    "Losses": r"l1|l2|gradient|commitment|adversary|real|made",
    "nll of masked tokens, in nats": r"nll/\w+",
    "Likelihood bound of held-out examples, in nats per token": r"bound/\w+",
    "PSNR, in dB": r"psnr.*",
    "Gradient norm": r"grad_norm",
    "Steps left out": r"skipped",
    "Learning rate": r"lr",
    "Entropy of predictions, in nats": r"entropy/\w+",
    "Speed": r"\w+/s",
    "Share of what the devices could compute": r"mfu",
    "Share of the time spent waiting for data": r"waiting",
}
"""Names of values, as patterns, by the title of the plot that they share."""
BY_SHARE = r"accuracy/(\w+)/share_\d+"


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m recipes.report", description="Write a run's report.html.")
    parser.add_argument("run", type=Path, help="the folder of the run, as runs/NAME")
    console = Console(stderr=True, highlight=False)
    try:
        path = write_report(parser.parse_args(arguments).run)
    except DimooError as error:
        console.print(f"error: {error}", style="red", markup=False)
        return 1
    sys.stdout.write(f"{path}\n")
    return 0


def write_report(folder: Path) -> Path:
    """Write `report.html` into the folder of a run, be it finished, broken off or still going on.

    The same folder gives the same page.

    Raises:
        ConfigError: there is no run in the folder.
    """
    recipe = _recipe(folder)
    curves = {**_curves(folder / logs.LEARNT), **_curves(folder / logs.SPEED)}
    name, changes = _closest(recipe)
    last = int(max((points[-1][0] for points in curves.values()), default=0))
    sections = [
        (f"Settings that differ from {name}", table(("setting", "here", name), changes)),
        ("Environment", _environment(read_environment(folder))),
        ("Curves", f'<div class="cards">{"".join(_plots(curves))}</div>'),
        *_pictures(folder / "pictures"),
        ("Last values", table(("name", "value", "step"), _last(curves))),
    ]
    path = folder / FILE
    note = f"{recipe.kind} recipe; step {last} of {recipe.run.steps}"
    path.write_text(page(recipe.run.name, note, sections), encoding="utf-8")
    return path


def _recipe(folder: Path) -> Recipe:
    path = folder / CONFIG
    if not path.is_file():
        raise ConfigError(f"there is no run in {str(folder)!r}: it has no {CONFIG}; give the folder of a run")
    kinds: dict[str, type[TokenizerRecipe | DiffusionRecipe]] = {
        "tokenizer": TokenizerRecipe,
        "diffusion": DiffusionRecipe,
    }
    kind = kind_in(path)
    if kind not in kinds:
        raise ConfigError(f"{path} is of kind {kind!r}, not one of {', '.join(kinds)}; it is no recipe's")
    return kinds[str(kind)].load(path)


def _closest(recipe: Recipe) -> tuple[str, list[tuple[str, str, str]]]:
    """The recipe of the registry that a run differs least from, and in what: setting, here, there."""
    here = leaves(json.loads(recipe.model_dump_json()))
    found: dict[str, list[tuple[str, str, str]]] = {}
    for name, make in registry.RECIPES.items():
        there = leaves(json.loads(make().model_dump_json()))
        if there["kind"] == here["kind"]:
            settings = sorted((here.keys() | there.keys()) - {"run.folder"})
            pairs = [(one, _said(here, one), _said(there, one)) for one in settings]
            found[name] = [row for row in pairs if row[1] != row[2]]
    closest = min(found, key=lambda name: len(found[name]))
    return closest, found[closest]


def _said(values: Mapping[str, Any], name: str) -> str:
    return json.dumps(values[name], ensure_ascii=False) if name in values else ""


def _environment(entries: Sequence[Mapping[str, Any]]) -> str:
    """One column for each start of the run."""
    names = list(dict.fromkeys(name for entry in entries for name in entry if name != "after_step"))
    head = ("", *(f"after step {entry.get('after_step', 0)}" for entry in entries))
    texts = [
        [one if isinstance(one := entry.get(name), str) else json.dumps(one) for entry in entries] for name in names
    ]
    return table(head, [(name, *row) for name, row in zip(names, texts, strict=True)])


def _curves(folder: Path) -> dict[str, Points]:
    """(step, value) of everything in a log, by name."""
    found: dict[str, list[tuple[float, float]]] = {}
    for row in logs.read_rows(folder / logs.FILE):
        for name, value in row.items():
            if name != "step":
                found.setdefault(name, []).append((row["step"], value))
    return dict(sorted(found.items()))


def _plots(curves: Mapping[str, Points]) -> list[str]:
    by_title = {title: [name for name in curves if re.fullmatch(pattern, name)] for title, pattern in CURVES.items()}
    for name in sorted(curves, key=lambda name: (len(name), name)):  # share_25 before share_100
        match = re.fullmatch(BY_SHARE, name)
        if match:
            by_title.setdefault(f"Accuracy of {match[1]} by masked share, to per cent", []).append(name)
    return [plot(title, {name: curves[name] for name in names}) for title, names in by_title.items() if names]


def _pictures(folder: Path) -> list[tuple[str, str]]:
    """The latest ones, if there are some."""
    files = sorted(folder.glob("*.png"))
    if not files:
        return []
    with Image.open(files[-1]) as picture:
        return [(f"Pictures: {files[-1].stem}", f'<img class="wide" src="{inline(picture)}" alt="">')]


def _last(curves: Mapping[str, Points]) -> list[tuple[str, str, str]]:
    return [(name, f"{points[-1][1]:.6g}", f"{points[-1][0]:.0f}") for name, points in curves.items()]


if __name__ == "__main__":
    raise SystemExit(main())
