"""interleave: words and pictures in any order, answered by words and pictures."""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dimoo.cli.files import output_paths, read_picture, write_picture
from dimoo.cli.options import ModelOptions, SetBoth, parse_size, sampling_as
from dimoo.cli.words import Writing

if TYPE_CHECKING:
    from PIL.Image import Image

    from dimoo.core.requests import PictureAnswer, TextAnswer
    from dimoo.tasks.model import Dimoo


@dataclass(frozen=True, kw_only=True)
class Answering(Writing):
    """How pictures and words are made, and by which model."""

    others: SetBoth = None

    def open(self) -> Dimoo:
        """Load it, with the settings that these options change.

        Raises:
            RequestError: an assignment is of neither pictures nor words.
        """
        return sampling_as(ModelOptions.open(self), self.others or ())


def parse_part(text: str) -> str | Image:
    """A picture where there is such a file, else words.

    Raises:
        typer.BadParameter: it looks like the name of a picture file, and there is none.
        RequestError: the file is no picture.
    """
    from PIL import Image

    if os.path.isfile(text):
        return read_picture(Path(text))
    Image.init()
    if len(text.split()) == 1 and Path(text).suffix.lower() in Image.registered_extensions():
        raise typer.BadParameter(f"there is no picture file {text!r}; correct its name", param_hint="PART")
    return text


def parse_answer(text: str) -> PictureAnswer | TextAnswer:
    """`image`, `image:32x64`, `text` or `text:12` -> a part of the answer.

    Raises:
        typer.BadParameter: the text is of none of these forms.
    """
    from dimoo.core.requests import PictureAnswer, TextAnswer

    kind, colon, rest = text.partition(":")
    if kind == "image":
        size = parse_size(rest) if colon else None
        return PictureAnswer() if size is None else PictureAnswer(height=size.height, width=size.width)
    if kind == "text" and (not colon or (rest.isdecimal() and int(rest))):
        return TextAnswer(tokens=int(rest) if colon else None)
    raise typer.BadParameter(
        f"{text!r} is no part of an answer; write image, image:HEIGHTxWIDTH, text or text:TOKENS", param_hint="--want"
    )


def interleave(
    parts: Annotated[
        list[str], typer.Argument(metavar="PART", help="What you say, in order: a picture file, or words.")
    ],
    want: Annotated[
        list[str],
        typer.Option(
            metavar="KIND[:SIZE]",
            help="What you want back, as image:32x64 (height, width) or text:12 (tokens); may be repeated.",
        ),
    ],
    how: Answering,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="FILE", help="Where the picture goes, as F.png; several: F-0.png, F-1.png ..."),
    ] = None,
) -> None:
    """Answer a message of words and pictures by words and pictures.

    All parts of the answer are denoised together. Prints the words and the paths of the pictures, in order.
    """
    from dimoo.core.requests import InterleavedRequest, PictureAnswer

    answer = tuple(map(parse_answer, want))
    wanted = sum(isinstance(part, PictureAnswer) for part in answer)
    if bool(wanted) != (out is not None):
        said = "a picture is wanted; say where it goes, as --out G.png" if wanted else "no picture is wanted"
        raise typer.BadParameter(said, param_hint="--out")
    paths = [] if out is None else output_paths(out, wanted)
    request = InterleavedRequest(parts=tuple(map(parse_part, parts)), answer=answer, seed=how.seed)
    model = how.open()
    started = time.monotonic()
    (made,) = model.run([request])
    seconds = round(time.monotonic() - started, 3)

    facts: list[dict[str, Any]] = []
    left = iter(paths)
    for part in made:
        if isinstance(part, str):
            facts.append({"answer": part})
        else:
            path = next(left)
            write_picture(part, path)
            facts.append({"out": str(path), "size": [part.height, part.width]})
    if how.as_json:
        typer.echo(json.dumps({"parts": facts, "seed": how.seed, "model": how.model, "seconds": seconds}, indent=2))
    else:
        for fact in facts:
            typer.echo(fact.get("answer", fact.get("out")))
