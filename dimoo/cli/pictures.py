"""generate, illustrate, edit, subject, style, view: new pictures from words and pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dimoo.cli.files import read_picture
from dimoo.cli.making import Making, Out, Wanted, make
from dimoo.cli.options import Size, parse_size

Picture = Annotated[Path, typer.Argument(metavar="PICTURE", help="A picture file.")]
OfSize = Annotated[
    Size | None,
    typer.Option("--size", parser=parse_size, metavar="HEIGHTxWIDTH", help="In pixels.  [default: the model's]"),
]


def generate(
    prompts: Annotated[list[str], typer.Argument(metavar="PROMPT", help="What to draw; several: a batch.")],
    out: Out,
    how: Making,
    size: OfSize = None,
) -> None:
    """Draw pictures from words.

    Prints the path of each picture; several prompts write F-0.png, F-1.png ..., those of one prompt side by side.
    """
    from dimoo.core.requests import GenerateRequest

    height, width = (None, None) if size is None else (size.height, size.width)
    make(
        how,
        out,
        *(
            Wanted(request=GenerateRequest(prompt=prompt, height=height, width=width), said={"prompt": prompt})
            for prompt in prompts
        ),
    )


def illustrate(
    text: Annotated[str, typer.Argument(metavar="TEXT", help="What to draw and to tell of.")],
    out: Out,
    how: Making,
    size: OfSize = None,
    tokens: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Tokens planned for the words.  [default: the model's]")
    ] = None,
) -> None:
    """Draw a picture and write words about it.

    Both are made together, each in view of the other. Prints the words and nothing else.
    """
    from dimoo.core.requests import TaskRequest

    height, width = (None, None) if size is None else (size.height, size.width)
    request = TaskRequest(task="illustrate", words=text, height=height, width=width, tokens=tokens)
    make(how, out, Wanted(request=request, said={"prompt": text}))


def edit(
    picture: Picture,
    instruction: Annotated[str, typer.Argument(metavar="INSTRUCTION", help='What to change, as "remove the cat".')],
    out: Out,
    how: Making,
) -> None:
    """Change a picture as an instruction says.

    Prints the path of the new picture.
    """
    from dimoo.core.requests import TaskRequest

    request = TaskRequest(task="edit", words=instruction, images=(read_picture(picture),))
    make(how, out, Wanted(request=request, said={"instruction": instruction}))


def subject(
    references: Annotated[
        list[Path], typer.Argument(metavar="REFERENCE", help="A picture file of the subject; may be several.")
    ],
    prompt: Annotated[str, typer.Option(metavar="TEXT", help="Describes the new picture.")],
    out: Out,
    how: Making,
    size: OfSize = None,
) -> None:
    """Draw a new picture of what reference pictures show.

    Prints the path of the new picture.
    """
    from dimoo.core.requests import TaskRequest

    height, width = (None, None) if size is None else (size.height, size.width)
    images = tuple(map(read_picture, references))
    request = TaskRequest(task="subject", words=prompt, images=images, height=height, width=width)
    make(how, out, Wanted(request=request, said={"prompt": prompt}))


def style(
    picture: Picture,
    out: Out,
    how: Making,
    like: Annotated[Path | None, typer.Option(metavar="PICTURE", help="A picture file in the style.")] = None,
    to: Annotated[str | None, typer.Option(metavar="TEXT", help='The style in words, as "make it grey".')] = None,
) -> None:
    """Redraw a picture in another style.

    That of another picture (--like), or one that is named (--to). Prints the path of the new picture.
    """
    from dimoo.core.requests import TaskRequest

    if (like is None) == (to is None):
        raise typer.BadParameter("say the style by one of them: --like PICTURE or --to TEXT")
    images = tuple(map(read_picture, [picture] if like is None else [picture, like]))
    request = TaskRequest(task="style" if to is None else "restyle", words=to or "", images=images)
    make(how, out, Wanted(request=request, said={"prompt": to, "like": like and str(like)}))


def view(
    picture: Picture,
    side: Annotated[str, typer.Option("--view", metavar="NAME", help='One that the model knows, as "mirrored".')],
    out: Out,
    how: Making,
) -> None:
    """Show what a picture shows from another side.

    Prints the path of the new picture.
    """
    from dimoo.core.requests import TaskRequest

    request = TaskRequest(task="view", option=side, images=(read_picture(picture),))
    make(how, out, Wanted(request=request, said={"view": side}))
