"""Options that several commands share."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Annotated

import typer

from dimoo.core.errors import BackendError

if TYPE_CHECKING:
    from dimoo.tasks.model import Dimoo


@dataclass(frozen=True)
class Size:
    """Of a picture, in pixels."""

    height: int
    width: int


def parse_size(text: str) -> Size:
    """`64x48` -> height 64, width 48.

    Raises:
        typer.BadParameter: the text is not of that form.
    """
    match = re.fullmatch(r"([1-9]\d*)[xX]([1-9]\d*)", text.strip())
    if match is None:
        raise typer.BadParameter(f"{text!r} is no size; write HEIGHTxWIDTH in pixels, as 64x64")
    return Size(int(match[1]), int(match[2]))


Model = Annotated[
    str, typer.Option("--model", metavar="FOLDER", help='A checkpoint folder, or "mini", the bundled model.')
]
Seed = Annotated[int, typer.Option("--seed", min=0, help="The same seed gives the same result.")]


class Device(str, Enum):
    """Where a model computes."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"
    MPS = "mps"


class DType(str, Enum):
    """Precision of a model's weights."""

    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"
    FLOAT16 = "float16"


OnDevice = Annotated[Device, typer.Option("--device", help="auto: cuda where there is one, else cpu.")]
InDType = Annotated[DType, typer.Option("--dtype", help="Precision of the backbone's weights.")]


def open_model(model: str, device: Device, dtype: DType) -> Dimoo:
    """Load a model as the options say.

    Raises:
        BackendError: this machine has no such device.
        CheckpointError: a file is missing, corrupt, or does not fit the others.
    """
    import torch

    import dimoo

    there = {Device.CPU: True, Device.CUDA: torch.cuda.is_available(), Device.MPS: torch.backends.mps.is_available()}
    chosen = device
    if device is Device.AUTO:
        chosen = Device.CUDA if there[Device.CUDA] else Device.CPU
    if not there[chosen]:
        raise BackendError(
            f"this machine, or its torch {torch.__version__}, has no device {chosen.value!r}; use --device cpu"
        )
    return dimoo.load(model, device=chosen.value, dtype=getattr(torch, dtype.value))
