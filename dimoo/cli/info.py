"""info: what is in a checkpoint folder."""

from __future__ import annotations

import json
from math import prod
from pathlib import Path
from typing import Annotated, Any

import typer

from dimoo.core.errors import CheckpointError


def info(
    model: Annotated[str, typer.Argument(metavar="FOLDER", help='A checkpoint folder, or "mini".')] = "mini",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Show what a checkpoint holds.

    Architecture, vocabulary, tokenizers with fingerprints, sampling defaults and file sizes.
    """
    facts = describe(model)
    if as_json:
        typer.echo(json.dumps(facts, indent=2))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for section, values in facts.items():
        if isinstance(values, dict):
            for index, (key, value) in enumerate(values.items()):
                table.add_row(section if index == 0 else "", f"{key}: {_plain(value)}")
        else:
            table.add_row(section, _plain(values))
    Console(highlight=False, markup=False).print(table)


def describe(model: str) -> dict[str, Any]:
    """Everything that `info` shows, as plain JSON values.

    Raises:
        CheckpointError: the folder or a file in it is missing or corrupt.
        ConfigError: its config.json is missing or does not validate.
    """
    from dimoo.presets.config import ModelConfig
    from dimoo.tasks.assemble import CONFIG, IMAGE, TEXT, WEIGHTS, resolve
    from dimoo.tokenizers.image.files import load_image_tokenizer
    from dimoo.tokenizers.text import TextTokenizer

    folder = resolve(model)
    config = ModelConfig.load(folder / CONFIG)
    parameters, dtypes = read_header(folder / WEIGHTS)
    text, image = TextTokenizer.load(folder / TEXT), load_image_tokenizer(folder / IMAGE)
    vocabulary = config.vocabulary
    names = ("text", *(modality.name for modality in vocabulary.modalities))
    return {
        "name": config.name,
        "folder": str(folder),
        "format": config.format,
        "backbone": {
            "parameters": parameters,
            "dtype": ", ".join(sorted(dtypes)),
            **config.backbone.model_dump(mode="json"),
        },
        "vocabulary": {
            "size": vocabulary.size,
            "ranges": {name: list(vocabulary.columns(name)) for name in names},
            "specials": vocabulary.specials,
        },
        "text tokenizer": {"ids": text.size, "fingerprint": text.fingerprint},
        "image tokenizer": {
            "parameters": sum(parameter.numel() for parameter in image.parameters()),
            "codebook size": image.codebook_size,
            "pixels per code": list(image.downsampling),
            "fingerprint": image.fingerprint,
        },
        "image sampling": {"size": list(config.image_size), **config.image.model_dump(mode="json")},
        "text sampling": {
            "answer tokens": config.answer_tokens,
            "caption tokens": config.caption_tokens,
            **config.text.model_dump(mode="json"),
        },
        "prompts": {"longest": config.template.max_prompt_tokens, "systems": config.template.systems},
        "bytes": {
            path.relative_to(folder).as_posix(): path.stat().st_size
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        },
    }


def read_header(path: Path) -> tuple[int, set[str]]:
    """How many numbers a safetensors file holds and in which dtypes, without reading them.

    Raises:
        CheckpointError: the file is missing or corrupt.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            slices = [file.get_slice(name) for name in file.keys()]  # noqa: SIM118 - no dict
            return sum(prod(part.get_shape()) for part in slices), {part.get_dtype() for part in slices}
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"cannot read {path}: {error}; download or copy it again") from error


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_plain(entry)}" for key, entry in value.items())
    if isinstance(value, list):
        return "..".join(str(entry) for entry in value)
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
