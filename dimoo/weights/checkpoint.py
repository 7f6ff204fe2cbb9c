"""Checkpoint folders in any known layout: opened, built, written."""

from __future__ import annotations

import logging
from collections.abc import Container, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor

from dimoo.backbone.build import build_backbone
from dimoo.backbone.config import AttentionKind, BackboneConfig
from dimoo.backbone.model import Backbone
from dimoo.core.errors import CheckpointError
from dimoo.core.files import read_object
from dimoo.core.sharded import fill
from dimoo.core.tensors import mismatches, raise_all
from dimoo.weights import shards as files
from dimoo.weights.card import is_generated, read_card, write_card
from dimoo.weights.layout import CARD, CONFIG, TEXT, Layout, Parts, check
from dimoo.weights.lumina import CARRIED, VQ, LuminaLayout
from dimoo.weights.ours import IMAGE, DimooLayout
from dimoo.weights.rules import Match, match_to_ours, to_theirs
from dimoo.weights.shards import Progress, Shards, silent

LAYOUTS: Mapping[str, Layout] = {layout.name: layout for layout in (DimooLayout(), LuminaLayout())}
_FILES = frozenset({CONFIG, TEXT, CARD, VQ, IMAGE, files.SINGLE, files.INDEX, *CARRIED})
_SCRATCH = ".writing-"
_log = logging.getLogger(__name__)


