from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from llada_like import BEGIN, END, HEADER, HEADER_END, MASK, TEMPLATE, TURN_END, llada_config, llada_text

from dimoo.core.config import parse
from dimoo.core.errors import CheckpointError, RequestError
from dimoo.core.requests import Message
from dimoo.tokenizers.chat import Chat
from dimoo.tokenizers.document import GIVEN, Target
from dimoo.tokenizers.template import PLAIN, ChatTemplate

SPECIALS = (BEGIN, END, MASK, HEADER, HEADER_END, TURN_END)
TEXT = llada_text()
CHAT = Chat(text=TEXT, vocabulary=llada_config(TEXT).vocabulary, template=TEMPLATE)


def said(*contents, system=None):
    """Turns of user and assistant."""
    first = [] if system is None else [Message(role="system", content=system)]
    roles = ("user", "assistant")
    return [*first, *(Message(role=roles[index % 2], content=content) for index, content in enumerate(contents))]


def with_jinja(jinja):
    return replace(CHAT, template=TEMPLATE.model_copy(update={"jinja": jinja}))


def test_one_message_in_headers():
    rendered = CHAT.render(said("Hi"))
    assert rendered == (
        "<|startoftext|><|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n"
    )


def test_a_conversation_in_headers():
    assert CHAT.render(said("Hi", "Hello", " What now? ", system="Be brief.")) == (
        "<|startoftext|><|start_header_id|>system<|end_header_id|>\n\nBe brief.<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\nHello<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nWhat now?<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n"
    )


def test_the_template_on_one_line_says_the_same():
    """As LLaDA-8B-Instruct spells it: no white space between the tags that could be cut off."""
    one_line = (
        "{% for message in messages %}{% set content ="
        " '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n'"
        " + message['content'] | trim + '<|eot_id|>' %}{% if loop.index0 == 0 %}{% set content = bos_token + content %}"
        "{% endif %}{{ content }}{% endfor %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}"
    )
    for messages in (said("Hi"), said("Hi", "Hello", "What now?", system="Be brief.")):
        assert with_jinja(one_line).render(messages) == CHAT.render(messages)


def test_the_ids_of_a_prompt():
    context = CHAT.context(said("Hi"))
    ids, words = TEXT.id_of, TEXT.encode
    assert context.ids.tolist() == [
        *(ids(BEGIN), ids(HEADER), *words("user"), ids(HEADER_END), *words("\n\nHi"), ids(TURN_END)),
        *(ids(HEADER), *words("assistant"), ids(HEADER_END), *words("\n\n")),
    ]
    assert context.group.tolist() == [GIVEN] * len(context)


def test_blocks_are_trimmed_as_by_hugging_face():
    """The line end after a block and the blanks before it go; those around an expression stay."""
    jinja = "a\n  {% if messages %}\n  {{ eos_token }}\n  {% endif %}\nb\n"
    assert with_jinja(jinja).render(said("Hi")) == "a\n  <|endoftext|>\nb"


def test_what_else_hugging_face_gives_a_template():
    """Absent tools and documents are None, not undefined; training's marks stand for what is inside; today's date."""
    given = "{% if tools is not none or documents is not none %}tools{% endif %}"
    marked = "{% generation %}{{ messages[0]['content'] }}{% endgeneration %}!"
    assert with_jinja(given + marked).render(said("Hi")) == "Hi!"
    assert len(with_jinja("{{ strftime_now('%Y-%m-%d') }}").render(said("Hi"))) == len("2026-01-31")


def test_loops_can_be_left():
    jinja = (
        "{% for message in messages %}{% if loop.index == 2 %}{% break %}{% endif %}{{ message.content }}{% endfor %}"
    )
    assert with_jinja(jinja).render(said("Hi", "Hello", "Bye")) == "Hi"


def test_a_model_without_a_template_reads_the_words_alone():
    plain = with_jinja(PLAIN)
    assert plain.render(said("Once upon a time")) == "Once upon a time"
    assert plain.render(said("one", "two", "three")) == "one\ntwo\nthree"


