"""demo, evaluate: how good a model is."""

from __future__ import annotations


def demo() -> None:
    """Make a gallery."""


def evaluate() -> None:
    """Score a model."""
