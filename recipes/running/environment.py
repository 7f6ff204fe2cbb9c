"""What a run was made with, programs, devices and the state of the checkout, each time that it was started."""

from __future__ import annotations

import json
import platform
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning
import torch

from dimoo.version import __version__
from recipes.config import RunConfig
from recipes.running.trainer import precision

FILE = "environment.json"
CHECKOUT = Path(__file__).parents[2]


def note_environment(folder: Path, run: RunConfig, *, done: int) -> Path:
    """Add to `environment.json` in a run folder what the run is started or resumed with after `done` steps."""
    path = folder / FILE
    entries = [*read_environment(folder), {"after_step": done, **environment(run, sys.argv)}]
    scratch = path.with_suffix(".writing")
    scratch.write_text(json.dumps(entries, indent=2) + "\n", encoding="utf-8")
    scratch.replace(path)
    return path


def read_environment(folder: Path) -> list[dict[str, Any]]:
    """What a run was started with, the last time at the end; nothing where it was not noted."""
    path = folder / FILE
    found: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []
    return found


def environment(run: RunConfig, arguments: Sequence[str]) -> dict[str, Any]:
    """Versions, devices, precision, git state and command; no names of hosts or users."""
    cuda = torch.cuda.is_available()
    return {
        "dimoo": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "lightning": lightning.__version__,
        "system": f"{platform.system()} {platform.machine()}",
        "device": torch.cuda.get_device_name() if cuda else "CPU",
        "devices": torch.cuda.device_count() if cuda else 1,
        "processes": run.devices * run.nodes,
        "cpu_threads": torch.get_num_threads(),
        "precision": precision(run.precision),
        "git": git_state(CHECKOUT),
        "command": command(arguments),
    }


def git_state(folder: Path) -> dict[str, Any] | None:
    """The commit of a checkout, and whether files that git follows differ from it; None: it is no checkout."""
    top = _git(folder, "rev-parse", "--show-toplevel")
    commit = _git(folder, "rev-parse", "HEAD")
    if top is None or commit is None or Path(top).resolve() != folder.resolve():
        return None
    return {"commit": commit, "dirty": bool(_git(folder, "status", "--porcelain", "--untracked-files=no"))}


def command(arguments: Sequence[str]) -> str:
    """A command line as it may be typed again, without the places of the home folder and of the working one."""
    program, *rest = arguments
    path = Path(program)
    own = path.parent.resolve() == (CHECKOUT / "recipes").resolve()
    first = f"python -m recipes.{path.stem}" if own else path.name
    places = ((f"{Path.cwd()}/", ""), (f"{Path.home()}/", "~/"))
    for place, short in places:
        rest = [one.replace(place, short) for one in rest] if len(place) > 2 else rest
    return " ".join([first, shlex.join(rest)]).strip()


def _git(folder: Path, *words: str) -> str | None:
    try:
        done = subprocess.run(["git", *words], cwd=folder, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):  # no git, or no checkout
        return None
    return done.stdout.strip()
