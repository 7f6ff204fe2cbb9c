"""encode: turn a folder of pictures or a JSONL file into shards of codes."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from dimoo.cli.files import output_folder
from dimoo.cli.options import Device, OnDevice, auto_device, parse_size


class OnBadRow(str, Enum):
    """What a row does that cannot be used."""

    RAISE = "raise"
    REPORT = "report"


class Looked(str, Enum):
    """How pictures are looked at before the first is encoded."""

    PIXELS = "pixels"
    HEADERS = "headers"


def parse_part(text: str) -> tuple[int, int]:
    """`2/4` -> (2, 4).

    Raises:
        typer.BadParameter: the text is not of that form, or there is no such part.
    """
    part, _, parts = text.partition("/")
    if not (part.isdecimal() and parts.isdecimal() and 1 <= int(part) <= int(parts)):
        raise typer.BadParameter(f"{text!r} is no part; give one as 2/4: the second of four")
    return int(part), int(parts)


def parse_sizes(text: str) -> tuple[int, int] | int:
    """`64x48` -> (64, 48); `512` -> 512.

    Raises:
        typer.BadParameter: the text is of neither form.
    """
    if text.strip().isdecimal():
        return int(text)
    size = parse_size(text)
    return (size.height, size.width)


def encode(
    source: Annotated[Path, typer.Argument(metavar="SOURCE", help="A folder of pictures, or a JSONL file.")],
    out: Annotated[Path, typer.Option("--out", metavar="FOLDER", help="Where the shards go.")],
    size: Annotated[
        str,
        typer.Option(
            metavar="SIZE",
            help="Of every picture, as 64x64; or 512: of each the best bucket of about 512 x 512 pixels.",
        ),
    ],
    tokenizer: Annotated[
        str,
        typer.Option(metavar="PATH", help='Of an image tokenizer or a model: a folder, "mini", or owner/name.'),
    ] = "mini",
    shard: Annotated[int, typer.Option("--shard", min=1, metavar="N", help="Examples in one file.")] = 4096,
    on_bad: Annotated[
        OnBadRow, typer.Option("--on-bad", help="raise: stop at bad rows; report: list them and go on without.")
    ] = OnBadRow.RAISE,
    verify: Annotated[
        Looked,
        typer.Option("--verify", help="pixels: decode every picture before the first is encoded; headers: read those."),
    ] = Looked.PIXELS,
    part: Annotated[
        str,
        typer.Option("--part", metavar="K/N", help="Encode every Nth row from the Kth on; other machines do the rest."),
    ] = "1/1",
    device: OnDevice = Device.AUTO,
) -> None:
    """Encode the pictures of your data once, for training.

    Train on the folder with --set 'source={"kind":"shards","path":FOLDER}'. What was broken off goes on when it is run
    again. With --part 2/4 it is one of four machines, all of which write into one FOLDER, or each into one of its own
    that is then moved into it.

    Prints the folder.
    """
    wanted, (number, parts) = parse_sizes(size), parse_part(part)
    import torch
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from dimoo.core.config import parse
    from dimoo.core.device import usable
    from dimoo.data.build import open_files
    from dimoo.data.config import FolderSourceConfig, JsonlSourceConfig
    from dimoo.data.encode import write_shards
    from dimoo.data.shards import Manifest
    from dimoo.weights.image import load_image_tokenizer

    settings = {"path": str(source), "size": wanted, "on_bad": on_bad.value, "verify": verify.value}
    config = parse(FolderSourceConfig, settings) if source.is_dir() else parse(JsonlSourceConfig, settings)
    reader = load_image_tokenizer(tokenizer).to(usable(auto_device(device), torch.float32))
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:

        def shown(what: str) -> Callable[[int, int], None]:
            task = bar.add_task(what)
            return lambda done, total: bar.update(task, completed=done, total=total)

        fitted, digest = open_files(config, progress=shown("looking"))
        manifest = Manifest(
            fingerprint=reader.fingerprint,
            source=digest,
            size=wanted,
            examples=fitted.size or 0,
            shard_examples=shard,
            part=number,
            parts=parts,
        )
        output_folder(out)
        write_shards(fitted, reader, out, manifest=manifest, progress=shown("encoding"))
    typer.echo(out)
