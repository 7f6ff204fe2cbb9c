from __future__ import annotations

from dataclasses import replace

import pytest

from dimoo.data.world import Background, Entity, Scene
from dimoo.evaluation.criteria import CRITERIA, fulfils

APPLE = Entity(noun="apple", size_name="small", size_px=24, x=0, y=0)
FROG = Entity(noun="frog", size_name="big", size_px=32, x=32, y=0)
ONE = Scene(height=64, width=64, background=Background(colors=("blue",)), entities=(APPLE,))
TWO = replace(ONE, entities=(APPLE, FROG))
THREE = replace(ONE, entities=(APPLE, replace(APPLE, x=24), replace(APPLE, x=40, y=40)))

RUINED = [
    ("single_object", "one", ONE, replace(ONE, entities=(replace(APPLE, noun="frog"),))),
    ("single_object", "one", ONE, TWO),
    ("single_object", "one", ONE, replace(ONE, entities=())),
    ("background", "one", ONE, replace(ONE, background=Background(colors=("pink",)))),
    ("background", "one", ONE, replace(ONE, background=Background(colors=("blue", "pink"), edge=32))),
    ("two_objects", "two", TWO, ONE),
    ("relation", "two", TWO, replace(TWO, entities=(replace(APPLE, x=40, y=40), replace(FROG, x=0)))),
    ("relation", "two", TWO, ONE),
    ("count", "count", THREE, replace(THREE, entities=THREE.entities[:2])),
    ("place", "place", ONE, replace(ONE, entities=(replace(APPLE, x=40),))),
    ("place", "place", ONE, replace(ONE, entities=())),
    ("size", "size", ONE, replace(ONE, entities=(replace(APPLE, size_name="big", size_px=32),))),
]


@pytest.mark.parametrize(("name", "kind", "truth", "seen"), RUINED)
def test_each_criterion_fails_for_its_own_reason(name: str, kind: str, truth: Scene, seen: Scene) -> None:
    right = CRITERIA[kind][name]  # type: ignore[index]
    assert right(truth, truth)
    assert not right(truth, seen)
    assert not fulfils(kind, truth, seen)  # type: ignore[arg-type]


def test_the_order_of_entities_does_not_matter() -> None:
    turned = replace(TWO, entities=(FROG, APPLE))
    assert all(right(TWO, turned) for right in CRITERIA["two"].values())


def test_nothing_but_the_scored_is_asked() -> None:
    """An object elsewhere and of another size is still the object."""
    elsewhere = replace(ONE, entities=(replace(FROG, noun="apple", x=8, y=32),))
    assert fulfils("one", ONE, elsewhere)
