"""info: what is in a checkpoint folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dimoo.cli.options import PATH_HELP, Quantize, Quantized

if TYPE_CHECKING:
    import torch
    from rich.table import Table

    from dimoo.presets.config import ModelConfig
    from dimoo.tokenizers.image.tokenizer import ImageTokenizer

BYTES = ("weights", "activations", "codec", "total")
"""The kinds of memory in a row of the memory table."""


def info(
    model: Annotated[str, typer.Argument(metavar="PATH", help=PATH_HELP)] = "mini",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    quantize: Quantized = None,
) -> None:
    """Show what a checkpoint is, without loading it.

    One on the hub is downloaded first. Architecture, vocabulary, tokenizers with fingerprints, sampling defaults,
    prompts, files, and the memory that each task needs in the stored dtype, quantised or not; or an image tokenizer
    that lies alone in its folder.

    JSON keys: name, folder, layout, backbone (parameters, bytes, dtypes and its shape), vocabulary (size, rows,
    unused_rows, ranges as [start, stop), specials), text_tokenizer, image_tokenizer (null in a text-only model),
    image_sampling (null there too), text_sampling, prompts, chat (null if it has no chat template), files (count,
    bytes, sizes), memory (a list of task, height, width, tokens, weights, activations, codec, total; in pixels and
    bytes). An image tokenizer alone has name, folder, layout, image_tokenizer and files.
    """
    from dimoo.weights.hub import resolve
    from dimoo.weights.verify import image_layout

    folder = resolve(model)
    alone = image_layout(folder)
    facts = describe(folder, quantize) if alone is None else describe_image(folder, alone)
    if as_json:
        typer.echo(json.dumps(facts, indent=2))
        return
    from rich.console import Console

    console = Console(highlight=False, markup=False)
    console.print(_overview({section: values for section, values in facts.items() if section != "memory"}))
    if "memory" in facts:
        console.print("\nMemory for one request; total: weights and the larger of activations and codec")
        console.print(_memory(facts["memory"]))


def describe(folder: Path, quantize: Quantize | None = None) -> dict[str, Any]:
    """Everything that `info` shows about a model, as plain JSON values; `quantize` is for the memory.

    Raises:
        CheckpointError: the folder is no checkpoint, or a file in it is missing, corrupt or does not fit the others.
        BackendError: the weights cannot be quantised so.
    """
    from dimoo.weights.checkpoint import Checkpoint
    from dimoo.weights.shards import Shards

    checkpoint = Checkpoint.open(folder)
    shards, parts = Shards.open(folder), checkpoint.parts()
    config, text, image = parts.config, parts.text, parts.image
    vocabulary, rows = config.vocabulary, config.backbone.vocab_size
    names = ("text", *(modality.name for modality in vocabulary.modalities))
    answers = {"answer_tokens": config.answer_tokens, "caption_tokens": config.caption_tokens}
    return {
        "name": config.name,
        "folder": str(folder),
        "layout": checkpoint.layout.name,
        "backbone": {
            "parameters": shards.numel,
            "bytes": shards.nbytes,
            "dtypes": [str(dtype).removeprefix("torch.") for dtype in shards.dtypes],
            **config.backbone.model_dump(mode="json"),
        },
        "vocabulary": {
            "size": vocabulary.size,
            "rows": rows,
            "unused_rows": rows - vocabulary.size,
            "ranges": {name: list(vocabulary.columns(name)) for name in names},
            "specials": vocabulary.specials,
        },
        "text_tokenizer": {"ids": text.size, "fingerprint": text.fingerprint},
        "image_tokenizer": None if image is None else _image_facts(image),
        "image_sampling": None
        if image is None
        else {"size": list(config.image_size), **config.image.model_dump(mode="json")},
        "text_sampling": {**answers, **config.text.model_dump(mode="json")},
        "prompts": {"max_prompt_tokens": config.template.max_prompt_tokens, "systems": config.template.systems},
        "chat": None if config.chat is None else config.chat.model_dump(mode="json"),
        "files": _files(folder),
        "memory": _needs(config, shards.dtypes[0], image, quantize),
    }


def describe_image(folder: Path, layout: str) -> dict[str, Any]:
    """The same about an image tokenizer alone.

    Raises:
        CheckpointError: a file is missing, corrupt or does not fit the other.
    """
    from dimoo.weights.image import load_image_tokenizer

    return {
        "name": folder.resolve().name,
        "folder": str(folder),
        "layout": layout,
        "image_tokenizer": _image_facts(load_image_tokenizer(folder)),
        "files": _files(folder),
    }


def _image_facts(image: ImageTokenizer) -> dict[str, Any]:
    return {
        "parameters": sum(parameter.numel() for parameter in image.parameters()),
        "codebook_size": image.codebook_size,
        "pixels_per_code": list(image.downsampling),
        "fingerprint": image.fingerprint,
    }


def _files(folder: Path) -> dict[str, Any]:
    sizes = {
        path.relative_to(folder).as_posix(): path.stat().st_size for path in sorted(folder.rglob("*")) if path.is_file()
    }
    return {"count": len(sizes), "bytes": sum(sizes.values()), "sizes": sizes}


def _needs(
    config: ModelConfig, dtype: torch.dtype, image: ImageTokenizer | None, quantize: Quantize | None
) -> list[dict[str, Any]]:
    from dimoo.tasks.memory import estimate

    return [
        {
            "task": need.task,
            "height": None if need.size is None else need.size[0],
            "width": None if need.size is None else need.size[1],
            "tokens": need.tokens,
            "weights": need.weights,
            "activations": need.activations,
            "codec": need.codec,
            "total": need.total,
        }
        for need in estimate(config, dtype=dtype, image=image, quantize=None if quantize is None else quantize.value)
    ]


def _overview(facts: dict[str, Any]) -> Table:
    from rich.table import Table

    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for section, values in facts.items():
        if isinstance(values, dict):
            for index, (key, value) in enumerate(values.items()):
                table.add_row(_words(section) if index == 0 else "", f"{_words(key)}: {_plain(key, value)}")
        else:
            table.add_row(_words(section), _plain(section, values))
    return table


def _memory(needs: list[dict[str, Any]]) -> Table:
    from rich.filesize import decimal
    from rich.table import Table

    table = Table("task", "picture", box=None, pad_edge=False)
    for name in ("tokens", *BYTES):
        table.add_column(name, justify="right")
    for need in needs:
        picture = "-" if need["height"] is None else f"{need['height']}x{need['width']}"
        sizes = (decimal(need[name]) for name in BYTES)
        table.add_row(_words(need["task"]), picture, f"{need['tokens']:,}", *sizes)
    return table


def _words(key: str) -> str:
    return key.replace("_", " ")


def _plain(key: str, value: Any) -> str:
    """A value as people read it; `key` says whether numbers are bytes or a range."""
    from rich.filesize import decimal

    match value:
        case None:
            return "none"
        case dict():
            inner = key if key in ("sizes", "ranges") else ""
            return ", ".join(f"{name} {_plain(inner or name, entry)}" for name, entry in value.items())
        case [int(start), int(stop)] if key == "ranges":
            return f"{start:,}..{stop - 1:,}"
        case list():
            return ", ".join(_plain("", entry) for entry in value)
        case int() if key in ("bytes", "sizes"):
            return decimal(value)
        case int() if not isinstance(value, bool):
            return f"{value:,}"
        case _:
            return str(value)
