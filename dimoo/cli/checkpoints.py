"""convert, merge, verify: checkpoints as files."""

from __future__ import annotations

import json
import re
import shutil
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from dimoo.cli.options import PATH_HELP, DType, progress_bar

CARRIED = ("LICENSE*", "NOTICE*", "world.json")
"""Files beside a checkpoint that `convert` and `merge` take along: whose it is, and what `evaluate` scores it on."""
CHECKED = (
    "config.json, index against files, names, shapes and dtypes of all tensors, values that are not finite, tokenizers,"
    " fingerprints, special tokens, code ranges"
)


class LayoutName(str, Enum):
    """How a checkpoint's files are arranged."""

    DIMOO = "dimoo"
    LUMINA = "lumina"


def parse_bytes(text: str) -> int:
    """`5GB` -> 5,000,000,000; a number alone is bytes.

    Raises:
        typer.BadParameter: the text is no size, or not at least a byte.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)B?", text.strip().upper())
    size = int(float(match[1]) * 1000 ** " KMGT".index(match[2] or " ")) if match else 0
    if size < 1:
        raise typer.BadParameter(f"{text!r} is no size; write a number and KB, MB, GB or TB, as 5GB")
    return size


def convert(
    source: Annotated[str, typer.Argument(metavar="SRC", help=PATH_HELP)],
    target: Annotated[Path, typer.Argument(metavar="DST", help="A new folder; a checkpoint in it is replaced.")],
    to: Annotated[LayoutName, typer.Option("--to", help="dimoo: our own; lumina: that of the released models.")],
    dtype: Annotated[
        DType | None, typer.Option("--dtype", help="Precision of the stored weights.  [default: each as it is]")
    ] = None,
    shard_size: Annotated[
        int | None,
        typer.Option(
            "--shard-size", parser=parse_bytes, metavar="SIZE", help="Of one file of weights, as 500MB.  [default: 5GB]"
        ),
    ] = None,
) -> None:
    """Write a checkpoint in another layout.

    Weights are streamed: memory is needed for one file of weights (--shard-size) at a time, never for the model.
    Converting back gives the same backbone, bit for bit, unless --dtype rounds it; image tokenizers are stored in
    float32. A model card, LICENSE,
    NOTICE and world.json beside the source are taken along; other files that are no part of a checkpoint are not.

    Prints the folder.
    """
    from dimoo.core.device import precision
    from dimoo.weights.convert import convert as convert_checkpoint
    from dimoo.weights.hub import resolve

    folder = resolve(source)
    with progress_bar("writing") as progress:
        convert_checkpoint(
            folder,
            target,
            layout=to.value,
            dtype=None if dtype is None else precision(dtype.value),
            shard_size="5GB" if shard_size is None else shard_size,
            progress=progress,
        )
    _take_along(folder, target)
    typer.echo(target)


def merge(
    sources: Annotated[list[str], typer.Argument(metavar="SRC...", help=f"Two or more: {PATH_HELP}")],
    out: Annotated[Path, typer.Option("--out", help="A new folder; a checkpoint in it is replaced.")],
    share: Annotated[
        list[float] | None,
        typer.Option("--share", help="How much one counts; repeat it for each, 1 in all.  [default: all the same]"),
    ] = None,
    dtype: Annotated[
        DType | None, typer.Option("--dtype", help="Precision of the stored weights.  [default: the first one's]")
    ] = None,
) -> None:
    """Write the mean of several checkpoints of one model.

    The last ones of a run, say, or runs that went on from one start: of one shape, with the same vocabulary and
    tokenizers. The sum is made in float32. Everything but the weights and the model card is the first one's, with
    LICENSE, NOTICE and world.json beside it.

    Prints the folder.
    """
    from dimoo.core.device import precision
    from dimoo.weights.hub import resolve
    from dimoo.weights.merge import merge as merge_checkpoints

    folders = [resolve(source) for source in sources]
    with progress_bar("reading") as progress:
        merge_checkpoints(
            folders,
            out,
            shares=share or None,
            dtype=None if dtype is None else precision(dtype.value),
            progress=progress,
        )
    _take_along(folders[0], out)
    typer.echo(out)


def _take_along(source: Path, target: Path) -> None:
    for path in [path for pattern in CARRIED for path in source.glob(pattern) if path.is_file()]:
        shutil.copyfile(path, target / path.name)


def verify(
    path: Annotated[str, typer.Argument(metavar="PATH", help=PATH_HELP)],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Check a checkpoint without computing with it.

    config.json, index against files, name, shape and dtype of every tensor, values that are not finite, tokenizers,
    fingerprints, special tokens, code ranges; for a model in any layout, or the folder of an image tokenizer alone.

    Prints every problem. Exit status: 0 none found, 1 some.

    JSON keys: ok, folder, layout, tensors, numbers, bytes, problems, notes.
    """
    from rich.filesize import decimal

    from dimoo.weights.hub import resolve
    from dimoo.weights.verify import verify as verify_checkpoint

    folder = resolve(path)
    with progress_bar("reading") as progress:
        report = verify_checkpoint(folder, progress)
    if as_json:
        facts = {
            "ok": report.ok,
            "folder": str(folder),
            "layout": report.layout,
            "tensors": report.tensors,
            "numbers": report.numbers,
            "bytes": report.nbytes,
            "problems": report.problems,
            "notes": report.notes,
        }
        typer.echo(json.dumps(facts, indent=2))
    else:
        size = f"{report.tensors:,} tensors, {report.numbers:,} numbers, {decimal(report.nbytes)}"
        typer.echo(f"{folder}: layout {report.layout}, {size}\nchecked: {CHECKED}")
        for kind, messages in (("note", report.notes), ("problem", report.problems)):
            for message in messages:
                typer.echo(f"{kind}: {message}")
        count = len(report.problems)
        typer.echo("ok" if report.ok else f"{count} problem{'s' if count > 1 else ''}")
    if not report.ok:
        raise typer.Exit(1)
