"""Tasks whose answer is words: comparing two pictures, chat."""

from __future__ import annotations

from dataclasses import replace

from dimoo.data.example import TaskExample
from dimoo.data.world.atlas import lexicon
from dimoo.data.world.dice import below
from dimoo.data.world.draws import TRIES, Draw, TaskCase
from dimoo.data.world.language import describe
from dimoo.data.world.questions import QA, Kind, possible
from dimoo.data.world.render import render
from dimoo.data.world.scene import Scene, region

ORDINALS = ("first", "second")


def compare(draw: Draw, kind: str) -> TaskCase:
    """A question about two pictures of one object each, on plain backgrounds."""
    same = below(draw.rng, 2) == 1
    for _ in range(TRIES):
        pair = draw.plain(objects=1), draw.plain(objects=1)
        if kind == "compare_same" and same:
            noun = pair[0].entities[0].noun
            pair = pair[0], replace(pair[1], entities=(replace(pair[1].entities[0], noun=noun),))
        alike = pair[0].entities[0].noun == pair[1].entities[0].noun
        if (kind == "compare_which" and alike) or (kind == "compare_same" and alike != same):
            continue
        if draw.allows(pair[1]):
            question, answer = _compared(draw, kind, pair)
            example = TaskExample(task="ask", words=question, images=(render(pair[0]), render(pair[1])), text=answer)
            return TaskCase(kind=kind, example=example, before=pair[0], scene=None)
    raise draw.impossible(kind)


def chat(draw: Draw, kind: str) -> TaskCase:
    """Words alone: a question about a scene that is described, or a small fact of this world."""
    if kind == "chat_fact":
        question, answer = _fact(draw)
        return TaskCase(
            kind=kind, example=TaskExample(task="chat", words=question, text=answer), before=None, scene=None
        )
    scene = draw.scene()
    qa = _asked(draw, scene)
    example = TaskExample(task="chat", words=f"{describe(scene)} {qa.question}", text=qa.answer)
    return TaskCase(kind=kind, example=example, before=scene, scene=None)


def _compared(draw: Draw, kind: str, pair: tuple[Scene, Scene]) -> tuple[str, str]:
    which = below(draw.rng, 2)
    asked = pair[which]
    noun = asked.entities[0].noun
    match kind:
        case "compare_which":
            return f"which picture shows the {noun}", ORDINALS[which]
        case "compare_what":
            return f"what is in the {ORDINALS[which]} picture", noun
        case "compare_color":
            return f"what colour is the background of the {ORDINALS[which]} picture", asked.background.colors[0]
        case _:
            same = pair[0].entities[0].noun == pair[1].entities[0].noun
            return "do both pictures show the same object", "yes" if same else "no"


def _asked(draw: Draw, scene: Scene) -> QA:
    """A question whose answer follows from the description of a scene."""
    kinds: tuple[Kind, ...] = ("color", "count", "exists")
    if all(region(entity, scene) is not None for entity in scene.entities):
        kinds += ("where", "side")
    answer = "yes" if below(draw.rng, 2) else "no"
    pool = {kind: possible(scene, kind, nouns=draw.config.words) for kind in kinds}
    pool["exists"] = [qa for qa in pool["exists"] if qa.answer == answer] or pool["exists"]
    choices = [found for found in pool.values() if found]
    chosen = choices[below(draw.rng, len(choices))]
    return chosen[below(draw.rng, len(chosen))]


def _fact(draw: Draw) -> tuple[str, str]:
    config = draw.config
    noun = lexicon()[config.words[below(draw.rng, config.nouns)]]
    color = config.colors[below(draw.rng, len(config.colors))]
    facts = (
        ("hello", "hello"),
        ("who are you", "a small model of emoji scenes"),
        ("what can you draw", "emoji on plain backgrounds"),
        ("which colours do you know", " and ".join(config.colors)),
        (f"what is the plural of {noun.name}", noun.plural),
        (f"is {color} a colour", "yes"),
        (f"is {noun.article} {noun.name} a colour", "no"),
    )
    return facts[below(draw.rng, len(facts))]
