"""Text chat: the answer to a conversation, by the model's own chat template (LLaDA-8B) or as a task of its table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from dimoo.core.errors import RequestError
from dimoo.core.requests import ChatRequest, Message, TaskRequest
from dimoo.tasks.compose import Settings
from dimoo.tasks.inputs import whole
from dimoo.tasks.job import Job, Kit
from dimoo.tasks.plans import text_plan
from dimoo.tasks.problems import conversation
from dimoo.tasks.table import run_entry
from dimoo.tokenizers.vocabulary import TEXT


def chat(kit: Kit, request: ChatRequest, settings: Settings) -> Job[str]:
    """The job of answering the last message of a conversation.

    A model without a chat template but with the task "chat" in its table answers a single message.

    Raises:
        RequestError: the model cannot chat, the messages are no conversation that the user spoke last in,
            no token is planned for the answer, both together are longer than the model takes, or a value is of a wrong
            type.
        CheckpointError: the template cannot render the conversation.
    """
    _check(request.messages)
    if kit.chat is None:
        return _single(kit, request, settings)
    tokens = kit.planned(request.tokens)
    problem = conversation(kit.chat, request.messages, length=tokens)
    length, limit = len(problem.document()), kit.chat.template.max_tokens
    if length > limit:
        raise RequestError(
            f"the conversation takes {length - tokens} tokens and its answer {tokens}, together more than the {limit}"
            " that this model takes; leave out old messages or plan fewer tokens"
        )
    return Job(
        problem=problem,
        plans={TEXT: text_plan(settings.text, tokens=tokens, stops=kit.chat.stops)},
        seed=whole(request.seed, "seed"),
        read=kit.chat.read,
        preview=kit.chat.read,  # masks are no words
        cache=settings.cache(pictures=False, words=True),
    )


def _single(kit: Kit, request: ChatRequest, settings: Settings) -> Job[str]:
    if "chat" not in kit.tasks or kit.tasks["chat"].family not in kit.prompts.template.systems:
        raise RequestError(
            "this model has no chat template, so it cannot chat; load one that has, as LLaDA-8B-Instruct, or ask this"
            " one about a picture"
        )
    if len(request.messages) != 1 or request.messages[0].role != "user":
        raise RequestError(
            f"this model has no chat template, so it takes one message of the user, not {len(request.messages)} of"
            f" {', '.join(str(message.role) for message in request.messages)}"
        )
    words = request.messages[0].content
    return run_entry(kit, TaskRequest(task="chat", words=words, tokens=request.tokens, seed=request.seed), settings)


def _check(messages: object) -> None:
    if not isinstance(messages, Sequence) or isinstance(messages, str):
        raise RequestError(
            f"messages must be Message objects in a tuple, not {type(messages).__name__} {messages!r:.60}"
        )
    for message in messages:
        if not isinstance(message, Message):
            raise RequestError(f"the message {message!r:.60} must be a Message, not {type(message).__name__}")


def as_messages(messages: str | Sequence[Message | Mapping[str, str]]) -> tuple[Message, ...]:
    """A conversation as users write it: one string, messages, or mappings with `role` and `content`.

    Raises:
        RequestError: it is nothing of these, or a mapping has other keys.
    """
    if isinstance(messages, str):
        return (Message(role="user", content=messages),)
    if not isinstance(messages, Sequence):
        raise RequestError(f"messages must be a string or a list of messages, not {type(messages).__name__}")
    return tuple(_message(entry) for entry in messages)


def _message(entry: object) -> Message:
    if isinstance(entry, Message):
        return entry
    if not isinstance(entry, Mapping) or set(entry) != {"role", "content"}:
        raise RequestError(
            f'the message {entry!r:.60} must be a Message or {{"role": "user", "content": "..."}} with no other keys'
        )
    return Message(role=entry["role"], content=entry["content"])
