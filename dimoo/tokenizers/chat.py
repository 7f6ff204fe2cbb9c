"""Conversations -> token ids and back: a checkpoint's own chat template, rendered as Hugging Face renders it.

    rendered template, all given   then   `length` masks; the answer is what stands before the first stop token

Nothing stands after the answer: unlike our own prompts, language models were trained to end an answer themselves.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import takewhile
from typing import NoReturn

from jinja2 import Template, TemplateError, nodes
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment
from torch import Tensor

from dimoo.core.errors import CheckpointError, RequestError
from dimoo.core.requests import Message
from dimoo.tokenizers.document import Document, Target
from dimoo.tokenizers.template import ChatTemplate
from dimoo.tokenizers.text import TextTokenizer
from dimoo.tokenizers.vocabulary import TEXT, Vocabulary

SYSTEM, USER, ASSISTANT = "system", "user", "assistant"


@dataclass(frozen=True, kw_only=True)
class Chat:
    """Builds the context and the answer of a conversation with one tokenizer, vocabulary and chat template.

    Raises:
        CheckpointError: the template is no Jinja template, or a stop token is no token of the tokenizer.
    """

    text: TextTokenizer
    vocabulary: Vocabulary
    template: ChatTemplate

    def __post_init__(self) -> None:
        _compile(self.template.jinja)
        _ = self.stops

    @property
    def stops(self) -> tuple[int, ...]:
        """The ids of the tokens that end an answer."""
        return tuple(self.text.id_of(token) for token in self.template.stops)

    def context(self, messages: Sequence[Message]) -> Document:
        """Ids of the rendered conversation, up to where the assistant's answer begins.

        Raises:
            RequestError: the messages are no conversation that the user spoke last in.
            CheckpointError: the template cannot render them.
        """
        return Document.given(self.text.encode(self.render(messages), framed=True))

    def answer(self, length: int) -> Document:
        """`length` masked targets and nothing else."""
        target = Target(modality=TEXT, kind="text", columns=self.vocabulary.columns(TEXT))
        return Document.target([self.vocabulary.mask] * length, target)

    def read(self, ids: Tensor) -> str:
        """The words of an answer's ids, int64 [n]: everything before its first stop token."""
        stops = self.stops
        return self.text.decode(list(takewhile(lambda token: token not in stops, ids.tolist())))

    def render(self, messages: Sequence[Message]) -> str:
        """The conversation as one string. Special tokens come from the template alone: what users wrote is defused.

        Raises:
            RequestError: the messages are no conversation that the user spoke last in.
            CheckpointError: the template cannot render them.
        """
        _check(messages)
        try:
            return _compile(self.template.jinja).render(
                messages=[{"role": entry.role, "content": self.text.defuse(entry.content)} for entry in messages],
                add_generation_prompt=True,
                tools=None,
                documents=None,
                bos_token=self.template.begin,
                eos_token=self.template.end,
            )
        except Exception as error:  # a template is a program: it fails in any way
            raise CheckpointError(f"the model's chat template cannot render this conversation: {error}") from error


def _compile(jinja: str) -> Template:
    # Sandboxed: a template comes with a download, and a plain environment would let it run any code.
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols", _Generation]
    )
    environment.globals |= {"raise_exception": _raise, "strftime_now": _now}
    try:
        return environment.from_string(jinja)
    except TemplateError as error:
        raise CheckpointError(f"the model's chat template is no Jinja template: {error}") from error


class _Generation(Extension):
    """`{% generation %}` marks what training would learn; for rendering it is what stands inside."""

    tags = {"generation"}  # noqa: RUF012 - declared so by jinja2

    def parse(self, parser: Parser) -> list[nodes.Node]:
        """The nodes inside."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _now(form: str) -> str:
    return datetime.now().strftime(form)


def _raise(message: str) -> NoReturn:
    raise TemplateError(message)


def _check(messages: Sequence[Message]) -> None:
    """[system] user (assistant user)*, each with words."""
    if not messages:
        raise RequestError("the conversation is empty; give at least one message of the user")
    for index, message in enumerate(messages):
        if not isinstance(message, Message) or not isinstance(message.content, str):
            raise RequestError(
                f'message {index} {message!r:.60} must be a Message(role="user", content="...") with words'
            )
    roles = [message.role for message in messages]
    turns = roles[1:] if roles[0] == SYSTEM else roles
    if turns != [(USER, ASSISTANT)[index % 2] for index in range(len(turns))] or len(turns) % 2 == 0:
        raise RequestError(
            f"the roles {', '.join(map(repr, roles))} make no conversation; they are {USER!r} and {ASSISTANT!r} in"
            f" turn, the last one {USER!r}, with or without {SYSTEM!r} before them"
        )
    if not messages[-1].content.strip():
        raise RequestError("the last message is empty; say what you want to know")
