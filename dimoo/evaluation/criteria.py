"""When a picture is right: what the judge sees against what the prompt said."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from dimoo.data.world.scene import Scene, region, relation
from dimoo.data.world.suite import PromptKind

Criterion = Callable[[Scene, Scene], bool]


def same_nouns(truth: Scene, seen: Scene) -> bool:
    """Every object that was asked for, as often as it was asked for, and no other."""
    return truth.counts() == seen.counts()


def same_background(truth: Scene, seen: Scene) -> bool:
    """The background's colour or colours, whatever the objects."""
    return truth.background.colors == seen.background.colors


def same_relation(truth: Scene, seen: Scene) -> bool:
    """Both objects, in the relation of the first two of the truth."""
    if not same_nouns(truth, seen):
        return False
    first, second = (next(e for e in seen.entities if e.noun == asked.noun) for asked in truth.entities[:2])
    return relation(first, second) == relation(truth.entities[0], truth.entities[1])


def same_place(truth: Scene, seen: Scene) -> bool:
    """The one object, in the region of the picture that was asked for."""
    return same_nouns(truth, seen) and region(seen.entities[0], seen) == region(truth.entities[0], truth)


def same_size(truth: Scene, seen: Scene) -> bool:
    """The one object, small or big as asked for."""
    return same_nouns(truth, seen) and seen.entities[0].size_name == truth.entities[0].size_name


CRITERIA: Mapping[PromptKind, Mapping[str, Criterion]] = MappingProxyType(
    {
        "one": {"single_object": same_nouns, "background": same_background},
        "two": {"two_objects": same_nouns, "relation": same_relation},
        "count": {"count": same_nouns},
        "place": {"place": same_place},
        "size": {"size": same_size},
    }
)
"""Kind of prompt -> score name -> criterion."""


def fulfils(kind: PromptKind, truth: Scene, seen: Scene) -> bool:
    """Whether a picture has all that a prompt of this kind is scored for, and the right background."""
    return same_background(truth, seen) and all(right(truth, seen) for right in CRITERIA[kind].values())
