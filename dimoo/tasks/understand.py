"""Image understanding: words about one or several pictures."""

from __future__ import annotations

from torch import Tensor

from dimoo.core.errors import RequestError
from dimoo.core.requests import AskRequest
from dimoo.tasks.config import TextSettings
from dimoo.tasks.job import Job, Kit
from dimoo.tasks.plans import text_plan
from dimoo.tasks.problems import understanding
from dimoo.tokenizers.image.resize import as_rgb
from dimoo.tokenizers.prompts import Grid
from dimoo.tokenizers.vocabulary import TEXT


def ask(kit: Kit, request: AskRequest, settings: TextSettings) -> Job[str]:
    """The job of answering a question (or captioning: a caption is the answer to the request for one).

    Raises:
        RequestError: there is no image or no question, a size is off the grid, the question is too long, or no
            token is planned for the answer.
    """
    if not request.images:
        raise RequestError("a question needs at least one image")
    if not request.question.strip():
        raise RequestError("the question is empty; say what you want to know")
    if request.tokens < 1:
        raise RequestError(f"an answer of {request.tokens} tokens cannot hold anything; plan at least 1")
    modality = kit.image_tokenizer.modality
    grids = [Grid.of(modality, kit.encode(as_rgb(image))) for image in request.images]

    def read(ids: Tensor) -> str:
        return kit.prompts.read_text(ids[1:])  # after the given <answer>

    return Job(
        problem=understanding(kit.prompts, request.question, grids, None, length=request.tokens),
        plans={TEXT: text_plan(settings, kit.prompts.vocabulary, tokens=request.tokens)},
        seed=request.seed,
        read=read,
    )
