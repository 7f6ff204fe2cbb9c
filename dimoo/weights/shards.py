"""safetensors files of a checkpoint: one, or several with an index, as Hugging Face lays them out.

    model.safetensors                          or
    model-00001-of-00004.safetensors ...  and  model.safetensors.index.json: {"weight_map": {tensor: file}}

Headers are read first, tensors later, file by file, so that a checkpoint of any size needs memory for one tensor at
a time. Nothing but safetensors is ever opened: a pickle can run code.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path

import torch
from huggingface_hub import split_state_dict_into_shards_factory
from safetensors import SafetensorError, safe_open
from torch import Tensor

from dimoo.core.errors import CheckpointError
from dimoo.core.files import read_object, write_tensors
from dimoo.core.tensors import raise_all

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
PATTERN = "model{suffix}.safetensors"
DTYPES: Mapping[str, torch.dtype] = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
}
"""The weights that we take, by their names in safetensors headers."""

Progress = Callable[[int, int], None]
"""Told how many bytes are done, of how many."""
_log = logging.getLogger(__name__)


def silent(done: int, total: int) -> None:
    """Tell nobody."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """What a header says about a tensor."""

    file: str
    shape: tuple[int, ...]
    dtype: str
    """As in the header: "BF16"."""

    @property
    def numel(self) -> int:
        """How many numbers it holds."""
        return prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Its size in the file."""
        return self.numel * DTYPES[self.dtype].itemsize if self.dtype in DTYPES else 0


@dataclass(frozen=True, kw_only=True)
class Shards:
    """The tensors of a checkpoint folder by name, unread."""

    folder: Path
    entries: Mapping[str, Entry]
    complete: bool = True
    """Whether every file could be opened; only then is it known what is missing."""

    @classmethod
    def open(cls, folder: Path) -> Shards:
        """Read index and headers.

        Raises:
            CheckpointError: lists every file that is missing or corrupt, every tensor that is not where the index says,
                and every one that is no floating-point weight.
        """
        shards, problems = survey(folder)
        raise_all(problems, f"the weights in {folder} cannot be read")
        return shards

    @property
    def files(self) -> tuple[str, ...]:
        """The names of the files, in order."""
        return tuple(sorted({entry.file for entry in self.entries.values()}))

    @property
    def nbytes(self) -> int:
        """Size of all tensors in the files."""
        return sum(entry.nbytes for entry in self.entries.values())

    @property
    def numel(self) -> int:
        """How many numbers they hold."""
        return sum(entry.numel for entry in self.entries.values())

    @property
    def dtypes(self) -> tuple[torch.dtype, ...]:
        """The dtypes that occur, the one with most numbers first."""
        counts: dict[str, int] = {}
        for entry in self.entries.values():
            counts[entry.dtype] = counts.get(entry.dtype, 0) + entry.numel
        return tuple(DTYPES[name] for name in sorted(counts, key=lambda name: -counts[name]))

    def read(self, progress: Progress = silent) -> Iterator[tuple[str, Tensor]]:
        """All tensors, file by file; one file is open at a time. A tensor may be a view of the file.

        Raises:
            CheckpointError: a file cannot be read.
        """
        done, total = 0, self.nbytes
        for index, name in enumerate(self.files):
            _log.info("reading %s (%d of %d)", name, index + 1, len(self.files))
            try:
                with safe_open(self.folder / name, framework="pt") as file:
                    for tensor in sorted(key for key, entry in self.entries.items() if entry.file == name):
                        yield tensor, file.get_tensor(tensor)
                        done += self.entries[tensor].nbytes
                        progress(done, total)
            except (SafetensorError, OSError) as error:
                raise CheckpointError(_corrupt(self.folder / name, error)) from error


