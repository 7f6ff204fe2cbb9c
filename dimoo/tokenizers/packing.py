"""Documents packed into one stream for training: no padding, every target group numbered across the pack.

Axes: N = tokens of the pack, G = target groups of the pack, D = documents.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dimoo.core.errors import DataError
from dimoo.tokenizers.document import Document, Target, join


@dataclass(frozen=True, kw_only=True, eq=False)
class Batch:
    """A pack of training documents."""

    ids: Tensor
    """int64 [N]: the clean tokens."""
    group: Tensor
    """int64 [N]: -1 = given, else 0..G-1."""
    lengths: tuple[int, ...]
    """Tokens of each of the D documents."""
    targets: tuple[Target, ...]
    """What each of the G groups holds."""

    def to(self, device: torch.device | str) -> Batch:
        """The batch on another device."""
        return Batch(ids=self.ids.to(device), group=self.group.to(device), lengths=self.lengths, targets=self.targets)

    def sizes(self) -> Tensor:
        """int64 [G]: tokens of each group."""
        return torch.bincount(self.group[self.group >= 0], minlength=len(self.targets))


def pack(documents: Sequence[Document]) -> Batch:
    """Pack documents in order, the shorter next to others of their length so that attention batches well.

    Raises:
        DataError: there is no document.
    """
    if not documents:
        raise DataError("a pack needs at least one document")
    documents = sorted(documents, key=len)
    whole = join(documents)
    return Batch(
        ids=whole.ids,
        group=whole.group,
        lengths=tuple(len(document) for document in documents),
        targets=whole.targets,
    )
