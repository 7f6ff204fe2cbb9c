"""Run a recipe: python -m recipes.run NAME [--from CKPT] [--set k=v ...] [--estimate] [--print | --dry-run | ...].

`--estimate` goes with `--dry-run` too."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Literal

from rich.console import Console

from dimoo.core.config import override
from dimoo.core.errors import ConfigError, DimooError
from recipes import registry
from recipes.config import Recipe
from recipes.processes import first_process, require_all, speaks

Weights = Literal["average", "last"]


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns the exit status."""
    options = _parser().parse_args(arguments)
    console = Console(stderr=True, highlight=False)
    try:
        recipe = registry.get(options.name)
        if options.start is not None:
            for word, place in (("resume", options.resume), ("export", options.export)):
                if isinstance(place, Path):
                    raise ConfigError(f"--{word} RUN takes the settings of RUN; leave --from out")
            recipe = _started_from(recipe, options.start)
        for place in (options.resume, options.export):
            if isinstance(place, Path):
                from recipes.running.claim import recipe_of

                recipe = recipe_of(place, recipe)
        recipe = override(recipe, options.set)
        if options.print:
            sys.stdout.write(recipe.model_dump_json(indent=2) + "\n")
            return 0
        if options.estimate:
            from recipes.running.estimate import estimate

            Console(highlight=False).print(estimate(recipe).table())
            if not options.dry_run:
                return 0
        if options.export:
            folder = export_run(recipe, options.weights)
        else:
            resume = bool(options.resume) or (options.requeue and _begun(recipe))
            folder = run(recipe, dry=options.dry_run, resume=resume, weights=options.weights)
    except DimooError as error:
        if speaks(error):
            console.print(f"error: {error}", style="red", markup=False)
        return 1
    if first_process():
        console.print("dry run done: two steps, nothing written" if options.dry_run else f"done: {folder}")
    return 0


def run(recipe: Recipe, *, dry: bool = False, resume: bool = False, weights: Weights = "average") -> Path:
    """Train a recipe to its end and export the result.

    Args:
        recipe: the full config.
        dry: build everything, take two steps, write nothing.
        resume: go on from the run folder's last checkpoint.
        weights: that are exported in the end: averaged ones, where there are some, or those of the last step.

    Returns:
        The run folder; its `export` folder is what `dimoo` loads.

    Raises:
        ConfigError: the run folder holds another run already, or another process is at it; or the recipe differs from
            the one resumed.
        CheckpointError: there is nothing to resume.
        TrainingError: the loss is not finite, or the run was stopped from outside; nothing is exported.
    """
    # Lightning takes seconds to import; --print and --help do without.
    from recipes.learning.assemble import build_module, export
    from recipes.report import write_report
    from recipes.running.claim import claimed
    from recipes.running.environment import note_environment
    from recipes.running.saving import last_checkpoint, steps_of
    from recipes.running.trainer import fit, make_trainer, run_folder, sharded
    from recipes.watching.looking import looking
    from recipes.watching.pictures import callbacks

    require_all(recipe.run.devices * recipe.run.nodes)
    folder = run_folder(recipe.run)
    path = last_checkpoint(folder)
    if resume:
        steps_of(path)
    if resume and path.is_dir() and not sharded(recipe.run):
        raise ConfigError(
            f"{path} is in parts, which only several processes with run.parallel fsdp go on from; set run.devices and"
            " run.parallel as they were, or --export it and start from the export"
        )
    with claimed(recipe, folder, resume=resume) if first_process() and not dry else nullcontext():
        path = last_checkpoint(folder)  # another process may have gone on with the run before it was this one's
        done = steps_of(path) if resume else 0
        with looking() as progress:
            module = build_module(
                recipe, filled=not sharded(recipe.run), restored=resume and not dry, progress=progress
            )
        extras = callbacks(recipe, module.source, folder, dry=dry)
        if dry:
            fit(make_trainer(recipe.run, callbacks=extras, dry=True), module)
            if first_process() and not sharded(recipe.run):
                with tempfile.TemporaryDirectory() as scratch:
                    export(module, Path(scratch))
            return folder
        if done < recipe.run.steps:
            if first_process():
                note_environment(folder, recipe.run, done=done)
            trainer = make_trainer(recipe.run, callbacks=extras, done=done)
            fit(trainer, module, checkpoint=path if resume else None)
        if first_process():
            _export(recipe, folder, weights)
            write_report(folder)
    return folder


def export_run(recipe: Recipe, weights: Weights = "average") -> Path:
    """Export what the last checkpoint of a run holds, be the run finished, broken off or still going on.

    Args:
        recipe: of the run.
        weights: the averaged ones, where there are some, or those of the last step.

    Returns:
        The run folder; its `export` folder is what `dimoo` loads.

    Raises:
        ConfigError: the recipe differs from that of the run.
        CheckpointError: there is no checkpoint.
    """
    from recipes.running.claim import CONFIG, require_same
    from recipes.running.saving import last_checkpoint, steps_of
    from recipes.running.trainer import run_folder

    folder = run_folder(recipe.run)
    steps_of(last_checkpoint(folder))
    require_same(folder / CONFIG, recipe)
    _export(recipe, folder, weights)
    return folder


def _export(recipe: Recipe, folder: Path, weights: Weights = "average") -> None:
    """From the checkpoint, which has the weights whole, whatever part of them a process held; no data are read."""
    from dimoo.data.example import NoExamples
    from recipes.learning.assemble import build_module, export
    from recipes.running.saving import last_checkpoint, restore

    module = build_module(recipe, restored=True, source=NoExamples())
    restore(module, last_checkpoint(folder), average=weights == "average")
    export(module, folder / "export")


def _started_from(recipe: Recipe, place: str) -> Recipe:
    """A recipe with another checkpoint to start from; of a run's folder its export is taken.

    Raises:
        ConfigError: the recipe trains no transformer, or the run has no export.
    """
    if recipe.kind != "diffusion":
        raise ConfigError(f"--from is for recipes of kind 'diffusion', not {recipe.kind!r}")
    from recipes.running.claim import CONFIG

    export = Path(place) / "export"
    if not export.is_dir() and (Path(place) / CONFIG).is_file():
        raise ConfigError(f"the run in {place!r} has not been exported yet; export it: --export {place}")
    return override(recipe, [f"warm_start={json.dumps(str(export) if export.is_dir() else place)}"])


def _begun(recipe: Recipe) -> bool:
    """Whether there is a checkpoint to go on from."""
    from recipes.running.saving import last_checkpoint
    from recipes.running.trainer import run_folder

    return last_checkpoint(run_folder(recipe.run)).exists()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m recipes.run", description="Run a training recipe.")
    parser.add_argument("name", help=f"one of {', '.join(registry.RECIPES)}")
    parser.add_argument(
        "--set", action="append", default=[], metavar="k=v", help="override a setting, as run.steps=100"
    )
    parser.add_argument(
        "--estimate", action="store_true", help="print parameters, memory by part and operations of a step, and stop"
    )
    parser.add_argument(
        "--from",
        dest="start",
        metavar="CKPT",
        help="the checkpoint to start from: a folder, a run's folder, or owner/name on the hub",
    )
    parser.add_argument(
        "--weights",
        choices=["average", "last"],
        default="average",
        help="what is exported: averaged weights where there are some, or those of the last step",
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
        "--requeue", action="store_true", help="go on from the run's last checkpoint if there is one, else start"
    )
    what.add_argument(
        "--export",
        nargs="?",
        type=Path,
        const=True,
        metavar="RUN",
        help="write what the run's last checkpoint holds to its export folder; RUN: of the run in that folder",
    )
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
