"""Which combinations are kept from training, so that composing them can be tested.

A combination is held out by a hash of its words: the same on every machine, independent of seeds and of which
other nouns are in use.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from itertools import combinations

from dimoo.data.world.scene import OPPOSITE, Relation, Scene, relation


def held_out_triple(a: str, where: Relation, b: str, share: float) -> bool:
    """Whether "a is `where` b" is held out; the mirrored statement about b and a is the same one."""
    if where in ("right of", "below"):
        a, where, b = b, OPPOSITE[where], a
    return a != b and _draw(f"{a}|{where}|{b}") < share


def held_out_color(noun: str, color: str, share: float) -> bool:
    """Whether this noun on a background with this colour is held out."""
    return _draw(f"{noun}|{color}") < share


def unseen_colors(scene: Scene, share: float) -> bool:
    """Whether some object is on a background colour held out for its noun."""
    return any(held_out_color(e.noun, color, share) for e in scene.entities for color in scene.background.colors)


def unseen_relations(scene: Scene, share: float) -> bool:
    """Whether two objects stand in a held-out relation."""
    for a, b in combinations(scene.entities, 2):
        where = relation(a, b)
        if where is not None and held_out_triple(a.noun, where, b.noun, share):
            return True
    return False


@lru_cache(maxsize=1 << 18)
def _draw(key: str) -> float:
    """A number in [0, 1) that depends on the key alone."""
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "big") / 2**64
