"""Any request -> its job: the one place that knows every task."""

from __future__ import annotations

from typing import Any

from dimoo.core.errors import RequestError
from dimoo.core.requests import AskRequest, ChatRequest, GenerateRequest, InpaintRequest, Request
from dimoo.diffusion.canvas import Plan
from dimoo.presets.config import ImageSettings, TextSettings
from dimoo.tasks.chat import chat
from dimoo.tasks.generate import generate
from dimoo.tasks.inpaint import inpaint
from dimoo.tasks.job import Job, Kit
from dimoo.tasks.understand import ask


def job_of(
    kit: Kit, request: Request | Job[Any], *, image: ImageSettings | Plan, text: TextSettings | Plan
) -> Job[Any]:
    """The job of a request; a job is its own.

    Raises:
        RequestError: the request cannot be served, or is none.
    """
    match request:
        case Job():
            return request
        case GenerateRequest():
            return generate(kit, request, image)
        case InpaintRequest():
            return inpaint(kit, request, image)
        case AskRequest():
            return ask(kit, request, text)
        case ChatRequest():
            return chat(kit, request, text)
        case _:
            raise RequestError(
                "a request is a GenerateRequest, InpaintRequest, AskRequest, ChatRequest or Job, not"
                f" {type(request).__name__}"
            )
