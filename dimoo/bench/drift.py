"""How far predictions of a cache, or of quantised weights, lie from those of the network, on its own trajectory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from dimoo.backbone.model import Backbone
from dimoo.core.rng import generator
from dimoo.denoise import Branch, NoCache, RoutedDenoiser
from dimoo.diffusion.canvas import Canvas
from dimoo.diffusion.sampler import Denoiser, Query, run
from dimoo.tasks.engine import start_of
from dimoo.tasks.job import Job
from dimoo.tokenizers.vocabulary import Vocabulary


def divergence(
    network: Backbone, vocabulary: Vocabulary, jobs: Sequence[Job[Any]], changed: Backbone | None = None
) -> float:
    """Mean KL(p || q) in nats over all steps and masked positions: p without a cache, q with that of each job.

    Both see the same canvases, those of the run without a cache, and fold their branches by the job's guidance.

    Args:
        network: whose predictions p are.
        vocabulary: its ids.
        jobs: what is made.
        changed: whose predictions q are, as the same network with quantised weights; None: `network`.
    """
    start = start_of(vocabulary, jobs, network.device)
    requests = [
        {name: Branch(context=document.ids.to(network.device)) for name, document in job.problem.branches.items()}
        for job in jobs
    ]
    exact = RoutedDenoiser(network, start, requests, [NoCache()] * len(jobs))
    cached = RoutedDenoiser(network if changed is None else changed, start, requests, [job.cache for job in jobs])
    compared = _Compared(exact, cached)
    run(compared, start, [generator(job.seed, "sample") for job in jobs])
    return compared.total / max(1, compared.count)


class _Compared:
    """A denoiser that answers as the first and asks the second as well."""

    def __init__(self, exact: Denoiser, cached: Denoiser) -> None:
        self._exact, self._cached = exact, cached
        self.total, self.count = 0.0, 0

    def __call__(self, canvas: Canvas, queries: Sequence[Query]) -> list[Tensor]:
        """The exact logits."""
        exact, cached = self._exact(canvas, queries), self._cached(canvas, queries)
        for query, wanted, found in zip(queries, exact, cached, strict=True):
            span = next(span for span in canvas.spans if bool((span.positions == query.positions[0]).any()))
            plan, allowed = span.plan, torch.ones(wanted.shape[-1], dtype=torch.bool, device=wanted.device)
            for index in span.forbidden:
                allowed[index - span.columns[0]] = False
            # Rounds of refinement are guided as the order's last step is.
            guidance = plan.guidance.at(min(query.step, plan.steps - 1), plan.steps)
            p, q = (guidance(logits)[:, allowed].log_softmax(-1) for logits in (wanted, found))
            self.total += float(torch.nn.functional.kl_div(q, p, log_target=True, reduction="sum"))
            self.count += query.positions.numel()
        return exact
