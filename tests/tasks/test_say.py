"""How a task is said: words, an option and pictures into a message, and what a task refuses."""

from __future__ import annotations

import pytest

from dimoo.core.errors import RequestError
from dimoo.presets.tasks import STANDARD, TaskText
from dimoo.tasks.speech import entry_of, say, usual_tokens

TABLE = {
    "plain": TaskText(family="a"),
    "pair": TaskText(family="a", images=(2, 2), text="as the second"),
    "some": TaskText(family="a", images=(1, 3), text="see {words} !"),
    "chosen": TaskText(family="a", text="{option}: {words}", options={"canny": "edges", "none": ""}),
    "free": TaskText(family="a", text="{option}"),
    "braced": TaskText(family="a", text="{{words}} and {{option}}"),
}
PICTURES = (object(), object(), object(), object())


@pytest.mark.parametrize(
    ("task", "given", "message"),
    [
        ("plain", {"words": "a cat"}, "a cat"),
        ("plain", {"words": " a cat\n"}, " a cat\n"),  # as it was said
        ("plain", {"words": "{option} {0} }{"}, "{option} {0} }{"),
        ("plain", {}, ""),
        ("some", {"words": "it", "images": PICTURES[:2]}, "see it !"),
        ("some", {"images": PICTURES[:3]}, "see  !"),
        ("pair", {"images": PICTURES[:2]}, "as the second"),
        ("chosen", {"option": "canny", "words": "a cat"}, "edges: a cat"),
        ("chosen", {"option": "canny"}, "edges: "),
        ("chosen", {"option": "none", "words": "a cat"}, ": a cat"),
        ("free", {"option": "any side"}, "any side"),
        ("free", {"option": "{words}"}, "{words}"),
        ("braced", {}, "{words} and {option}"),
    ],
)
def test_a_message_is_the_entrys_text_and_then_the_pictures(task, given, message):
    assert say(TABLE, task, **given) == [message, *given.get("images", ())]


@pytest.mark.parametrize(
    ("task", "given", "message"),
    [
        ("sing", {}, "no task 'sing'; it has plain, pair, some, chosen, free, braced"),
        ("plain", {"images": PICTURES[:1]}, "the task 'plain' takes 0 pictures, not 1"),
        ("pair", {"images": PICTURES[:1]}, "the task 'pair' takes 2 pictures, not 1"),
        ("some", {"words": "it"}, "the task 'some' takes 1 to 3 pictures, not 0"),
        ("some", {"words": "it", "images": PICTURES}, "takes 1 to 3 pictures, not 4"),
        ("pair", {"words": "a cat", "images": PICTURES[:2]}, "'pair' takes no words, but got 'a cat'; leave them out"),
        ("free", {"words": "a cat", "option": "b"}, "'free' takes no words, but got 'a cat'"),
        ("braced", {"words": "a cat"}, "'braced' takes no words"),
        ("braced", {"option": "a cat"}, "'braced' takes no option"),
        ("plain", {"option": "canny"}, "'plain' takes no option, but got 'canny'; leave it out"),
        ("free", {}, "'free' needs an option that says what is wanted"),
        ("chosen", {"words": "a cat"}, "'chosen' has no option ''; choose from canny, none"),
        ("chosen", {"option": "edges"}, "'chosen' has no option 'edges'; choose from canny, none"),
    ],
)
def test_what_a_task_does_not_take_is_refused_by_name(task, given, message):
    with pytest.raises(RequestError, match=message):
        say(TABLE, task, **given)


@pytest.mark.parametrize(
    ("words", "images", "pictured", "tokens"),
    [
        ("what", 1, False, 8),
        ("what", 3, False, 8),
        ("describe the picture", 1, False, 24),
        ("describe the picture", 2, False, 24),
        ("", 1, False, 8),
        ("what", 0, False, 24),
        ("what", 0, True, 24),
        ("what", 2, True, 24),
    ],
)
def test_words_get_a_captions_room_where_they_describe_or_stand_alone(words, images, pictured, tokens):
    assert usual_tokens(words, images=images, pictured=pictured, caption=24, answer=8) == tokens


def test_the_standard_table_can_be_asked_for_all_that_calls_ask_for():
    assert say(STANDARD, "control", words="a cat", option="canny", images=PICTURES[:1]) == ["canny: a cat", PICTURES[0]]


def test_the_entry_is_the_tables():
    assert entry_of(STANDARD, "edit") is STANDARD["edit"]
    with pytest.raises(RequestError, match="no task 'sing'; it has generate, inpaint, edit"):
        entry_of(STANDARD, "sing")