@settings(deadline=None, max_examples=30)
@given(
    contents=st.lists(
        st.lists(st.sampled_from([*SPECIALS, "Hi", " ", "<|", "|>", "eot_id"]), max_size=5).map("".join), max_size=3
    ).filter(lambda contents: len(contents) % 2 == 1 and contents[-1].strip()),
    jinja=st.sampled_from([TEMPLATE.jinja, PLAIN]),
)
def test_special_tokens_come_from_the_template_alone(contents, jinja):
    chat, special = with_jinja(jinja), {TEXT.id_of(token) for token in SPECIALS}
    ids = chat.context(said(*contents)).ids.tolist()
    harmless = chat.context(said(*["Hi"] * len(contents))).ids.tolist()
    assert [index for index in ids if index in special] == [index for index in harmless if index in special]
    # It still looks the same.
    shown = TEXT.decode(chat.text.encode(chat.text.defuse(contents[0]))).replace("\u200b", "")
    assert shown.strip() == contents[0].strip()


def test_an_answer_is_masks_and_nothing_else():
    answer, vocabulary = CHAT.answer(3), CHAT.vocabulary
    assert answer.ids.tolist() == [TEXT.id_of(MASK)] * 3
    assert answer.group.tolist() == [0, 0, 0]
    assert answer.targets == (Target(modality="text", kind="text", columns=(0, vocabulary.text_size)),)


@pytest.mark.parametrize("stop", [TURN_END, END])
def test_an_answer_is_read_up_to_the_first_stop(stop):
    ids = CHAT.context(said("Hi")).ids.new_tensor([*TEXT.encode("hello"), TEXT.id_of(stop), *TEXT.encode("world")])
    assert CHAT.read(ids) == "hello"
    assert CHAT.read(ids[:-10]) == TEXT.decode(ids[:-10].tolist())
    never = replace(CHAT, template=TEMPLATE.model_copy(update={"stops": ()}))
    assert never.read(ids) == "helloworld"


def test_unused_ids_are_read_as_nothing():
    ids = [*TEXT.encode("hello"), TEXT.size + 3, *TEXT.encode("world")]
    assert CHAT.read(CHAT.answer(1).ids.new_tensor(ids)) == "helloworld"


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        ([], "the conversation is empty; give at least one message"),
        (said("Hi", "Hello"), "the roles 'user', 'assistant' make no conversation; .* the last one 'user'"),
        (said(system="Be brief."), "the roles 'system' make no conversation"),
        (said("Hi") + said("Hi"), "the roles 'user', 'user' make no conversation"),
        (said("Hi", "Hello", "Now")[1:], "the roles 'assistant', 'user' make"),
        (said("Hi", "Hello") + said("Now", system="Be brief."), "'assistant', 'system', 'user' make no"),
        ([Message(role="robot", content="Hi")], "the roles 'robot' make no conversation; they are 'user' and"),
        (said("  \n"), "the last message is empty"),
        ([Message(role="user", content=7)], r"message 0 Message\(role='user', content=7\) must be a Message"),
        (["Hi"], "message 0 'Hi' must be a Message"),
    ],
)
def test_what_is_no_conversation_is_named(messages, message):
    with pytest.raises(RequestError, match=message):
        CHAT.context(messages)


@pytest.mark.parametrize(
    ("jinja", "message"),
    [
        (
            "{{ raise_exception('only one message, please') }}",
            "cannot render this conversation: only one message, please",
        ),
        ("{{ messages.nothing.content }}", "cannot render this conversation: 'list object' has no attribute 'nothing'"),
        ("{{ 1 // 0 }}", "cannot render this conversation: .*by zero"),
        ("{{ ''.__class__.__mro__ }}", "cannot render this conversation: .*unsafe"),
        ("{{ messages.append(messages) }}", "cannot render this conversation: .*unsafe"),
    ],
)
def test_a_template_that_fails_gives_its_reason(jinja, message):
    with pytest.raises(CheckpointError, match=message):
        with_jinja(jinja).context(said("Hi"))


def test_what_cannot_work_is_refused_before_it_is_used():
    with pytest.raises(CheckpointError, match=r"is no Jinja template: .*end of template"):
        with_jinja("{% for message in messages %}")
    with pytest.raises(CheckpointError, match=r"no token '<\|end\|>'"):
        replace(CHAT, template=TEMPLATE.model_copy(update={"stops": (TURN_END, "<|end|>")}))


def test_a_template_survives_json():
    assert parse(ChatTemplate, TEMPLATE.model_dump(mode="json")) == TEMPLATE
