"""Documents: token ids together with what may be masked in them. Training and sampling both start from these."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

GIVEN = -1


@dataclass(frozen=True, kw_only=True)
class Target:
    """A group of positions of a document that share one masking ratio."""

    modality: str
    """"text", "image", ...: by this a plan is chosen."""
    kind: str
    """Name under which losses are logged: "image", "text", "padding"."""
    columns: tuple[int, int]
    """The ids (start, stop) that the positions may take: a modality's range, or one of its codebooks."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Document:
    """One sequence. `group[i]` is `GIVEN`, or the index in `targets` of the group that position i belongs to."""

    ids: Tensor
    """int64 [n]"""
    group: Tensor
    """int64 [n]"""
    targets: tuple[Target, ...]

    @classmethod
    def given(cls, ids: Sequence[int] | Tensor) -> Document:
        """A stretch that is only read, never masked."""
        ids = torch.as_tensor(ids, dtype=torch.int64)
        return cls(ids=ids, group=torch.full_like(ids, GIVEN), targets=())

    @classmethod
    def target(cls, ids: Sequence[int] | Tensor, target: Target) -> Document:
        """A stretch that is one group of targets."""
        ids = torch.as_tensor(ids, dtype=torch.int64)
        return cls(ids=ids, group=torch.zeros_like(ids), targets=(target,))

    def __len__(self) -> int:
        return self.ids.numel()


def join(parts: Sequence[Document]) -> Document:
    """Concatenate documents into one; target groups stay apart."""
    groups, offset = [], 0
    for part in parts:
        groups.append(torch.where(part.group == GIVEN, GIVEN, part.group + offset))
        offset += len(part.targets)
    return Document(
        ids=torch.cat([part.ids for part in parts]),
        group=torch.cat(groups),
        targets=tuple(target for part in parts for target in part.targets),
    )
