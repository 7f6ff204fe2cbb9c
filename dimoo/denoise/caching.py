"""The seam at which caches attach: a cache makes the denoiser of the rows that use it.

A cache is a frozen choice of what is computed anew at a step. What it keeps lives in the denoiser that it makes, which
serves one canvas and goes with it: nothing is stored in modules or shared between runs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Protocol

from torch import Tensor

from dimoo.core.device import Count
from dimoo.core.errors import ConfigError
from dimoo.denoise.denoiser import BackboneDenoiser
from dimoo.denoise.pack import Branches
from dimoo.denoise.predictor import MaskPredictor
from dimoo.diffusion.canvas import Canvas
from dimoo.diffusion.sampler import Denoiser, Inquiring, Query


class Cache(Protocol):
    """What need not be computed again. It is hashable; equal caches serve their rows together."""

    def denoiser(self, network: MaskPredictor, start: Canvas, requests: Mapping[int, Branches]) -> Denoiser:
        """The denoiser of some rows of a canvas, from its first step to its last.

        Args:
            network: the transformer, on the canvas's device.
            start: the canvas before the first step.
            requests: the branches of the rows that are to be served.

        Raises:
            ConfigError: the cache cannot serve them: the network takes no keys and values, or its bound is too low.
        """


@dataclass(frozen=True, kw_only=True)
class NoCache:
    """Everything is computed at every step, nothing is kept."""

    def denoiser(self, network: MaskPredictor, start: Canvas, requests: Mapping[int, Branches]) -> Denoiser:
        """The plain denoiser."""
        return BackboneDenoiser(network, start, requests)


class RoutedDenoiser:
    """Every row by the cache of its own; rows of equal caches share a forward pass."""

    def __init__(
        self, network: MaskPredictor, start: Canvas, requests: Sequence[Branches], caches: Sequence[Cache]
    ) -> None:
        """Args:
            network: the transformer.
            start: the canvas before the first step.
            requests: the branches of each row of the canvas.
            caches: the cache of each row.

        Raises:
            ConfigError: there is not one cache per row, or one cannot serve its rows.
        """
        if len(requests) != len(caches):
            raise ConfigError(f"{len(requests)} rows need as many caches, not {len(caches)}")
        served: dict[Cache, dict[int, Branches]] = {}
        for row, (branches, cache) in enumerate(zip(requests, caches, strict=True)):
            served.setdefault(cache, {})[row] = branches
        self._caches = tuple(caches)
        self.denoisers = {cache: cache.denoiser(network, start, rows) for cache, rows in served.items()}
        """Of each cache, with what it keeps."""

    def __call__(self, canvas: Canvas, queries: Sequence[Query]) -> list[Tensor]:
        """Logits [branches, m, columns] of each query."""
        found: dict[int, Tensor] = {}
        for cache, denoiser in self.denoisers.items():
            own = [index for index, query in enumerate(queries) if self._caches[query.row] == cache]
            if own:
                found.update(zip(own, denoiser(canvas, [queries[index] for index in own]), strict=True))
        return [found[index] for index in range(len(queries))]

    @property
    def open_counts(self) -> list[Count]:
        """What caches need to know at the next step."""
        return [count for denoiser in self._inquiring for count in denoiser.open_counts]

    def told(self, numbers: Sequence[int]) -> None:
        """Be told what `open_counts` are, in their order."""
        rest = iter(numbers)
        for denoiser in self._inquiring:
            denoiser.told(tuple(islice(rest, len(denoiser.open_counts))))

    @property
    def _inquiring(self) -> list[Inquiring]:
        return [denoiser for denoiser in self.denoisers.values() if isinstance(denoiser, Inquiring)]
