"""A run's folder belongs to one recipe, whose resolved config lies in it: who goes on with it must have the same."""

from __future__ import annotations

import errno
import json
import math
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from dimoo.core.errors import ConfigError
from recipes.config import Recipe
from recipes.running.saving import last_checkpoint

CONFIG, EXPORT, LOCK = "recipe.json", "export", ".lock"
MOST_SAID = 3
"""Settings that an error spells out."""
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
    if kind_in(path) != recipe.kind:
        raise ConfigError(
            f"the run in {str(folder)!r} is of another kind than {recipe.kind!r}; name a recipe of its kind"
        )
    found = type(recipe).load(path)
    place = {"folder": str(folder.parent), "name": folder.name}
    return found.model_copy(update={"run": found.run.model_copy(update=place)})


@contextmanager
def claimed(recipe: Recipe, folder: Path, *, resume: bool) -> Iterator[None]:
    """Have the run folder for oneself: its recipe is written, or checked against the one there.

    Raises:
        ConfigError: the folder holds a run already and this one is new, or goes on with other settings; or another
            process is at it; or it cannot be written into.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / LOCK).open("a")
    except OSError as error:
        raise _unwritable(folder, error) from error
    with lock:
        if not _locked(lock):
            raise ConfigError(
                f"another process is at the run in {folder}; wait for it or end it, or choose another name with"
                " --set run.name="
            )
        _claim(recipe, folder, resume=resume)
        yield


def _unwritable(folder: Path, error: OSError) -> ConfigError:
    return ConfigError(f"cannot write into the folder {str(folder)!r}: {error.strerror}; choose another run.folder")


def _locked(file: IO[str]) -> bool:
    """Whether this process has the lock of a file now, which ends with it; where there are no locks, it has."""
    if sys.platform == "win32":
        return True
    import fcntl

    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno not in (errno.EACCES, errno.EAGAIN)
    return True


def _claim(recipe: Recipe, folder: Path, *, resume: bool) -> None:
    path = folder / CONFIG
    if not resume and last_checkpoint(folder).exists():
        raise ConfigError(
            f"{folder} holds a run already; go on with --resume, or choose another name with --set run.name="
        )
    if not resume and (folder / EXPORT).exists():
        raise ConfigError(f"{folder} holds what a run made; choose another name with --set run.name=, or move it away")
    if resume and path.is_file():
        require_same(path, recipe)
    new = path.with_suffix(".new")
    try:
        recipe.save(new)
        new.replace(path)  # so that a full disk leaves the one that the run needs
    except OSError as error:
        raise _unwritable(folder, error) from error


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
            f"{_said(changed, path, recipe)}"
            + (", or keep the product of accumulate, run.devices and run.nodes" if DEALT & set(changed) else "")
        )


def _said(changed: list[str], path: Path, recipe: Recipe) -> str:
    """How a command has to say the settings of a run, if that is short."""
    if "kind" in changed or len(changed) > MOST_SAID:
        return ""
    before = leaves(type(recipe).load(path).model_dump(mode="json"))
    if not before.keys() >= set(changed):  # a setting that the run did not have cannot be said
        return ""
    return ": " + " ".join(f"--set {shlex.quote(f'{name}={json.dumps(before[name])}')}" for name in changed)


def kind_in(path: Path) -> object:
    """Which kind of recipe a resolved config is of.

    Raises:
        ConfigError: it is damaged, or no recipe's.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8")).get("kind")
    except (OSError, ValueError, AttributeError) as error:
        raise ConfigError(f"{path} is damaged, or no recipe: {error}; put the run's own back") from error


def _changes(path: Path, recipe: Recipe) -> list[str]:
    """The settings in which a recipe differs from the one in a file."""
    if kind_in(path) != recipe.kind:
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
