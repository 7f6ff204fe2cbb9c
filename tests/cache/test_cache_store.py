"""What a store takes, what it refuses, and that nothing outlives a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from cached_rows import (
    Row,
    assert_same,
    counted,
    edit,
    joint,
    partial_policies,
    picture,
    requests_of,
    start_of,
    text,
    toy,
    traces,
    twins,
)
from torch import Tensor, nn

from dimoo.backbone.adapter import PaddedEncoder
from dimoo.backbone.build import build_backbone
from dimoo.backbone.model import Backbone
from dimoo.cache.blocks import BlockCache
from dimoo.cache.frozen import FrozenContext
from dimoo.cache.max_logit import MaxLogit, PaperMaxLogit, Timetable
from dimoo.cache.policy import Look, Policy
from dimoo.cache.size import CacheSize
from dimoo.cache.stored import StoredCache, StoredDenoiser
from dimoo.core.errors import ConfigError
from dimoo.core.rng import generator
from dimoo.denoise import BackboneDenoiser, Branch
from dimoo.diffusion.canvas import Canvas, Span
from dimoo.diffusion.confidence import Probability
from dimoo.diffusion.guidance import ClassifierFree
from dimoo.diffusion.parallel import KLASS, AdaptiveOrder
from dimoo.diffusion.sampler import Denoiser, Query, sample
from dimoo.presets import lumina_dimoo_8b as lumina

SIZED = [
    picture(steps=4, prompt=7),
    edit(steps=6),
    text(steps=6, scale=1.0),
    joint(steps=(6, 6)),
]
"""Rows whose branches are all there at the first step."""


def denoiser_of(backbone: Backbone, rows: list[Row], policy: Policy, **bound: int) -> StoredDenoiser:
    made = StoredCache(policy=policy, **bound).denoiser(backbone, start_of(rows), requests_of(rows))
    assert isinstance(made, StoredDenoiser)
    return made


def size_of(backbone: Backbone, rows: list[Row], policy: Policy) -> CacheSize:
    return CacheSize.of(backbone, start_of(rows), requests_of(rows), logits=policy.keeps_logits)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("policy", partial_policies(), ids=repr)
def test_a_store_takes_what_was_computed_from_shapes(policy: Policy, dtype: torch.dtype) -> None:
    network = toy().to(dtype)
    size = size_of(network, SIZED, policy)
    denoiser = denoiser_of(network, SIZED, policy)
    assert denoiser.bytes == 0
    taken = []
    for _ in sample(denoiser, start_of(SIZED), [generator(row.seed) for row in SIZED]):
        taken.append(denoiser.bytes)
    # The first row leaves after 4 of 6 steps.
    left = CacheSize.of(
        network,
        start_of(SIZED),
        {row: branches for row, branches in requests_of(SIZED).items() if row > 0},
        logits=policy.keeps_logits,
    )
    for bytes_, wanted in zip(taken, [size] * 4 + [left] * 2, strict=True):
        assert wanted.total - wanted.read <= bytes_ <= wanted.total
    assert any(bytes_ > size.total - size.read for bytes_ in taken[:4]) == policy.keeps_logits
    # 2 x 2 layers x 2 key/value heads of 8 numbers; contexts and canvases of all branches.
    tokens = 7 + 2 + 2 * 15 + 10 + 6 + 4 + 3 * 8 + 2 * 6 + 2 * 11 + 4 + 1 + 2 * (8 + 8)
    assert size.keys_and_values == 2 * 2 * 2 * 8 * tokens * dtype.itemsize
    kept = 2 * 13 * 16 + 3 * 7 * 16 + 2 * 10 * 20 + (7 * 20 + 2 * 7 * 16)
    assert size.logits == (kept * dtype.itemsize if policy.keeps_logits else 0)
    read = 2 * 12 * 16 + 3 * 6 * 16 + 2 * 9 * 20 + (6 * 20 + 2 * 6 * 16)
    assert size.read == (read * dtype.itemsize if policy.keeps_logits else 0)


def test_a_branch_takes_room_when_it_comes(backbone: Backbone) -> None:
    rows = [picture(steps=6, during=(0.5, 1.0))]
    policy = MaxLogit()
    denoiser, taken = denoiser_of(backbone, rows, policy), []
    for _ in sample(denoiser, start_of(rows), [generator(0)]):
        taken.append(denoiser.bytes)
    full = size_of(backbone, rows, policy)
    part, most = 2 * 2 * 2 * 8 * 20 * 4 + 13 * 16 * 4, 12 * 16 * 4
    assert all(part <= bytes_ <= part + most for bytes_ in taken[:3])
    assert all(full.total - full.read <= bytes_ <= full.total for bytes_ in taken[3:])


def test_what_is_not_to_be_made_takes_no_room(backbone: Backbone) -> None:
    done = picture(size=(2, 2), kept=4)
    for policy in partial_policies():
        assert size_of(backbone, [done], policy).total == 0
        assert size_of(backbone, [done, edit()], policy) == size_of(backbone, [edit()], policy)


@pytest.mark.parametrize("policy", partial_policies(), ids=repr)
def test_a_bound_is_kept_before_anything_is_computed(backbone: Backbone, policy: Policy) -> None:
    size = size_of(backbone, SIZED, policy)
    with counted(backbone) as tokens, pytest.raises(ConfigError, match=rf"would take {size.total:,} bytes.*max_bytes"):
        denoiser_of(backbone, SIZED, policy, max_bytes=size.total - 1)
    assert tokens == []
    denoiser = denoiser_of(backbone, SIZED, policy, max_bytes=size.total)
    next(sample(denoiser, start_of(SIZED), [generator(0)] * len(SIZED)))
    assert size.total - size.read <= denoiser.bytes <= size.total


def test_a_bound_below_nothing_is_refused() -> None:
    with pytest.raises(ConfigError, match="max_bytes -1 must be at least 0"):
        StoredCache(policy=FrozenContext(), max_bytes=-1)


def test_a_network_without_keys_and_values_is_refused() -> None:
    network = PaddedEncoder(nn.Identity(), unembedding=nn.Parameter(torch.zeros(36, 4)), pad=1)
    rows = [picture()]
    with pytest.raises(ConfigError, match="PaddedEncoder does not: use NoCache"):
        StoredCache(policy=FrozenContext()).denoiser(network, start_of(rows), requests_of(rows))


@pytest.mark.parametrize("bound", [{}, {"max_bytes": 10**9}])
def test_a_branch_that_the_request_lacks_is_named(backbone: Backbone, bound: dict[str, int]) -> None:
    whole = picture()
    row = replace(whole, branches={"condition": whole.branches["condition"]})
    with pytest.raises(ConfigError, match=r"request 0 has no branch 'unconditional'.*it has condition"):
        traces(denoiser_of(backbone, [row], FrozenContext(), **bound), start_of([row]), [row])


class Own:
    """A policy after whole steps, of positions of one's own."""

    keeps_logits = False

    def __init__(self, positions: list[int]) -> None:
        self.positions = positions

    def surveys(self, step: int, steps: int) -> bool:
        return False

    def anew(self, look: Look) -> Tensor | None:
        return torch.tensor(self.positions, dtype=torch.int64)


