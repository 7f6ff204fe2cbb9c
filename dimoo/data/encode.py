"""Sources -> shards: every picture is encoded once, before training. The format is that of `dimoo.data.shards`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from dimoo.core.errors import DataError
from dimoo.core.files import write_tensors
from dimoo.data.checking import Progress, unseen
from dimoo.data.encoded import encode_pictures
from dimoo.data.example import Example, FileSource, Picture, TaskExample, pictures_of, pixels_of
from dimoo.data.shards import Manifest, StoredExample, StoredTask, manifests_in
from dimoo.tokenizers.base import Tokenizer

BATCH = 32
"""Examples whose pictures are encoded together."""


def write_shards(
    source: FileSource, tokenizer: Tokenizer, folder: Path, *, manifest: Manifest, progress: Progress = unseen
) -> None:
    """Encode the examples of a source that a part has; files that there are already are left as they are.

    A file is written beside its place and moved there when it is whole, so that what is broken off goes on later. One
    is made anew where a picture that it was made of has another size on the disk by then.

    Args:
        source: of `manifest.examples` examples with pixels.
        tokenizer: encodes the pictures.
        folder: is made where it is absent; other parts may be written into it at the same time.
        manifest: what is encoded, and how.
        progress: is called after each batch.

    Raises:
        DataError: the folder holds shards of something else, or in other parts, or an example cannot be stored.
        RequestError: the tokenizer takes no pictures of a size.
        CheckpointError: a file cannot be written: the disk is full, say.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _claim(folder, manifest)
    done, total = 0, len(manifest.indices)
    for number, name in enumerate(manifest.files):
        indices = manifest.indices[number * manifest.shard_examples :][: manifest.shard_examples]
        sizes = [size for index in indices for size in source.file_sizes(index)]
        if _made_of(folder / name) != sizes:
            shard = _Writer(tokenizer=tokenizer, file_sizes=sizes)
            for start in range(0, len(indices), BATCH):
                batch = indices[start : start + BATCH]
                shard.add([source.example(index) for index in batch])
                progress(done + start + len(batch), total)
            unfinished = folder / f"{name}.part"
            write_tensors(unfinished, shard.tensors())
            os.replace(unfinished, folder / name)
        done += len(indices)
        progress(done, total)


def _made_of(path: Path) -> list[int] | None:
    """The sizes of the picture files that a file was made of; None: it is not there, or cannot be read."""
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="np") as file:
            sizes: list[int] = file.get_tensor("file_sizes").tolist()
    except (SafetensorError, OSError):
        return None
    return sizes


def _claim(folder: Path, manifest: Manifest) -> None:
    for before in manifests_in(folder):
        changed = manifest.changed_from(before)
        # An own plan that nothing came of may be changed; from another's, files may be in the making elsewhere.
        begun = before.name != manifest.name or any((folder / name).is_file() for name in before.files)
        if changed and begun:
            raise DataError(
                f"{folder} holds shards that differ from these in {', '.join(changed)}; choose another folder, or"
                " delete that one"
            )
    unfinished = folder / f"{manifest.name}.part"
    manifest.save(unfinished)
    os.replace(unfinished, folder / manifest.name)


@dataclass(frozen=True, kw_only=True)
class _Writer:
    """One file in the making."""

    tokenizer: Tokenizer
    file_sizes: Sequence[int]
    rows: list[bytes] = field(default_factory=list)
    codes: list[Tensor] = field(default_factory=list)

    def add(self, examples: Sequence[Example[Picture]]) -> None:
        """Encode some examples."""
        pictures = {id(picture): picture for example in examples for picture in map(pixels_of, pictures_of(example))}
        found = encode_pictures(pictures.values(), self.tokenizer)
        numbers = {key: len(self.codes) + place for place, key in enumerate(pictures)}
        self.codes.extend(found[key].cpu() for key in pictures)
        for example in examples:
            stored = _stored(example, numbers)
            self.rows.append(stored.model_dump_json(exclude_defaults=True).encode())

    def tensors(self) -> dict[str, Tensor]:
        """What goes into the file."""
        axes = 2 if self.tokenizer.codebooks == 1 else 3
        shapes = torch.tensor([code.shape for code in self.codes], dtype=torch.int64).reshape(-1, axes)
        flat = [torch.zeros(0, dtype=torch.int32), *(code.flatten().to(torch.int32) for code in self.codes)]
        return {
            "rows": torch.from_numpy(np.frombuffer(b"".join(self.rows), dtype=np.uint8).copy()),
            "row_ends": torch.tensor([len(row) for row in self.rows]).cumsum(0),
            "codes": torch.cat(flat),
            "shapes": shapes,
            "file_sizes": torch.tensor(self.file_sizes, dtype=torch.int64),
        }


def _stored(example: Example[Picture], numbers: dict[int, int]) -> StoredExample:
    def number(picture: Picture | None) -> int | None:
        return None if picture is None else numbers[id(picture)]

    def task(one: TaskExample[Picture]) -> StoredTask:
        if one.given is not None:
            raise DataError(f"the {one.task!r} example knows a part of its answer, for which shards have no place")
        return StoredTask(
            task=one.task,
            words=one.words,
            option=one.option,
            images=tuple(numbers[id(picture)] for picture in one.images),
            image=number(one.image),
            text=one.text,
            learn_words=one.learn_words,
        )

    tasks = tuple(map(task, example.tasks))
    return StoredExample(image=number(example.image), caption=example.caption, qa=example.qa, tasks=tasks)
