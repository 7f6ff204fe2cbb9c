"""Prompts and questions to score a model with: held-out scenes, and the truth beside each caption."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
from typing_extensions import assert_never

from dimoo.core.errors import ConfigError
from dimoo.data.world.config import WorldConfig
from dimoo.data.world.language import caption, color_words, noun_phrase, phrase_at, plain_caption
from dimoo.data.world.questions import KINDS, QA, Kind, possible
from dimoo.data.world.sample import Canvas, sample_scene
from dimoo.data.world.scene import Scene, region, relation

PromptKind = Literal["one", "two", "count", "place", "size"]
PROMPT_KINDS: tuple[PromptKind, ...] = get_args(PromptKind)

TRIES, REPEATS = 2000, 30


def prompts(
    config: WorldConfig, kind: PromptKind, n: int, seed: int, *, canvas: Canvas | None = None
) -> tuple[tuple[str, Scene], ...]:
    """`n` held-out scenes with a caption that says all that is scored.

    "one": the noun and the background, in any of the words that training uses. "two": two nouns in a clear relation and
    the background. "count": how many of one noun and the background. "place", "size": as "one", with the place or the
    size of the object.

    Captions do not repeat as long as new ones turn up.

    Raises:
        ConfigError: the config has no such scenes (two objects do not fit, nothing is held out ...).
    """
    rng = np.random.default_rng([seed, PROMPT_KINDS.index(kind)])
    chosen: list[tuple[str, Scene]] = []
    said: set[str] = set()
    unclear = repeated = 0
    while len(chosen) < n:
        scene = _draw(config, kind, rng, canvas)
        text = _scored_caption(scene, kind, rng)
        if text is None:
            unclear += 1
            if unclear > TRIES:
                raise ConfigError(f"found no scene for prompts of kind {kind!r} in {TRIES} tries; allow more objects")
        elif text in said and repeated < REPEATS:
            repeated += 1
        else:
            chosen.append((text, scene))
            said.add(text)
            unclear = repeated = 0
    return tuple(chosen)


def qa_suite(
    config: WorldConfig, n: int, seed: int, *, kinds: tuple[Kind, ...] = KINDS, canvas: Canvas | None = None
) -> tuple[tuple[Scene, QA], ...]:
    """`n` questions about held-out scenes, the kinds in turn, "yes" and "no" in turn.

    Raises:
        ConfigError: the config has no scenes that allow a question of one of the kinds.
    """
    rng = np.random.default_rng([seed, len(PROMPT_KINDS)])
    return tuple(
        _question(config, kinds[i % len(kinds)], rng, canvas, "yes" if i // len(kinds) % 2 else "no") for i in range(n)
    )


def _draw(config: WorldConfig, kind: PromptKind, rng: np.random.Generator, canvas: Canvas | None) -> Scene:
    match kind:
        case "one" | "place" | "size":
            return sample_scene(config, rng, "heldout", objects=1, canvas=canvas)
        case "two":
            return sample_scene(config, rng, "heldout", objects=2, repeat=False, canvas=canvas)
        case "count":
            return sample_scene(config, rng, "heldout", repeat=True, canvas=canvas)
        case _:
            assert_never(kind)


def _scored_caption(scene: Scene, kind: PromptKind, rng: np.random.Generator) -> str | None:
    """The caption, or None where the scene does not show clearly what this kind scores."""
    first, background = scene.entities[0], f"on a {color_words(scene.background)} background"
    match kind:
        case "one":
            # Few pairs of a noun and a colour are held out: other words make different prompts of them.
            words = caption(scene, rng)
            return words if color_words(scene.background) in words else None
        case "two":
            return plain_caption(scene) if relation(first, scene.entities[1]) is not None else None
        case "count":
            return plain_caption(scene) if len(scene.entities) > 1 else None
        case "place":
            return f"{phrase_at(first, scene)} {background}" if region(first, scene) is not None else None
        case "size":
            return f"{noun_phrase(first, size=True)} {background}"
        case _:
            assert_never(kind)


def _question(
    config: WorldConfig, kind: Kind, rng: np.random.Generator, canvas: Canvas | None, wanted: str
) -> tuple[Scene, QA]:
    for _ in range(TRIES):
        scene = sample_scene(config, rng, "heldout", canvas=canvas)
        choices = possible(scene, kind, nouns=config.words)
        if kind == "exists":
            choices = [qa for qa in choices if qa.answer == wanted]
        if choices:
            return scene, choices[int(rng.integers(len(choices)))]
    raise ConfigError(f"no question of kind {kind!r} in {TRIES} scenes; allow more objects or leave the kind out")
