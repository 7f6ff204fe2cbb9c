"""Worlds that differ in every respect, and scenes from them."""

from __future__ import annotations

import numpy as np
import pytest

from dimoo.data.world import Scene, WorldConfig, sample_scene

WORLDS = (
    WorldConfig(),
    WorldConfig(nouns=100, canvases=((32, 32), (64, 96), (48, 64)), align=16, two_tone=0.7),
    WorldConfig(nouns=5, canvases=((128, 128),), align=4, small=20, big=30, object_counts=(0, 1, 1, 2)),
)


@pytest.fixture(scope="session")
def scenes() -> list[tuple[WorldConfig, Scene]]:
    """300 scenes of each world, with the world."""
    rng = np.random.default_rng(0)
    return [(world, sample_scene(world, rng)) for world in WORLDS for _ in range(300)]
