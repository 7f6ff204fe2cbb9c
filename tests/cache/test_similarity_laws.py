"""Laws of the similarity cache: what it equals, what it computes, what it keeps and what it refuses."""

import math

import pytest
import torch
from cached_rows import assert_same, edit, joint, picture, requests_of, start_of, text, traces
from hypothesis import given, settings
from hypothesis import strategies as st
from similarity_oracle import LAYERS, deep, mlp_tokens

from dimoo.cache.frozen import FrozenContext
from dimoo.cache.segments import wanted_by
from dimoo.cache.similarity import SimilarityCache
from dimoo.cache.size import CacheSize
from dimoo.cache.stored import StoredCache
from dimoo.core.errors import ConfigError
from dimoo.denoise import BackboneDenoiser, RoutedDenoiser
from dimoo.diffusion.sampler import Query
from dimoo.diffusion.turn import Region

PARTIAL = SimilarityCache(share=0.3, prompt_refresh=4, answer_refresh=3)


@pytest.fixture(scope="module")
def network():
    return deep()


@pytest.fixture(scope="module")
def rows():
    """Of different lengths, branches and numbers of steps; one's guidance comes late, one idles every second step."""
    return [
        picture(steps=6, seed=1),
        edit(steps=4, seed=2),
        text(steps=8, length=8, block=4, scale=1.0, seed=3),
        joint(steps=(6, 4), length=4, block=2, seed=4),
        picture(steps=8, size=(2, 5), during=(0.3, 0.8), kept=3, seed=5),
        text(steps=12, length=6, block=3, seed=6),
    ]


@pytest.fixture(scope="module")
def start(rows):
    return start_of(rows)


@pytest.fixture(scope="module")
def requests(rows):
    return requests_of(rows)


def queries_of(start, step=0, among=None, written=0):
    """All that is masked in the rows, after so many were written in each."""
    return [
        Query(
            row=span.row,
            positions=span.positions[start.masked[span.positions]],
            region=Region(first=int(span.positions[0]), last=int(span.positions[-1]), complete=True),
            columns=span.columns,
            branches=span.plan.guidance.branches,
            step=step,
            steps=span.plan.steps,
            written=written,
        )
        for span in start.spans
        if among is None or span.row in among
    ]


def test_refreshing_all_equals_no_cache_bit_for_bit(network, rows, start, requests):
    always = SimilarityCache(share=0.25, prompt_refresh=1, answer_refresh=1)
    theirs = traces(BackboneDenoiser(network, start, requests), start, rows)
    for ours, plain in zip(traces(always.denoiser(network, start, requests), start, rows), theirs, strict=True):
        assert ours.asked == plain.asked
        assert all(torch.equal(one, other) for one, other in zip(ours.logits, plain.logits, strict=True))
        assert ours.ids == plain.ids


def test_the_whole_share_equals_no_cache(network, rows, start, requests):
    """Though every step but each fifth is a partial one, of which all tokens are the least similar."""
    whole = SimilarityCache(share=1.0, prompt_refresh=1, answer_refresh=5)
    theirs = traces(BackboneDenoiser(network, start, requests), start, rows)
    for ours, plain in zip(traces(whole.denoiser(network, start, requests), start, rows), theirs, strict=True):
        assert_same(ours, plain, atol=1e-5)


def test_the_whole_share_under_a_stored_context_is_the_frozen_context(network, rows, start, requests):
    """Which is a policy that is planned before the step."""
    ours = traces(SimilarityCache(share=1.0, prompt_refresh=3).denoiser(network, start, requests), start, rows)
    frozen = StoredCache(policy=FrozenContext(refresh=3)).denoiser(network, start, requests)
    for one, other in zip(ours, traces(frozen, start, rows), strict=True):
        assert_same(one, other, atol=1e-5)


def test_a_row_in_a_batch_is_the_row_alone(network, rows, start, requests):
    """Rows of one length or another, finishing at different steps, with branches that come and go."""
    together = traces(PARTIAL.denoiser(network, start, requests), start, rows)
    for index, row in enumerate(rows):
        alone = start_of([row])
        (trace,) = traces(PARTIAL.denoiser(network, alone, {0: requests[index]}), alone, [row])
        assert_same(together[index], trace, atol=1e-5)


