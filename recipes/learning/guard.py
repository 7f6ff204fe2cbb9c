"""What keeps a run from learning from a gradient that it should not, and says where one that is not finite is from."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from statistics import median
from typing import Any

import torch
from torch import Tensor

from dimoo.core.errors import TrainingError
from dimoo.denoise.objective import Loss, Noisy

WINDOW = 100
LEAST = 10
"""Norms that must be known before any is called too large."""
MOST_IN_A_ROW = 20
NAMED = 8
"""Examples that a message names."""


class SpikeGuard:
    """Tells the steps that are to be left out: |g| > spike x the median of the last `WINDOW` norms that were taken.

    It remembers norms, so its state belongs in a checkpoint.
    """

    def __init__(self, spike: float | None = None) -> None:
        """Begin without norms; spike None: no step is left out."""
        self._spike = spike
        self._norms: deque[float] = deque(maxlen=WINDOW)
        self._row = 0
        self.skipped = 0
        """Steps left out so far."""

    def skips(self, norm: float) -> bool:
        """Whether the step with a gradient of this norm, before clipping, is to be left out.

        Raises:
            TrainingError: more than `MOST_IN_A_ROW` in a row are.
        """
        if self._spike is None:
            return False
        limit = self._spike * median(self._norms) if len(self._norms) >= LEAST else math.inf
        if norm <= limit:
            self._norms.append(norm)
            self._row = 0
            return False
        self._row += 1
        self.skipped += 1
        if self._row > MOST_IN_A_ROW:
            raise TrainingError(
                f"{self._row} steps in a row have a gradient norm above {limit:.4g}, {self._spike:g} times the median,"
                f" the last one {norm:.4g}; set optimizer.spike higher, or optimizer.lr lower, under another run.name"
            )
        return True

    def restart(self) -> None:
        """Begin a new window: what is trained has changed, and the norms with it."""
        self._norms.clear()

    def values(self) -> dict[str, float]:
        """How many steps were left out, to be logged, where there is a guard."""
        return {} if self._spike is None else {"skipped": float(self.skipped)}

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {"norms": list(self._norms), "row": self._row, "skipped": self.skipped}

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on from a checkpoint's state."""
        self._norms = deque(state["norms"], maxlen=WINDOW)
        self._row, self.skipped = state["row"], state["skipped"]


def first_not_finite(named: Iterable[tuple[str, Tensor | None]]) -> str | None:
    """The name of the first tensor with a NaN or an infinity in it; of sharded ones all processes must ask."""
    for name, tensor in named:
        if tensor is None:
            continue
        full: Tensor = getattr(tensor, "full_tensor", lambda tensor=tensor: tensor)()
        if not bool(full.isfinite().all()):
            return name
    return None


def lost(
    noisy: Sequence[Noisy], losses: Sequence[Loss], documents: Mapping[int, Tensor]
) -> tuple[list[str], list[int]]:
    """Where the nll of masked tokens is not finite.

    Args:
        noisy: the packs of a step.
        losses: of each.
        documents: the ids int64 [n] of the step's documents, by the number of the example that each is made of.

    Returns:
        The kinds of such tokens, and the numbers of the examples with some.
    """
    kinds, found = set[str](), set[int]()
    for entry, loss in zip(noisy, losses, strict=True):
        bad = ~loss.nll.isfinite().cpu()
        batch = entry.batch
        kinds |= {batch.targets[group].kind for group in set(entry.groups.group[bad].tolist())}
        ends = torch.tensor(batch.lengths).cumsum(0)
        places = set(torch.searchsorted(ends, entry.rows[bad], right=True).tolist())
        parts = torch.split(batch.ids, list(batch.lengths))
        # Packs are sorted and divided: a document is known by its tokens.
        found |= {
            number for number, ids in documents.items() if any(torch.equal(ids, parts[place]) for place in places)
        }
    return sorted(kinds), sorted(found)


def place_of(kinds: Sequence[str], examples: Sequence[int], weight: str | None, gradient: str | None) -> str:
    """In words: which tokens, which weight and which gradient are not finite."""
    said = []
    if examples:
        more = f" and {len(examples) - NAMED} more" if len(examples) > NAMED else ""
        numbers = ", ".join(map(str, examples[:NAMED]))
        said.append(f"the nll of {' and '.join(kinds)} in the documents of examples {numbers}{more}")
    if weight is not None:
        said.append(f"the weight {weight}")
    if gradient is not None:
        said.append(f"the gradient of {gradient}" + ("" if weight else ", the first by name"))
    return f"not finite: {'; '.join(said)}" if said else "every nll, weight and gradient alone is finite"
