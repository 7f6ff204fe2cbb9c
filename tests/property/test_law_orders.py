import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dimoo.core.rng import generator
from dimoo.diffusion.orders import BlockOrder, MaskGITOrder, RandomOrder
from dimoo.diffusion.progress import Progress
from dimoo.diffusion.schedules import Arccos, Cosine, Linear, Power, remaining
from dimoo.diffusion.spread import GridOrder, HaltonOrder, StratifiedOrder

SCHEDULES = st.sampled_from([Cosine(), Linear(), Power(exponent=0.5), Power(exponent=3.0), Arccos()])
SPANS = st.lists(st.booleans(), max_size=50).map(lambda flags: torch.tensor(flags, dtype=torch.bool))
# Few levels of confidence: ties everywhere.
LEVELS = st.integers(1, 4)


def simulate(order, initial, steps, levels, seed):
    """Commits until nothing is masked; returns (masked before, committed) per step and what is left."""
    rng, masked, counts = generator(seed), initial.clone(), []
    for step in range(steps):
        if not masked.any():
            break
        progress = Progress.of(step=step, steps=steps, initial=initial, masked=masked)
        candidates = order.candidates(progress)
        assert bool(masked[candidates].all())
        confidence = torch.randint(levels, (len(candidates),), generator=rng).float()
        before = initial.clone(), masked.clone(), candidates.clone(), confidence.clone()
        chosen = order.commit(progress, candidates, confidence, rng)
        for tensor, old in zip((initial, masked, candidates, confidence), before, strict=True):
            assert torch.equal(tensor, old)
        assert chosen.dtype == torch.int64
        assert bool(torch.isin(chosen, candidates).all())
        assert bool((chosen.diff() > 0).all())
        if not isinstance(order, RandomOrder | GridOrder):
            rest = confidence[~torch.isin(candidates, chosen)]
            taken = confidence[torch.isin(candidates, chosen)]
            assert not len(rest) or not len(taken) or rest.max() <= taken.min()
        counts.append((int(masked.sum()), len(chosen)))
        masked = masked.clone()
        masked[chosen] = False
    return counts, masked


@st.composite
def scheduled(draw):
    """An order by a schedule, and which positions of its span are masked at first."""
    schedule, (height, width) = draw(SCHEDULES), draw(st.tuples(st.integers(1, 7), st.integers(1, 7)))
    kind = draw(st.sampled_from([MaskGITOrder, RandomOrder, HaltonOrder, StratifiedOrder]))
    if not issubclass(kind, GridOrder):
        return kind(schedule=schedule), draw(SPANS)
    flags = draw(st.lists(st.booleans(), min_size=height * width, max_size=height * width))
    order = kind(schedule=schedule, grid=(height, width), offset=draw(st.integers(0, 60)))
    return order, torch.tensor(flags, dtype=torch.bool)


@settings(deadline=None)
@given(scheduled(), st.integers(1, 70), LEVELS, st.integers(0, 99))
def test_scheduled_orders_commit_exact_counts_to_the_end(case, steps, levels, seed):
    order, initial = case
    schedule = order.schedule
    order.validate(len(initial), steps)
    counts, masked = simulate(order, initial, steps, levels, seed)
    total = int(initial.sum())
    assert not masked.any()
    assert len(counts) <= min(steps, total)  # with more steps than tokens it ends early
    for step, (now, committed) in enumerate(counts):
        assert committed >= 1
        left = min(max(1, remaining(schedule, total, step, steps)), now - 1) if step < steps - 1 else 0
        assert now - committed == left


@settings(deadline=None)
@given(st.integers(1, 12), st.integers(1, 15), SPANS, LEVELS, st.integers(0, 99))
def test_block_order_finishes_block_after_block(block, per_block, initial, levels, seed):
    blocks = max(1, -(-len(initial) // block))
    steps, order = blocks * per_block, BlockOrder(block=block)
    order.validate(len(initial), steps)
    counts, masked = simulate(order, initial, steps, levels, seed)
    assert not masked.any()
    for step, (_, committed) in enumerate(counts):
        index, k = divmod(step, per_block)
        share, rest = divmod(int(initial[index * block : (index + 1) * block].sum()), per_block)
        assert committed == share + (k < rest)


@settings(deadline=None)
@given(st.integers(1, 10), st.integers(1, 6), st.data(), LEVELS)
def test_block_order_commits_at_every_step_if_all_is_masked(block, blocks, data, levels):
    per_block = data.draw(st.integers(1, block))
    initial = torch.ones(block * blocks, dtype=torch.bool)
    counts, masked = simulate(BlockOrder(block=block), initial, blocks * per_block, levels, 0)
    assert all(committed >= 1 for _, committed in counts)
    assert len(counts) == blocks * per_block
    assert not masked.any()