def test_a_step_computes_so_many_tokens_and_no_more(network, rows, start, requests):
    """Per layer: contexts and canvases in turn, the share of every canvas in between, all canvases in the first."""
    cache = SimilarityCache(share=0.3, prompt_refresh=4, answer_refresh=3)
    denoiser = cache.denoiser(network, start, requests)
    segments = wanted_by(queries_of(start))
    contexts = sum(requests[row][branch].context.numel() for row, branch in segments)
    canvases = sum(start.lengths[row] for row, _ in segments)
    share = sum(math.ceil(0.3 * start.lengths[row]) for row, _ in segments)
    for step in range(13):
        _, spent = mlp_tokens(network, lambda at=step: denoiser(start, queries_of(start, at)))
        context = contexts if step % 4 == 0 else 0
        later = canvases if step % 3 == 0 else share
        assert spent == [[context + canvases] + [context + later] * (LAYERS - 1)]


def test_all_that_was_committed_is_computed_even_beyond_the_share(network):
    """And then nothing else."""
    row = picture(size=(4, 5), scale=1.0)
    start, cache = start_of([row]), SimilarityCache(share=0.25)  # 6 of 24
    for count, computed in ((3, 6), (6, 6), (11, 11)):
        denoiser = cache.denoiser(network, start, requests_of([row]))
        denoiser(start, queries_of(start))
        later = start.commit(start.spans[0].positions[:count], torch.full((count,), 30))
        _, spent = mlp_tokens(network, lambda d=denoiser, c=later, n=count: d(c, queries_of(c, 1, written=n)))
        assert spent == [[48] + [2 * computed] * (LAYERS - 1)]


def test_where_nothing_changed_nothing_changes(network, start, requests):
    """All tokens are equally similar; reusing their outputs gives what computing them would."""
    denoiser = PARTIAL.denoiser(network, start, requests)
    first = denoiser(start, queries_of(start, 0))
    for step in (1, 2):
        for one, other in zip(denoiser(start, queries_of(start, step)), first, strict=True):
            torch.testing.assert_close(one, other, atol=1e-5, rtol=0)


def test_the_first_of_equally_similar_tokens_are_computed(network):
    """The same canvas again, of branches of different lengths: every value is the stored one."""
    row = picture(size=(3, 4), prompt=5, scale=1.0)
    start = start_of([row])
    denoiser = SimilarityCache(share=0.3, prompt_refresh=1).denoiser(network, start, requests_of([row]))
    denoiser(start, queries_of(start, 0))
    seen = []
    hook = network.blocks[1].register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    whole = network.blocks[0].register_forward_hook(lambda module, inputs, output: seen.append(output))
    try:
        denoiser(start, queries_of(start, 1))
    finally:
        hook.remove()
        whole.remove()
    hidden, computed = seen
    # Contexts of 5 and 2, each before a canvas of 15, of which 5 are computed.
    assert torch.equal(computed, torch.cat([hidden[:10], hidden[20:27]]))


def test_something_is_reused(network, rows, start, requests):
    """The results would be those of no cache, were it not so."""
    ours = traces(PARTIAL.denoiser(network, start, requests), start, rows)
    theirs = traces(BackboneDenoiser(network, start, requests), start, rows)
    assert max(float((a.logits[1] - b.logits[1]).abs().max()) for a, b in zip(ours, theirs, strict=True)) > 0.01


@settings(deadline=None, max_examples=20)
@given(data=st.data())
def test_the_share_may_be_anything_at_all(network, data):
    """Whatever is asked for and committed, in which order ever: the numbers are those of the longest shares."""
    row = picture(size=(3, 4), scale=1.0)
    start, requests = start_of([row]), requests_of([row])
    share = data.draw(st.floats(0.01, 1.0))
    denoiser, canvas = SimilarityCache(share=share, answer_refresh=100).denoiser(network, start, requests), start
    denoiser(canvas, queries_of(canvas, 0))
    for step in range(1, 4):
        left = canvas.masked.nonzero()[:, 0].tolist()
        chosen = data.draw(st.lists(st.sampled_from(left), max_size=len(left) - 1, unique=True)) if left[1:] else []
        canvas = canvas.commit(torch.tensor(chosen, dtype=torch.int64), torch.full((len(chosen),), 25))
        queries = queries_of(canvas, step, written=len(chosen))
        _, spent = mlp_tokens(network, lambda c=canvas, asked=queries: denoiser(c, asked))
        computed = max(math.ceil(share * 15), len(chosen))
        assert spent == [[30] + [2 * computed] * (LAYERS - 1)]


