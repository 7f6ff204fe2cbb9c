from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
from world_oracle import PLACES, THING, held_out, in_place

from dimoo.core.errors import ConfigError
from dimoo.data.world import Entity, Scene, WorldConfig, region, render
from dimoo.data.world.atlas import lexicon
from dimoo.data.world.edits import EDITS, Edit, draw_edit
from dimoo.data.world.sample import Split
from recipes.named.world import mini_world

WORLD = mini_world()
SEEDS = 60


def edits(
    kind: str, split: Split = "train", *, canvas: tuple[int, int] | None = None, world: WorldConfig = WORLD
) -> list[Edit]:
    return [draw_edit(world, np.random.default_rng([3, i]), kind, split, canvas) for i in range(SEEDS)]


def changed(edit: Edit) -> tuple[tuple[Entity, ...], tuple[Entity, ...]]:
    """(objects only before, objects only after), those that stay being equal in all respects and in order."""
    gone = tuple(e for e in edit.before.entities if e not in edit.after.entities)
    new = tuple(e for e in edit.after.entities if e not in edit.before.entities)
    kept = [tuple(e for e in scene.entities if e not in gone + new) for scene in (edit.before, edit.after)]
    assert kept[0] == kept[1]
    return gone, new


def check_sound(scene: Scene) -> None:
    """Objects lie inside, on the grid and apart."""
    taken = np.zeros((scene.height, scene.width), int)
    for e in scene.entities:
        assert e.x % 8 == e.y % 8 == 0
        square = taken[e.y : e.y + e.size_px, e.x : e.x + e.size_px]
        square += 1
        assert square.shape == (e.size_px, e.size_px)
        assert e.size_px == WORLD.sizes[e.size_name]
    assert taken.max(initial=0) <= 1


@pytest.mark.parametrize("kind", EDITS)
def test_nothing_changes_but_what_the_instruction_is_about(kind: str) -> None:
    for edit in edits(kind):
        check_sound(edit.after)
        assert edit.kind == kind
        assert re.fullmatch(r"[a-z ]+", edit.instruction)
        gone, new = changed(edit)
        outside = np.ones((edit.before.height, edit.before.width), bool)
        for e in gone + new:
            outside[e.y : e.y + e.size_px, e.x : e.x + e.size_px] = False
        before, after = render(edit.before), render(edit.after)
        if kind == "edit_recolor":
            assert replace(edit.after, background=edit.before.background) == edit.before
            assert (before[outside] != after[outside]).any(-1).mean() > 0.05
        else:
            assert edit.after.background == edit.before.background
            np.testing.assert_array_equal(before[outside], after[outside])
            assert (before != after).any()


def test_what_is_added_is_of_a_new_noun_and_where_it_says() -> None:
    placed = 0
    for edit in edits("edit_add"):
        gone, (new,) = changed(edit)
        assert not gone
        assert new.noun not in edit.before.counts()
        said = THING.fullmatch(edit.instruction.removeprefix("add "))
        assert said is not None
        assert (said["count"], said["size"], said["noun"]) == ("a", new.size_name, new.noun)
        assert in_place(new, edit.after, said["place"]) if said["place"] else region(new, edit.after) is None
        placed += said["place"] is not None
    assert placed > SEEDS / 2
    crowded = WORLD.model_copy(
        update={"canvases": ((128, 128),), "canvas_weights": None, "object_counts": (0, 0, 1, 3)}
    )
    assert {len(edit.after.entities) for edit in edits("edit_add", world=crowded)} == {4}


def test_what_is_removed_was_the_only_one() -> None:
    emptied = 0
    for edit in edits("edit_remove"):
        (old,), new = changed(edit)
        assert not new
        assert edit.instruction == f"remove the {old.noun}"
        assert edit.before.counts()[old.noun] == 1
        emptied += not edit.after.entities
    assert 0 < emptied < SEEDS


def test_a_replacement_is_another_noun_at_the_same_place() -> None:
    for edit in edits("edit_replace"):
        (old,), (new,) = changed(edit)
        article = lexicon()[new.noun].article
        assert edit.instruction == f"replace the {old.noun} with {article} {new.noun}"
        assert new == replace(old, noun=new.noun)
        assert edit.before.counts()[old.noun] == 1
        assert new.noun not in edit.before.counts()


def test_what_is_moved_is_then_where_it_says_and_was_not() -> None:
    for edit in edits("edit_move"):
        (old,), (new,) = changed(edit)
        said = re.fullmatch(rf"put the {old.noun} ({'|'.join(PLACES)})", edit.instruction)
        assert said is not None
        assert replace(new, x=old.x, y=old.y) == old
        assert edit.before.counts()[old.noun] == 1
        assert in_place(new, edit.after, said[1])
        assert region(old, edit.before) != region(new, edit.after)


def test_a_new_background_is_one_colour_that_was_not_there() -> None:
    two_tone = 0
    for edit in edits("edit_recolor"):
        (color,) = edit.after.background.colors
        assert edit.instruction == f"make the background {color}"
        assert color not in edit.before.background.colors
        two_tone += len(edit.before.background.colors) == 2
    assert 0 < two_tone < SEEDS / 2


@pytest.mark.parametrize("kind", ["edit_add", "edit_move"])
def test_objects_never_come_to_hide_a_background_colour(kind: str) -> None:
    """An eighth of each half stays free of their squares, as in scenes that are drawn."""
    world = WORLD.model_copy(update={"two_tone": 1.0, "big_share": 1.0})
    for edit in edits(kind, world=world, canvas=(48, 64)):
        free = np.ones((48, 64), bool)
        for e in edit.after.entities:
            free[e.y : e.y + e.size_px, e.x : e.x + e.size_px] = False
        for _, rows, columns in edit.after.background.areas(48, 64):
            assert free[rows, columns].mean() >= 1 / 8


@pytest.mark.parametrize("kind", EDITS)
def test_training_never_sees_what_is_held_out(kind: str) -> None:
    for edit in edits(kind):
        assert not held_out(edit.before, WORLD.holdout)
        assert not held_out(edit.after, WORLD.holdout)
    for edit in edits(kind, "heldout")[:25]:
        assert held_out(edit.after, WORLD.holdout)


@pytest.mark.parametrize("kind", EDITS)
def test_the_same_draws_give_the_same_edit_on_the_canvas_asked_for(kind: str) -> None:
    once, again = (edits(kind, canvas=(48, 64)) for _ in range(2))
    assert once == again
    assert len({edit.instruction for edit in once}) > 3
    assert {(scene.height, scene.width) for edit in once for scene in (edit.before, edit.after)} == {(48, 64)}


def test_an_impossible_edit_says_so() -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(ConfigError, match="no edit 'edit_shrink'; use one of edit_add, edit_remove, "):
        draw_edit(WORLD, rng, "edit_shrink")
    with pytest.raises(ConfigError, match=r"found no 'edit_add' for split 'train' on canvas \(32, 32\) in 2000 draws"):
        draw_edit(WORLD, rng, "edit_add", canvas=(32, 32))
    crowded = WorldConfig(nouns=1, canvases=((32, 32),), object_counts=(1, 0, 0, 0))
    with pytest.raises(ConfigError, match="has room for 2 objects; add a larger one"):
        draw_edit(crowded, rng, "edit_add")
    with pytest.raises(ConfigError, match="found no 'edit_replace' for split 'any' in"):
        draw_edit(crowded, rng, "edit_replace", "any")
