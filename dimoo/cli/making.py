"""What all commands that make pictures share: their options, and the way from requests to files and facts."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import typer

from dimoo.cli.files import check_folder, output_paths, write_picture
from dimoo.cli.options import SAMPLING, ModelOptions, Set
from dimoo.cli.sampling import NoiseDType, image_settings
from dimoo.core.config import override
from dimoo.core.errors import RequestError

if TYPE_CHECKING:
    from PIL.Image import Image

    from dimoo.core.requests import (
        GenerateRequest,
        InpaintRequest,
        OutpaintRequest,
        RetouchRequest,
        TaskRequest,
    )
    from dimoo.presets.config import ImageSettings
    from dimoo.tasks.model import Dimoo

    PictureRequest: TypeAlias = GenerateRequest | TaskRequest | InpaintRequest | OutpaintRequest | RetouchRequest

Out = Annotated[Path, typer.Option("--out", metavar="FILE", help="Where the picture goes, as F.png.")]


@dataclass(frozen=True, kw_only=True)
class Making(ModelOptions):
    """How pictures are made, and by which model."""

    seed: Annotated[
        int, typer.Option(min=0, metavar="N", help="The same seed gives the same result; picture i gets seed + i.")
    ] = 0
    num_images: Annotated[
        int, typer.Option("--num-images", min=1, metavar="N", help="Pictures of each request: F-0.png, F-1.png ...")
    ] = 1
    as_json: Annotated[
        bool,
        typer.Option(
            "--json",
            help="Print one JSON object: what was said; out, seed and size [height, width] of the first picture;"
            " pictures: the same of each; model, seconds of work.",
        ),
    ] = False
    negative: Annotated[
        str | None,
        typer.Option(metavar="TEXT", rich_help_panel=SAMPLING, help="What guidance leads away from."),
    ] = None
    steps: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", rich_help_panel=SAMPLING, help="Denoising steps.  [default: the model's]"),
    ] = None
    guidance: Annotated[
        float | None,
        typer.Option(
            min=0,
            metavar="X",
            rich_help_panel=SAMPLING,
            help="How strongly the prompt counts, its words and its pictures; 0: once. What the model does not guide"
            " by stays so.  [default: the model's]",
        ),
    ] = None
    guidance_text: Annotated[
        float | None,
        typer.Option(
            "--guidance-text",
            min=0,
            metavar="X",
            rich_help_panel=SAMPLING,
            help="The same of the words, in a prompt with pictures.",
        ),
    ] = None
    guidance_image: Annotated[
        float | None,
        typer.Option(
            "--guidance-image", min=0, metavar="X", rich_help_panel=SAMPLING, help="The same of the pictures."
        ),
    ] = None
    temperature: Annotated[
        float | None,
        typer.Option(
            min=0,
            metavar="X",
            rich_help_panel=SAMPLING,
            help="Of the drawn tokens; 0: the most likely.  [default: the model's]",
        ),
    ] = None
    noise: Annotated[
        NoiseDType | None,
        typer.Option(
            "--noise-dtype",
            rich_help_panel=SAMPLING,
            help="float32 is correct; bfloat16 reproduces the released sampler, whose low-precision noise cuts the"
            " tail: without top-k, at temperature 1 unless --temperature is given.  [default: the model's]",
        ),
    ] = None
    others: Set = None
    preview: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER", rich_help_panel=SAMPLING, help="Write the pictures as they stand, as step-001.png."
        ),
    ] = None
    preview_every: Annotated[
        int,
        typer.Option("--preview-every", min=1, metavar="K", rich_help_panel=SAMPLING, help="After every K-th step."),
    ] = 1

    def settings(self, defaults: ImageSettings) -> ImageSettings:
        """The model's settings with what these options change; see `image_settings`."""
        settings = image_settings(
            defaults,
            steps=self.steps,
            guidance=self.guidance,
            guidance_text=self.guidance_text,
            guidance_image=self.guidance_image,
            temperature=self.temperature,
            noise=self.noise,
        )
        return override(settings, self.others or ())


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """A request, and what its user said as it stands in the JSON answer."""

    request: PictureRequest
    said: Mapping[str, Any]


def make(how: Making, out: Path, *wanted: Wanted) -> None:
    """Run requests in one batch, write the pictures and print their paths, or the words that come with them.

    Whatever can be checked without the model is checked before it is loaded, and nothing is written before all
    pictures are made, previews excepted.

    Raises:
        RequestError: a file cannot be written, guidance is given for what the prompt does not have, or the model
            cannot serve a request.
    """
    copies = [each for each in wanted for _ in range(how.num_images)]
    paths = output_paths(out, len(copies))
    _check(how, wanted)
    model = how.open()
    requests = [
        replace(each.request, seed=how.seed + index, negative=how.negative) for index, each in enumerate(copies)
    ]
    started = time.monotonic()
    made = [_parts(result) for result in _watched(model, requests, how)]
    seconds = time.monotonic() - started
    facts: list[dict[str, Any]] = []
    for each, request, (picture, words), path in zip(copies, requests, made, paths, strict=True):
        write_picture(picture, path)
        answer = {} if words is None else {"answer": words}
        size = [picture.height, picture.width]
        facts.append({**each.said, **answer, "out": str(path), "seed": request.seed, "size": size})
        if not how.as_json:
            typer.echo(path if words is None else words)
    if how.as_json:
        whole = {**facts[0], "pictures": facts, "model": how.model, "seconds": round(seconds, 3)}
        typer.echo(json.dumps(whole, indent=2))


def _check(how: Making, wanted: Sequence[Wanted]) -> None:
    """Refuse, before a model is loaded, what no model could do."""
    from dimoo.core.requests import TaskRequest

    pictured = all(isinstance(each.request, TaskRequest) and each.request.images for each in wanted)
    for name, scale in (("--guidance-text", how.guidance_text), ("--guidance-image", how.guidance_image)):
        if scale is not None and not pictured:
            raise RequestError(f"{name} {scale:g} is for prompts with pictures, and this one has none; give --guidance")
    if how.preview is not None:
        check_folder(how.preview)


def _watched(model: Dimoo, requests: Sequence[PictureRequest], how: Making) -> list[Any]:
    """The results of requests, with a progress bar on stderr where that is a terminal, and previews where wanted."""
    from rich.console import Console
    from rich.progress import Progress

    states = model.stream(requests, image=how.settings(model.config.image))
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("denoising", total=None)
        for state in states:
            progress.update(task, completed=state.step, total=state.steps)
            if how.preview is not None and state.step % how.preview_every == 0:
                paths = output_paths(how.preview / f"step-{state.step:03}.png", len(requests))
                for look, path in zip(states.preview(), paths, strict=True):
                    write_picture(_parts(look)[0], path)
    return states.results()


def _parts(result: Any) -> tuple[Image, str | None]:
    """A result as a picture and the words that came with it, if any."""
    picture, words = result if isinstance(result, tuple) else (result, None)
    return picture, words
