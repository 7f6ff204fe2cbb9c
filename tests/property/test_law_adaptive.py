"""Orders whose counts depend on the predictions: each rule equals plain Python, and all end within their steps."""

import math

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dimoo.core.rng import generator
from dimoo.diffusion.orders import BlockOrder, MaskGITOrder
from dimoo.diffusion.parallel import KLASS, AdaptiveOrder, EntropyBounded, Factor, Threshold
from dimoo.diffusion.progress import Progress
from dimoo.diffusion.schedules import Cosine
from dimoo.diffusion.settled import SettledOrder

# Multiples of 1/8, so that sums and products are exact in any precision; ties and bounds that are met exactly.
EIGHTHS = st.integers(0, 8).map(lambda value: value / 8)
RULES = st.one_of(
    st.builds(Threshold, threshold=EIGHTHS),
    st.builds(Factor, factor=st.integers(1, 40).map(lambda value: value / 8)),
    st.builds(EntropyBounded, bound=st.integers(0, 40).map(lambda value: value / 8)),
    st.builds(KLASS, threshold=EIGHTHS, max_drift=st.just(0.25), steps=st.integers(1, 3), fallback=st.integers(1, 4)),
)
FLAGS = st.lists(st.booleans(), min_size=1, max_size=24).map(lambda flags: torch.tensor(flags, dtype=torch.bool))


def naive_ready(rule, confidence, drift):
    """The places among the candidates that a rule is sure of, by lists; drift[i] holds the last steps' of one."""
    ranked = sorted(range(len(confidence)), key=lambda i: (-confidence[i], i))
    match rule:
        case Threshold():
            return {i for i in ranked if confidence[i] >= rule.threshold}
        case Factor():
            fits = [n for n in range(1, len(ranked) + 1) if (n + 1) * (1 - confidence[ranked[n - 1]]) < rule.factor]
            return set(ranked[: max(fits, default=0)])
        case EntropyBounded():
            entropy = [-confidence[i] for i in ranked]
            fits = [k for k in range(1, len(ranked) + 1) if sum(entropy[:k]) - max(entropy[:k]) <= rule.bound]
            return set(ranked[: max(fits)])
        case KLASS():
            ready = {
                i
                for i in ranked
                if confidence[i] > rule.threshold and all(value < rule.max_drift for value in drift[i][: rule.steps])
            }
            return ready or set(ranked[: rule.fallback])


def naive_commit(rule, block, progress, confidence):
    """What is committed of a span, by lists; confidence [L]."""
    masked = [i for i, flag in enumerate(progress.masked.tolist()) if flag]
    size = block or len(progress.masked)
    window = [i for i in masked if i // size == masked[0] // size]
    left = progress.steps - progress.step
    behind = len({i // size for i in masked}) - 1
    least = max(-(-len(masked) // left), -(-len(window) // max(1, left - behind)))
    own = [confidence[i] for i in window]
    ready = naive_ready(rule, own, [progress.drift[:, i].tolist() for i in window])
    for place in sorted(range(len(window)), key=lambda i: (-own[i], i)):
        if len(ready) < min(least, len(window)):
            ready.add(place)
    return sorted(window[place] for place in ready)


def random_progress(initial, masked, step, steps, rng):
    drift = torch.randint(4, (3, len(initial)), generator=rng) / 8
    drift[torch.rand(drift.shape, generator=rng) < 0.2] = math.inf
    return Progress.of(step=step, steps=steps, initial=initial, masked=masked, drift=drift)


def random_confidence(rule, length, rng):
    values = torch.randint(9, (length,), generator=rng) / 8
    return values - 1 if isinstance(rule, EntropyBounded) else values


@settings(deadline=None)
@given(RULES, st.none() | st.integers(1, 9), FLAGS, st.integers(0, 8), st.integers(0, 999))
def test_every_step_equals_plain_loops_and_none_is_left_after_the_last(rule, block, initial, spare, seed):
    order = AdaptiveOrder(rule=rule, block=block)
    steps = (-(-len(initial) // block) if block else 1) + spare
    order.validate(len(initial), steps)
    rng, masked = generator(seed), initial.clone()
    for step in range(steps):
        if not masked.any():
            break
        progress = random_progress(initial, masked, step, steps, rng)
        confidence = random_confidence(rule, len(initial), rng)
        candidates = order.candidates(progress)
        kept = masked.clone(), confidence.clone(), progress.drift.clone()
        chosen = candidates[order.commit(progress, candidates, confidence[candidates], rng)]
        assert all(map(torch.equal, kept, (masked, confidence, progress.drift)))
        assert chosen.tolist() == naive_commit(rule, block, progress, confidence.tolist())
        assert chosen.numel() >= min(candidates.numel(), -(-int(masked.sum()) // (steps - step)))
        masked = masked.clone()
        masked[chosen] = False
    assert not masked.any()


INNER = st.one_of(
    st.just(MaskGITOrder(schedule=Cosine())),
    st.just(BlockOrder(block=24)),
    st.builds(AdaptiveOrder, rule=RULES),
)


@settings(deadline=None)
@given(INNER, st.integers(1, 3), FLAGS, st.integers(1, 9), st.integers(0, 999))
def test_ending_early_changes_nothing_until_it_commits_all(inner, back, initial, steps, seed):
    order = SettledOrder(order=inner, max_drift=0.3, steps=back, least_confidence=-0.5)
    rng, masked = generator(seed), initial.clone()
    for step in range(steps):
        if not masked.any():
            break
        progress = random_progress(initial, masked, step, steps, rng)
        candidates = order.candidates(progress)
        rule = inner.rule if isinstance(inner, AdaptiveOrder) else None
        confidence = random_confidence(rule, len(initial), rng)[candidates]
        chosen = candidates[order.commit(progress, candidates, confidence, rng)]
        settled = all(value < 0.3 for row in progress.drift[:back, candidates].tolist() for value in row) and all(
            value >= -0.5 for value in confidence.tolist()
        )
        own = inner.commit(progress, candidates, confidence, rng)  # offsets, or flags of the candidates
        expected = candidates[own] if own.dtype == torch.bool else own
        assert torch.equal(chosen, candidates if settled else expected)
        masked = masked.clone()
        masked[chosen] = False
    assert not masked.any()
