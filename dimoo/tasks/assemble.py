"""From a checkpoint to a Dimoo."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, get_args

import torch

from dimoo.backbone.build import build_attention
from dimoo.backbone.compiled import compiled, require_compiler
from dimoo.backbone.config import AttentionKind, QuantizeKind
from dimoo.backbone.layout import PackedLayout
from dimoo.backbone.model import Backbone
from dimoo.backbone.quantized import check_quantize, quantized
from dimoo.core.device import precision, usable
from dimoo.core.errors import BackendError
from dimoo.tasks.model import Dimoo
from dimoo.weights.adapters import merge_adapter, read_adapter
from dimoo.weights.checkpoint import Checkpoint
from dimoo.weights.hub import resolve
from dimoo.weights.shards import Progress, silent

Compile = bool | Literal["graphs"]
"""Whether blocks are compiled, and replayed as CUDA graphs."""


def load(
    path: str | Path,
    *,
    dtype: torch.dtype | str | None = torch.float32,
    device: torch.device | str = "cpu",
    attention: AttentionKind | None = None,
    quantize: QuantizeKind | None = None,
    compile: Compile = False,
    revision: str | None = None,
    adapter: str | Path | None = None,
    progress: Progress = silent,
) -> Dimoo:
    """Load a model, in dimoo's own layout or a released one (Lumina-DiMOO, LLaDA).

    The weights are streamed from the files into a model that is allocated once, in `dtype`.

    Args:
        path: a checkpoint folder, "mini" for the bundled model, or `owner/name` on the Hugging Face hub.
        dtype: of the backbone's weights, as torch.bfloat16 or "bfloat16"; None: as they are stored. The image tokenizer
            stays in float32.
        device: where to compute: "cpu", "cuda", "mps".
        attention: a backend for packed attention ("sdpa", "varlen", "flex", "xformers"); None: the checkpoint's, which
            is "auto", the fastest there is.
        quantize: keep the matrices of the blocks in one byte per weight, "int8" or "fp8" (see
            `dimoo.backbone.quantized`); None: in `dtype`, as everything else. They are quantised on the CPU, so that
            they are the same for every device, and only then sent there.
        compile: compile the blocks (`torch.compile`), which the first pass waits for; "graphs": replay them as CUDA
            graphs too, of which one is recorded for every length of stream (see `dimoo.backbone.compiled`).
        revision: a branch, tag or commit on the hub.
        adapter: low-rank adapters in the layout of peft, in a folder or `owner/name` on the hub, which are folded into
            the weights as they are read (see `dimoo.weights.adapters`).
        progress: told the bytes done and their sum.

    Raises:
        CheckpointError: a file is missing, corrupt, or does not fit the others, or the adapter not the model.
        BackendError: the device is not there, or has no such precision or attention, or cannot quantise or compile so.
    """
    checkpoint, kind, where = _opened(path, dtype, device, attention, quantize, compile, revision)
    parts = checkpoint.parts()
    backbone = _backbone(checkpoint, kind, where, attention, quantize, compile, adapter, progress)
    image = None if parts.image is None else parts.image.to(where).eval()
    source = _source(path, checkpoint.folder)
    return Dimoo(parts.config, backbone=backbone, text_tokenizer=parts.text, image_tokenizer=image, source=source)


def load_backbone(
    path: str | Path,
    *,
    dtype: torch.dtype | str | None = torch.float32,
    device: torch.device | str = "cpu",
    attention: AttentionKind | None = None,
    quantize: QuantizeKind | None = None,
    compile: Compile = False,
    revision: str | None = None,
    adapter: str | Path | None = None,
    progress: Progress = silent,
) -> Backbone:
    """The transformer of a checkpoint alone, tokenizers or not. Arguments and errors as those of `load`."""
    checkpoint, kind, where = _opened(path, dtype, device, attention, quantize, compile, revision)
    return _backbone(checkpoint, kind, where, attention, quantize, compile, adapter, progress)


def _opened(
    path: str | Path,
    dtype: torch.dtype | str | None,
    device: torch.device | str,
    attention: AttentionKind | None,
    quantize: QuantizeKind | None,
    compile: Compile,
    revision: str | None,
) -> tuple[Checkpoint, torch.dtype | None, torch.device]:
    """A checkpoint, and where it is to go in which precision: tried out before the weights are read."""
    if attention is not None and attention not in get_args(AttentionKind):
        raise BackendError(f"unknown attention {attention!r}; choose from {', '.join(get_args(AttentionKind))}")
    kind = None if dtype is None else precision(dtype)
    where = usable(device, torch.float32 if kind is None else kind)
    if quantize is not None:
        check_quantize(quantize, kind, where)
    _check_compile(compile, where)
    checkpoint = Checkpoint.open(resolve(path, revision=revision))
    shape = checkpoint.backbone_config()
    chosen = shape.attention if attention is None else attention
    if chosen != "auto":
        token = torch.ones(1, 1, shape.d_model // shape.heads, device=where, dtype=kind)
        build_attention(chosen).attend(token, token, token, PackedLayout.of([1], where))
    return checkpoint, kind, where


def _backbone(
    checkpoint: Checkpoint,
    kind: torch.dtype | None,
    where: torch.device,
    attention: AttentionKind | None,
    quantize: QuantizeKind | None,
    compile: Compile,
    adapter: str | Path | None,
    progress: Progress,
) -> Backbone:
    # Before the weights, which are large: what is wrong with it is known at once.
    added = None if adapter is None else read_adapter(resolve(adapter), checkpoint.skeleton("sdpa"))
    place = where if quantize is None else torch.device("cpu")
    backbone = checkpoint.backbone(dtype=kind, device=place, attention=attention, progress=progress)
    if added is not None:
        merge_adapter(backbone, added)
    if quantize is not None:
        backbone = quantized(backbone, quantize).to(where)
    return compiled(backbone, graphs=compile == "graphs") if compile else backbone


def _check_compile(compile: Compile, where: torch.device) -> None:
    if compile not in (False, True, "graphs"):
        raise BackendError(f"unknown compile {compile!r}; choose from True, False and 'graphs'")
    if compile:
        require_compiler(where, graphs=compile == "graphs")


def _source(path: str | Path, folder: Path) -> str:
    """What names a checkpoint from everywhere: "mini", a name on the hub with its commit, an absolute path."""
    if path == "mini":
        return "mini"
    if folder == Path(path):
        return str(folder.resolve())
    return f"{str(path).partition('@')[0]}@{folder.name}"  # a snapshot in the hub's cache is named by its commit
