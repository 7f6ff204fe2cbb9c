import functools
import operator

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dimoo.core.rng import generator
from dimoo.diffusion.loss import AnswerMean, InverseShare, MaskedGroups, MeanOverMasked, ScheduleWeight
from dimoo.diffusion.schedules import Cosine

WEIGHTS = st.sampled_from(
    [
        MeanOverMasked(),
        InverseShare(),
        ScheduleWeight(schedule=Cosine()),
        *map(lambda w: AnswerMean(weight=w), (MeanOverMasked(), InverseShare())),
    ]
)


@settings(deadline=None)
@given(WEIGHTS, st.integers(1, 12), st.integers(1, 5), st.integers(0, 999))
def test_micro_batches_add_up_to_the_whole(weight, count, parts, seed):
    """Whole groups are dealt to parts of very different size; totals and counts add up, gradients too."""
    rng = generator(seed)
    sizes = torch.randint(1, 30, (count,), generator=rng)
    progress = 0.98 * torch.rand(count, generator=rng)
    share = Cosine().share(progress)
    hidden = (torch.rand(count, generator=rng) * sizes).long().clamp(min=1)
    group = torch.arange(count).repeat_interleave(hidden)
    nll = torch.rand(len(group), generator=rng, dtype=torch.float64, requires_grad=True)
    part_of = torch.randint(parts, (count,), generator=rng)

    whole = weight(MaskedGroups(group=group, progress=progress, share=share, sizes=sizes)).terms(nll, group)
    terms = []
    for part in range(parts):
        mine = part_of == part
        local = mine.cumsum(0) - 1
        chosen = mine[group]
        groups = MaskedGroups(group=local[group[chosen]], progress=progress[mine], share=share[mine], sizes=sizes[mine])
        terms.append(weight(groups).terms(nll[chosen], groups.group))
    split = functools.reduce(operator.add, terms)

    assert split.count == whole.count
    torch.testing.assert_close(split.mean(), whole.mean(), rtol=1e-6, atol=0)
    (one,) = torch.autograd.grad(whole.mean(), nll)
    # What gradient accumulation does: each part backward on its own, divided by the global count.
    several = sum(torch.autograd.grad(term.total / whole.count, nll, retain_graph=True)[0] for term in terms)
    torch.testing.assert_close(several, one, rtol=1e-6, atol=1e-12)
