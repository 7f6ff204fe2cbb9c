"""generate, inpaint, ask, caption: what a model does."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dimoo.cli.files import output_paths, read_mask, read_picture, write_picture
from dimoo.cli.options import (
    Device,
    DType,
    InDType,
    Model,
    OnDevice,
    Seed,
    Size,
    WithAttention,
    open_model,
    parse_size,
)
from dimoo.core.errors import ConfigError

if TYPE_CHECKING:
    from PIL.Image import Image

    from dimoo.core.requests import Request
    from dimoo.presets.config import ImageSettings
    from dimoo.tasks.model import Dimoo

Picture = Annotated[Path, typer.Argument(metavar="PICTURE", help="A picture file.")]
Out = Annotated[Path, typer.Option("--out", metavar="FILE", help="Where the picture goes, as F.png.")]
Steps = Annotated[int | None, typer.Option(min=1, help="Denoising steps.  [default: the model's]")]
Guidance = Annotated[
    float | None, typer.Option(min=0, help="How strongly the prompt counts; 0: once.  [default: the model's]")
]
Temperature = Annotated[
    float | None, typer.Option(min=0, help="Of the drawn tokens; 0: the most likely.  [default: the model's]")
]


class NoiseDType(str, Enum):
    """Precision of the noise that sampling draws."""

    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"


Noise = Annotated[
    NoiseDType | None,
    typer.Option(
        "--noise-dtype",
        help="float32 is correct; bfloat16 reproduces the released sampler, whose low-precision noise cuts the tail:"
        " without top-k, at temperature 1 unless --temperature is given.  [default: the model's]",
    ),
]


def generate(
    prompts: Annotated[list[str], typer.Argument(metavar="PROMPT", help="What to draw; several: a batch.")],
    out: Out,
    size: Annotated[
        Size | None,
        typer.Option(parser=parse_size, metavar="HEIGHTxWIDTH", help="In pixels.  [default: the model's]"),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Picture i of a batch gets seed + i.")] = 0,
    model: Model = "mini",
    steps: Steps = None,
    guidance: Guidance = None,
    temperature: Temperature = None,
    noise: Noise = None,
    device: OnDevice = Device.AUTO,
    dtype: InDType = DType.FLOAT32,
    attention: WithAttention = None,
) -> None:
    """Draw pictures from words.

    Prints the path of each picture; several prompts write F-0.png, F-1.png ...
    """
    from dimoo.core.requests import GenerateRequest

    paths = output_paths(out, len(prompts))
    dimoo = open_model(model, device, dtype, attention)
    settings = image_settings(dimoo.config.image, steps=steps, guidance=guidance, temperature=temperature, noise=noise)
    height, width = (None, None) if size is None else (size.height, size.width)
    requests = [
        GenerateRequest(prompt=prompt, height=height, width=width, seed=seed + index)
        for index, prompt in enumerate(prompts)
    ]
    made = watched(dimoo, requests, settings)
    for picture, path in zip(made, paths, strict=True):
        write_picture(picture, path)
        typer.echo(path)


def inpaint(
    picture: Picture,
    mask: Annotated[Path, typer.Option(metavar="MASK", help="As large as the picture; white is made anew.")],
    prompt: Annotated[str, typer.Option(help="Describes the whole picture as it should be.")],
    out: Out,
    seed: Seed = 0,
    model: Model = "mini",
    steps: Steps = None,
    guidance: Guidance = None,
    temperature: Temperature = None,
    noise: Noise = None,
    device: OnDevice = Device.AUTO,
    dtype: InDType = DType.FLOAT32,
    attention: WithAttention = None,
) -> None:
    """Make a masked region of a picture anew.

    Every pixel outside the mask stays as it was. Prints the path of the new picture.
    """
    from dimoo.core.requests import InpaintRequest

    (path,) = output_paths(out, 1)
    before, region = read_picture(picture), read_mask(mask)
    dimoo = open_model(model, device, dtype, attention)
    settings = image_settings(dimoo.config.image, steps=steps, guidance=guidance, temperature=temperature, noise=noise)
    request = InpaintRequest(image=before, mask=region, prompt=prompt, seed=seed)
    write_picture(watched(dimoo, [request], settings)[0], path)
    typer.echo(path)


def ask(
    picture: Picture,
    question: Annotated[str, typer.Argument(metavar="QUESTION")],
    seed: Seed = 0,
    model: Model = "mini",
    device: OnDevice = Device.AUTO,
    dtype: InDType = DType.FLOAT32,
    attention: WithAttention = None,
) -> None:
    """Answer a question about a picture.

    Prints the answer and nothing else.
    """
    seen = read_picture(picture)
    typer.echo(open_model(model, device, dtype, attention).ask(seen, question, seed=seed))


def caption(
    picture: Picture,
    seed: Seed = 0,
    model: Model = "mini",
    device: OnDevice = Device.AUTO,
    dtype: InDType = DType.FLOAT32,
    attention: WithAttention = None,
) -> None:
    """Describe a picture.

    Prints the description and nothing else.
    """
    seen = read_picture(picture)
    typer.echo(open_model(model, device, dtype, attention).caption(seen, seed=seed))


def watched(model: Dimoo, requests: Sequence[Request], settings: ImageSettings) -> list[Image]:
    """Run requests with a progress bar on stderr, where that is a terminal."""
    from rich.console import Console
    from rich.progress import Progress

    states = model.stream(requests, image=settings)
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("denoising", total=None)
        for state in states:
            progress.update(task, completed=state.step, total=state.steps)
    return states.results()


def image_settings(
    defaults: ImageSettings,
    *,
    steps: int | None = None,
    guidance: float | None = None,
    temperature: float | None = None,
    noise: NoiseDType | None = None,
) -> ImageSettings:
    """The model's settings with those changed that are given.

    Temperature 0 is the greedy draw. The noise is that of the draw and of the confidence, where they have any; with
    bfloat16 the draw is the released one: no top-k, and temperature 1 unless one is given.

    Raises:
        ConfigError: a value is out of range, or a noise is given where none is drawn.
    """
    from dimoo.core.config import override
    from dimoo.diffusion.config import CategoricalConfig, GreedyConfig

    changes = {"steps": steps, "guidance": guidance}
    assignments = [f"{name}={value}" for name, value in changes.items() if value is not None]
    if temperature == 0:
        assignments.append(f"draw={GreedyConfig().model_dump_json()}")
    elif temperature is not None and isinstance(defaults.draw, CategoricalConfig):
        assignments.append(f"draw.temperature={temperature}")
    elif temperature is not None:
        assignments.append(f"draw={CategoricalConfig(temperature=temperature).model_dump_json()}")
    settings = override(defaults, assignments)
    if noise is NoiseDType.BFLOAT16 and isinstance(settings.draw, CategoricalConfig):
        # What the model's own draw is was tuned for correct noise; here the noise itself cuts the tail.
        released = ["draw.top_k=null", *(["draw.temperature=1.0"] if temperature is None else [])]
        settings = override(settings, released)
    if noise is None:
        return settings
    parts = {"draw": settings.draw, "confidence": settings.confidence}
    noisy = [name for name, part in parts.items() if "noise" in type(part).model_fields]
    if not noisy:
        raise ConfigError(
            f"a {settings.draw.kind!r} draw and {settings.confidence.kind!r} confidence draw no noise; leave out"
            " --noise-dtype, or give a --temperature above 0"
        )
    return override(settings, [f"{name}.noise={noise.value}" for name in noisy])
