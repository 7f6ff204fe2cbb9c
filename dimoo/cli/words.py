"""ask, caption, chat: words from pictures and words."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dimoo.cli.files import read_picture
from dimoo.cli.options import ModelOptions, Set
from dimoo.cli.pictures import Picture
from dimoo.core.config import override

if TYPE_CHECKING:
    from dimoo.core.requests import AskRequest, ChatRequest
    from dimoo.tasks.model import Dimoo
    from dimoo.tasks.records.recorded import Choosing


@dataclass(frozen=True, kw_only=True)
class Writing(ModelOptions):
    """How words are made, and by which model."""

    seed: Annotated[int, typer.Option(min=0, metavar="N", help="The same seed gives the same result.")] = 0
    as_json: Annotated[
        bool,
        typer.Option(
            "--json", help="Print one JSON object: answer, prompt, seed, model, seconds of work, record (see rerun)."
        ),
    ] = False
    others: Set = None

    def open(self) -> Dimoo:
        """Load it, with the settings that these options change."""
        model = super().open()
        return model.with_settings(text=override(model.config.text, self.others or ()))


Tokens = Annotated[
    int | None, typer.Option(min=1, metavar="N", help="Tokens planned for the answer.  [default: the model's]")
]


def parse_choices(text: str) -> tuple[str, ...]:
    """`yes,no` -> the choices.

    Raises:
        typer.BadParameter: they are fewer than two, or one is empty or stands twice.
    """
    choices = tuple(choice.strip() for choice in text.split(","))
    if len(choices) < 2 or not all(choices) or len(set(choices)) < len(choices):
        raise typer.BadParameter(f"{text!r} is no choice; write different answers with commas between, as yes,no")
    return choices


def ask(
    pictures: Annotated[list[Path], typer.Argument(metavar="PICTURE", help="A picture file; may be several.")],
    question: Annotated[str, typer.Argument(metavar="QUESTION", help="What you want to know of them.")],
    how: Writing,
    choices: Annotated[
        str | None,
        typer.Option(
            metavar='"A,B"',
            help="Answer by one of these words, the likeliest; with --json also `probabilities`.",
        ),
    ] = None,
    tokens: Tokens = None,
) -> None:
    """Answer a question about one or several pictures.

    Prints the answer and nothing else.
    """
    from dimoo.core.requests import AskRequest
    from dimoo.tasks.records.recorded import Choosing

    if choices is not None and tokens is not None:
        raise typer.BadParameter("--tokens is for free answers; leave it out where --choices are given")
    offered = () if choices is None else parse_choices(choices)
    images = tuple(map(read_picture, pictures))

    def choose(model: Dimoo) -> dict[str, Any]:
        chosen = model.choose(images, question, offered)
        asked = Choosing(images=images, question=question, choices=offered)
        return {"answer": chosen.answer, "probabilities": chosen.probabilities, **_recorded(model, asked, how)}

    def answer(model: Dimoo) -> dict[str, Any]:
        return _answer(model, AskRequest(images=images, question=question, tokens=tokens, seed=how.seed), how)

    _tell(how, question, choose if offered else answer)


def caption(picture: Picture, how: Writing) -> None:
    """Describe a picture.

    Prints the description and nothing else.
    """
    from dimoo.core.requests import AskRequest
    from dimoo.tasks.problems import CAPTION_REQUEST

    images = (read_picture(picture),)

    def answer(model: Dimoo) -> dict[str, Any]:
        return _answer(model, AskRequest(images=images, question=CAPTION_REQUEST, seed=how.seed), how)

    _tell(how, CAPTION_REQUEST, answer)


def chat(
    text: Annotated[str, typer.Argument(metavar="TEXT", help="What you say.")],
    how: Writing,
    tokens: Tokens = None,
) -> None:
    """Answer a message in words.

    By the model's chat template where it has one, as LLaDA. Prints the answer and nothing else.
    """
    from dimoo.core.requests import ChatRequest, Message

    request = ChatRequest(messages=(Message(role="user", content=text),), tokens=tokens, seed=how.seed)
    _tell(how, text, lambda model: _answer(model, request, how))


def _answer(model: Dimoo, request: AskRequest | ChatRequest, how: Writing) -> dict[str, Any]:
    """The answer to a request."""
    (answer,) = model.run([request])
    return {"answer": answer, **_recorded(model, request, how)}


def _recorded(model: Dimoo, request: AskRequest | ChatRequest | Choosing, how: Writing) -> dict[str, Any]:
    """For JSON how an answer was made, so that `rerun` can make it again."""
    from dimoo.tasks.records.provenance import record_json

    return {"record": record_json(model, request)} if how.as_json else {}


def _tell(how: Writing, prompt: str, answer: Callable[[Dimoo], dict[str, Any]]) -> None:
    """Load the model, and print its answer, or all there is to say of it as JSON."""
    model = how.open()
    started = time.monotonic()
    found = answer(model)
    seconds = round(time.monotonic() - started, 3)
    said = {"prompt": prompt, "seed": how.seed, "model": how.model, "seconds": seconds}
    typer.echo(json.dumps({"answer": found["answer"], **said, **found}, indent=2) if how.as_json else found["answer"])
