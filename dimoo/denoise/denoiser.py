"""The step: canvas -> one packed stream of all branches -> backbone -> logits at the wanted positions."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from dimoo.denoise.pack import Pack, Requests, pack
from dimoo.denoise.predictor import MaskPredictor
from dimoo.diffusion.canvas import Canvas
from dimoo.diffusion.sampler import Query


class BackboneDenoiser:
    """A `dimoo.diffusion.sampler.Denoiser` that runs every wanted branch of every open row in one forward pass.

    Rows without a query are finished: they leave the stream. The head computes the queried positions and columns
    only. One object serves one canvas from its first step to its last.
    """

    def __init__(self, backbone: MaskPredictor, start: Canvas, requests: Requests) -> None:
        """Args:
        backbone: the transformer, on the canvas's device.
        start: the canvas before the first step.
        requests: the branches of the canvas's rows, at least of those that are queried.
        """
        self._backbone = backbone
        self._start = start
        self._requests = requests
        self._pack: tuple[tuple[tuple[int, str], ...], Pack] | None = None

    @torch.no_grad()
    def __call__(self, canvas: Canvas, queries: Sequence[Query]) -> list[Tensor]:
        """Logits [branches, m, columns] of each query."""
        packed = self._packed(queries)
        hidden = self._backbone(packed.tokens(canvas), packed.layout)
        results: list[Tensor] = []
        for query in queries:
            rows = hidden[packed.rows(query.row, query.branches, query.positions)]
            logits = self._backbone.head(rows, slice(*query.columns)).float()
            results.append(logits.view(len(query.branches), query.positions.numel(), -1))
        return results

    def _packed(self, queries: Sequence[Query]) -> Pack:
        wanted = tuple(dict.fromkeys((query.row, name) for query in queries for name in query.branches))
        if self._pack is None or self._pack[0] != wanted:
            self._pack = wanted, pack(self._start, self._requests, wanted)
        return self._pack[1]
