"""Named random generators: every draw in dimoo comes from one of these, never from a global seed."""

from __future__ import annotations

import hashlib

import torch


def derive_seed(seed: int, *names: str | int) -> int:
    """Hash a seed and a path of names to a 63-bit seed; different paths give independent streams.

    The same arguments give the same result on every machine and Python version.
    """
    # A slash inside a name is escaped, so that ("a/b") and ("a", "b") are two paths.
    escaped = (str(name).replace("\\", "\\\\").replace("/", "\\/") for name in names)
    text = "/".join([str(seed), *escaped])
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def generator(seed: int, *names: str | int, device: torch.device | str = "cpu") -> torch.Generator:
    """Make a fresh generator for the stream `names` of `seed`; `seed=0` is a seed like any other."""
    return torch.Generator(device=device).manual_seed(derive_seed(seed, *names))