def test_inputs_are_left_as_they_are(network, rows, start, requests):
    before = start.ids.clone(), [branch.context.clone() for row in requests.values() for branch in row.values()]
    traces(PARTIAL.denoiser(network, start, requests), start, rows)
    assert torch.equal(start.ids, before[0])
    after = [branch.context for row in requests.values() for branch in row.values()]
    assert all(torch.equal(one, other) for one, other in zip(before[1], after, strict=True))


def test_the_store_takes_what_was_computed_from_shapes(network, start, requests):
    denoiser = PARTIAL.denoiser(network, start, requests)
    assert denoiser.bytes == 0
    size = CacheSize.of(network, start, requests, outputs=True)
    segments = wanted_by(queries_of(start))
    tokens = sum(requests[row][branch].context.numel() + start.lengths[row] for row, branch in segments)
    canvases = sum(start.lengths[row] for row, _ in segments)
    assert size.keys_and_values == 4 * LAYERS * 2 * (2 * 8) * tokens
    assert size.outputs == 4 * (LAYERS - 1) * 32 * (canvases + 1)
    assert size.total == size.keys_and_values + size.outputs
    for step in range(3):
        denoiser(start, queries_of(start, step))
        assert denoiser.bytes == size.total
    denoiser(start, queries_of(start, 3, among={1, 4}))
    fewer = {row: requests[row] for row in (1, 4)}
    assert denoiser.bytes == CacheSize.of(network, start, fewer, outputs=True).total


def test_half_the_precision_takes_half_the_bytes(start, requests):
    half, full = deep().bfloat16(), deep()
    size = CacheSize.of(half, start, requests, outputs=True).total
    assert 2 * size == CacheSize.of(full, start, requests, outputs=True).total
    denoiser = PARTIAL.denoiser(half, start, requests)
    for step in range(2):
        denoiser(start, queries_of(start, step))
        assert denoiser.bytes == size


def test_a_bound_is_kept_before_anything_is_computed(network, start, requests):
    size = CacheSize.of(network, start, requests, outputs=True)
    SimilarityCache(max_bytes=size.total).denoiser(network, start, requests)
    cache = SimilarityCache(max_bytes=size.total - 1)
    with pytest.raises(ConfigError, match=rf"would take {size.total:,} bytes .*bound of {size.total - 1:,}; raise"):
        mlp_tokens(network, lambda: cache.denoiser(network, start, requests))
    assert "outputs of blocks" in str(size)
    assert "logits" not in str(size)


def test_a_network_without_stored_keys_is_refused(start, requests):
    class Encoder:
        device, vocab_size = torch.device("cpu"), 36

    with pytest.raises(ConfigError, match="Encoder does not: use NoCache"):
        SimilarityCache().denoiser(Encoder(), start, requests)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"share": 0.0}, r"share 0.0 must lie in \(0, 1\]"),
        ({"share": 1.01}, "share 1.01"),
        ({"share": math.nan}, "share nan"),
        ({"prompt_refresh": 0}, "prompt_refresh 0 must be at least 1"),
        ({"answer_refresh": -1}, "answer_refresh -1 must be at least 1"),
        ({"max_bytes": -1}, "max_bytes -1 must be at least 0"),
    ],
)
def test_values_out_of_range_are_refused(changes, said):
    with pytest.raises(ConfigError, match=said):
        SimilarityCache(**changes)


def test_rows_with_equal_caches_share_a_pass(network, rows, start, requests):
    """A cache is a value: equal ones serve their rows together."""
    caches = [SimilarityCache(share=0.3), SimilarityCache(share=0.3), *[SimilarityCache()] * 4]
    routed = RoutedDenoiser(network, start, [requests[row] for row in range(6)], caches)
    assert list(routed.denoisers) == [SimilarityCache(share=0.3), SimilarityCache()]
    _, spent = mlp_tokens(network, lambda: routed(start, queries_of(start)))
    assert len(spent) == 2
