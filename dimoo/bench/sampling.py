"""`dimoo bench sampling`: models x tasks x methods x batches, each with what it costs and what it is worth."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

from dimoo.backbone.model import Backbone
from dimoo.bench.drift import divergence
from dimoo.bench.measure import Cost, cost_of
from dimoo.bench.methods import METHODS, PICTURES, REFERENCE, REFERENCE_CACHED, Method, Task
from dimoo.bench.reference import run_as_released
from dimoo.bench.stands import Parts, Stand
from dimoo.cache.max_logit import MaxLogit, PaperMaxLogit
from dimoo.cache.policy import Policy
from dimoo.cache.stored import StoredCache
from dimoo.core.peak import held
from dimoo.denoise import NoCache
from dimoo.tasks.engine import Stream
from dimoo.tasks.job import Job


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of the table."""

    model: str
    """On which it was measured: "random" weights, or a checkpoint."""
    task: Task
    method: str
    batch: int
    answers: int
    """How many were made."""
    seconds: float
    """Per answer."""
    ratio: float
    """Seconds of the released loop over these, for the same answers in the same run."""
    ratio_cached: float | None
    """The same over the released loop with its own cache; None where it has none."""
    quality: float | None
    """Share of right answers; of random weights that of the same method on the checkpoint, None without one."""
    quality_model: str | None
    """On which that was measured."""
    quality_reference: float | None
    """That of the released loop."""
    divergence: float | None
    """Mean KL in nats from the prediction without a cache on plain weights, see `drift`; None where that is it."""
    steps: float
    """Forward passes of a batch."""
    tokens_computed: float
    """Tokens through the network, per answer."""
    peak_bytes: int
    """The most that tensors held at a time, weights aside."""
    weight_bytes: int
    """Of the network."""


@dataclass(frozen=True, kw_only=True)
class Extent:
    """How much is measured on one stand."""

    tasks: tuple[Task, ...] = ("image", "edit", "text")
    methods: tuple[Method, ...] = METHODS
    batches: tuple[int, ...] = (1,)
    """The methods of `BATCHED` are measured in all of them, the others in the first."""
    compared: int = 0
    """Jobs that a divergence is of; 0: none is measured."""
    repeats: int = 1
    """Timed runs, of which the fastest counts."""


BATCHED = frozenset({"uncached", "max_logit_fast", "masked_block"})


def measure(stand: Stand, extent: Extent, advance: Callable[[str], None]) -> list[Row]:
    """The rows of a stand, the released loop's first in each task.

    Args:
        stand: the model.
        extent: how much.
        advance: told what is measured next.
    """
    rows: list[Row] = []
    for task in extent.tasks:
        references: dict[str, Row] = {}
        for name, policy in _references(task):
            advance(f"{stand.name} {task} {name}")
            references[name] = _released(stand, task, name, policy, references, extent.repeats)
        rows += references.values()
        for method in extent.methods:
            if task in method.tasks:
                for batch in extent.batches if method.name in BATCHED else extent.batches[:1]:
                    advance(f"{stand.name} {task} {method.name}")
                    rows.append(_ours(stand, task, method, batch, references, extent))
    return rows


def _references(task: Task) -> list[tuple[str, PaperMaxLogit | None]]:
    return [(REFERENCE, None), *([(REFERENCE_CACHED, PaperMaxLogit())] if task in PICTURES else [])]


def _released(
    stand: Stand, task: Task, name: str, policy: PaperMaxLogit | None, before: dict[str, Row], repeats: int
) -> Row:
    parts = stand.jobs(task, Method(name=name, tasks=(task,), said="the released loop"), 1)

    look = _until_cached(parts[0], policy)

    def run(jobs: Sequence[Job[Any]], most: int | None = None) -> list[Any]:
        return run_as_released(stand.network, stand.vocabulary, jobs, policy, most=most)

    cost = cost_of(lambda: _all(run, parts), stand.network, warm_up=lambda: run(parts[0], most=look), repeats=repeats)
    return _row(stand, stand.network, task, name, 1, parts, cost, before, None)


def _ours(stand: Stand, task: Task, method: Method, batch: int, references: dict[str, Row], extent: Extent) -> Row:
    parts, network = stand.jobs(task, method, batch), method.network(stand.network)

    def run(jobs: Sequence[Job[Any]]) -> list[Any]:
        return Stream.sampled(network, stand.vocabulary, jobs).results()

    def look() -> None:
        steps = max(_until_cached([job], _policy(job)) for job in parts[0])
        for _ in islice(Stream.sampled(network, stand.vocabulary, parts[0]), steps):
            pass

    cost = cost_of(lambda: _all(run, parts), network, warm_up=look, repeats=extent.repeats)
    drift = None
    some = [job for part in parts for job in part][: extent.compared]
    if some and (network is not stand.network or any(not isinstance(job.cache, NoCache) for job in some)):
        drift = divergence(stand.network, stand.vocabulary, some, network)
    return _row(stand, network, task, method.name, batch, parts, cost, references, drift)


def _policy(job: Job[Any]) -> Policy | None:
    return job.cache.policy if isinstance(job.cache, StoredCache) else None


def _until_cached(jobs: Sequence[Job[Any]], policy: Policy | None) -> int:
    """Steps of a warm-up, in which memory is at its most: all is masked, a step is stored, one is computed in part."""
    if not isinstance(policy, PaperMaxLogit | MaxLogit):
        return 2
    steps = max(plan.steps for job in jobs for plan in job.plans.values())
    return 2 + next((step for step in range(steps) if not policy.timetable.whole(step, steps)), 0)


def _all(run: Callable[[Sequence[Job[Any]]], list[Any]], parts: Parts) -> list[Any]:
    return [result for part in parts for result in run(part)]


def _row(
    stand: Stand,
    network: Backbone,
    task: Task,
    name: str,
    batch: int,
    parts: Parts,
    cost: Cost,
    references: dict[str, Row],
    drift: float | None,
) -> Row:
    answers = sum(map(len, parts))
    seconds, quality = cost.seconds / answers, stand.score(task, cost.results)
    plain, cached = references.get(REFERENCE), references.get(REFERENCE_CACHED)
    return Row(
        model=stand.name,
        task=task,
        method=name,
        batch=min(batch, answers),
        answers=answers,
        seconds=seconds,
        ratio=1.0 if plain is None else plain.seconds / seconds,
        ratio_cached=None if cached is None else cached.seconds / seconds,
        quality=quality,
        quality_model=None if quality is None else stand.name,
        quality_reference=quality if plain is None else plain.quality,
        divergence=drift,
        steps=cost.passes / len(parts),
        tokens_computed=cost.tokens / answers,
        peak_bytes=cost.peak_bytes,
        weight_bytes=held(network),
    )


def with_quality(costs: Sequence[Row], judged: Sequence[Row]) -> list[Row]:
    """Rows of random weights with the quality that the same methods have on a checkpoint."""
    worth = {(row.task, row.method): row for row in judged}
    return [
        replace(
            row,
            quality=own.quality,
            quality_model=own.quality_model,
            quality_reference=own.quality_reference,
            divergence=own.divergence,
        )
        if (own := worth.get((row.task, row.method)))
        else row
        for row in costs
    ]
