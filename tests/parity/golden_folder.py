"""A folder of golden cases as an object; the README in `golden/` says what is in one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor


@dataclass(frozen=True)
class Golden:
    """The folder that holds cases.json."""

    path: Path

    @cached_property
    def info(self) -> dict[str, Any]:
        """All of cases.json: special tokens, sizes, settings per case."""
        return self.json("cases.json")

    @cached_property
    def tensors(self) -> dict[str, Tensor]:
        """All of cases.safetensors."""
        return load_file(self.path / "cases.safetensors")

    def json(self, name: str) -> dict[str, Any]:
        loaded: dict[str, Any] = json.loads((self.path / name).read_text(encoding="utf-8"))
        return loaded

    def case(self, name: str) -> Case:
        prefix = name + "."
        own = {key.removeprefix(prefix): t for key, t in self.tensors.items() if key.startswith(prefix)}
        return Case(name=name, settings=self.info["cases"][name], tensors=own)


@dataclass(frozen=True)
class Case:
    """One case: its settings and its tensors by their names without the case's."""

    name: str
    settings: Mapping[str, Any]
    tensors: Mapping[str, Tensor]
