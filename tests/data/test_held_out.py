"""What is held out is never trained on, whatever the seed; and what a run does not reach of the world."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from dimoo.core.errors import DataError
from dimoo.data.build import build_source, held_out
from dimoo.data.config import FolderSourceConfig, Phase, WorldSourceConfig
from dimoo.data.example import Example, Source
from dimoo.data.splits import endless
from dimoo.data.world import WorldConfig


class Numbers:
    """A source whose captions are its indices."""

    def __init__(self, size: int) -> None:
        self.size = size

    def example(self, index: int) -> Example:
        assert 0 <= index < self.size
        return Example(caption=str(index))


def captions(source: Source, count: int) -> list[int]:
    return [int(source.example(index).caption or "") for index in range(count)]


@given(st.integers(1, 30), st.integers(0, 29), st.integers(0, 5))
def test_every_example_is_either_learnt_or_held_out(size: int, held: int, seed: int) -> None:
    if held >= size:
        with pytest.raises(DataError, match=f"held_out {held} of {size}"):
            endless(Numbers(size), seed=seed, held_out=held)
        return
    source = endless(Numbers(size), seed=seed, held_out=held)
    kept = size - held
    passes = [captions(source, 3 * kept)[start : start + kept] for start in (0, kept, 2 * kept)]
    unseen = held_out(source, examples=7)
    if not held:
        assert unseen is None
        assert set(passes[0]) == set(range(size))
        return
    assert unseen is not None
    assert unseen.size == held
    outside = captions(unseen, held)
    assert all(sorted([*one, *outside]) == list(range(size)) for one in passes)
    other = endless(Numbers(size), seed=seed + 1, held_out=held).held_out
    assert other is not None
    assert captions(other, held) == outside


def test_they_are_not_the_last_of_the_folder() -> None:
    unseen = endless(Numbers(100), seed=0, held_out=10).held_out
    assert unseen is not None
    assert captions(unseen, 10) != list(range(90, 100))
    with pytest.raises(IndexError, match="10 examples"):
        unseen.example(10)


def test_of_a_folder_they_are_fitted_too(tmp_path: Path) -> None:
    for index in range(6):
        Image.new("RGB", (20, 10), (index, 0, 0)).save(tmp_path / f"{index}.png")
    config = FolderSourceConfig(path=str(tmp_path), size=(8, 8), held_out=2)
    source = build_source(config, seed=0, examples=4)
    unseen = held_out(source, examples=4)
    assert unseen is not None
    assert unseen.size == 2
    assert unseen.example(0).image.shape == (8, 8, 3)  # type: ignore[union-attr]
    assert {source.example(index).caption for index in range(40)}.isdisjoint(
        {unseen.example(index).caption for index in range(2)}
    )


def test_of_the_world_they_come_after_the_run() -> None:
    phases = (Phase(share=1.0, world=WorldConfig(nouns=5, canvases=((32, 32),), two_tone=0.0)),)
    source = build_source(WorldSourceConfig(phases=phases), seed=0, examples=10)
    unseen = held_out(source, examples=10)
    assert unseen is not None
    assert unseen.size is None
    assert (unseen.example(3).image == source.example(13).image).all()  # type: ignore[union-attr]
    with pytest.raises(IndexError):
        unseen.example(-1)


def test_another_finite_source_has_none() -> None:
    assert held_out(Numbers(5), examples=3) is None
