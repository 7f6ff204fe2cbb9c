"""Files of a checkpoint: JSON objects in, with one kind of error; safetensors out, as readable as other files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from dimoo.core.errors import CheckpointError


def read_object(path: Path) -> dict[str, Any]:
    """A JSON file that holds an object.

    Raises:
        CheckpointError: it is missing, cannot be read, or holds something else.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"cannot read {path}: {error}") from error
    if not isinstance(values, dict):
        raise CheckpointError(f"cannot read {path}: it holds {type(values).__name__}, not an object")
    return values


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write a safetensors file, with the permissions that any new file gets; the library gives it to its owner alone.

    Raises:
        CheckpointError: it cannot be written: the disk is full, say.
    """
    path.touch()
    usual = path.stat().st_mode
    try:
        save_file(dict(tensors), path, metadata={"format": "pt"})
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"cannot write {path}: {error}") from error
    path.chmod(usual)
