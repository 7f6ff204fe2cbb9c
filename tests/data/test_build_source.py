"""Source configs -> sources: curricula that never share an example, and finite files that never end."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from dimoo.core.config import parse
from dimoo.core.errors import ConfigError, DataError
from dimoo.data.build import build_source
from dimoo.data.config import FolderSourceConfig, JsonlSourceConfig, MixtureConfig, Phase, WorldSourceConfig
from dimoo.data.example import Example
from dimoo.data.world import WorldConfig, WorldSource

WORLDS = tuple(WorldConfig(nouns=nouns, canvases=((32, 32),), two_tone=0.0) for nouns in (5, 10, 20))


def curriculum(*shares: float) -> WorldSourceConfig:
    return WorldSourceConfig(
        phases=tuple(Phase(share=share, world=world) for share, world in zip(shares, WORLDS, strict=False))
    )


def same(a: Example, b: Example) -> bool:
    return np.array_equal(a.image, b.image) and (a.caption, a.qa) == (b.caption, b.qa)  # type: ignore[arg-type]


def test_phases_follow_each_other_by_their_shares_and_the_last_goes_on() -> None:
    source = build_source(curriculum(0.25, 0.5, 0.25), seed=3, examples=40)
    assert source.size is None
    for index, world in [(0, 0), (9, 0), (10, 1), (29, 1), (30, 2), (39, 2), (10**9, 2)]:
        assert same(source.example(index), WorldSource(WORLDS[world], 3).example(index))
        others = [WorldSource(WORLDS[other], 3).example(index) for other in range(3) if other != world]
        assert not any(same(source.example(index), other) for other in others)
    with pytest.raises(IndexError):
        source.example(-1)


@given(st.lists(st.integers(1, 9), min_size=1, max_size=3), st.integers(1, 200))
def test_every_phase_gets_its_share_to_within_one_example(parts: list[int], examples: int) -> None:
    shares = [part / sum(parts) for part in parts]
    source = build_source(curriculum(*shares), seed=0, examples=examples)
    starts = [*source.starts, examples]  # type: ignore[attr-defined]
    assert starts[0] == 0
    for share, first, last in zip(shares, starts[:-1], starts[1:], strict=True):
        assert abs((last - first) - share * examples) <= 1


def test_the_seed_decides_the_world() -> None:
    config = curriculum(1.0)
    first, again, other = (build_source(config, seed=seed, examples=5).example(2) for seed in (1, 1, 2))
    assert same(first, again)
    assert not same(first, other)


def test_a_phase_asks_for_its_tasks_as_often_as_their_weights_say() -> None:
    world = WorldConfig(nouns=5, canvases=((32, 32),), align=8, two_tone=0.0)
    weights: dict[Any, float] = {"picture": 1.0, "chat": 2.0, "predict": 1.0, "edit": 0.0}
    phases = (Phase(share=0.5, world=world, tasks=weights), Phase(share=0.5, world=world))
    source = build_source(WorldSourceConfig(phases=phases), seed=0, examples=400)
    first, second = (
        [source.example(index) for index in range(start, start + count)] for start, count in ((0, 200), (200, 20))
    )
    seen = Counter(one.tasks[0].task if one.tasks else "picture" for one in first)
    assert seen.keys() == {"picture", "chat", "predict"}
    for name, share in {"picture": 0.25, "chat": 0.5, "predict": 0.25}.items():
        # Five standard deviations of a binomial count.
        assert abs(seen[name] - 200 * share) < 5 * (200 * share * (1 - share)) ** 0.5
    assert not any(one.tasks for one in second)  # by default there are pictures alone
    assert all(one.image is not None and one.caption for one in second)


def test_a_kind_of_a_task_may_have_a_weight_of_its_own() -> None:
    world = WorldConfig(nouns=5, canvases=((48, 48),), align=8, two_tone=0.0)
    phases = (Phase(share=1.0, world=world, tasks={"edit_remove": 1.0, "view_mirrored": 2.0, "chat": 1.0}),)
    source = build_source(WorldSourceConfig(phases=phases), seed=0, examples=80)
    shown = [source.example(index).tasks[0] for index in range(80)]
    assert {one.task for one in shown} == {"edit", "view", "chat"}
    assert all(one.words.startswith("remove the ") for one in shown if one.task == "edit")
    assert {one.option for one in shown if one.task == "view"} == {"mirrored"}


@pytest.mark.parametrize(
    ("tasks", "message"),
    [({"edit": 0.0}, "the tasks have no weight"), ({}, "the tasks have no weight"), ({"sing": 1.0}, "sing")],
)
def test_a_phase_must_ask_for_something_that_there_is(tasks: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse(Phase, {"share": 1.0, "world": {}, "tasks": tasks})


def test_shares_must_make_a_whole() -> None:
    phases = [{"share": share, "world": {}} for share in (0.5, 0.4)]
    with pytest.raises(ConfigError, match=r"sum to 0\.9, not to 1"):
        parse(WorldSourceConfig, {"phases": phases})
    with pytest.raises(ConfigError, match="phases"):
        parse(WorldSourceConfig, {"phases": []})


def test_a_mixture_must_ask_for_something() -> None:
    with pytest.raises(ConfigError, match="give one of them a weight"):
        parse(MixtureConfig, {"text_to_image": 0, "question": 0, "caption": 0})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Seven pictures of different sizes and colours, and a JSONL file of them with one row of words alone."""
    rows = [{"caption": "words"}]
    for index in range(7):
        Image.new("RGB", (10 + index, 20), (30 * index, 0, 0)).save(tmp_path / f"{index}.png")
        (tmp_path / f"{index}.txt").write_text(f"picture {index}")
        qa = [{"question": "which", "answer": str(index)}]
        rows.append({"image": f"{index}.png", "caption": f"picture {index}", "conversations": qa})  # type: ignore[dict-item]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


