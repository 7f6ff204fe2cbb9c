"""Image understanding: words about one or several pictures."""

from __future__ import annotations

from torch import Tensor

from dimoo.core.errors import RequestError
from dimoo.core.pictures import as_rgb
from dimoo.core.requests import AskRequest
from dimoo.diffusion.canvas import Plan
from dimoo.presets.config import TextSettings
from dimoo.tasks.inputs import pictures, whole, words
from dimoo.tasks.job import Job, Kit
from dimoo.tasks.plans import text_plan
from dimoo.tasks.problems import understanding
from dimoo.tokenizers.vocabulary import TEXT


def ask(kit: Kit, request: AskRequest, settings: TextSettings | Plan) -> Job[str]:
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
    tokens = kit.planned(request.tokens)
    grids = [kit.grid(image) for image in kit.fitted([as_rgb(image) for image in images])]

    def read(ids: Tensor) -> str:
        return kit.prompts.read_text(ids[1:])  # after the given <answer>

    return Job(
        problem=understanding(kit.prompts, question, grids, None, length=tokens),
        plans={TEXT: text_plan(settings, tokens=tokens, stops=[kit.prompts.vocabulary.special("answer_end")])},
        seed=whole(request.seed, "seed"),
        read=read,
    )
