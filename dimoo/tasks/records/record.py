"""What a record holds, and how any request is written into one and read out again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from operator import index
from typing import Any, Literal, cast, get_args

import numpy as np
from PIL.Image import Image
from torch import Tensor

from dimoo.backbone.config import AttentionKind, QuantizeKind
from dimoo.core.config import StrictConfig, parse
from dimoo.core.errors import ConfigError, DataError
from dimoo.core.pictures import as_rgb
from dimoo.core.requests import Box, Masked, Message, PictureAnswer, Polygon, Request, TextAnswer
from dimoo.presets.config import ImageSettings, TextSettings
from dimoo.tasks.records.recorded import Choosing, Session, Step
from dimoo.tasks.records.stored import StoredPicture, restore

FORMAT: Literal["dimoo-record-1"] = "dimoo-record-1"
KINDS: Mapping[str, type] = {
    kind.__name__: kind
    for kind in (
        *get_args(Request),
        *(Box, Polygon, Message, Masked, PictureAnswer, TextAnswer),
        *(Choosing, Session, Step),
    )
}
"""What a record tells of, besides pictures and plain values."""


class Maker(StrictConfig):
    """The model that made it, and where it computed."""

    name: str
    """As its config says."""
    source: str | None
    """What `dimoo.load` takes: "mini", an absolute path, or owner/name@commit; null for a model that was not loaded."""
    fingerprint: str
    dtype: str | None
    """Of the backbone's weights; null where it has none that are known."""
    device: str
    attention: AttentionKind | None = None
    """What computed attention; null where that is not known."""
    quantize: QuantizeKind | None = None
    """How the weights of its blocks were quantised; null where they were not."""
    compile: bool = False
    """Whether its blocks were compiled, which rounds otherwise."""
    dimoo: str
    """Version."""
    torch: str
    """Version."""


class Result(StrictConfig):
    """What came out, so that it can be told whether it comes out again."""

    sha256: str
    """Of a picture's RGB bytes, row by row; of words in UTF-8."""
    size: tuple[int, int] | None = None
    """(height, width) of a picture; null for words."""
    part: int | None = None
    """Which part of an answer that has several; null where the answer is one."""


class Record(StrictConfig):
    """How a result was made: enough to make it again."""

    format: Literal["dimoo-record-1"] = FORMAT
    model: Maker
    request: dict[str, Any]
    """The request's fields, and its type as `kind`; see `request_of`."""
    image: ImageSettings
    """How pictures were sampled."""
    text: TextSettings
    """How words were."""
    result: Result | None = None
    """Null where the record was written before there was one."""


def parse_record(text: str) -> Record:
    """A record from its JSON, or from an object that holds it as `record` beside an `answer`.

    Raises:
        DataError: it is no JSON object, no record, one of another version, or damaged.
    """
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"it is not JSON ({error})") from error
    if isinstance(values, dict) and "record" in values:
        record, answer = values["record"], values.get("answer")
    else:
        record, answer = values, None
    version = record.get("format") if isinstance(record, dict) else None
    if version is None:
        raise DataError("it holds no record; results of your own plans and jobs have none")
    if version != FORMAT:
        raise DataError(f"its record is of the format {version!r}, and this dimoo reads {FORMAT!r}; update dimoo")
    try:
        found = parse(Record, record)
    except ConfigError as error:
        raise DataError(f"its record is damaged: {error}") from error
    if found.result is None and isinstance(answer, str):
        return found.model_copy(update={"result": result_of(answer)})
    return found


def result_of(made: Image | str, part: int | None = None) -> Result:
    """What is recorded of a result."""
    if isinstance(made, str):
        return Result(sha256=hashlib.sha256(made.encode()).hexdigest(), part=part)
    pixels = as_rgb(made)
    return Result(sha256=hashlib.sha256(pixels.tobytes()).hexdigest(), size=(pixels.height, pixels.width), part=part)


def request_of(record: Record) -> Request:
    """The request that a record tells of, the inverse of `record_of`: sequences become tuples, pictures are read.

    Raises:
        DataError: the record is damaged, or tells of a session or a choice, or a picture is not there or has other
            pixels than were recorded.
    """
    request = told_of(record)
    if isinstance(request, Session | Choosing):
        raise DataError(
            f"the record tells of a {type(request).__name__}, which no request is; run it again by"
            " dimoo.tasks.records.remake.remake(model, record)"
        )
    return request


def told_of(record: Record) -> Request | Session | Choosing:
    """What a record tells of: a request, a retouching session or a choice.

    Raises:
        DataError: the record is damaged, or a picture is not there or has other pixels than were recorded.
    """
    found = _decoded(record.request)
    if isinstance(found, (Session, Choosing, *get_args(Request))):
        return cast(Request | Session | Choosing, found)
    raise DataError(f"the record tells of {type(found).__name__}, not of a request; it is damaged")


def encoded(value: Any, picture: Callable[[Image], Any]) -> Any:
    """A request, or a part of one, as JSON values: dataclasses become objects with their `kind`, pictures what
    `picture` makes of them.

    Raises:
        TypeError: there is a value that no request can have.
    """
    match value:
        case np.generic() | np.ndarray() | Tensor():
            return value.tolist()
        case None | bool() | str() | float():
            return value
        case ImageSettings():
            return {"kind": "ImageSettings", **value.model_dump(mode="json")}
        case Image():
            return picture(value)
        case Mapping():
            return {name: encoded(entry, picture) for name, entry in value.items()}
        case Sequence():
            return [encoded(entry, picture) for entry in value]
        case _ if is_dataclass(value):
            values = {field.name: encoded(getattr(value, field.name), picture) for field in fields(value)}
            return {"kind": type(value).__name__, **values}
        case _:
            return index(value)


def _decoded(value: Any) -> Any:
    match value:
        case {"kind": "picture" | "ImageSettings" as kind}:
            values = {name: entry for name, entry in value.items() if name != "kind"}
            try:
                return restore(parse(StoredPicture, value)) if kind == "picture" else parse(ImageSettings, values)
            except ConfigError as error:
                raise DataError(f"the record is damaged: {error}") from error
        case {"kind": str(name)}:
            if name not in KINDS:
                raise DataError(f"the record tells of {name!r}, which this dimoo does not know; update dimoo")
            try:
                return KINDS[name](**{field: _decoded(entry) for field, entry in value.items() if field != "kind"})
            except TypeError as error:
                raise DataError(f"the record is damaged: {error}") from error
        case list():
            return tuple(map(_decoded, value))
        case _:
            return value
