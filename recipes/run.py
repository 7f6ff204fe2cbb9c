"""Run a recipe: python -m recipes.run NAME [--set k=v ...] [--estimate] [--print | --dry-run | --resume ...].

`--estimate` goes with `--dry-run` too."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from dimoo.core.config import override
from dimoo.core.errors import ConfigError, DimooError
from recipes import registry
from recipes.config import Recipe
from recipes.processes import first_process

CONFIG = "recipe.json"
BOOKKEEPING = frozenset(
    {f"run.{name}" for name in ("folder", "name", "log_every", "save_every", "sample_every")}
    | {"compile", "recompute", "pack_tokens"}
)
PROCESSES = frozenset({"run.devices", "run.nodes", "run.parallel", "accumulate"})
"""Settings that may change when a run goes on: what is learnt does not depend on them, but for rounding. On the number
of processes and `accumulate` it depends by their product alone, into which a step's examples are dealt."""


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns the exit status."""
    options = _parser().parse_args(arguments)
    console = Console(stderr=True, highlight=False)
    try:
        recipe = registry.get(options.name)
        if isinstance(options.resume, Path):
            recipe = _of_run(options.resume, recipe)
        recipe = override(recipe, options.set)
        if options.print:
            sys.stdout.write(recipe.model_dump_json(indent=2) + "\n")
            return 0
        if options.estimate:
            from recipes.estimate import estimate

            Console(highlight=False).print(estimate(recipe).table())
            if not options.dry_run:
                return 0
        folder = export_run(recipe) if options.export else run(recipe, dry=options.dry_run, resume=bool(options.resume))
    except DimooError as error:
        console.print(f"error: {error}", style="red", markup=False)
        return 1
    if first_process():
        console.print("dry run done: two steps, nothing written" if options.dry_run else f"done: {folder}")
    return 0


def run(recipe: Recipe, *, dry: bool = False, resume: bool = False) -> Path:
    """Train a recipe to its end and export the result.

    Args:
        recipe: the full config.
        dry: build everything, take two steps, write nothing.
        resume: go on from the run folder's last checkpoint.

    Returns:
        The run folder; its `export` folder is what `dimoo` loads.

    Raises:
        ConfigError: the run folder holds another run already, or the recipe differs from the one resumed.
        CheckpointError: there is nothing to resume.
        TrainingError: the loss is not finite, or the run was stopped from outside; nothing is exported.
    """
    # Lightning takes seconds to import; --print and --help do without.
    from recipes.assemble import build_module, export
    from recipes.pictures import callbacks
    from recipes.saving import read_checkpoint
    from recipes.trainer import checkpoint_path, fit, make_trainer, run_folder, sharded

    folder = run_folder(recipe.run)
    path = checkpoint_path(folder)
    before = read_checkpoint(path) if resume else None
    if not dry and first_process():
        _claim(recipe, folder, resume=resume)
    module = build_module(recipe)
    extras = callbacks(recipe, module.source, folder, dry=dry)
    if dry:
        fit(make_trainer(recipe.run, callbacks=extras, dry=True), module)
        if first_process() and not sharded(recipe.run):
            with tempfile.TemporaryDirectory() as scratch:
                export(module, Path(scratch))
        return folder
    if before is None:
        fit(make_trainer(recipe.run, callbacks=extras), module)
    elif before["steps_done"] < recipe.run.steps:
        fit(make_trainer(recipe.run, callbacks=extras, done=before["steps_done"]), module, checkpoint=path)
    if first_process():
        # The last checkpoint has the weights whole, whatever part of them a process holds, and averaged if they are.
        if sharded(recipe.run) or (before is not None and before["steps_done"] >= recipe.run.steps):
            module = build_module(recipe)
            module.load_state_dict(read_checkpoint(path)["state_dict"])
        export(module, folder / "export")
    return folder


def export_run(recipe: Recipe) -> Path:
    """Export what the last checkpoint of a run holds, be the run finished, broken off or still going on.

    Returns:
        The run folder; its `export` folder is what `dimoo` loads: the averaged weights where there are some.

    Raises:
        ConfigError: the recipe differs from that of the run.
        CheckpointError: there is no checkpoint.
    """
    from recipes.assemble import build_module, export
    from recipes.saving import read_checkpoint
    from recipes.trainer import checkpoint_path, run_folder

    folder = run_folder(recipe.run)
    state = read_checkpoint(checkpoint_path(folder))
    _compare(folder / CONFIG, recipe)
    module = build_module(recipe)
    module.load_state_dict(state["state_dict"])
    export(module, folder / "export")
    return folder


def _of_run(folder: Path, recipe: Recipe) -> Recipe:
    """The settings of the run in a folder, which may have been moved since.

    Raises:
        ConfigError: there is no run, or it is one of another kind of recipe.
    """
    path = folder / CONFIG
    if not path.is_file():
        raise ConfigError(
            f"there is no run in {str(folder)!r}: it has no {CONFIG}; give the folder of a run, as runs/NAME"
        )
    if json.loads(path.read_text(encoding="utf-8")).get("kind") != recipe.kind:
        raise ConfigError(
            f"the run in {str(folder)!r} is of another kind than {recipe.kind!r}; name a recipe of its kind"
        )
    found = type(recipe).load(path)
    place = {"folder": str(folder.parent), "name": folder.resolve().name}
    return found.model_copy(update={"run": found.run.model_copy(update=place)})


def _claim(recipe: Recipe, folder: Path, *, resume: bool) -> None:
    """Write the resolved recipe into the run folder, or check it against the one there."""
    path = folder / CONFIG
    if not resume and (folder / "checkpoints").exists():
        raise ConfigError(
            f"{folder} holds a run already; go on with --resume, or choose another name with --set run.name="
        )
    if resume and path.is_file():
        _compare(path, recipe)
    folder.mkdir(parents=True, exist_ok=True)
    recipe.save(path)


def _compare(path: Path, recipe: Recipe) -> None:
    changed = [name for name in _changes(path, recipe) if name not in BOOKKEEPING | PROCESSES]
    if changed:
        raise ConfigError(
            f"the recipe differs from the one in {path} in {', '.join(changed)}; resume with the same settings"
        )


def _changes(path: Path, recipe: Recipe) -> list[str]:
    """The settings in which a recipe differs from the one in a file."""
    if json.loads(path.read_text(encoding="utf-8")).get("kind") != recipe.kind:
        return ["kind"]
    before, now = (_leaves(entry.model_dump()) for entry in (type(recipe).load(path), recipe))
    return sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name))


def _leaves(values: Any, name: str = "") -> dict[str, Any]:
    if isinstance(values, dict):
        nested = [_leaves(value, f"{name}.{key}" if name else key) for key, value in values.items()]
        return {path: value for entry in nested for path, value in entry.items()}
    return {name: values}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m recipes.run", description="Run a training recipe.")
    parser.add_argument("name", help=f"one of {', '.join(registry.RECIPES)}")
    parser.add_argument(
        "--set", action="append", default=[], metavar="k=v", help="override a setting, as run.steps=100"
    )
    parser.add_argument(
        "--estimate", action="store_true", help="print parameters, memory by part and operations of a step, and stop"
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--print", action="store_true", help="print the resolved recipe and stop")
    what.add_argument("--dry-run", action="store_true", help="build everything and take two steps; write nothing")
    what.add_argument(
        "--resume",
        nargs="?",
        type=Path,
        const=True,
        metavar="RUN",
        help="go on from the run's last checkpoint; RUN: of the run in that folder, with the settings that it has",
    )
    what.add_argument(
        "--export", action="store_true", help="write what the run's last checkpoint holds to its export folder"
    )
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
