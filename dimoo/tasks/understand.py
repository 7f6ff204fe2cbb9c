"""Image understanding: words about one or several pictures."""

from __future__ import annotations

from dimoo.core.errors import RequestError
from dimoo.core.requests import AskRequest, TaskRequest
from dimoo.tasks.compose import Settings
from dimoo.tasks.inputs import pictures, words
from dimoo.tasks.job import Job, Kit
from dimoo.tasks.table import run_entry


def ask(kit: Kit, request: AskRequest, settings: Settings) -> Job[str]:
    """The job of answering a question (or captioning: a caption is the answer to the request for one).

    Raises:
        RequestError: there is no image or no question, a size is off the grid, the question is too long, no token
            is planned for the answer, or a value is of a wrong type.
    """
    images, question = pictures(request.images), words(request.question, "question")
    if not images:
        raise RequestError("a question needs at least one image")
    if not question.strip():
        raise RequestError("the question is empty; say what you want to know")
    return run_entry(
        kit,
        TaskRequest(task="ask", words=question, images=images, tokens=request.tokens, seed=request.seed),
        settings,
    )
