"""Multiple choice: which of several one-token answers a model finds likeliest.

Released models are evaluated so: the answer is laid out as training answers are,

    <answer> ? </answer> pad ... </answer>

with a mask in the place of the choice and everything else given. One forward pass predicts it, and with l the logits
there, p(choice) = exp l[choice] / sum over the choices of exp l.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from PIL.Image import Image
from torch import Tensor

from dimoo.backbone.layout import PackedLayout
from dimoo.core.errors import RequestError
from dimoo.core.requests import AskRequest, ChatRequest
from dimoo.denoise import MaskPredictor
from dimoo.presets.config import ImageSettings, TextSettings
from dimoo.tasks.chat import as_messages, chat
from dimoo.tasks.compose import Settings
from dimoo.tasks.inputs import pictures, words
from dimoo.tasks.job import Job, Kit
from dimoo.tasks.understand import ask
from dimoo.tokenizers.document import GIVEN, Document, join
from dimoo.tokenizers.text import TextTokenizer


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What was chosen."""

    answer: str
    """The likeliest choice; of equals the first."""
    probabilities: dict[str, float]
    """Of each choice, in the order given; they sum to 1."""


@torch.no_grad()
def choose(
    network: MaskPredictor, kit: Kit, questions: Sequence[tuple[Image | Sequence[Image], str, Sequence[str]]]
) -> list[Choice]:
    """The answers to several (images, question, choices) in one forward pass, in order.

    Raises:
        RequestError: there is no question, a choice takes several tokens, two choices are the same, there are fewer
            than two, or a question cannot be served (see `ask` and `chat`).
    """
    if not questions:
        raise RequestError("there is no question; give at least one (images, question, choices)")
    candidates = [_tokens(kit.prompts.text, choices) for _, _, choices in questions]
    for images, asked, _ in questions:
        _document(kit.unencoded, images, asked)  # all are looked through before the first picture is encoded
    documents, places = zip(*(_document(kit, images, asked) for images, asked, _ in questions), strict=True)
    lengths, device = [len(document) for document in documents], network.device
    stream = torch.cat([document.ids for document in documents]).to(device)
    hidden = network(stream, PackedLayout.of(lengths, device))
    starts = torch.tensor([0, *lengths[:-1]]).cumsum(0)
    rows = hidden[(starts + torch.tensor(places)).to(device)]
    logits = network.head(rows, slice(*kit.prompts.vocabulary.columns("text"))).double().cpu()
    return [_decide(found, own) for found, own in zip(logits, candidates, strict=True)]


def _decide(logits: Tensor, candidates: dict[str, int]) -> Choice:
    """Softmax over the candidates' ids of logits [text ids]."""
    shares = logits[list(candidates.values())].softmax(0)
    return Choice(
        answer=list(candidates)[int(shares.argmax())],
        probabilities=dict(zip(candidates, shares.tolist(), strict=True)),
    )


def _document(kit: Kit, images: Image | Sequence[Image], question: str) -> tuple[Document, int]:
    """A question with the answer that has one mask, and where that stands."""
    job, end = _asked(kit, pictures(images), words(question, "question"))
    vocabulary, context, answer = kit.prompts.vocabulary, job.problem.branches["condition"], job.problem.answer
    first, *rest = (answer.group != GIVEN).nonzero().squeeze(1).tolist()
    ids = answer.ids.clone()
    ids[rest] = vocabulary.pad
    ids[rest[:1]] = end
    return join([context, Document.given(ids)]), len(context) + first


def _asked(kit: Kit, images: Sequence[Image], question: str) -> tuple[Job[str], int]:
    """The job of answering in words, and the id that ends its answer."""
    settings = Settings(image=ImageSettings(), text=TextSettings())
    if images:
        job = ask(kit, AskRequest(images=tuple(images), question=question), settings)
    else:
        job = chat(kit, ChatRequest(messages=as_messages(question)), settings)
        if kit.chat is not None:
            return job, next(iter(kit.chat.stops), kit.prompts.vocabulary.pad)
    return job, kit.prompts.vocabulary.special("answer_end")


def _tokens(text: TextTokenizer, choices: Sequence[str]) -> dict[str, int]:
    """The one id of each choice.

    Raises:
        RequestError: it is not one id, or not a different one for each.
    """
    if isinstance(choices, str) or not isinstance(choices, Sequence) or len(choices) < 2:
        raise RequestError(f'choices must be a list of at least two answers, as ["yes", "no"], not {choices!r:.60}')
    found: dict[int, str] = {}
    for choice in choices:
        ids = text.encode(text.defuse(words(choice, "choice")))
        if len(ids) != 1:
            spelled = ", ".join(repr(text.token(index)) for index in ids) or "none"
            raise RequestError(
                f"the choice {choice!r} takes {len(ids)} tokens ({spelled}), and one decides; name the choices by"
                " single words or letters, or compare longer answers by `nll`"
            )
        if ids[0] in found:
            raise RequestError(
                f"the choices {found[ids[0]]!r} and {choice!r} are the same token {text.token(ids[0])!r}; leave one"
                " out, or compare answers by `nll`"
            )
        found[ids[0]] = choice
    return {choice: index for index, choice in found.items()}
