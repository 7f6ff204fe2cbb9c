"""Every step of the similarity cache equals a naive loop over tokens and layers, in all logits and tokens."""

import pytest
from cached_rows import assert_same, edit, joint, picture, requests_of, start_of, text, traces
from restless_rows import changed
from similarity_oracle import NaiveSimilarity, deep, mlp_tokens

from dimoo.cache.similarity import SimilarityCache
from dimoo.diffusion.remasking import Refinement

CACHES = {
    "never refreshed": SimilarityCache(share=0.3, prompt_refresh=100, answer_refresh=100),
    "refreshed": SimilarityCache(share=0.25, prompt_refresh=4, answer_refresh=3),
    "fewer than are committed": SimilarityCache(share=0.05, prompt_refresh=2, answer_refresh=5),
    "canvas always": SimilarityCache(share=0.5, prompt_refresh=5, answer_refresh=1),
}
ROWS = {
    "late guidance": picture(steps=7, size=(2, 4), kept=2, during=(0.3, 0.8), seed=1),
    "edit": edit(steps=5, seed=2),
    "idle guided text": text(steps=8, length=6, block=3, scale=1.0, seed=3),
    "joint": joint(steps=(6, 4), length=4, block=2, size=(2, 2), seed=4),
    # More is written than there is: the last step's tokens, and all that the round takes back.
    "refined whole": changed(picture(steps=2, size=(2, 3), seed=5), remasking=Refinement(rounds=2, share=1.0)),
}


@pytest.fixture(scope="module")
def network():
    """In float64: rounding decides no choice."""
    return deep().double()


@pytest.mark.parametrize("cache", CACHES.values(), ids=CACHES)
@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
def test_steps_equal_the_naive_loop(network, row, cache):
    rows = [row]
    start, requests = start_of(rows), requests_of(rows)
    naive = NaiveSimilarity(network, start, requests, cache)
    (theirs,) = traces(naive, start, rows)
    denoiser = cache.denoiser(network, start, requests)
    (ours,), spent = mlp_tokens(network, lambda: traces(denoiser, start, rows))
    assert_same(ours, theirs, atol=1e-5)
    assert spent == naive.spent
    assert min(float(logits.std()) for logits in ours.logits) > 0.1  # far above the tolerance
