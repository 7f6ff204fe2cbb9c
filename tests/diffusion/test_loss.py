import math
import weakref
from dataclasses import replace

import pytest
import torch
from torch.nn import functional

from dimoo.core.errors import ConfigError
from dimoo.core.rng import generator
from dimoo.diffusion.corruption import Bernoulli, ExactCount
from dimoo.diffusion.loss import (
    AnswerMean,
    Hits,
    InverseShare,
    MaskedGroups,
    MeanOverMasked,
    ScheduleWeight,
    chunked_nll,
)
from dimoo.diffusion.schedules import Arccos, Cosine, Linear, Power
from dimoo.diffusion.times import UniformTimes

GROUPS = MaskedGroups(
    group=torch.tensor([0, 0, 1]),
    progress=torch.tensor([0.5, 0.8]),
    share=torch.tensor([0.5, 0.2]),
    sizes=torch.tensor([4, 5]),
)
NLL = torch.tensor([1.0, 2.0, 3.0])


def terms_of(weight, nll, groups):
    return weight(groups).terms(nll, groups.group)


def test_each_weight_by_hand():
    mean = terms_of(MeanOverMasked(), NLL, GROUPS)
    assert (mean.total.item(), mean.count.item()) == (6.0, 3)
    bound = terms_of(InverseShare(), NLL, GROUPS)
    assert bound.total.item() == pytest.approx(3 / 0.5 + 3 / 0.2)
    assert bound.count.item() == 9
    assert terms_of(InverseShare(least_share=0.5), NLL, GROUPS).total.item() == pytest.approx(12.0)
    square = terms_of(ScheduleWeight(schedule=Power(exponent=2.0)), NLL, GROUPS)
    assert square.total.item() == pytest.approx(3 * 1.0 / 0.5 + 3 * 1.6 / 0.2)
    assert terms_of(ScheduleWeight(schedule=Linear()), NLL, GROUPS).total.item() == pytest.approx(bound.total.item())


def test_every_answer_counts_once_in_an_answer_mean():
    """Group 0 has 4 targets of which 2 are masked, group 1 has 5 of which 1 is."""
    mean = terms_of(AnswerMean(weight=MeanOverMasked()), NLL, GROUPS)
    assert (mean.total.item(), mean.count.item()) == (pytest.approx(1.5 + 3.0), 2)
    answers = terms_of(AnswerMean(weight=InverseShare()), NLL, GROUPS)
    assert answers.total.item() == pytest.approx((1 + 2) / 0.5 / 4 + 3 / 0.2 / 5)
    assert answers.count.item() == 2


def test_groups_of_one_document_are_one_answer():
    """Words and their padding in one document, a picture in another."""
    groups = MaskedGroups(
        group=torch.tensor([0, 1, 1, 2]),
        progress=torch.full((3,), 0.5),
        share=torch.tensor([0.25, 0.5, 0.5]),
        sizes=torch.tensor([4, 4, 2]),
        answer=torch.tensor([0, 0, 2]),
    )
    nll = torch.tensor([1.0, 2.0, 3.0, 4.0])
    mean = terms_of(AnswerMean(weight=MeanOverMasked()), nll, groups)
    assert mean.total.item() == pytest.approx((1 + 2 + 3) / 3 + 4)
    assert mean.count.item() == pytest.approx(2)
    taught = terms_of(AnswerMean(weight=InverseShare()), nll, groups)
    assert taught.total.item() == pytest.approx((1 / 0.25 + 2 / 0.5 + 3 / 0.5) / 8 + 4 / 0.5 / 2)
    assert taught.count.item() == pytest.approx(2)


def test_a_group_without_masks_is_in_no_mean():
    groups = replace(GROUPS, group=torch.tensor([1]))
    mean = terms_of(AnswerMean(weight=MeanOverMasked()), NLL[:1], groups)
    assert (mean.total.item(), mean.count.item()) == (1.0, 1)


def test_scaled_groups_weigh_on_both_sides():
    scaled = MeanOverMasked()(GROUPS).scaled(torch.tensor([0.5, 2.0])).terms(NLL, GROUPS.group)
    assert scaled.total.item() == pytest.approx(0.5 * 3 + 2 * 3)
    assert scaled.count.item() == pytest.approx(0.5 * 2 + 2 * 1)


