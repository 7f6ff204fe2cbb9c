"""What a step reads from the device: where an order's counts are known beforehand, nothing.

A read makes the host wait for all that the device was given; on a CPU the same operations run, and can be counted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from cached_rows import (
    Row,
    assert_same,
    edit,
    joint,
    mixture,
    partial_policies,
    picture,
    plan,
    requests_of,
    start_of,
    text,
    traces,
)
from restless_rows import COSINE, drawing_masks, looks_back, restless, with_order
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

from dimoo.backbone.model import Backbone
from dimoo.cache.max_logit import PaperMaxLogit, Timetable
from dimoo.cache.similarity import SimilarityCache
from dimoo.cache.stored import StoredCache
from dimoo.core.device import sent
from dimoo.core.rng import generator
from dimoo.denoise import Cache, NoCache, RoutedDenoiser
from dimoo.diffusion.canvas import Canvas
from dimoo.diffusion.confidence import Probability
from dimoo.diffusion.draw import Greedy
from dimoo.diffusion.guidance import NoGuidance
from dimoo.diffusion.orders import BlockOrder, MaskGITOrder, RandomOrder
from dimoo.diffusion.parallel import KLASS, AdaptiveOrder, Threshold
from dimoo.diffusion.remasking import Refinement
from dimoo.diffusion.sampler import Denoiser, Query, State, sample
from dimoo.diffusion.schedules import remaining
from dimoo.diffusion.spread import HaltonOrder, StratifiedOrder
from dimoo.diffusion.stopping import StopAtToken
from dimoo.tasks.engine import Stream

READING = {"_local_scalar_dense", "nonzero", "masked_select", "is_nonzero", "equal", "unique", "_unique2"}
"""Operations of whose result the host must know a value or a shape."""
INDEXING = {"index", "index_put", "index_put_", "_unsafe_index"}
"""... and these with flags for an index."""


class Copies(TorchFunctionMode):
    """Notes what takes a whole tensor to the host or waits for one to be sent, which are no operations on a CPU."""

    def __init__(self, found: list[str]) -> None:
        super().__init__()
        self.found = found

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        del types
        name, given = getattr(func, "__name__", ""), kwargs or {}
        waits = any(isinstance(value, torch.device) for value in (*args, *given.values())) and not given.get(
            "non_blocking"
        )
        if name in {"tolist", "numpy", "cpu", "__array__"} or (name == "to" and waits):
            self.found.append(name)
        return func(*args, **given)


class Reads(TorchDispatchMode):
    """Notes each of them that runs within."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.copies = Copies(self.found)

    def __enter__(self) -> Reads:
        super().__enter__()
        self.copies.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self.copies.__exit__(*error)
        super().__exit__(*error)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        del types
        name = func.overloadpacket.__name__
        flags = name in INDEXING and any(index is not None and index.dtype == torch.bool for index in args[1])
        if name in READING or flags:
            self.found.append(name)
        return func(*args, **(kwargs or {}))


def reads_of_each_step(states: Iterator[State]) -> list[list[str]]:
    """The first begins with what is counted once, at the start."""
    found: list[list[str]] = []
    while True:
        with Reads() as reads:
            state = next(states, None)
        if state is None:
            return found[1:]
        found.append(reads.found)


@pytest.fixture(autouse=True)
def counts_of_schedules_are_made_on_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    """They take nothing from the device: numbers go in and come out."""

    def unseen(*args: Any) -> int:
        with _disable_current_modes():
            return remaining(*args)

    monkeypatch.setattr("dimoo.diffusion.orders.remaining", unseen)


@pytest.mark.parametrize(
    "read",
    [
        lambda x: int(x.sum()),
        lambda x: bool((x > 1).any()),
        lambda x: x.nonzero(),
        lambda x: x[x > 1],
        lambda x: x.masked_fill(x > 1, 0.0).sum().item(),
        lambda x: x.unique(),
        lambda x: x.tolist(),
        lambda x: x.cpu(),
        lambda x: x.to(torch.device("cpu")),
        lambda x: x.to(device=torch.device("cpu"), dtype=torch.int64),
    ],
)
def test_a_read_is_seen(read: Callable[[Tensor], object]) -> None:
    with Reads() as reads:
        read(torch.arange(4.0))
    assert reads.found


def test_what_is_sent_is_not_waited_for() -> None:
    with Reads() as reads:
        sent(torch.arange(4.0), torch.device("cpu"), torch.int64)
        torch.arange(4.0).to(torch.int64)
    assert reads.found == []


STATIC = {
    "picture": lambda: [picture(steps=6), edit(steps=5), picture(steps=8, during=(0.3, 0.8), kept=3, seed=6)],
    "text": lambda: [text(steps=6), text(steps=6, length=8, block=4, scale=1.0)],
    "joint": lambda: [joint(steps=(6, 4))],
    "random": lambda: [with_order(RandomOrder(schedule=COSINE))],
    "halton": lambda: [with_order(HaltonOrder(schedule=COSINE, grid=(2, 3)))],
    "stratified": lambda: [with_order(StratifiedOrder(schedule=COSINE, grid=(2, 3)))],
}


@pytest.mark.parametrize("name", STATIC)
@pytest.mark.parametrize("recorded", [False, True])
def test_an_order_of_known_counts_reads_nothing(backbone: Backbone, name: str, recorded: bool) -> None:
    assert all(step == [] for step in reads_of(backbone, STATIC[name](), NoCache(), recorded=recorded))


def reads_of(backbone: Backbone, rows: list[Row], cache: Cache, *, recorded: bool = False) -> list[list[str]]:
    """Recorded as all that a model makes is."""
    start = start_of(rows)
    denoiser = cache.denoiser(backbone, start, requests_of(rows))
    states = sample(denoiser, start, [generator(row.seed) for row in rows])
    found = reads_of_each_step(Stream[None]((), start, states) if recorded else states)
    assert len(found) >= 3
    return found


