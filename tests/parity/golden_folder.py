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

    @cached_property
    def weights(self) -> dict[str, Tensor]:
        """All of backbone.safetensors."""
        return load_file(self.path / "backbone.safetensors")

    @property
    def codes(self) -> tuple[int, int]:
        """The ids (start, stop) of image codes."""
        first: int = self.info["text_vocab_size"]
        return first, first + self.info["codebook_size"]

    @property
    def mask(self) -> int:
        """The mask's id."""
        index: int = self.info["special_tokens"]["mask"]
        return index

    @property
    def vq(self) -> Path | None:
        """The image tokenizer's folder, if there is one."""
        folder = self.path / "vq" / "vqvae"
        return folder if folder.is_dir() else None

    @property
    def vq_fits(self) -> bool:
        """Whether the image tokenizer has the codes that the backbone was made for."""
        if self.vq is None:
            return False
        size: int | None = _json(self.vq / "config.json").get("num_vq_embeddings")
        return size == self.info["codebook_size"]

    def json(self, name: str) -> dict[str, Any]:
        return _json(self.path / name)

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

    @property
    def kind(self) -> str:
        """What is done: the prefix of its name."""
        return self.name.split("_")[0]

    @property
    def reuses(self) -> bool:
        """Whether the released ML-Cache skipped anything: it ignores the setting where there is no guidance."""
        settings = self.settings
        if not settings.get("use_cache") or not settings["cfg_scale"]:
            return False
        warm, interval = int(settings["warmup_ratio"] * settings["steps"]), settings["refresh_interval"]
        return any((step - warm) % interval for step in range(warm + 1, settings["steps"]))


def _json(path: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return loaded
