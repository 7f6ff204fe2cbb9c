"""A run's folder belongs to one recipe, whose resolved config lies in it: who goes on with it must have the same."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from dimoo.core.errors import ConfigError
from recipes.config import Recipe
from recipes.running.saving import last_checkpoint

CONFIG = "recipe.json"
BOOKKEEPING = frozenset(
    {f"run.{name}" for name in ("folder", "name", "workers", "log_every", "save_every", "sample_every")}
    | {f"run.{name}" for name in ("validate_every", "validate_examples", "peak_tflops")}
    | {"compile", "recompute", "pack_tokens"}
)
PROCESSES = frozenset({"run.parallel", "run.checkpoints"})
"""Settings that may change when a run goes on: what is learnt does not depend on them, but for rounding."""
DEALT = frozenset({"run.devices", "run.nodes", "accumulate"})
"""And these, if their product stays: into so many packs a step's examples are dealt."""


def recipe_of(folder: Path, recipe: Recipe) -> Recipe:
    """The settings of the run in a folder, which may have been moved since.

    Raises:
        ConfigError: there is no run, or it is one of another kind of recipe.
    """
    folder = folder.resolve()
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
    place = {"folder": str(folder.parent), "name": folder.name}
    return found.model_copy(update={"run": found.run.model_copy(update=place)})


def claim(recipe: Recipe, folder: Path, *, resume: bool) -> None:
    """Write the resolved recipe into the run folder, or check it against the one there.

    Raises:
        ConfigError: the folder holds a run already and this one is new, or goes on with other settings; or it cannot be
            written into.
    """
    path = folder / CONFIG
    if not resume and last_checkpoint(folder).exists():
        raise ConfigError(
            f"{folder} holds a run already; go on with --resume, or choose another name with --set run.name="
        )
    if resume and path.is_file():
        require_same(path, recipe)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        recipe.save(path)
    except OSError as error:
        raise ConfigError(
            f"cannot write into the folder {str(folder)!r}: {error.strerror}; choose another run.folder"
        ) from error


def require_same(path: Path, recipe: Recipe) -> None:
    """That a run may go on with a recipe.

    Args:
        path: the resolved config of the run.
        recipe: what is to go on.

    Raises:
        ConfigError: what would be learnt differs.
    """
    changed = [name for name in _changes(path, recipe) if name not in BOOKKEEPING | PROCESSES]
    if changed:
        raise ConfigError(
            f"the recipe differs from the one in {path} in {', '.join(changed)}; resume with the same settings"
            + (", or keep the product of accumulate, run.devices and run.nodes" if DEALT & set(changed) else "")
        )


def _changes(path: Path, recipe: Recipe) -> list[str]:
    """The settings in which a recipe differs from the one in a file."""
    if json.loads(path.read_text(encoding="utf-8")).get("kind") != recipe.kind:
        return ["kind"]
    before, now = (leaves(entry.model_dump()) for entry in (type(recipe).load(path), recipe))
    changed = {name for name in before.keys() | now.keys() if before.get(name) != now.get(name)}
    packs, wanted = (math.prod(values.get(name, 1) for name in DEALT) for values in (before, now))
    return sorted(changed - DEALT if packs == wanted else changed)


def leaves(values: Any, name: str = "") -> dict[str, Any]:
    """Nested settings by their paths, as "run.steps"."""
    if isinstance(values, dict):
        nested = [leaves(value, f"{name}.{key}" if name else key) for key, value in values.items()]
        return {path: value for entry in nested for path, value in entry.items()}
    return {name: values}
