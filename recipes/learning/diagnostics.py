"""What a step says of its predictions: nll, accuracy and entropy of the masked tokens, by kind and by masked share.

Axes: M = masked tokens, G = groups, K = kinds, B = bins of the masked share, V = values.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dimoo.denoise.objective import Loss, Noisy
from recipes.ranks import Ranks

BINS = 4
"""Of the share of a group that is masked: up to 1 / 4, 1 / 2, 3 / 4 and 1."""
MEASURED = ("nll", "accuracy", "entropy")


@dataclass(frozen=True, kw_only=True)
class Predictions:
    """Means over masked tokens, by name."""

    shown: dict[str, float]
    """`nll/KIND`, in nats."""
    details: dict[str, float]
    """`accuracy/KIND`; `entropy/KIND`, in nats; `nll/KIND/share_PERCENT` and `accuracy/KIND/share_PERCENT`."""


def predictions(
    kinds: Sequence[str], noisy: Sequence[Noisy], losses: Sequence[Loss], ranks: Ranks, device: torch.device
) -> Predictions:
    """The means over the tokens of all processes; what no token was masked of is left out.

    Args:
        kinds: of targets that there may be: the same on all processes.
        noisy: the packs of this process.
        losses: of each, measured.
        ranks: the processes.
        device: on which they speak.
    """
    sums = torch.zeros(len(kinds) * BINS, 1 + len(MEASURED), dtype=torch.float64)
    for entry, loss in zip(noisy, losses, strict=True):
        sums.index_add_(0, _bins(kinds, entry), _values(loss))
    whole = torch.tensor(ranks.sums(sums.flatten().tolist(), device), dtype=torch.float64).view(len(kinds), BINS, -1)
    shown, details = dict[str, float](), dict[str, float]()
    for kind, bins in zip(kinds, whole, strict=True):
        means = _means(bins.sum(0), kind)
        shown |= {name: value for name, value in means.items() if name.startswith("nll/")}
        details |= {name: value for name, value in means.items() if not name.startswith("nll/")}
        for number, one in enumerate(bins, start=1):
            ends = f"{kind}/share_{100 * number // BINS}"
            details |= {name: value for name, value in _means(one, ends).items() if not name.startswith("entropy/")}
    return Predictions(shown=shown, details=details)


def _means(sums: Tensor, ends: str) -> dict[str, float]:
    """float64 [V] -> each mean, where there is one."""
    count, *totals = sums.tolist()
    return {f"{name}/{ends}": total / count for name, total in zip(MEASURED, totals, strict=True)} if count else {}


def _bins(kinds: Sequence[str], entry: Noisy) -> Tensor:
    """int64 [M]: kind x `BINS` + bin of each masked token."""
    groups, sizes = entry.groups, entry.batch.sizes()
    # In whole numbers, so that a share of exactly 1 / 4 is in the first bin.
    bins = (BINS * groups.masked() + sizes - 1) // sizes.clamp(min=1) - 1
    kind = torch.tensor([kinds.index(target.kind) for target in entry.batch.targets], dtype=torch.int64)
    return (kind * BINS + bins.clamp(min=0))[groups.group]


def _values(loss: Loss) -> Tensor:
    """float64 [M, V]: 1, and what was measured of each masked token."""
    assert loss.hits is not None
    nll = loss.nll.cpu().double()
    return torch.stack([torch.ones_like(nll), nll, loss.hits.correct.cpu(), loss.hits.entropy.cpu()], dim=1)
