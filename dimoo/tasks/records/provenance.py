"""Every picture says how it was made: the model, the request, the settings, and what came out.

A result carries its `Origin` in `image.info["dimoo"]`, `save_picture` writes it into the file, `read_record` reads it,
and `request_of` gives the request, which makes the same picture again:

    record = read_record("G.png")
    again = model.run([request_of(record)], image=record.image, text=record.text)[0]

`remake(model, record)` (in `remake.py`) does so for records of every kind, of retouching sessions and choices too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar, get_args

import torch
from PIL import Image
from torch import nn

from dimoo.backbone.attention import AutoAttention
from dimoo.backbone.attention.choose import fastest
from dimoo.backbone.build import build_attention
from dimoo.backbone.compiled import is_compiled
from dimoo.backbone.config import AttentionKind
from dimoo.backbone.model import Backbone
from dimoo.backbone.quantized import quantization
from dimoo.core.requests import Request
from dimoo.denoise import MaskPredictor
from dimoo.diffusion.canvas import Plan
from dimoo.presets.config import ImageSettings, TextSettings
from dimoo.tasks.job import Job
from dimoo.tasks.records.record import Maker, Record, Result, encoded, result_of
from dimoo.tasks.records.recorded import Choosing, Session
from dimoo.tasks.records.stored import plain, store
from dimoo.version import __version__

if TYPE_CHECKING:
    from dimoo.tasks.model import Dimoo

KEY = "dimoo"
"""Of the record in `image.info`, and of the text chunk in a PNG file."""
ResultT = TypeVar("ResultT")


@dataclass(frozen=True, kw_only=True, eq=False)
class Origin:
    """How a result was made, in memory: a record whose pictures are not written out yet, which is what costs."""

    model: Maker
    request: dict[str, Any]
    """As in a record, with Pillow images in it; they are copies, so that it stays true."""
    image: ImageSettings
    text: TextSettings
    result: Result | None = None

    def record(self, *, embed: bool = True) -> Record:
        """The record; without `embed` it names the files of pictures that came from files, and keeps the others."""
        request = encoded(
            self.request, lambda image: store(image, embed=embed).model_dump(mode="json", exclude_none=True)
        )
        return Record(model=self.model, request=request, image=self.image, text=self.text, result=self.result)

    def json(self) -> str:
        """The record as JSON."""
        return self.record().model_dump_json()

    def __eq__(self, other: object) -> bool:
        """Always, so that pictures with the same pixels are equal however made: Pillow compares `info` as well."""
        return isinstance(other, Origin)

    def __hash__(self) -> int:
        """One for all, as they are equal."""
        return hash(Origin)


def traced(
    model: Dimoo,
    requests: Sequence[Request | Job[Any]],
    jobs: Sequence[Job[Any]],
    image: ImageSettings | Plan,
    text: TextSettings | Plan,
) -> list[Job[Any]]:
    """The jobs of requests, whose pictures carry their origin; previews never do.

    Own jobs stay as they are, and all do under ready plans: no record can describe them. What model it is, for which
    its weights are read, is found when the first picture is done, so answers in words cost nothing.
    """
    if not isinstance(image, ImageSettings) or not isinstance(text, TextSettings):
        return list(jobs)
    maker = cache(lambda: maker_of(model))

    def told(request: Request | Job[Any], job: Job[Any]) -> Job[Any]:
        if isinstance(request, Job) or all(target.modality == "text" for target in job.problem.answer.targets):
            return job
        values = encoded(request, plain)  # now: what the user does to the pictures afterwards is not what was asked
        return replace(job, read=lambda ids: _stamped(job.read(ids), maker, values, image, text))

    return list(map(told, requests, jobs))


def stamp(model: Dimoo, made: Image.Image, session: Session) -> None:
    """Let the picture that a session ends with carry its origin, unless one of the steps took a ready plan."""
    if all(isinstance(step.settings, ImageSettings) for step in session.steps):
        _stamped(made, lambda: maker_of(model), encoded(session, plain), model.config.image, model.config.text)


def record_of(
    model: Dimoo,
    request: Request | Choosing | Session | Job[Any],
    image: ImageSettings | Plan | None = None,
    text: TextSettings | Plan | None = None,
) -> Record | None:
    """The record of a request that is yet to run; None for an own job and under a ready plan.

    Args:
        model: what serves it.
        request: the request.
        image: how pictures are sampled; the model's own settings by default.
        text: the same for words.
    """
    origin = _origin(model, request, image, text)
    return None if origin is None else origin.record()


def record_json(
    model: Dimoo,
    request: Request | Choosing,
    image: ImageSettings | Plan | None = None,
    text: TextSettings | Plan | None = None,
    *,
    embed: bool = False,
) -> dict[str, Any] | None:
    """The same as plain JSON values, to be printed as `record` beside an `answer`.

    Without `embed` pictures are named by their files (`image.filename`, or `image.info["path"]`) where these still hold
    them.
    """
    origin = _origin(model, request, image, text)
    return None if origin is None else origin.record(embed=embed).model_dump(mode="json")


def maker_of(model: Dimoo) -> Maker:
    """The model as records name it; its weights are read for the fingerprint."""
    backbone = model.backbone
    weight = next(backbone.parameters(), None) if isinstance(backbone, nn.Module) else None
    return Maker(
        name=model.config.name,
        source=model.source,
        fingerprint=model.fingerprint,
        dtype=None if weight is None else str(weight.dtype).removeprefix("torch."),
        device=backbone.device.type,
        attention=_attention(backbone),
        quantize=quantization(backbone) if isinstance(backbone, nn.Module) else None,
        compile=isinstance(backbone, Backbone) and is_compiled(backbone),
        dimoo=__version__,
        torch=str(torch.__version__),
    )


def _attention(backbone: MaskPredictor) -> AttentionKind | None:
    """What computes attention, "auto" being what it chooses here; None where that is not ours."""
    if not isinstance(backbone, Backbone) or not len(backbone.blocks):
        return None
    backend = backbone.blocks[0].attention.backend  # type: ignore[union-attr]
    if isinstance(backend, AutoAttention):
        backend = fastest(backbone.device, backbone.embedding.weight.dtype)
    return next((kind for kind in get_args(AttentionKind) if type(build_attention(kind)) is type(backend)), None)


def _origin(
    model: Dimoo,
    request: Request | Choosing | Session | Job[Any],
    image: ImageSettings | Plan | None,
    text: TextSettings | Plan | None,
) -> Origin | None:
    picture, words = model.config.image if image is None else image, model.config.text if text is None else text
    if isinstance(request, Job) or not isinstance(picture, ImageSettings) or not isinstance(words, TextSettings):
        return None
    return Origin(model=maker_of(model), request=encoded(request, plain), image=picture, text=words)


def _stamped(
    result: ResultT, maker: Callable[[], Maker], request: dict[str, Any], image: ImageSettings, text: TextSettings
) -> ResultT:
    parts = enumerate(result) if isinstance(result, tuple) else [(None, result)]
    for index, made in parts:
        if isinstance(made, Image.Image):
            came = result_of(made, index)
            made.info[KEY] = Origin(model=maker(), request=request, image=image, text=text, result=came)
    return result
