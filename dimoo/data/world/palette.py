"""The background colours: far from each other, and soft enough that no sprite drowns in one."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

PALETTE: Mapping[str, tuple[int, int, int]] = MappingProxyType(
    {
        "white": (252, 252, 252),
        "blue": (140, 185, 240),
        "green": (150, 215, 150),
        "pink": (248, 170, 200),
        "yellow": (250, 228, 130),
        "purple": (150, 110, 200),
        "grey": (128, 128, 132),
        "black": (30, 30, 34),
    }
)
"""Name -> red, green, blue in 0..255."""
