import math

import torch

from dimoo.core.rng import generator
from dimoo.diffusion.history import History, divergence


def naive_divergence(first, second):
    """KL of two lists of logits."""
    p, q = ([math.exp(x - max(logits)) for x in logits] for logits in (first, second))
    p, q = ([x / sum(values) for x in values] for values in (p, q))
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True) if a)


def logits(rows, *names):
    return 2 * torch.randn(rows, 7, generator=generator(*names))


def test_the_drift_is_the_divergence_from_the_step_before():
    history, steps, seen = History.empty(steps=2, length=6, device=torch.device("cpu")), 2, {}
    naive = []
    for step, offsets in enumerate([[0, 2, 3, 5], [0, 3, 5], [1, 3, 5], [1, 2, 3]]):
        given = logits(len(offsets), step)
        before, seen = seen, dict(zip(offsets, given.tolist(), strict=True))
        naive.insert(
            0, [naive_divergence(seen[i], before[i]) if i in seen and i in before else math.inf for i in range(6)]
        )
        kept = given.clone()
        history = history.after(torch.tensor(offsets), given)
        assert torch.equal(given, kept)
        wanted = torch.tensor((naive + [[math.inf] * 6] * steps)[:steps])
        torch.testing.assert_close(history.drift, wanted, atol=1e-6, rtol=1e-5)
    assert history.drift.isfinite().any()


def test_ruled_out_columns():
    barred = torch.tensor([[0.0, -math.inf, 1.0], [0.0, 2.0, 1.0]]).log_softmax(-1)
    free = torch.tensor([[0.0, 2.0, 1.0], [0.0, -math.inf, 1.0]]).log_softmax(-1)
    ahead = divergence(barred, free)
    assert math.isclose(float(ahead[0]), naive_divergence([0.0, -math.inf, 1.0], [0.0, 2.0, 1.0]), rel_tol=1e-5)
    assert float(ahead[1]) == math.inf  # what was ruled out is likely now
    same = torch.tensor([[0.0, -math.inf, 1.0]]).log_softmax(-1)
    assert divergence(same, same).tolist() == [0.0]


def test_no_steps_keep_nothing():
    history = History.empty(steps=0, length=4, device=torch.device("cpu"))
    assert history.after(torch.tensor([0, 1]), logits(2, 0)) is history
    assert history.log_probabilities.numel() == 0