def test_nothing_masked_is_a_zero_loss():
    none = MaskedGroups(
        group=torch.zeros(0, dtype=torch.int64),
        progress=torch.zeros(0),
        share=torch.zeros(0),
        sizes=torch.zeros(0, dtype=torch.int64),
    )
    for weight in (MeanOverMasked(), InverseShare(), ScheduleWeight(schedule=Cosine())):
        assert terms_of(weight, torch.zeros(0), none).mean().item() == 0.0


@pytest.mark.parametrize("schedule", [Linear(), Cosine(), Power(exponent=2.0), Arccos()])
def test_the_bound_does_not_depend_on_the_schedule(schedule):
    """For a loss of the share alone, nll = 2 m, every schedule must give the integral of 2 m: 1."""
    count, size = 4000, 50
    progress = (torch.arange(count) + 0.5) / count
    share = schedule.share(progress)
    group = torch.arange(count).repeat_interleave(size)
    masked = Bernoulli()(torch.zeros_like(group), group, share, 1, generator(0)).masked
    owner = group[masked]
    groups = MaskedGroups(group=owner, progress=progress, share=share, sizes=torch.full((count,), size))
    made = terms_of(ScheduleWeight(schedule=schedule), 2 * share[owner], groups)
    assert made.mean().item() == pytest.approx(1.0, abs=0.02)


@pytest.mark.parametrize("share", [0.0, -0.1, 1.5])
def test_bad_least_share(share):
    with pytest.raises(ConfigError, match="least_share"):
        InverseShare(least_share=share)
    with pytest.raises(ConfigError, match="least_share"):
        ScheduleWeight(schedule=Cosine(), least_share=share)


@pytest.mark.parametrize("rows", [0, 1, 4, 5, 11])
def test_chunked_equals_plain_with_gradients(rows):
    rng = generator(0)
    hidden = torch.randn(rows, 6, generator=rng, requires_grad=True)
    weight = torch.randn(9, 6, generator=rng, requires_grad=True)
    targets = torch.randint(9, (rows,), generator=rng)
    scale = torch.randn(rows, generator=rng)
    plain = functional.cross_entropy(hidden @ weight.T, targets, reduction="none")
    wanted = torch.autograd.grad((plain * scale).sum(), (hidden, weight))
    nll = chunked_nll(hidden, targets, lambda h: h @ weight.T, 4)
    assert nll.dtype == torch.float32
    torch.testing.assert_close(nll, plain)
    for got, want in zip(torch.autograd.grad((nll * scale).sum(), (hidden, weight)), wanted, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-6)


def test_never_more_than_a_chunk_of_logits_alive():
    live: list[weakref.ref] = []
    peak = 0

    def head(rows):
        nonlocal peak
        logits = rows @ torch.ones(3, 7)
        live.append(weakref.ref(logits))
        peak = max(peak, sum(len(tensor) for ref in live if (tensor := ref()) is not None))
        return logits

    hidden = torch.randn(20, 3, generator=generator(0), requires_grad=True)
    nll = chunked_nll(hidden, torch.zeros(20, dtype=torch.int64), head, 4)
    assert not any(ref() is not None for ref in live)  # forward keeps none
    nll.sum().backward()
    assert len(live) == 10  # each chunk once forward, once again in backward
    assert peak == 4


@pytest.mark.parametrize("rows", [0, 3, 4, 11])
def test_each_chunk_is_watched_once_in_order_and_nothing_changes(rows):
    """Also where the backward pass computes the chunks again; gradients are the same bit for bit."""
    rng = generator(0)
    hidden = torch.randn(rows, 6, generator=rng, requires_grad=True)
    weight = torch.randn(9, 6, generator=rng, requires_grad=True)
    targets = torch.randint(9, (rows,), generator=rng)
    seen = []

    def watch(logits, wanted):
        assert not logits.requires_grad
        seen.append((logits, wanted))

    made = [chunked_nll(hidden, targets, lambda h: h @ weight.T, 4, *extra) for extra in ((), (watch,))]
    assert torch.equal(*made)
    grads = [torch.autograd.grad(nll.sum(), (hidden, weight)) for nll in made]
    assert all(torch.equal(one, other) for one, other in zip(*grads, strict=True))
    assert [len(logits) for logits, _ in seen] == {0: [0], 3: [3], 4: [4], 11: [4, 4, 3]}[rows]
    assert torch.equal(torch.cat([wanted for _, wanted in seen]), targets)
    torch.testing.assert_close(torch.cat([logits for logits, _ in seen]), (hidden @ weight.T).detach())


