"""Options that several commands share, and the model that they name."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dimoo.core.config import override
from dimoo.core.errors import RequestError

if TYPE_CHECKING:
    from dimoo.tasks.model import Dimoo
    from dimoo.weights.shards import Progress

LARGE = 1_000_000_000
"""Bytes; work on fewer is done before a bar can be read."""


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


SAMPLING, MODEL = "Sampling", "Model"
"""Titles of groups of options in the help."""
PATH_HELP = 'A checkpoint folder, "mini" (bundled), or owner/name[@revision] on the hub.'
Model = Annotated[str, typer.Option("--model", metavar="PATH", rich_help_panel=MODEL, help=PATH_HELP)]
Seed = Annotated[int, typer.Option("--seed", min=0, metavar="N", help="The same seed gives the same result.")]


def _assignments(example: str) -> Any:
    help_text = f"Any setting of sampling, as {example}; may be given several times."
    return typer.Option("--set", metavar="FIELD=VALUE", rich_help_panel=SAMPLING, help=help_text)


Set = Annotated[list[str] | None, _assignments("cache.kind=block")]
SetBoth = Annotated[list[str] | None, _assignments("image.steps=8 or text.block=16")]


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


class Attention(str, Enum):
    """What computes packed attention."""

    AUTO = "auto"
    SDPA = "sdpa"
    VARLEN = "varlen"
    FLEX = "flex"
    XFORMERS = "xformers"


class Quantize(str, Enum):
    """How the weights of the blocks are kept, in a byte each."""

    INT8 = "int8"
    FP8 = "fp8"


OnDevice = Annotated[
    Device, typer.Option("--device", rich_help_panel=MODEL, help="auto: cuda where there is one, else cpu.")
]
InDType = Annotated[DType, typer.Option("--dtype", rich_help_panel=MODEL, help="Precision of the backbone's weights.")]
WithAttention = Annotated[
    Attention | None,
    typer.Option(
        "--attention",
        rich_help_panel=MODEL,
        help="What computes attention; auto: the fastest.  [default: the checkpoint's]",
    ),
]

Quantized = Annotated[
    Quantize | None,
    typer.Option(
        "--quantize",
        rich_help_panel=MODEL,
        help="Keep the blocks' weights in a byte each; needs dimoo[quantize].  [default: as --dtype says]",
    ),
]

Compiled = Annotated[
    bool,
    typer.Option(
        "--compile",
        rich_help_panel=MODEL,
        help="Compile the blocks (torch.compile). The first pass waits for it.",
    ),
]

WithAdapter = Annotated[
    str | None,
    typer.Option(
        "--adapter",
        metavar="PATH",
        rich_help_panel=MODEL,
        help="Low-rank adapters in the layout of peft, a folder or owner/name on the hub, folded into the weights.",
    ),
]


@dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """Which model, and where it computes."""

    model: Model = "mini"
    device: OnDevice = Device.AUTO
    dtype: InDType = DType.FLOAT32
    attention: WithAttention = None
    quantize: Quantized = None
    compile: Compiled = False
    adapter: WithAdapter = None

    def open(self) -> Dimoo:
        """Load it; see `open_model`."""
        return open_model(
            self.model,
            self.device,
            self.dtype,
            self.attention,
            self.quantize,
            compile=self.compile,
            adapter=self.adapter,
        )


def auto_device(device: Device) -> str:
    """The name of a device: auto is cuda where there is one, else the CPU."""
    import torch

    return device.value if device is not Device.AUTO else "cuda" if torch.cuda.is_available() else "cpu"


def open_model(
    model: str,
    device: Device,
    dtype: DType,
    attention: Attention | None = None,
    quantize: Quantize | None = None,
    *,
    compile: bool = False,
    adapter: str | None = None,
) -> Dimoo:
    """Load a model as the options say, with a progress bar on stderr if it is large.

    Raises:
        BackendError: the device is not there, or has no such precision or attention, or cannot quantise or compile so.
        CheckpointError: a file is missing, corrupt, or does not fit the others.
    """
    import dimoo

    with progress_bar("loading") as progress:
        return dimoo.load(
            model,
            device=auto_device(device),
            dtype=dtype.value,
            attention=None if attention is None else attention.value,
            quantize=None if quantize is None else quantize.value,
            compile=compile,
            adapter=adapter,
            progress=progress,
        )


def sampling_as(model: Dimoo, assignments: Sequence[str]) -> Dimoo:
    """The model with other settings of sampling.

    Args:
        model: whose own settings they change.
        assignments: as "image.steps=8" or "text.block=16".

    Raises:
        ConfigError: there is no such setting, or its value cannot be.
        RequestError: an assignment is of neither pictures nor words.
    """
    for assignment in assignments:
        if not assignment.startswith(("image.", "text.")):
            raise RequestError(f"--set {assignment} is of neither; begin with image. or text., as image.steps=8")
    config = override(model.config, assignments)
    return model.with_settings(image=config.image, text=config.text)


@contextmanager
def progress_bar(what: str) -> Iterator[Progress]:
    """A bar on stderr, where that is a terminal, that shows once told of more than `LARGE` bytes."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    bars = Bars(*columns, console=console, transient=True)
    task = bars.add_task(what, total=None)

    def show(done: int, total: int) -> None:
        if total > LARGE and console.is_terminal:
            bars.start()
            bars.update(task, completed=done, total=total)

    try:
        yield show
    finally:
        if bars.live.is_started:  # stopping writes a line even so
            bars.stop()