def test_a_policy_that_computes_nothing_is_refused(backbone: Backbone) -> None:
    with pytest.raises(ConfigError, match=r"Own object.*computes nothing anew; let it give at least one position"):
        traces(denoiser_of(backbone, [text()], Own([])), start_of([text()]), [text()])


def test_a_policy_that_leaves_out_what_it_must_not_fails(backbone: Backbone) -> None:
    """Not silently, with the logits of another position."""
    with pytest.raises(IndexError):
        traces(denoiser_of(backbone, [text()], Own([0, 1])), start_of([text()]), [text()])


def test_the_size_at_8b_and_1024_pixels() -> None:
    """At most 4.6 GB with 64 prompt tokens, both branches and the logits of the codes; the release takes 6.7."""
    with torch.device("meta"):
        network = build_backbone(lumina.BACKBONE).to(torch.bfloat16)
    vocabulary = lumina.VOCABULARY
    columns = vocabulary.columns("image")
    line = [vocabulary.mask] * 64 + [vocabulary.special("end_of_line")]
    ids = torch.tensor([1, 2, *line * 64, 3, 4])
    plan = replace(picture().parts[0][2], guidance=ClassifierFree(scale=4.0))
    span = Span(row=0, positions=(ids == vocabulary.mask).nonzero()[:, 0], columns=columns, plan=plan)
    start = Canvas.start(ids=ids, lengths=(len(ids),), spans=(span,), mask_id=vocabulary.mask)
    prompt = Branch(context=torch.zeros(64, dtype=torch.int64))
    size = CacheSize.of(network, start, {0: {"condition": prompt, "unconditional": prompt}}, logits=True)
    assert size.keys_and_values == 2 * 32 * 4096 * 2 * (64 + 4 + 64 * 65) * 2
    assert size.logits == 2 * (64 * 64 + 1) * 8192 * 2
    assert size.total == size.keys_and_values + size.logits == 4_567_629_824


def test_a_run_that_broke_leaves_nothing_behind(backbone: Backbone) -> None:
    rows, cache = SIZED, StoredCache(policy=MaxLogit(timetable=Timetable(warmup=0.2, refresh=4)))
    start, requests = start_of(rows), requests_of(rows)
    wanted = traces(cache.denoiser(backbone, start, requests), start, rows)

    calls = []

    def breaking(module: nn.Module, inputs: object, output: Tensor) -> None:
        calls.append(len(output))
        if len(calls) == 4:
            raise MemoryError("of the device")

    hook = backbone.blocks[1].register_forward_hook(breaking)
    try:
        with pytest.raises(MemoryError, match="of the device"):
            traces(cache.denoiser(backbone, start, requests), start, rows)
    finally:
        hook.remove()
    for ours, theirs in zip(traces(cache.denoiser(backbone, start, requests), start, rows), wanted, strict=True):
        assert_same(ours, theirs, atol=0.0)


