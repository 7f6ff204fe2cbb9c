"""Masking of a packed stream for training.

Axes: N = tokens of the stream, G = groups. A group is a set of target positions that are masked by one share:
the tokens of one answer or image. `group` [N] names the group of each position, or -1 if it is no target.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from dimoo.core.errors import DataError
from dimoo.diffusion.schedules import Schedule


@dataclass(frozen=True, kw_only=True, eq=False)
class Corrupted:
    """A corrupted stream."""

    ids: Tensor
    """int64 [N]: the ids with the mask id at the masked positions."""

    masked: Tensor
    """bool [N]: the positions to be predicted."""

    share: Tensor
    """float32 [G]: the chance that each single position of a group had of being masked; losses weigh by its inverse."""


class Corruption(Protocol):
    """Masks some of each group's positions and touches no other."""

    def __call__(
        self, ids: Tensor, group: Tensor, share: Tensor, mask_id: int, generator: torch.Generator
    ) -> Corrupted:
        """Corrupt ids int64 [N] with group int64 [N] and share float32 [G]; the inputs are left as they are.

        Raises:
            DataError: `group` names a group that has no share.
        """


@dataclass(frozen=True, kw_only=True)
class ExactCount:
    """Masks exactly clamp(floor(n_g m_g), 1, n_g) of a group's n_g positions, every subset equally likely.

    The MaskGIT and Lumina-DiMOO choice: no variance in the count, so a position's chance is the realised count / n_g.
    """

    def __call__(
        self, ids: Tensor, group: Tensor, share: Tensor, mask_id: int, generator: torch.Generator
    ) -> Corrupted:
        """Mask the first count of each group in a random order."""
        sizes = group_sizes(group, len(share))
        counts = (sizes * share).floor().long().clamp(min=1).minimum(sizes)
        # A stable sort by group of a shuffled stream lists each group's positions in random order.
        shuffled = torch.randperm(len(ids), generator=generator, device=generator.device).to(ids.device)
        ordered = shuffled[group[shuffled].argsort(stable=True)]
        ordered = ordered[len(ids) - int(sizes.sum()) :]
        owner = group[ordered]
        rank = torch.arange(len(ordered), device=ids.device) - (sizes.cumsum(0) - sizes)[owner]
        masked = torch.zeros_like(group, dtype=torch.bool)
        masked[ordered] = rank < counts[owner]
        share = counts / sizes.clamp(min=1)
        return Corrupted(ids=ids.masked_fill(masked, mask_id), masked=masked, share=share)


@dataclass(frozen=True, kw_only=True)
class Bernoulli:
    """Masks each position on its own with probability m_g, as the bounds of LLaDA and MDLM assume.

    A position is masked where its uniform key is below the share. With `at_least_one`, in a group where no key is the
    position with the smallest key is masked, so that none goes without a target; a position's chance is then
    m + (1 - m)^n / n. A likelihood bound wants False: it knows groups with nothing masked.
    """

    at_least_one: bool = True

    def __call__(
        self, ids: Tensor, group: Tensor, share: Tensor, mask_id: int, generator: torch.Generator
    ) -> Corrupted:
        """Mask where a random key is below the share."""
        sizes = group_sizes(group, len(share))
        keys = torch.rand(len(ids), generator=generator, device=generator.device).to(ids.device)
        target = group >= 0
        owner = group[target]
        chosen = keys[target] < share[owner]
        if self.at_least_one:
            # Where any key is below the share the smallest is, so this adds nothing there.
            least = torch.ones_like(share).scatter_reduce(0, owner, keys[target].to(share.dtype), "amin")
            chosen |= keys[target] == least[owner]
            share = share + (1.0 - share) ** sizes / sizes.clamp(min=1)
        masked = target.clone()
        masked[target] = chosen
        return Corrupted(ids=ids.masked_fill(masked, mask_id), masked=masked, share=share)


def group_sizes(group: Tensor, groups: int) -> Tensor:
    """How many positions each of `groups` groups has: group int64 [N] -> int64 [G].

    Raises:
        DataError: a group number is `groups` or above.
    """
    sizes = torch.bincount(group[group >= 0], minlength=groups)
    if len(sizes) > groups:
        raise DataError(f"the stream names group {len(sizes) - 1} but there are shares for {groups} groups: add them")
    return sizes


def shares(schedule: Schedule, progress: Tensor, sizes: Tensor, full_up_to: int) -> Tensor:
    """The masked share of each group: progress float32 [G], sizes int64 [G] -> float32 [G].

    m(u), but 1 for groups of at most `full_up_to` tokens: a short answer with one token hidden is hardly a
    task (Lumina-DiMOO masks answers of at most 5 tokens fully; 0 switches this off).
    """
    return torch.where(sizes <= full_up_to, 1.0, schedule.share(progress))
