"""Everything about a checkpoint folder that can be checked without computing with it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from dimoo.core.errors import CheckpointError, DimooError
from dimoo.core.files import read_object
from dimoo.core.tensors import mismatches, read_tensors
from dimoo.tokenizers.chat import Chat
from dimoo.tokenizers.image import files as ours
from dimoo.tokenizers.prompts import Prompts
from dimoo.tokenizers.text import TextTokenizer
from dimoo.weights import diffusers_vq
from dimoo.weights.checkpoint import Checkpoint
from dimoo.weights.image import load_image_tokenizer
from dimoo.weights.layout import CONFIG, TEXT, Parts, misfits
from dimoo.weights.lumina import VQ
from dimoo.weights.ours import IMAGE
from dimoo.weights.rules import to_theirs
from dimoo.weights.shards import DTYPES, Progress, Shards, silent, survey

UNKNOWN = "unknown"
IMAGE_WEIGHTS = {IMAGE: ours.WEIGHTS_FILE, VQ: diffusers_vq.WEIGHTS_FILE}
"""The layouts of an image tokenizer, called as the folders that models keep them in -> the file of its weights."""
_CHUNK = 2**24
_SHOWN = 5
_Result = TypeVar("_Result")


@dataclass(frozen=True, kw_only=True)
class Report:
    """What a checkpoint folder holds, and what is wrong with it."""

    layout: str
    """"dimoo" or "lumina"; "image_tokenizer" (ours) or "vqvae" (diffusers) for an image tokenizer alone; "unknown"."""
    problems: tuple[str, ...]
    """What keeps the checkpoint from being loaded, or makes it useless: one message each."""
    notes: tuple[str, ...]
    """What is unusual and does no harm."""
    tensors: int
    """How many were looked at, those of the image tokenizer included."""
    numbers: int
    """In these tensors."""
    nbytes: int
    """Size of these tensors in the files."""

    @property
    def ok(self) -> bool:
        """Whether there is no problem."""
        return not self.problems


def verify(folder: Path, progress: Progress = silent) -> Report:
    """Check a checkpoint folder: a model in any layout, or an image tokenizer alone.

    config.json · index against files · name, shape and dtype of every tensor, against the model that config.json
    describes · values that are not finite · tokenizers, their fingerprints, special tokens and code ranges. Every
    problem is collected; nothing is computed. The backbone's tensors are read one at a time, the image tokenizer is
    built as a whole.

    Args:
        folder: of the checkpoint.
        progress: told how many of the backbone's bytes are read.
    """
    kind = image_layout(folder)
    return _verify_model(folder, progress) if kind is None else _verify_image(folder, kind)


def image_layout(folder: Path) -> str | None:
    """The layout of an image tokenizer that lies alone in a folder, a key of `IMAGE_WEIGHTS`; None: it holds none."""
    try:
        settings = read_object(folder / CONFIG)
    except CheckpointError:
        return None
    return VQ if settings.get("_class_name") == "VQModel" else IMAGE if "quantizer" in settings else None


def _verify_model(folder: Path, progress: Progress) -> Report:
    problems: list[str] = []
    checkpoint = _attempt(problems, partial(Checkpoint.open, folder))
    shards, found = survey(folder)
    problems += found
    notes = [*([] if found else _leftovers(shards)), *_mixed_dtypes(shards)]
    if checkpoint is not None:
        problems += _misfits(checkpoint, shards)
        parts = _parts(checkpoint, problems)
        notes += [] if parts is None else _remarks(parts, checkpoint.settings)
    problems += _broken(shards, progress)
    sizes = [(entry.numel, entry.nbytes) for entry in shards.entries.values()]
    for kind in _image_folders(folder):
        sizes += _image_tensors(folder / kind, kind, problems)
    return _report(UNKNOWN if checkpoint is None else checkpoint.layout.name, problems, notes, sizes)


def _verify_image(folder: Path, kind: str) -> Report:
    problems: list[str] = []
    _attempt(problems, partial(load_image_tokenizer, folder))
    sizes = _image_tensors(folder, kind, problems)
    return _report(kind, problems, [], sizes)


def _report(layout: str, problems: list[str], notes: list[str], sizes: list[tuple[int, int]]) -> Report:
    return Report(
        layout=layout,
        problems=tuple(problems),
        notes=tuple(notes),
        tensors=len(sizes),
        numbers=sum(numbers for numbers, _ in sizes),
        nbytes=sum(nbytes for _, nbytes in sizes),
    )


def _attempt(problems: list[str], call: Callable[[], _Result]) -> _Result | None:
    """The result of a call; None where it fails, which is then a problem, noted once."""
    try:
        return call()
    except DimooError as error:
        if str(error) not in problems:
            problems.append(str(error))
        return None


def _misfits(checkpoint: Checkpoint, shards: Shards) -> list[str]:
    """Tensors that the model lacks, has not, or has in another shape; by their names in the files."""
    try:
        model = checkpoint.skeleton("sdpa")
    except CheckpointError:
        return []  # `_parts` says so
    wanted = to_theirs(checkpoint.layout.rules(model), model.state_dict())
    return mismatches(
        # What a file that cannot be opened would hold is not missed besides.
        {name: tensor.shape for name, tensor in wanted.items() if shards.complete or name in shards.entries},
        {name: entry.shape for name, entry in shards.entries.items()},
    )


def _parts(checkpoint: Checkpoint, problems: list[str]) -> Parts | None:
    """Config and tokenizers, checked; None where they cannot all be read."""
    folder, layout, settings = checkpoint.folder, checkpoint.layout, checkpoint.settings
    parts = _attempt(problems, partial(layout.read, folder, settings))
    if parts is None:
        # Reading stops at its first problem, so what comes after that is tried on its own.
        _attempt(problems, partial(layout.backbone, settings))
        _attempt(problems, partial(TextTokenizer.load, folder / TEXT))
        for kind in _image_folders(folder):
            _attempt(problems, partial(load_image_tokenizer, folder / kind))
        return None
    config, text, image = parts.config, parts.text, parts.image
    problems += misfits(parts)
    _attempt(problems, partial(Prompts, text=text, vocabulary=config.vocabulary, template=config.template))
    if config.chat is not None:
        _attempt(problems, partial(Chat, text=text, vocabulary=config.vocabulary, template=config.chat))
    if image is not None:
        _attempt(problems, partial(image.grid_for, config.image_size))
    return parts


def _remarks(parts: Parts, settings: Mapping[str, Any]) -> list[str]:
    config = parts.config
    unused = config.backbone.vocab_size - config.vocabulary.size
    notes = [f"the last {unused} of {config.backbone.vocab_size} rows have no id"] if unused > 0 else []
    said, mask = settings.get("mask_token_id"), config.vocabulary.mask
    if said not in (None, mask):
        notes.append(f"config.json says mask_token_id {said}; the mask that is used is {mask}")
    prints = {"text": config.text_fingerprint, "image": "" if parts.image is None else config.image_fingerprint}
    return notes + [
        f"config.json does not say which {what} tokenizer the model was trained with"
        for what, known in prints.items()
        if known is None
    ]


def _leftovers(shards: Shards) -> list[str]:
    """Files of weights that are not read."""
    names = sorted(path.name for path in shards.folder.glob("*") if path.suffix in (".safetensors", ".bin", ".pt"))
    return [f"{name} is no part of the checkpoint: it is never read" for name in names if name not in shards.files]


def _mixed_dtypes(shards: Shards) -> list[str]:
    names: dict[str, list[str]] = {}
    for name, entry in shards.entries.items():
        names.setdefault(entry.dtype, []).append(name)
    if len(names) < 2:
        return []
    rarest_last = sorted(names.items(), key=lambda item: -len(item[1]))
    return [
        "several dtypes: "
        + "; ".join(
            f"{dtype} in {len(found)} tensors ({', '.join(found[:_SHOWN])}{', ...' if len(found) > _SHOWN else ''})"
            for dtype, found in rarest_last
        )
    ]


def _broken(shards: Shards, progress: Progress) -> list[str]:
    """What cannot be read or is not finite, file by file, one tensor in memory at a time."""
    problems: list[str] = []
    total, before = shards.nbytes, 0
    for file in shards.files:
        # The survey has spoken of other dtypes already.
        own = {name: entry for name, entry in shards.entries.items() if entry.file == file and entry.dtype in DTYPES}
        part = replace(shards, entries=own)
        try:
            for name, tensor in part.read():
                problems += _not_finite(file, name, tensor)
                before += tensor.nbytes
                progress(before, total)
        except CheckpointError as error:
            problems.append(str(error))
    return problems


def _image_folders(folder: Path) -> list[str]:
    return [kind for kind in IMAGE_WEIGHTS if (folder / kind).is_dir()]


def _image_tensors(folder: Path, kind: str, problems: list[str]) -> list[tuple[int, int]]:
    """Numbers and bytes of each tensor of an image tokenizer; adds what is not finite to the problems."""
    try:
        tensors = read_tensors(folder / IMAGE_WEIGHTS[kind])
    except CheckpointError:
        return []  # said where the tokenizer was to be built
    for name, tensor in sorted(tensors.items()):
        problems += _not_finite(f"{folder.name}/{IMAGE_WEIGHTS[kind]}", name, tensor)
    return [(tensor.numel(), tensor.nbytes) for tensor in tensors.values()]


def _not_finite(file: str, name: str, tensor: Tensor) -> list[str]:
    # Extremes are NaN or infinite where any number is, and need no memory.
    if not tensor.numel() or all(math.isfinite(float(extreme)) for extreme in tensor.aminmax()):
        return []
    # Counted in pieces, since as many answers as numbers would need room.
    pieces = torch.split(tensor.flatten(), _CHUNK)
    nan, inf = (sum(int(test(piece).sum()) for piece in pieces) for test in (torch.isnan, torch.isinf))
    return [f"{file}: {name} holds {nan:,} NaN and {inf:,} infinite of {tensor.numel():,} numbers"]