def test_hits_by_hand():
    """Of a certain, a uniform and a lopsided prediction, the last one wrong."""
    logits = torch.tensor([[50.0, 0.0, 0.0], [1.0, 1.0, 1.0], [0.0, 0.0, 2.0]])
    hits = Hits.of(logits, torch.tensor([0, 0, 1]))
    p = [1 / (2 + math.exp(2)), 1 / (2 + math.exp(2)), math.exp(2) / (2 + math.exp(2))]
    assert hits.correct.tolist() == [True, True, False]
    wanted = [0.0, math.log(3), -sum(value * math.log(value) for value in p)]
    assert hits.entropy.tolist() == pytest.approx(wanted, abs=1e-6)
    both = Hits.joined([hits, hits])[torch.tensor([5, 0])]
    assert (both.correct.tolist(), both.entropy.tolist()) == ([False, True], [hits.entropy[2], hits.entropy[0]])


def test_low_precision_heads_are_summed_in_float32():
    hidden = torch.randn(3, 4, generator=generator(0)).bfloat16()
    assert chunked_nll(hidden, torch.tensor([0, 1, 2]), lambda h: h, 2).dtype == torch.float32


def test_chunk_must_be_positive():
    with pytest.raises(ConfigError, match="chunk 0"):
        chunked_nll(torch.zeros(1, 2), torch.zeros(1, dtype=torch.int64), lambda h: h, 0)


@pytest.mark.parametrize("corruption", [ExactCount(), Bernoulli(), Bernoulli(at_least_one=False)])
@pytest.mark.parametrize("schedule", [Linear(), Cosine(), Power(exponent=2.0)])
def test_a_loss_of_one_everywhere_weighs_one(corruption, schedule):
    """Every target token has weight 1 in expectation: within three standard errors, and under ExactCount exactly."""
    count, size = 20_000, 6
    progress = UniformTimes().sample(count, generator(1))
    group = torch.arange(count).repeat_interleave(size)
    corrupted = corruption(torch.zeros_like(group), group, schedule.share(progress), 1, generator(0))
    owner = group[corrupted.masked]
    sizes = torch.full((count,), size)
    groups = MaskedGroups(group=owner, progress=progress, share=corrupted.share, sizes=sizes)
    weights = [ScheduleWeight(schedule=schedule, least_share=1e-6)]
    weights += [InverseShare(least_share=1e-6)] if isinstance(schedule, Linear) else []
    for weight in weights:
        each = torch.zeros(count, dtype=torch.float64)
        nll = torch.ones(len(owner), requires_grad=True)
        terms = terms_of(weight, nll, groups)
        (slopes,) = torch.autograd.grad(terms.total, nll)
        each.index_add_(0, owner, slopes.double() / size)
        error = float(each.std()) / count**0.5
        assert abs(float(terms.mean().detach()) - 1.0) < 3 * error + 1e-5
        if isinstance(corruption, ExactCount) and isinstance(schedule, Linear):
            torch.testing.assert_close(each, torch.ones_like(each), atol=1e-5, rtol=0)


def test_the_promised_bound_is_that_of_all_orders():
    """A network that predicts worse the more is masked, nll = k / n: the mean over orders is (n + 1) / 2n."""
    count, size = 200_000, 4
    progress = UniformTimes().sample(count, generator(1))
    group = torch.arange(count).repeat_interleave(size)
    corruption = Bernoulli(at_least_one=False)
    corrupted = corruption(torch.zeros_like(group), group, Linear().share(progress), 1, generator(0))
    owner, masked = group[corrupted.masked], corrupted.masked.view(count, size).sum(1)
    sizes = torch.full((count,), size)
    groups = MaskedGroups(group=owner, progress=progress, share=corrupted.share, sizes=sizes)
    loss = terms_of(InverseShare(least_share=1e-6), masked[owner] / size, groups).mean()
    assert float(loss) == pytest.approx((size + 1) / (2 * size), abs=0.01)
