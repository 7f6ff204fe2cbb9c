"""From words and codes to problems: one function per task family. Families differ in nothing else."""

from __future__ import annotations

from collections.abc import Sequence

from dimoo.core.requests import Message
from dimoo.presets.families import TEXT_TO_IMAGE, UNDERSTANDING
from dimoo.tasks.problem import CONDITION, Problem
from dimoo.tokenizers.chat import Chat
from dimoo.tokenizers.prompts import Grid, Prompts

UNCONDITIONAL = "unconditional"
CAPTION_REQUEST = "describe the picture"
"""What the user says to get a caption."""


def text_to_image(prompts: Prompts, prompt: str, image: Grid) -> Problem:
    """An image from words; also inpainting, where some of the image's codes are given (SPEC sections 2 and 4).

    Args:
        prompts: the prompt builder.
        prompt: the description.
        image: the answer; codes None when all of it is to be made.
    """
    return Problem(
        branches={
            CONDITION: prompts.context(TEXT_TO_IMAGE, prompt),
            UNCONDITIONAL: prompts.context(TEXT_TO_IMAGE, None),
        },
        answer=prompts.grid_answer(image),
    )


def understanding(
    prompts: Prompts, question: str, images: Sequence[Grid], answer: str | None, *, length: int
) -> Problem:
    """Words from images: a question and its answer, or a request for a caption.

    Args:
        prompts: the prompt builder.
        question: what is asked.
        images: what it is asked about.
        answer: the known answer in training, None when it is to be made.
        length: tokens planned for the answer and its end.
    """
    return Problem(
        branches={CONDITION: prompts.context(UNDERSTANDING, question, images)},
        answer=prompts.text_answer(answer, length),
    )


def conversation(chat: Chat, messages: Sequence[Message], *, length: int) -> Problem:
    """Words from words: what the assistant says to the last message.

    Args:
        chat: the builder of conversations.
        messages: the turns so far.
        length: tokens planned for the answer and its end.
    """
    return Problem(branches={CONDITION: chat.context(messages)}, answer=chat.answer(length))
