"""Run a recipe: python -m recipes.run NAME [--set k=v ...] [--print] [--dry-run] [--resume]."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from dimoo.core.config import override
from dimoo.core.errors import ConfigError, DimooError
from recipes import registry
from recipes.config import DiffusionRecipe, Recipe, TokenizerRecipe

CONFIG = "recipe.json"


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns the exit status."""
    options = _parser().parse_args(arguments)
    console = Console(stderr=True, highlight=False)
    try:
        recipe = override(registry.get(options.name), options.set)
        if options.print:
            sys.stdout.write(recipe.model_dump_json(indent=2) + "\n")
            return 0
        folder = run(recipe, dry=options.dry_run, resume=options.resume)
    except DimooError as error:
        console.print(f"error: {error}", style="red", markup=False)
        return 1
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
    """
    # Lightning takes seconds to import; --print and --help do without.
    from recipes.assemble import diffusion_module, export, tokenizer_module
    from recipes.pictures import callbacks
    from recipes.trainer import make_trainer, resume_path, run_folder

    folder = run_folder(recipe.run)
    checkpoint = resume_path(folder) if resume else None
    if not dry:
        _claim(recipe, folder, resume=resume)
    module = tokenizer_module(recipe) if isinstance(recipe, TokenizerRecipe) else diffusion_module(recipe)
    trainer = make_trainer(recipe.run, callbacks=callbacks(recipe, folder, dry=dry), dry=dry)
    if dry:
        with tempfile.TemporaryDirectory() as scratch:
            trainer.fit(module)
            export(module, Path(scratch))
        return folder
    trainer.fit(module, ckpt_path=None if checkpoint is None else str(checkpoint), weights_only=False)
    export(module, folder / "export")
    return folder


def _claim(recipe: Recipe, folder: Path, *, resume: bool) -> None:
    """Write the resolved recipe into the run folder, or check it against the one there."""
    path = folder / CONFIG
    if not resume and (folder / "checkpoints").exists():
        raise ConfigError(f"{folder} holds a run already; go on with --resume, or choose another name with --set run.name=")
    if resume and path.is_file():
        kind = DiffusionRecipe if isinstance(recipe, DiffusionRecipe) else TokenizerRecipe
        before = kind.load(path)
        if before != recipe:
            raise ConfigError(f"the recipe differs from the one in {path}; resume with the same settings")
    folder.mkdir(parents=True, exist_ok=True)
    recipe.save(path)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m recipes.run", description="Run a training recipe.")
    parser.add_argument("name", help=f"one of {', '.join(registry.RECIPES)}")
    parser.add_argument("--set", action="append", default=[], metavar="k=v", help="override a setting, as run.steps=100")
    parser.add_argument("--print", action="store_true", help="print the resolved recipe and stop")
    parser.add_argument("--dry-run", action="store_true", help="build everything and take two steps; write nothing")
    parser.add_argument("--resume", action="store_true", help="go on from the run's last checkpoint")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
