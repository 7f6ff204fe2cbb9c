"""Configs, the vocabulary and the built-in world load without torch: reading a config must not cost seconds."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CONFIGS = [
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for folder in ("dimoo", "recipes")
    for path in sorted((ROOT / folder).rglob("config.py"))
]
OTHERS = [
    "dimoo.core.errors",
    "dimoo.core.requests",
    "dimoo.data.world",
    "dimoo.presets.families",
    "dimoo.presets.llada_8b",
    "dimoo.presets.lumina_dimoo_8b",
    "dimoo.tokenizers.template",
    "dimoo.tokenizers.vocabulary",
]


def test_the_configs_are_found() -> None:
    assert {"dimoo.core.config", "dimoo.backbone.config", "dimoo.presets.config", "recipes.config"} <= set(CONFIGS)


def test_all_of_them_together() -> None:
    loaded = _loaded_by([*CONFIGS, *OTHERS])
    if loaded:  # name the culprit
        assert not {module: _loaded_by([module]) for module in [*CONFIGS, *OTHERS] if _loaded_by([module])}
    assert not loaded


def test_the_check_can_fail() -> None:
    assert _loaded_by(["dimoo.core.rng"]) == "torch"


def test_the_command_line_loads_neither() -> None:
    assert not _loaded_by(["dimoo.cli"])


@pytest.mark.parametrize("module", ["recipes.run", "recipes.config"])
def test_recipes_can_be_listed_and_printed_without_lightning(module: str) -> None:
    assert "lightning" not in _loaded_by([module])


def _loaded_by(modules: list[str]) -> str:
    """Those of torch and lightning that a fresh interpreter holds after importing the modules."""
    script = (
        f"import sys\nimport {', '.join(modules)}\n"
        "print(' '.join(name for name in ('torch', 'lightning') if name in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT)
    return done.stdout.strip()