def test_two_runs_by_one_cache_do_not_meet(backbone: Backbone) -> None:
    """Step by step in turn, on canvases that differ."""
    cache = StoredCache(policy=PaperMaxLogit(share=0.3, timetable=Timetable(warmup=0.0, refresh=9)))
    singles = [[picture(steps=6, seed=seed)] for seed in (1, 2)]

    def denoiser(rows: list[Row]) -> Denoiser:
        return cache.denoiser(backbone, start_of(rows), requests_of(rows))

    wanted = [traces(denoiser(rows), start_of(rows), rows)[0].ids for rows in singles]
    runs = [sample(denoiser(rows), start_of(rows), [generator(rows[0].seed)]) for rows in singles]
    *_, last = zip(*runs, strict=True)
    assert [state.canvas.row(0).tolist() for state in last] == wanted
    assert wanted[0] != wanted[1]


def test_a_canvas_that_begins_again_is_computed_whole(backbone: Backbone) -> None:
    """By one denoiser, whose store is still full."""
    rows = [picture(steps=6, seed=1)]
    start, denoiser = start_of(rows), denoiser_of(backbone, rows, BlockCache())
    for one, two in zip(traces(denoiser, start, rows), traces(denoiser, start, rows), strict=True):
        assert_same(one, two, atol=0.0)


def test_contexts_and_canvas_are_left_as_they_are(backbone: Backbone) -> None:
    rows = SIZED[:3]
    start = start_of(rows)
    ids, contexts = start.ids.clone(), [b.context.clone() for row in rows for b in row.branches.values()]
    for policy in partial_policies():
        traces(denoiser_of(backbone, rows, policy), start, rows)
    assert torch.equal(start.ids, ids)
    after = [b.context for row in rows for b in row.branches.values()]
    assert all(torch.equal(one, two) for one, two in zip(contexts, after, strict=True))


def test_nothing_is_learnt_by_the_network(backbone: Backbone) -> None:
    """A plain run after a cached one is the plain run: modules keep no state."""
    rows = [picture(steps=4)]
    start, requests = start_of(rows), requests_of(rows)
    before = traces(BackboneDenoiser(backbone, start, requests), start, rows)
    traces(denoiser_of(backbone, rows, FrozenContext()), start, rows)
    (after,) = traces(BackboneDenoiser(backbone, start, requests), start, rows)
    assert_same(after, before[0], atol=0.0)
    assert not after.logits[0].requires_grad


@pytest.mark.parametrize("policy", [MaxLogit(share=0.3, timetable=Timetable(warmup=0.1, refresh=4)), PaperMaxLogit()])
def test_two_spans_of_the_same_columns_get_logits_of_their_own(backbone: Backbone, policy: Policy) -> None:
    """In float32, where nothing is converted on the way out."""
    rows = [twins(steps=(9, 9))]
    start = start_of(rows)
    cached = StoredCache(policy=policy).denoiser(backbone, start, requests_of(rows))
    pairs = []

    def watched(canvas: Canvas, queries: Sequence[Query]) -> list[Tensor]:
        answers = cached(canvas, queries)
        if len(answers) == 2:
            pairs.append([answer.clone() for answer in answers])
            answers[1].zero_()
            assert torch.equal(answers[0], pairs[-1][0])
            return pairs[-1]
        return answers

    for _ in sample(watched, start, [generator(0)]):
        pass
    assert len(pairs) >= 4
    for one, other in pairs:
        assert one.shape != other.shape or not torch.equal(one, other)


def test_orders_that_look_back_are_refused_where_logits_are_used_again(backbone: Backbone) -> None:
    """What is used again does not change, which would pass for settled."""
    rows = [picture(steps=6), picture(steps=6)]
    (positions, columns, own) = rows[0].parts[0]
    order = AdaptiveOrder(rule=KLASS())
    rows[0] = replace(rows[0], parts=((positions, columns, replace(own, order=order, confidence=Probability())),))
    start, requests = start_of(rows), requests_of(rows)
    for policy in (MaxLogit(), PaperMaxLogit()):
        with pytest.raises(ConfigError, match=r"KLASS.* looks at how predictions change.*use a cache of kind 'block'"):
            StoredCache(policy=policy).denoiser(backbone, start, requests)
        StoredCache(policy=policy).denoiser(backbone, start, {1: requests[1]})  # it is the other row's
    StoredCache(policy=FrozenContext()).denoiser(backbone, start, requests)