CACHES: list[Cache] = [
    SimilarityCache(share=0.3, prompt_refresh=3, answer_refresh=2),
    *(StoredCache(policy=policy) for policy in partial_policies()),
]


@pytest.mark.parametrize("cache", CACHES, ids=repr)
@pytest.mark.parametrize("name", STATIC)
def test_nor_does_a_cache_but_the_published_one(backbone: Backbone, cache: Cache, name: str) -> None:
    found = reads_of(backbone, STATIC[name](), cache, recorded=True)
    assert max(map(len, found)) == asks(cache)


@pytest.mark.parametrize("cache", CACHES, ids=repr)
def test_which_reads_once_for_all_rows_and_branches(backbone: Backbone, cache: Cache) -> None:
    """Also as rows idle, leave and come back, and where guidance begins later."""
    found = reads_of(backbone, [*mixture(), text(steps=12, length=6, scale=1.0, seed=8)], cache)
    assert max(map(len, found)) == asks(cache)


def asks(cache: Cache) -> bool:
    return isinstance(cache, StoredCache) and isinstance(cache.policy, PaperMaxLogit)


@pytest.mark.parametrize("rule", [Threshold(threshold=0.5), KLASS(threshold=0.5, max_drift=1.0, steps=1)], ids=repr)
@pytest.mark.parametrize("block", [None, 3])
def test_an_order_that_looks_at_predictions_reads_once(backbone: Backbone, rule: Any, block: int | None) -> None:
    order = AdaptiveOrder(rule=rule, block=block)
    row = text(steps=9, length=9)
    own = plan(9, NoGuidance(), order, Greedy(), Probability())
    row = replace(row, parts=((row.parts[0][0], row.parts[0][1], own),))
    assert {len(step) for step in reads_of(backbone, [row], NoCache())} == {1}


def test_a_stopping_rule_reads_once(backbone: Backbone) -> None:
    row = text(steps=9, length=9)
    own = replace(row.parts[0][2], order=BlockOrder(block=3), stopping=StopAtToken(token=-1))
    row = replace(row, parts=((row.parts[0][0], row.parts[0][1], own),))
    assert {len(step) for step in reads_of(backbone, [row], NoCache())} == {1}


def test_rounds_of_refinement_read_nothing(backbone: Backbone) -> None:
    row = picture(steps=4)
    own = replace(row.parts[0][2], remasking=Refinement(rounds=2), order=MaskGITOrder(schedule=COSINE))
    row = replace(row, parts=((row.parts[0][0], row.parts[0][1], own),))
    assert reads_of(backbone, [row], NoCache()) == [[]] * 5


@pytest.mark.parametrize("cache", [NoCache(), *CACHES], ids=repr)
@pytest.mark.parametrize("masks", [False, True])
def test_a_step_reads_once_for_all_rows_and_their_cache(backbone: Backbone, cache: Cache, masks: bool) -> None:
    rows = restless(looks_back=looks_back(cache))
    start = drawing_masks(start_of(rows)) if masks else start_of(rows)
    states = sample(cache.denoiser(backbone, start, requests_of(rows)), start, [generator(row.seed) for row in rows])
    found = reads_of_each_step(states)
    assert len(found) >= 8
    assert {len(step) for step in found} == {1}


def test_a_step_reads_once_also_for_caches_of_all_kinds(backbone: Backbone) -> None:
    rows = [row for cache in [NoCache(), *CACHES] for row in restless(looks_back=looks_back(cache))]
    caches = [cache for cache in [NoCache(), *CACHES] for _ in restless(looks_back=looks_back(cache))]
    start = start_of(rows)
    routed = RoutedDenoiser(backbone, start, [row.branches for row in rows], caches)
    found = reads_of_each_step(sample(routed, start, [generator(row.seed) for row in rows]))
    assert len(found) >= 8
    assert {len(step) for step in found} == {1}


def test_a_denoiser_that_nobody_tells_reads_itself(backbone: Backbone) -> None:
    """Behind a function of its user's, say; and makes the same."""
    cache = StoredCache(policy=PaperMaxLogit(share=0.3, timetable=Timetable(warmup=0.0, refresh=4)))
    rows = mixture()
    start = start_of(rows)
    within: list[list[str]] = []

    def hidden(denoiser: Denoiser) -> Denoiser:
        def call(canvas: Canvas, queries: Sequence[Query]) -> list[Tensor]:
            with Reads() as reads:
                logits = denoiser(canvas, queries)
            within.append(reads.found)
            return logits

        return call

    told = traces(cache.denoiser(backbone, start, requests_of(rows)), start, rows)
    asking = traces(hidden(cache.denoiser(backbone, start, requests_of(rows))), start, rows)
    assert {len(found) for found in within} == {0, 1}
    for one, other in zip(told, asking, strict=True):
        assert_same(one, other, atol=0)


@pytest.mark.parametrize("cache", [NoCache(), *CACHES], ids=repr)
def test_rows_that_are_read_together_are_as_alone(backbone: Backbone, cache: Cache) -> None:
    rows = restless(looks_back=looks_back(cache))
    start = start_of(rows)
    together = traces(cache.denoiser(backbone, start, requests_of(rows)), start, rows)
    assert len({max(step for step, *_ in trace.asked) for trace in together}) >= 4  # they end at different steps
    for row, trace in zip(rows, together, strict=True):
        own = start_of([row])
        (alone,) = traces(cache.denoiser(backbone, own, requests_of([row])), own, [row])
        assert_same(trace, alone, atol=1e-4)
