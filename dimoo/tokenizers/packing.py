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

    def answers(self) -> Tensor:
        """int64 [G]: the first group of the document that each group is in."""
        count = len(self.targets)
        documents = torch.repeat_interleave(torch.tensor(self.lengths, device=self.group.device))
        inside = self.group >= 0
        owner = torch.zeros(count, dtype=torch.int64, device=self.group.device)
        owner[self.group[inside]] = documents[inside]
        first = torch.full((len(self.lengths),), count, device=owner.device)
        return first.scatter_reduce(0, owner, torch.arange(count, device=owner.device), "amin")[owner]

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


def first_fit(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Deal things of some lengths into bins of at most `budget`: the longest first, each into the first with room.

    At most 11/9 of the least possible number of bins, and one (Johnson 1973).

    Returns:
        The places of the things in each bin, in order.

    Raises:
        DataError: one alone is longer than `budget`.
    """
    bins: list[list[int]] = []
    room: list[int] = []
    for place in sorted(range(len(lengths)), key=lambda place: (-lengths[place], place)):
        length = lengths[place]
        if length > budget:
            raise DataError(f"number {place} has length {length}, more than the {budget} that a bin takes; raise that")
        found = next((number for number, left in enumerate(room) if left >= length), None)
        if found is None:
            found = len(bins)
            bins.append([])
            room.append(budget)
        bins[found].append(place)
        room[found] -= length
    return [sorted(places) for places in bins]