def test_a_folder_is_shuffled_anew_for_every_pass_and_never_ends(folder: Path) -> None:
    config = FolderSourceConfig(path=str(folder), size=(8, 6))
    source = build_source(config, seed=5, examples=1)
    assert source.size is None
    passes = [tuple(source.example(7 * epoch + place).caption for place in range(7)) for epoch in range(8)]
    for one in passes:
        assert sorted(one, key=str) == [f"picture {index}" for index in range(7)]
    assert len(set(passes)) > 4
    assert tuple(build_source(config, seed=5, examples=99).example(i).caption for i in range(56)) == sum(passes, ())
    other = build_source(config, seed=6, examples=1)
    assert tuple(other.example(place).caption for place in range(56)) != sum(passes, ())


def test_any_order_of_reading_gives_the_same_examples(folder: Path) -> None:
    config = FolderSourceConfig(path=str(folder), size=(8, 6))
    forward, backward = (build_source(config, seed=5, examples=1) for _ in range(2))
    there = [forward.example(index) for index in range(20)]
    back = [backward.example(index) for index in reversed(range(20))][::-1]
    assert all(map(same, there, back))


def test_pictures_are_brought_to_the_size_and_keep_what_is_said_of_them(folder: Path) -> None:
    for config in (
        FolderSourceConfig(path=str(folder), size=(8, 6)),
        JsonlSourceConfig(path=str(folder / "rows.jsonl"), size=(8, 6)),
    ):
        source = build_source(config, seed=0, examples=1)
        examples = [source.example(index) for index in range(8)]
        pictures = [one for one in examples if one.image is not None]
        assert len(pictures) >= 7
        for one in pictures:
            assert one.image is not None
            assert one.image.shape == (8, 6, 3)
            assert one.image.dtype == np.uint8
            assert one.caption is not None
            # The colour tells which picture it is.
            assert (one.image == (30 * int(one.caption.split()[1]), 0, 0)).all()


def test_a_row_of_words_alone_passes_through(folder: Path) -> None:
    source = build_source(JsonlSourceConfig(path=str(folder / "rows.jsonl"), size=(8, 6)), seed=0, examples=1)
    (words,) = [one for one in map(source.example, range(8)) if one.image is None]
    assert words == Example(caption="words")
    asked = [one for one in map(source.example, range(8)) if one.qa]
    assert all(one.qa == (("which", (one.caption or "").split()[1]),) for one in asked)
    assert len(asked) == 7


def test_a_missing_source_is_an_error_when_it_is_built(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere is not a folder"):
        build_source(FolderSourceConfig(path=str(tmp_path / "nowhere"), size=(8, 8)), seed=0, examples=1)
    with pytest.raises(DataError, match="is not a file"):
        build_source(JsonlSourceConfig(path=str(tmp_path / "no.jsonl"), size=(8, 8)), seed=0, examples=1)
