from __future__ import annotations

from collections import Counter
from itertools import combinations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from world_oracle import background

from dimoo.core.config import override, parse
from dimoo.core.errors import ConfigError
from dimoo.data.world import (
    Background,
    Entity,
    Scene,
    WorldConfig,
    WorldSource,
    region,
    relation,
    sample_scene,
)
from dimoo.data.world.holdout import held_out_color, held_out_triple


@st.composite
def worlds(draw: st.DrawFn) -> WorldConfig:
    align = draw(st.sampled_from([1, 4, 8, 12, 16, 32]))
    sides = st.integers(-(-32 // align), 128 // align).map(lambda cells: cells * align)
    small = draw(st.integers(8, 40))
    try:
        return WorldConfig(
            nouns=draw(st.integers(4, 100)),
            canvases=tuple(draw(st.lists(st.tuples(sides, sides), min_size=1, max_size=3))),
            align=align,
            small=small,
            big=small + draw(st.integers(1, 40)),
            object_counts=(1.0, 1.0, 1.0, 1.0),
            two_tone=draw(st.sampled_from([0.0, 1.0])),
        )
    except ValueError:
        assume(False)
        raise


@settings(max_examples=150, deadline=None)
@given(config=worlds(), seed=st.integers(0, 2**32))
def test_objects_lie_inside_on_the_grid_and_apart(config: WorldConfig, seed: int) -> None:
    scene = sample_scene(config, np.random.default_rng(seed), "any")
    assert (scene.height, scene.width) in config.canvases
    taken = np.zeros((scene.height, scene.width), int)
    for e in scene.entities:
        assert e.x % config.align == e.y % config.align == 0
        assert e.x >= 0 <= e.y
        assert e.x + e.size_px <= scene.width
        assert e.y + e.size_px <= scene.height
        assert e.size_px == {"small": config.small, "big": config.big}[e.size_name]
        assert e.noun in config.words
        taken[e.y : e.y + e.size_px, e.x : e.x + e.size_px] += 1
    assert taken.max() == 1
    assert set(Counter(e.noun for e in scene.entities).values()) in ({1}, {len(scene.entities)})
    covered = np.zeros_like(taken)
    for _, rows, columns in scene.background.areas(scene.height, scene.width):
        covered[rows, columns] += 1
    assert (covered == 1).all()
    assert scene.background.edge % config.align == 0
    assert background(scene) == " and ".join(scene.background.colors)  # no colour is hidden by the objects


@settings(max_examples=60, deadline=None)
@given(config=worlds(), seed=st.integers(0, 2**32), objects=st.integers(1, 4), repeat=st.booleans())
def test_a_forced_count_is_kept_or_refused(config: WorldConfig, seed: int, objects: int, repeat: bool) -> None:
    canvas = config.canvases[0]
    pitch = -(-config.small // config.align) * config.align
    room = len(range(0, canvas[0] - config.small + 1, pitch)) * len(range(0, canvas[1] - config.small + 1, pitch))
    rng = np.random.default_rng(seed)
    if objects > room:
        with pytest.raises(ConfigError, match=f"{objects} objects do not fit"):
            sample_scene(config, rng, "any", objects=objects, repeat=repeat, canvas=canvas)
        return
    scene = sample_scene(config, rng, "any", objects=objects, repeat=repeat, canvas=canvas)
    assert len(scene.entities) == objects
    assert len({e.noun for e in scene.entities}) == (1 if repeat else objects)
    assert (scene.height, scene.width) == canvas


def test_same_seed_same_scene_and_seeds_differ() -> None:
    config = WorldConfig()
    draws = [[sample_scene(config, np.random.default_rng([7, i])) for i in range(20)] for _ in range(2)]
    assert draws[0] == draws[1]
    assert draws[0] != [sample_scene(config, np.random.default_rng([8, i])) for i in range(20)]


def test_weights_are_shares_of_what_is_drawn() -> None:
    """Also in the training split: filtering must not make scenes of many objects rare."""
    config = WorldConfig(
        object_counts=(0.25, 0.25, 0.25, 0.25), repeat_share=0.5, two_tone=0.3, canvas_weights=(1, 3),
        canvases=((64, 64), (96, 96)), big_share=0.25,
    )  # fmt: skip
    drawn = [sample_scene(config, np.random.default_rng([0, i])) for i in range(2000)]
    counts = Counter(len(scene.entities) for scene in drawn)
    assert all(abs(counts[n] / 2000 - 0.25) < 0.04 for n in (1, 2, 3, 4))
    several = [scene for scene in drawn if len(scene.entities) > 1]
    assert abs(np.mean([len(scene.counts()) == 1 for scene in several]) - 0.5) < 0.04
    assert abs(np.mean([scene.height == 96 for scene in drawn]) - 0.75) < 0.04
    anything = [sample_scene(config, np.random.default_rng([0, i]), "any") for i in range(2000)]
    assert abs(np.mean([len(scene.background.colors) == 2 for scene in anything]) - 0.3) < 0.04
    single = [scene.entities[0] for scene in anything if len(scene.entities) == 1]
    assert abs(np.mean([entity.size_name == "big" for entity in single]) - 0.25) < 0.08


def test_no_second_colour_where_objects_would_hide_it() -> None:
    full = WorldConfig(canvases=((32, 32), (64, 64)), align=16, big_share=1.0, two_tone=1.0)
    for i in range(100):
        rng = np.random.default_rng(i)
        covered = sample_scene(full, rng, "any", canvas=(32, 32))
        assert covered.entities[0].size_px == 32
        assert len(covered.background.colors) == 1
        crowded = sample_scene(full, rng, "any", canvas=(64, 64), objects=4)
        assert len(crowded.background.colors) == 1
        sparse = sample_scene(full, rng, "any", canvas=(64, 64), objects=1)
        assert len(sparse.background.colors) == 2


def box(noun: str, x: int, y: int, size: int = 24) -> Entity:
    return Entity(noun=noun, size_name="small", size_px=size, x=x, y=y)


@pytest.mark.parametrize(
    ("x", "y", "expected"),
    [
        (40, 24, "left of"),
        (24, 24, "left of"),  # touching
        (23, 24, None),  # overlapping columns
        (40, 64, None),  # exactly diagonal
        (40, 56, "left of"),  # lower, but more to the right
        (32, 64, "above"),
        (0, 48, "above"),
        (8, 0, "below"),
    ],
)
def test_relation_is_named_only_where_clear(x: int, y: int, expected: str | None) -> None:
    a, b = box("cat", 0, 24), box("dog", x, y)
    mirrored = {"left of": "right of", "right of": "left of", "above": "below", "below": "above", None: None}
    assert relation(a, b) == expected
    assert relation(b, a) == mirrored[expected]


@pytest.mark.parametrize(
    ("x", "y", "expected"),
    [
        (0, 0, "top left"),
        (20, 0, "top"),
        (40, 8, "top right"),
        (20, 20, "centre"),
        (16, 24, "centre"),
        (0, 20, "left"),
        (40, 40, "bottom right"),
        (12, 0, None),
        (0, 12, None),
    ],
)
def test_region_is_named_only_where_clear(x: int, y: int, expected: str | None) -> None:
    scene = Scene(height=64, width=64, background=Background(colors=("white",)), entities=(box("cat", x, y),))
    assert region(scene.entities[0], scene) == expected


def triples(scene: Scene) -> set[tuple[str, str, str]]:
    """(noun, "left of" or "above", noun), straight from the boxes."""
    found = set()
    for a, b in combinations(scene.entities, 2):
        for p, q in ((a, b), (b, a)):
            dx = (2 * q.x + q.size_px) - (2 * p.x + p.size_px)
            dy = (2 * q.y + q.size_px) - (2 * p.y + p.size_px)
            if p.noun != q.noun and p.x + p.size_px <= q.x and dx > abs(dy):
                found.add((p.noun, "left of", q.noun))
            if p.noun != q.noun and p.y + p.size_px <= q.y and dy > abs(dx):
                found.add((p.noun, "above", q.noun))
    return found


def pairs(scene: Scene) -> set[tuple[str, str]]:
    return {(e.noun, color) for e in scene.entities for color in scene.background.colors}


def test_training_never_sees_what_is_held_out() -> None:
    """Six nouns: 3000 scenes show every one of the 60 triples and 48 colour pairs that are not held out."""
    config = WorldConfig(nouns=6, holdout=0.2)
    train = [sample_scene(config, np.random.default_rng([1, i])) for i in range(3000)]
    seen_triples = set().union(*map(triples, train))
    seen_pairs = set().union(*map(pairs, train))
    missing = {
        (a, where, b)
        for a in config.words
        for b in config.words
        for where in ("left of", "above")
        if a != b and held_out_triple(a, where, b, 0.2)  # type: ignore[arg-type]
    }
    assert len(seen_triples) + len(missing) == 60
    assert seen_triples.isdisjoint(missing)
    assert 3 <= len(missing) <= 24
    assert 2 <= 48 - len(seen_pairs) <= 20
    assert not any(held_out_color(noun, color, 0.2) for noun, color in seen_pairs)
    for i in range(600):
        scene = sample_scene(config, np.random.default_rng([2, i]), "heldout")
        if len(scene.counts()) == 1:
            assert pairs(scene) - seen_pairs
        else:
            assert triples(scene) - seen_triples


def test_what_is_held_out_is_the_same_everywhere() -> None:
    nouns = ("apple", "heart", "rabbit", "parrot", "moon", "mushroom")
    held = {(a, b) for a in nouns for b in nouns if held_out_triple(a, "left of", b, 0.2)}
    assert held == HELD_LEFT
    assert held == {(a, b) for a in nouns for b in nouns if held_out_triple(b, "right of", a, 0.2)}
    assert not any(held_out_triple(a, "above", b, 0.0) for a in nouns for b in nouns)


HELD_LEFT = {
    ("apple", "mushroom"),
    ("apple", "rabbit"),
    ("moon", "heart"),
    ("mushroom", "heart"),
    ("mushroom", "moon"),
    ("mushroom", "parrot"),
    ("parrot", "heart"),
    ("parrot", "rabbit"),
    ("rabbit", "moon"),
}

BAD = [
    ({"nouns": 0}, "nouns"),
    ({"nouns": 1000}, "the atlas has 100"),
    ({"nouns": 2}, "4 different objects cannot be drawn from nouns=2"),
    ({"canvases": []}, "canvases is empty"),
    ({"canvases": [[60, 64]]}, r"canvas \(60, 64\).*multiples of align=8"),
    ({"canvases": [[160, 64]]}, "sides must be 32..128"),
    ({"canvas_weights": [1, 2]}, "do not fit 1 canvases"),
    ({"canvas_weights": [0]}, "do not fit 1 canvases"),
    ({"small": 40}, "small=40 is not below big=32"),
    ({"colors": ["white", "mauve"]}, "use one or more of white, blue"),
    ({"colors": ["white", "white"]}, "each once"),
    ({"colors": ["white"]}, "needs two colors"),
    ({"object_counts": [0, 0, 0, 0]}, "all zero"),
    ({"object_counts": [0, 1, 0, 0], "canvases": [[32, 32]]}, "holds 1 objects of small=24 px"),
    ({"two_tone": 1.5}, "two_tone"),
    ({"holdout": -0.1}, "holdout"),
    ({"align": 32, "canvases": [[32, 64]], "big": 33}, "no inner edge"),
    ({"color": ["white"]}, "color"),
]


@pytest.mark.parametrize(("values", "message"), BAD)
def test_impossible_worlds_are_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse(WorldConfig, values)


def test_a_split_without_scenes_is_refused() -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(ConfigError, match="holdout=0"):
        sample_scene(WorldConfig(holdout=0.0), rng, "heldout")
    lonely = WorldConfig(nouns=1, colors=("white",), two_tone=0.0, repeat_share=1.0)
    assert held_out_color("apple", "white", lonely.holdout)
    with pytest.raises(ConfigError, match=r"no scene of split 'train'.*use more nouns"):
        sample_scene(lonely, rng, "train")
    with pytest.raises(ConfigError, match=r"canvas \(32, 32\) is not one of"):
        sample_scene(WorldConfig(), rng, canvas=(32, 32))
    with pytest.raises(ConfigError, match="cannot be drawn from nouns=1"):
        sample_scene(lonely, rng, objects=2, repeat=False)


CHANGES = [
    "nouns=20", "canvases=[[96,96],[64,64]]", "canvas_weights=[1,5]", "align=4", "small=20", "big=40",
    "big_share=0.1",
    "object_counts=[1,0,0,0]", "repeat_share=0.9", 'colors=["white","blue"]', "two_tone=0.9", "holdout=0.4",
]  # fmt: skip


def test_every_field_changes_the_scenes() -> None:
    base = WorldConfig(canvases=((64, 64), (96, 96)))
    assert {change.split("=")[0] for change in CHANGES} == set(WorldConfig.model_fields)

    def first(config: WorldConfig) -> list[Scene]:
        return [WorldSource(config).scene(i) for i in range(40)]

    for change in CHANGES:
        assert first(override(base, [change])) != first(base), change


def test_the_config_survives_json() -> None:
    config = WorldConfig(canvases=((32, 64), (64, 64)), canvas_weights=(1, 2), colors=("white", "grey"))
    assert WorldConfig.model_validate_json(config.model_dump_json()) == config
