"""What a step reads from the device: where an order's counts are known beforehand, nothing.

A read makes the host wait for all that the device was given; on a CPU the same operations run, and can be counted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from cached_rows import MASK, Row, edit, joint, picture, plan, requests_of, start_of, text
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

from dimoo.backbone.model import Backbone
from dimoo.cache.frozen import FrozenContext
from dimoo.cache.max_logit import MaxLogit, PaperMaxLogit, Timetable
from dimoo.cache.stored import StoredCache
from dimoo.core.rng import generator
from dimoo.denoise import Cache, NoCache
from dimoo.diffusion.canvas import Canvas
from dimoo.diffusion.confidence import Probability
from dimoo.diffusion.draw import Greedy
from dimoo.diffusion.guidance import NoGuidance
from dimoo.diffusion.orders import BlockOrder, MaskGITOrder, Order, RandomOrder
from dimoo.diffusion.parallel import KLASS, AdaptiveOrder, Threshold
from dimoo.diffusion.remasking import Refinement, Remasking, ReMDM
from dimoo.diffusion.sampler import Query, State, sample
from dimoo.diffusion.schedules import Cosine, remaining
from dimoo.diffusion.spread import HaltonOrder, StratifiedOrder
from dimoo.diffusion.stopping import StopAtToken

READING = {"_local_scalar_dense", "nonzero", "masked_select", "is_nonzero", "equal", "unique", "_unique2"}
"""Operations of whose result the host must know a value or a shape."""
INDEXING = {"index", "index_put", "index_put_", "_unsafe_index"}
"""... and these with flags for an index."""


class Copies(TorchFunctionMode):
    """Notes what takes a whole tensor to the host, which is no operation on a CPU."""

    def __init__(self, found: list[str]) -> None:
        super().__init__()
        self.found = found

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        del types
        if getattr(func, "__name__", "") in {"tolist", "numpy", "cpu", "__array__"}:
            self.found.append(func.__name__)
        return func(*args, **(kwargs or {}))


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
    ],
)
def test_a_read_is_seen(read: Callable[[Tensor], object]) -> None:
    with Reads() as reads:
        read(torch.arange(4.0))
    assert reads.found


def with_order(order: Order) -> Row:
    """Six codes of a picture in an order, whose last steps idle."""
    row = picture(steps=4, size=(2, 3))
    (positions, columns, own) = row.parts[0]
    return replace(row, parts=((positions, columns, replace(own, order=order, confidence=Probability())),))


COSINE = Cosine()
STATIC = {
    "picture": lambda: [picture(steps=6), edit(steps=5), picture(steps=8, during=(0.3, 0.8), kept=3, seed=6)],
    "text": lambda: [text(steps=6), text(steps=6, length=8, block=4, scale=1.0)],
    "joint": lambda: [joint(steps=(6, 4))],
    "random": lambda: [with_order(RandomOrder(schedule=COSINE))],
    "halton": lambda: [with_order(HaltonOrder(schedule=COSINE, grid=(2, 3)))],
    "stratified": lambda: [with_order(StratifiedOrder(schedule=COSINE, grid=(2, 3)))],
}


@pytest.mark.parametrize("name", STATIC)
def test_an_order_of_known_counts_reads_nothing(backbone: Backbone, name: str) -> None:
    assert all(step == [] for step in reads_of(backbone, STATIC[name](), NoCache()))


def reads_of(backbone: Backbone, rows: list[Row], cache: Cache) -> list[list[str]]:
    start = start_of(rows)
    denoiser = cache.denoiser(backbone, start, requests_of(rows))
    found = reads_of_each_step(sample(denoiser, start, [generator(row.seed) for row in rows]))
    assert len(found) >= 3
    return found


EARLY = Timetable(warmup=0.0, refresh=4)


@pytest.mark.parametrize(
    "policy",
    [MaxLogit(share=0.3, timetable=EARLY), MaxLogit(share=0.3, timetable=EARLY, fixed=True), FrozenContext(refresh=3)],
    ids=repr,
)
def test_nor_does_a_cache_whose_counts_are_known(backbone: Backbone, policy: Any) -> None:
    rows = [picture(steps=8), edit(steps=8)]
    assert all(step == [] for step in reads_of(backbone, rows, StoredCache(policy=policy)))


def test_a_cache_of_unknown_counts_reads_once_a_branch(backbone: Backbone) -> None:
    rows = [picture(steps=8)]
    policy = PaperMaxLogit(share=0.3, timetable=EARLY)
    assert max(map(len, reads_of(backbone, rows, StoredCache(policy=policy)))) == 2


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


def test_rounds_of_refinement_are_chosen_on_the_host(backbone: Backbone) -> None:
    row = picture(steps=4)
    own = replace(row.parts[0][2], remasking=Refinement(rounds=2), order=MaskGITOrder(schedule=COSINE))
    row = replace(row, parts=((row.parts[0][0], row.parts[0][1], own),))
    assert [len(step) > 0 for step in reads_of(backbone, [row], NoCache())] == [False, False, True, True, True]


def taken_back(remasking: Remasking, **changes: Any) -> Row:
    row = picture(steps=6, size=(3, 3))
    (positions, columns, own) = row.parts[0]
    own = replace(own, remasking=remasking, confidence=Probability(), **changes)
    return replace(row, parts=((positions, columns, own),))


def stopping_at(token: int) -> Row:
    row = text(steps=9, length=9, seed=3)
    own = replace(row.parts[0][2], stopping=StopAtToken(token=token))
    return replace(row, parts=((row.parts[0][0], row.parts[0][1], own),))


def joint_stopping_at(token: int) -> Row:
    """Words that may end early, and a picture that goes on."""
    row = joint(steps=(6, 6), seed=3)
    (positions, columns, own), picture_span = row.parts
    own = replace(own, stopping=StopAtToken(token=token))
    return replace(row, parts=((positions, columns, own), picture_span))


ROWS = {
    "plain": lambda: [picture(steps=6), edit(steps=5), text(steps=8, length=8, block=4), joint(steps=(6, 4))],
    "stop": lambda: [stopping_at(token) for token in range(20)],
    "taken back": lambda: [taken_back(ReMDM(eta=0.5))],
    "stop beside a picture": lambda: [joint_stopping_at(token) for token in range(20)],
    "refined": lambda: [taken_back(Refinement(rounds=2, share=0.3))],
}


@pytest.mark.parametrize("name", ROWS)
def test_the_counts_of_a_query_are_those_of_the_canvas(backbone: Backbone, name: str) -> None:
    rows = ROWS[name]()
    start, before = start_of(rows), {}
    denoiser = NoCache().denoiser(backbone, start, requests_of(rows))
    compared = 0

    def watched(canvas: Canvas, queries: Sequence[Query]) -> list[Tensor]:
        nonlocal compared
        for query in queries:
            now, offset = canvas.row(query.row).tolist(), sum(canvas.lengths[: query.row])
            assert query.left == int(canvas.masked[offset : offset + len(now)].sum()) == now.count(MASK)
            step, seen = before.get(query.row, (None, now))
            if step == query.step - 1:
                changed = sum(one != other for one, other in zip(now, seen, strict=True))
                compared += 1
                assert query.written >= changed
                assert query.written == changed or name == "refined"  # there a token comes back as it was
        before.update({query.row: (query.step, canvas.row(query.row).tolist()) for query in queries})
        return denoiser(canvas, queries)

    states = list(sample(watched, start, [generator(row.seed) for row in rows]))
    assert compared >= 5
    assert states[-1].share_done == 1.0
    if name.startswith("stop"):
        assert (states[-1].canvas.ids == 1).any()  # some were filled
