"""control, predict, map: between pictures and maps of their structure."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from dimoo.cli.files import output_paths, read_picture, write_picture
from dimoo.cli.making import Making, Out, Wanted, make
from dimoo.cli.pictures import Picture

Kind = Annotated[str, typer.Option(metavar="KIND", help='Of the map, as "canny"; the model says which it knows.')]


def control(
    condition: Annotated[Path, typer.Argument(metavar="MAP", help="A picture file of the map.")],
    kind: Kind,
    prompt: Annotated[str, typer.Option(metavar="TEXT", help="Describes the new picture.")],
    out: Out,
    how: Making,
    from_picture: Annotated[
        bool, typer.Option("--from-picture", help="MAP is a picture, of which the map is made first.")
    ] = False,
) -> None:
    """Draw a picture from words and a map of its structure.

    Prints the path of the new picture. `dimoo map` makes maps.
    """
    from dimoo import conditions
    from dimoo.core.requests import TaskRequest

    given = read_picture(condition)
    image = conditions.make(kind, given) if from_picture else given
    request = TaskRequest(task="control", words=prompt, option=kind, images=(image,))
    make(how, out, Wanted(request=request, said={"prompt": prompt, "kind": kind}))


def predict(picture: Picture, kind: Kind, out: Out, how: Making) -> None:
    """Draw the map of a picture, as of its edges or its depth.

    Prints the path of the map.
    """
    from dimoo.core.requests import TaskRequest

    request = TaskRequest(task="predict", option=kind, images=(read_picture(picture),))
    make(how, out, Wanted(request=request, said={"kind": kind}))


def map(
    picture: Picture,
    kind: Annotated[str, typer.Option(metavar="KIND", help='"canny" or "soft_edges".')],
    out: Out,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object: out, kind, size.")] = False,
) -> None:
    """Compute the map of a picture, without a model.

    Prints the path of the map, which carries no record.
    """
    from dimoo import conditions

    (path,) = output_paths(out, 1)
    made = conditions.make(kind, read_picture(picture))
    write_picture(made, path)
    facts = {"out": str(path), "kind": kind, "size": [made.height, made.width]}
    typer.echo(json.dumps(facts, indent=2) if as_json else path)
