"""From words and codes to problems: one function for every task, in training and in sampling."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from dimoo.core.requests import Message
from dimoo.diffusion.guidance import CONDITION, UNCONDITIONAL
from dimoo.presets.families import TEXT_TO_IMAGE, UNDERSTANDING
from dimoo.tasks.problem import NO_IMAGE, NO_TEXT, Problem
from dimoo.tokenizers.chat import Chat
from dimoo.tokenizers.prompts import Grid, Prompts, Said, Words

NEGATIVE_IN = (UNCONDITIONAL, NO_TEXT)
"""The branches that leave out the words, so that a negative prompt stands in their place."""
CAPTION_REQUEST = "describe the picture"
"""What the user says to get a caption."""


def problem(
    prompts: Prompts, family: str, said: Said, answer: Sequence[Grid | Words], *, negative: str | None = None
) -> Problem:
    """What is said, in front of the answer that it gets.

    Where a picture is made, there is a branch for each condition that can be left out (see `without`): guidance uses
    them in sampling, and training draws one of them where it drops conditions.

    Args:
        prompts: the prompt builder.
        family: the task family, by which the system prompt is chosen.
        said: the user's words and pictures, in order.
        answer: pictures and words; with codes and texts that are known in training, without where they are to be made.
        negative: stands in place of the words where they are left out, so that guidance leads away from it.
    """
    branches = {CONDITION: prompts.context(family, said)}
    if any(isinstance(part, Grid) for part in answer):
        branches |= {name: prompts.context(family, rest) for name, rest in without(said, negative).items()}
    return Problem(branches=branches, answer=prompts.answer(answer))


def without(said: Said, negative: str | None = None) -> Mapping[str, Said]:
    """What remains of what is said when a condition is left out, by branch.

    Of words alone: "unconditional". Of words and pictures also "no_text", "no_image", and with several pictures
    "no_image_1" ... for each.
    """
    numbers = [index for index, piece in enumerate(said) if isinstance(piece, Grid)]
    silent: list[str | Grid | None] = [negative, *(said[index] for index in numbers)]
    if not numbers:
        return {UNCONDITIONAL: silent}
    rest: dict[str, Said] = {
        UNCONDITIONAL: [negative],
        NO_TEXT: silent,
        NO_IMAGE: [piece for piece in said if not isinstance(piece, Grid)] or [None],
    }
    if len(numbers) > 1:
        for count, number in enumerate(numbers, 1):
            rest[f"{NO_IMAGE}_{count}"] = [piece for index, piece in enumerate(said) if index != number]
    return rest


def text_to_image(prompts: Prompts, prompt: str, image: Grid) -> Problem:
    """An image from words; also inpainting, where some of the image's codes are known (SPEC sections 2 and 4).

    Args:
        prompts: the prompt builder.
        prompt: the description.
        image: the answer.
    """
    return problem(prompts, TEXT_TO_IMAGE, [prompt], [image])


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
    return problem(prompts, UNDERSTANDING, [question, *images], [Words(text=answer, length=length)])


def conversation(chat: Chat, messages: Sequence[Message], *, length: int) -> Problem:
    """Words from words: what the assistant says to the last message.

    Args:
        chat: the builder of conversations.
        messages: the turns so far.
        length: tokens planned for the answer and its end.
    """
    return Problem(branches={CONDITION: chat.context(messages)}, answer=chat.answer(length))