def survey(folder: Path) -> tuple[Shards, list[str]]:
    """Headers and index of a checkpoint folder: what is readable, and one line for each thing that is wrong."""
    entries: dict[str, Entry] = {}
    if not (folder / INDEX).is_file():
        problems, opened = _survey_file(folder, SINGLE, entries)
        return Shards(folder=folder, entries=entries, complete=opened), problems
    try:
        weight_map = {str(name): str(file) for name, file in read_object(folder / INDEX)["weight_map"].items()}
    except (CheckpointError, KeyError, AttributeError) as error:
        nothing = Shards(folder=folder, entries={}, complete=False)
        return nothing, [f"cannot read {folder / INDEX}: {type(error).__name__} {error}"]
    if not weight_map:
        return Shards(folder=folder, entries={}, complete=False), [f"{folder / INDEX} names no tensor"]
    problems, readable = list[str](), set[str]()
    if (folder / SINGLE).is_file() and SINGLE not in weight_map.values():
        problems.append(f"there are both {INDEX} and {SINGLE}, which it does not name: remove what is of another model")
    for name in sorted(set(weight_map.values())):
        if Path(name).name != name:
            problems.append(f"{INDEX} names {name!r}, which is no file in the folder")
            continue
        found, opened = _survey_file(folder, name, entries)
        problems += found
        if opened:  # of the others everything that is said is that they cannot be
            readable.add(name)
    problems += [
        f"{INDEX} says that {name} is in {file}, which does not hold it"
        for name, file in weight_map.items()
        if file in readable and (name not in entries or entries[name].file != file)
    ]
    problems += [
        f"{entry.file} holds {name}, which {INDEX} lacks" for name, entry in entries.items() if name not in weight_map
    ]
    complete = readable == set(weight_map.values())
    return Shards(folder=folder, entries=entries, complete=complete), problems


def write(
    folder: Path,
    tensors: Mapping[str, Tensor],
    *,
    dtype: torch.dtype | None = None,
    shard_size: int | str = "5GB",
    progress: Progress = silent,
) -> None:
    """Write tensors as one file, or as several with an index where they exceed `shard_size` ("5GB", or bytes).

    Each file is cast to `dtype` (None: as the tensors are) and written on its own, so memory is needed for one.

    Raises:
        CheckpointError: `shard_size` is no size, or a file cannot be written.
    """
    plan = {name: tensor.to("meta", dtype) for name, tensor in tensors.items()}
    no_size = f"shard_size {shard_size!r} is no size: give a number of bytes from 1 on, or a text as '5GB'"
    if not isinstance(shard_size, str) and not (isinstance(shard_size, int) and shard_size > 0):
        raise CheckpointError(no_size)
    try:
        split = split_state_dict_into_shards_factory(
            plan, get_storage_size=lambda tensor: tensor.nbytes, filename_pattern=PATTERN, max_shard_size=shard_size
        )
    except ValueError as error:
        raise CheckpointError(no_size) from error
    done, total = 0, sum(tensor.nbytes for tensor in plan.values())
    for file, names in split.filename_to_tensors.items():
        _log.info("writing %s", file)
        part = {name: tensors[name].detach().to("cpu", dtype).contiguous() for name in names}
        write_tensors(folder / file, part)
        done += sum(tensor.nbytes for tensor in part.values())
        progress(done, total)
        del part  # before the next is made: there is room for one
    if split.is_sharded:
        index = {"metadata": split.metadata, "weight_map": split.tensor_to_filename}
        (folder / INDEX).write_text(json.dumps(index, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _survey_file(folder: Path, name: str, entries: dict[str, Entry]) -> tuple[list[str], bool]:
    """Add a file's tensors to `entries`; what is wrong with it, and whether it could be opened."""
    path = folder / name
    try:
        if not path.is_file():
            return [f"no weights at {path}{_instead(folder)}"], False
        with safe_open(path, framework="pt") as file:
            found = {key: file.get_slice(key) for key in file.keys()}  # noqa: SIM118 - no dict
            headers = {key: (tuple(part.get_shape()), str(part.get_dtype())) for key, part in found.items()}
    except (SafetensorError, OSError) as error:
        return [_corrupt(path, error)], False
    problems = [f"{key} is in {entries[key].file} and in {name}" for key in headers if key in entries]
    for key, (shape, dtype) in headers.items():
        entries.setdefault(key, Entry(file=name, shape=shape, dtype=dtype))
        if dtype not in DTYPES:
            problems.append(f"{key} is of dtype {dtype}; weights are {', '.join(DTYPES)}")
    return problems, True


def _instead(folder: Path) -> str:
    """What lies there in place of a missing file."""
    pickles = sorted(path.name for pattern in ("*.bin", "*.pt", "*.pth", "*.ckpt") for path in folder.glob(pattern))
    if pickles:
        return f"; {', '.join(pickles)} can run code and is never loaded: convert it to safetensors"
    others = sorted(path.name for path in folder.glob("*.safetensors"))
    if (folder / INDEX).is_file():
        return f", which {INDEX} names; download or copy it again"
    return f"; there are {', '.join(others)}: is {INDEX} missing?" if others else ""


def _corrupt(path: Path, error: Exception) -> str:
    return f"{path} is corrupt or cut off: {error}; download or copy it again"
