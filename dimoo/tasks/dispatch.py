"""Any request -> its job: the one place that knows every kind of request."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dimoo.core.errors import RequestError
from dimoo.core.requests import (
    AskRequest,
    ChatRequest,
    GenerateRequest,
    InpaintRequest,
    InterleavedRequest,
    OutpaintRequest,
    Request,
    RetouchRequest,
    TaskRequest,
)
from dimoo.diffusion.canvas import Plan
from dimoo.presets.config import ImageSettings, TextSettings
from dimoo.tasks.chat import chat
from dimoo.tasks.compose import Settings
from dimoo.tasks.generate import generate
from dimoo.tasks.inpaint import inpaint, outpaint, retouch
from dimoo.tasks.interleave import interleave
from dimoo.tasks.job import Job, Kit
from dimoo.tasks.table import run_entry
from dimoo.tasks.understand import ask


def jobs_of(
    kit: Kit, requests: Sequence[Request | Job[Any]], *, image: ImageSettings | Plan, text: TextSettings | Plan
) -> list[Job[Any]]:
    """The jobs of requests, in order. All requests are gone through before the first picture is encoded.

    Raises:
        RequestError: a request cannot be served, or is none.
    """
    for request in requests:
        job_of(kit.unencoded, request, image=image, text=text)
    return [job_of(kit, request, image=image, text=text) for request in requests]


def job_of(
    kit: Kit, request: Request | Job[Any], *, image: ImageSettings | Plan, text: TextSettings | Plan
) -> Job[Any]:
    """The job of a request; a job is its own.

    Raises:
        RequestError: the request cannot be served, or is none.
    """
    settings = Settings(image=image, text=text)
    match request:
        case Job():
            return request
        case GenerateRequest():
            return generate(kit, request, settings)
        case TaskRequest():
            return run_entry(kit, request, settings)
        case InpaintRequest():
            return inpaint(kit, request, settings)
        case OutpaintRequest():
            return outpaint(kit, request, settings)
        case RetouchRequest():
            return retouch(kit, request, settings)
        case AskRequest():
            return ask(kit, request, settings)
        case ChatRequest():
            return chat(kit, request, settings)
        case InterleavedRequest():
            return interleave(kit, request, settings)
        case _:
            raise RequestError(
                "a request is one of dimoo's requests, as dimoo.GenerateRequest, or a Job, not"
                f" {type(request).__name__}"
            )
