"""Every picture says how it was made: the model, the request, the settings, and what came out.

A result carries its `Origin` in `image.info["dimoo"]`, `save_picture` writes it into the file, `read_record` reads it,
and `request_of` gives the request, which makes the same picture again:

    record = read_record("G.png")
    again = model.run([request_of(record)], image=record.image, text=record.text)[0]
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from PIL import Image
from torch import nn

from dimoo.core.requests import Request
from dimoo.diffusion.canvas import Plan
from dimoo.presets.config import ImageSettings, TextSettings
from dimoo.tasks.job import Job
from dimoo.tasks.records import Maker, Record, Result, encoded, result_of
from dimoo.tasks.stored import plain, store
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
        request = encoded(self.request, lambda image: store(image, embed=embed).model_dump(exclude_none=True))
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


def origins(
    model: Dimoo, requests: Sequence[Request | Job[Any]], image: ImageSettings | Plan, text: TextSettings | Plan
) -> list[Origin | None]:
    """The origin of each request's result; None for own jobs and under ready plans, which no record can describe."""
    own = all(isinstance(request, Job) for request in requests)
    if own or not isinstance(image, ImageSettings) or not isinstance(text, TextSettings):
        return [None] * len(requests)
    maker = _maker(model)
    return [
        None
        if isinstance(request, Job)
        else Origin(model=maker, request=encoded(request, plain), image=image, text=text)
        for request in requests
    ]


def traced(job: Job[ResultT], origin: Origin | None) -> Job[ResultT]:
    """The job, whose result carries its origin if there is one; previews never do."""
    return job if origin is None else replace(job, read=lambda ids: _stamped(job.read(ids), origin))


def record_of(
    model: Dimoo,
    request: Request | Job[Any],
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
    request: Request,
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


def _origin(
    model: Dimoo,
    request: Request | Job[Any],
    image: ImageSettings | Plan | None,
    text: TextSettings | Plan | None,
) -> Origin | None:
    settings = model.config.image if image is None else image, model.config.text if text is None else text
    return origins(model, [request], *settings)[0]


def _maker(model: Dimoo) -> Maker:
    backbone = model.backbone
    weight = next(backbone.parameters(), None) if isinstance(backbone, nn.Module) else None
    return Maker(
        name=model.config.name,
        source=model.source,
        fingerprint=model.fingerprint,
        dtype=None if weight is None else str(weight.dtype).removeprefix("torch."),
        device=backbone.device.type,
        dimoo=__version__,
        torch=str(torch.__version__),
    )


def _stamped(result: ResultT, origin: Origin) -> ResultT:
    parts = enumerate(result) if isinstance(result, tuple) else [(None, result)]
    for index, made in parts:
        if isinstance(made, Image.Image):
            made.info[KEY] = replace(origin, result=result_of(made, index))
    return result