def layout_named(name: str) -> Layout:
    """A layout by its name.

    Raises:
        CheckpointError: there is none of that name.
    """
    if name not in LAYOUTS:
        raise CheckpointError(f"unknown layout {name!r}; known: {', '.join(LAYOUTS)}")
    return LAYOUTS[name]


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A checkpoint folder, opened: its config.json is read, its weights are not."""

    folder: Path
    layout: Layout
    settings: Mapping[str, Any]
    """config.json as it is."""

    @classmethod
    def open(cls, folder: Path) -> Checkpoint:
        """Find out what a folder is.

        Raises:
            CheckpointError: it is no checkpoint of a known layout.
        """
        path = folder / CONFIG
        try:
            settings = read_object(path)
        except CheckpointError as error:
            raise CheckpointError(f"{folder} is no checkpoint: {error}") from error
        for layout in LAYOUTS.values():
            if layout.fits(settings):
                return cls(folder=folder, layout=layout, settings=settings)
        if settings.get("_class_name") == "VQModel":
            raise CheckpointError(f"{folder} holds an image tokenizer alone; use dimoo.load_image_tokenizer")
        raise CheckpointError(
            f"{folder} is no checkpoint that we know: {path} has neither our key 'format' nor LLaDA's 'd_model'"
        )

    def parts(self) -> Parts:
        """Everything but the backbone's weights.

        Raises:
            CheckpointError: a file is missing or corrupt, or the parts do not belong together.
        """
        try:
            parts = self.layout.read(self.folder, self.settings)
            check(parts)
        except CheckpointError as error:
            raise CheckpointError(f"{self.folder} cannot be loaded: {error}") from error
        return parts

    def backbone_config(self) -> BackboneConfig:
        """The backbone's shape.

        Raises:
            CheckpointError: config.json does not describe one that we have.
        """
        try:
            return self.layout.backbone(self.settings)
        except CheckpointError as error:
            raise CheckpointError(f"{self.folder} cannot be loaded: {error}") from error

    def backbone(
        self,
        *,
        dtype: torch.dtype | None = None,
        device: torch.device | str = "cpu",
        attention: AttentionKind | None = None,
        progress: Progress = silent,
    ) -> Backbone:
        """The backbone with its weights, which are streamed into it: it is allocated once, in `dtype`.

        Args:
            dtype: of the weights; None: as most of them are stored.
            device: where they go.
            attention: another attention backend than the config's.
            progress: told how far it is.

        Raises:
            CheckpointError: a file is missing or corrupt; lists every missing or unknown tensor and wrong shape.
        """
        model = self.skeleton(attention)
        filling = self.filling(model)
        # Cast while it has no storage: the weights never exist in another dtype than the one asked for.
        model.to(filling.shards.dtypes[0] if dtype is None else dtype).to_empty(device=device)
        filling.into(model, progress)
        return model.eval()

    def skeleton(self, attention: AttentionKind | None = None) -> Backbone:
        """The backbone on the meta device: names and shapes without numbers.

        Args:
            attention: another attention backend than the config's; "sdpa" is there on every machine.

        Raises:
            CheckpointError: config.json does not describe a backbone that we have.
        """
        config = self.backbone_config()
        if attention is not None:
            config = config.model_copy(update={"attention": attention})
        with torch.device("meta"):
            return build_backbone(config)

    def filling(self, model: Backbone) -> Filling:
        """What is to be read for a model, be it on the meta device; every name and shape is checked by the headers.

        Raises:
            CheckpointError: a file is missing or corrupt; lists every missing or unknown tensor and wrong shape.
        """
        shards, rules = Shards.open(self.folder), self.layout.rules(model)
        wanted = {name: tensor.shape for name, tensor in to_theirs(rules, model.state_dict()).items()}
        raise_all(mismatches(wanted, {name: entry.shape for name, entry in shards.entries.items()}))
        return Filling(shards=shards, matches=match_to_ours(rules, shards.entries))


@dataclass(frozen=True, kw_only=True)
class Filling:
    """Tensors on disk that fit a model, and where each belongs."""

    shards: Shards
    matches: Mapping[str, Match]

    def only(self, names: Container[str]) -> Filling:
        """Those of the tensors that have these names with us."""
        kept = {theirs: match for theirs, match in self.matches.items() if match.name in names}
        entries = {theirs: self.shards.entries[theirs] for theirs in kept}
        return Filling(shards=replace(self.shards, entries=entries), matches=kept)

    def values(self, progress: Progress = silent) -> Iterator[tuple[str, Tensor]]:
        """Every tensor under our name, one at a time, as it is stored.

        Raises:
            CheckpointError: a file cannot be read.
        """
        for theirs, tensor in self.shards.read(progress):
            match = self.matches[theirs]
            yield match.name, match.values(tensor)

    def into(self, model: Backbone, progress: Progress = silent) -> None:
        """Copy every tensor to its place, one at a time, in the model's dtype and on its device.

        Of a sharded model each process reads and copies its part. Weights that no tensor is for stay as they are.

        Raises:
            CheckpointError: a file cannot be read.
        """
        own = model.state_dict()
        for name, values in self.values(progress):
            fill(own[name], values)


def write_checkpoint(
    folder: Path,
    parts: Parts,
    backbone: Backbone,
    *,
    layout: Layout,
    dtype: torch.dtype | None = None,
    shard_size: int | str = "5GB",
    card: str = "",
    like: Path | None = None,
    progress: Progress = silent,
) -> None:
    """Write a checkpoint folder; the inverse of opening and building one.

    An older checkpoint in the folder is replaced at the end, as a whole; what else lies in it stays.

    Args:
        folder: where to.
        parts: everything but the weights.
        backbone: the weights.
        layout: how to arrange them.
        dtype: in which the weights are stored; None: as they are.
        shard_size: how large one file of weights may become, in bytes or as "5GB".
        card: the model card; none where it is empty. A generated one does not replace one that authors wrote.
        like: a folder of the same layout whose settings that we do not read are taken over.
        progress: told how far it is.

    Raises:
        CheckpointError: the parts do not belong together or have no place in the layout, or the folder holds something
            other than a checkpoint that we know, or cannot be written.
    """
    check(parts)
    folder = folder.resolve()
    try:
        made = not folder.exists()
        if not made and any(not path.name.startswith(_SCRATCH) for path in folder.iterdir()):
            _refuse_others(folder)
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CheckpointError(f"cannot write to {folder}: {error}; choose another folder") from error
    try:
        # Within the folder: the same disk, wherever it is linked or mounted.
        with TemporaryDirectory(prefix=_SCRATCH, dir=folder) as scratch:
            new, old = Path(scratch) / "new", Path(scratch) / "old"
            new.mkdir()
            layout.write(parts, new, like)
            tensors = to_theirs(layout.rules(backbone), backbone.state_dict())
            files.write(new, tensors, dtype=dtype, shard_size=shard_size, progress=progress)
            if card:
                write_card(new / CARD, _card(folder / CARD, card))
            _install(new, folder, old)
    except BaseException as error:
        if made:
            with suppress(OSError):  # what went wrong first is what counts
                folder.rmdir()
        if isinstance(error, OSError):
            raise CheckpointError(f"cannot write to {folder}: {error}; what was there is left as it was") from error
        raise
    _log.info("wrote %s in the %s layout", folder, layout.name)


def _refuse_others(folder: Path) -> None:
    try:
        Checkpoint.open(folder)
    except CheckpointError as error:
        raise CheckpointError(
            f"{folder} holds other files than a checkpoint of ours; give an empty or a new folder"
        ) from error


def _card(path: Path, card: str) -> str:
    """A card that its authors wrote or changed stays, where the new one is a generated one."""
    before = read_card(path)
    return before if before and not is_generated(before) and is_generated(card) else card


def _own(name: str) -> bool:
    return name in _FILES or (name.startswith("model-") and name.endswith(".safetensors"))


def _install(new: Path, folder: Path, old: Path) -> None:
    """Move an older checkpoint in `folder` to `old` and the `new` one in; what else lies there is not touched.

    config.json goes first and comes last: a folder that is caught in between is no checkpoint, never a mixture.
    """
    old.mkdir()
    out = sorted((path for path in folder.iterdir() if _own(path.name)), key=lambda path: path.name != CONFIG)
    come = sorted(new.iterdir(), key=lambda path: path.name == CONFIG)
    moved: list[tuple[Path, Path]] = []
    try:
        for source, target in (*((p, old / p.name) for p in out), *((p, folder / p.name) for p in come)):
            moved.append((source, target))  # before it is: a Ctrl-C may come in between
            source.rename(target)
    except BaseException:
        for source, target in reversed(moved):
            if not source.exists():
                target.rename(source)
        raise
