"""The training loss against a document at a time, all logits, plain loops."""

import math
from dataclasses import replace

import pytest
import torch

from dimoo.backbone.layout import PackedLayout
from dimoo.core.rng import generator
from dimoo.denoise.objective import MaskedObjective, Noisy
from dimoo.diffusion.corruption import Bernoulli, ExactCount
from dimoo.diffusion.loss import AnswerMean, InverseShare, LossTerms, MaskedGroups, MeanOverMasked, ScheduleWeight
from dimoo.diffusion.schedules import Cosine, Linear
from dimoo.diffusion.times import UniformTimes
from dimoo.tokenizers.document import Document, Target, join
from dimoo.tokenizers.packing import pack

TEXT = Target(modality="text", kind="text", columns=(0, 20))
IMAGE = Target(modality="image", kind="image", columns=(20, 36))
WEIGHTS = [MeanOverMasked(), InverseShare(), ScheduleWeight(schedule=Cosine())]


def documents():
    """Sorted by length, so that packs of neighbours keep their order: a question, a picture, both at once."""
    rng = generator(3, "documents")

    def ids(count, columns):
        return torch.randint(*columns, (count,), generator=rng)

    def given(count):
        return Document.given(ids(count, (9, 20)))

    def words(count):
        return Document.target(ids(count, (9, 20)), TEXT)

    def picture(count):
        return Document.target(ids(count, (20, 36)), IMAGE)

    padding = Document.target([1] * 4, replace(TEXT, kind="padding"))
    return [
        join([given(3), words(6), padding, given(1)]),
        join([given(5), picture(8), given(1), picture(4)]),
        join([given(4), words(7), given(2), picture(9)]),
        join([given(6), picture(12), words(2), padding]),
    ]


def objective(vocabulary, **changes):
    defaults = MaskedObjective(
        vocabulary=vocabulary,
        schedule=Cosine(),
        times=UniformTimes(),
        corruption=ExactCount(),
        weight=MeanOverMasked(),
        full_up_to=2,
        slice_loss=False,
        chunk=1000,
    )
    return replace(defaults, **changes)


def naive(own, backbone, noisy):
    """Total, count, and the nll, whether it is right and the entropy of each masked token in order."""
    total, tokens, offset = torch.zeros(()), [], 0
    batch = noisy.batch
    schedule, progress, share = own.schedule, noisy.groups.progress, noisy.groups.share
    for length in batch.lengths:
        ids = noisy.ids[offset : offset + length]
        logits = backbone.head(backbone(ids, PackedLayout.of([length])))
        for place in range(length):
            group = int(batch.group[offset + place])
            if group < 0 or ids[place] != own.vocabulary.mask:
                continue
            target, wanted = batch.targets[group], int(batch.ids[offset + place])
            start, stop = (0, 36) if not own.slice_loss else {"text": (0, 20), "image": (20, 36)}[target.modality]
            scores = logits[place, start:stop]
            nll = scores.logsumexp(0) - scores[wanted - start]
            weight = 1.0
            if isinstance(own.weight, InverseShare):
                weight = 1 / float(share[group])
            if isinstance(own.weight, ScheduleWeight):
                weight = abs(float(schedule.derivative(progress[group]))) / float(share[group])
            total = total + weight * nll
            p = scores.detach().softmax(0).tolist()
            right = max(range(len(p)), key=p.__getitem__) == wanted - start
            tokens.append((float(nll.detach()), right, -sum(one * math.log(one) for one in p)))
        offset += length
    targets = int((batch.group >= 0).sum())
    return total, len(tokens) if isinstance(own.weight, MeanOverMasked) else targets, tokens


@pytest.mark.parametrize("weight", WEIGHTS)
@pytest.mark.parametrize("slice_loss", [False, True])
@pytest.mark.parametrize("chunk", [1000, 5])
def test_loss_count_and_gradients_equal_plain_loops(vocabulary, backbone, weight, slice_loss, chunk):
    own = objective(vocabulary, weight=weight, slice_loss=slice_loss, chunk=chunk)
    noisy = own.corrupt(pack(documents()), generator(1))
    total, count, tokens = naive(own, backbone, noisy)
    parameters = list(backbone.parameters())
    wanted = torch.autograd.grad(total / count, parameters)

    loss = own.loss(backbone, noisy)
    assert own.count(noisy) == int(loss.terms.count) == count
    torch.testing.assert_close(loss.terms.total, total, atol=0, rtol=1e-5)
    plain = torch.autograd.grad(loss.terms.mean(), parameters)
    for got, want in zip(plain, wanted, strict=True):
        torch.testing.assert_close(got, want, atol=1e-5 * float(want.abs().max()), rtol=1e-4)

    nlls, right, entropies = zip(*tokens, strict=True)
    torch.testing.assert_close(loss.nll, torch.tensor(nlls), atol=1e-4, rtol=1e-5)
    assert loss.hits is None
    assert not loss.nll.requires_grad
    measured = own.loss(backbone, noisy, measure=True)
    assert measured.hits.correct.tolist() == list(right)
    assert 0 < sum(right) < len(right)
    torch.testing.assert_close(measured.hits.entropy, torch.tensor(entropies), atol=1e-5, rtol=1e-5)
    assert torch.equal(measured.terms.total, loss.terms.total)
    again = torch.autograd.grad(measured.terms.mean(), parameters)
    assert all(torch.equal(one, other) for one, other in zip(again, plain, strict=True))


def test_the_slice_loss_is_the_smaller(vocabulary, backbone):
    noisy = objective(vocabulary).corrupt(pack(documents()), generator(1))
    whole, sliced = (objective(vocabulary, slice_loss=flag).loss(backbone, noisy).nll for flag in (False, True))
    assert bool((sliced < whole).all())


def joined(parts):
    """Several corrupted packs as one, with the same masks."""
    docs = [part.batch for part in parts]
    firsts = torch.tensor([0, *[len(doc.ids) for doc in docs]]).cumsum(0)
    groups = torch.tensor([0, *[len(doc.targets) for doc in docs]]).cumsum(0)
    batch = pack(documents())
    assert torch.equal(batch.ids, torch.cat([doc.ids for doc in docs]))
    return Noisy(
        batch=batch,
        ids=torch.cat([part.ids for part in parts]),
        rows=torch.cat([part.rows + first for part, first in zip(parts, firsts[:-1], strict=True)]),
        groups=MaskedGroups(
            group=torch.cat([part.groups.group + first for part, first in zip(parts, groups[:-1], strict=True)]),
            **{
                name: torch.cat([getattr(part.groups, name) for part in parts])
                for name in ("progress", "share", "sizes")
            },
            answer=batch.answers(),
        ),
    )


@pytest.mark.parametrize("weight", WEIGHTS)
def test_packs_added_up_equal_one_pack(vocabulary, backbone, weight):
    """Not a mean of means: the packs have different numbers of masked tokens."""
    own, docs = objective(vocabulary, weight=weight, slice_loss=True), documents()
    parts = [own.corrupt(pack(docs[:1]), generator(1)), own.corrupt(pack(docs[1:]), generator(2))]
    assert len(parts[0].rows) != len(parts[1].rows)
    whole = own.loss(backbone, joined(parts)).terms
    pieces = [own.loss(backbone, part).terms for part in parts]
    added: LossTerms = pieces[0] + pieces[1]
    assert int(added.count) == int(whole.count) == sum(own.count(part) for part in parts)
    torch.testing.assert_close(added.mean(), whole.mean(), atol=1e-6, rtol=1e-6)
    means = (pieces[0].mean() + pieces[1].mean()) / 2
    assert abs(float((means - whole.mean()).detach())) > 1e-3


def test_corruption_touches_targets_only_and_leaves_the_pack(vocabulary):
    batch = pack(documents())
    before = batch.ids.clone()
    noisy = objective(vocabulary).corrupt(batch, generator(5))
    assert torch.equal(batch.ids, before)
    changed = (noisy.ids != batch.ids).nonzero().squeeze(1)
    assert torch.equal(changed, noisy.rows)
    assert bool((batch.group[noisy.rows] >= 0).all())
    assert bool((noisy.ids[noisy.rows] == vocabulary.mask).all())
    masked = torch.bincount(noisy.groups.group, minlength=len(batch.targets))
    assigned = Cosine().share(noisy.groups.progress).masked_fill(noisy.groups.sizes <= 2, 1.0)
    wanted = (noisy.groups.sizes * assigned).floor().clamp(min=1)
    assert masked.tolist() == wanted.tolist()
    torch.testing.assert_close(noisy.groups.share, masked / noisy.groups.sizes)


@pytest.mark.parametrize(("full_up_to", "full"), [(0, 0), (4, 4), (7, 6)])
def test_short_targets_are_masked_entirely(vocabulary, full_up_to, full):
    """Groups have 6, 4 | 8, 4 | 7, 9 | 12, 2, 4 tokens."""
    schedule = Linear()
    noisy = objective(vocabulary, full_up_to=full_up_to, schedule=schedule).corrupt(pack(documents()), generator(0))
    assert int((noisy.groups.share == 1).sum()) == full
    short = noisy.groups.sizes <= full_up_to
    wanted = torch.where(short, 1.0, schedule.share(noisy.groups.progress))
    counts = (noisy.groups.sizes * wanted).floor().clamp(min=1)
    torch.testing.assert_close(noisy.groups.share, counts / noisy.groups.sizes)


def test_the_same_generator_gives_the_same_masks(vocabulary):
    own, batch = objective(vocabulary), pack(documents())
    one, two, three = (own.corrupt(batch, generator(seed)).ids for seed in (0, 0, 1))
    assert torch.equal(one, two)
    assert not torch.equal(one, three)


def test_a_document_alone_has_the_nll_that_it_has_in_a_pack(vocabulary, backbone):
    own = objective(vocabulary)
    noisy = own.corrupt(pack(documents()), generator(1))
    whole = own.loss(backbone, noisy).nll
    first = noisy.batch.lengths[0]
    alone = Noisy(
        batch=pack(documents()[:1]),
        ids=noisy.ids[:first],
        rows=noisy.rows[noisy.rows < first],
        groups=MaskedGroups(
            group=noisy.groups.group[noisy.rows < first],
            **{name: getattr(noisy.groups, name)[:2] for name in ("progress", "share", "sizes")},
        ),
    )
    torch.testing.assert_close(own.loss(backbone, alone).nll, whole[: len(alone.rows)], atol=1e-5, rtol=0)


@pytest.mark.parametrize("weight", [MeanOverMasked(), InverseShare(), AnswerMean(weight=MeanOverMasked())])
def test_kinds_weigh_on_both_sides_of_the_fraction(vocabulary, backbone, weight):
    """Against each group on its own."""
    own = objective(vocabulary, weight=weight, kind_weights={"image": 0.25, "padding": 0.0})
    noisy = own.corrupt(pack(documents()), generator(1))
    plain = objective(vocabulary, weight=weight).loss(backbone, noisy)
    total, count = 0.0, 0.0
    for number, target in enumerate(noisy.batch.targets):
        weights = weight(noisy.groups)
        factor = {"image": 0.25, "padding": 0.0, "text": 1.0}[target.kind]
        mine = noisy.groups.group == number
        total += factor * float(weights.token[number]) * float(plain.nll[mine].sum())
        count += factor * float(weights.count[number])
    terms = own.loss(backbone, noisy).terms
    assert float(terms.total.detach()) == pytest.approx(total, rel=1e-5)
    assert float(terms.count) == pytest.approx(count) == own.count(noisy)


@pytest.mark.parametrize("weight", WEIGHTS)
def test_a_pack_and_its_complement_learn_every_target_once(vocabulary, weight):
    own = objective(vocabulary, weight=weight)
    noisy = own.corrupt(pack(documents()), generator(1))
    before = (noisy.ids.clone(), noisy.rows.clone())
    other = own.complement(noisy)
    assert torch.equal(noisy.ids, before[0])
    assert torch.equal(noisy.rows, before[1])
    rows = torch.cat([noisy.rows, other.rows])
    assert sorted(rows.tolist()) == (noisy.batch.group >= 0).nonzero().squeeze(1).tolist()
    assert torch.equal((other.ids != noisy.batch.ids).nonzero().squeeze(1), other.rows)
    assert bool((other.ids[other.rows] == vocabulary.mask).all())
    assert torch.equal(other.groups.group, noisy.batch.group[other.rows])
    masked = torch.bincount(other.groups.group, minlength=len(noisy.batch.targets))
    torch.testing.assert_close(other.groups.share, masked / noisy.groups.sizes)
    whole = noisy.groups.share == 1
    assert bool(whole.any())
    assert torch.equal(other.groups.sizes, noisy.groups.sizes.masked_fill(whole, 0))
    if isinstance(weight, MeanOverMasked):
        assert own.count(noisy) + own.count(other) == int((noisy.batch.group >= 0).sum())


@pytest.mark.parametrize(
    ("corruption", "size", "schedule"),
    [
        (ExactCount(), 40, Cosine()),
        (Bernoulli(at_least_one=False), 40, Cosine()),
        (Bernoulli(at_least_one=False), 6, Cosine()),
        (Bernoulli(at_least_one=False), 6, Linear()),
    ],
)
def test_the_complement_has_the_same_expected_loss(vocabulary, corruption, size, schedule):
    """For nll = the masked share of the group: both sides of many pairs come to 1 / 2, under Bernoulli (n + 1) / 2n."""
    count = 20_000
    words = Document.target([9] * size, TEXT)
    own = objective(
        vocabulary,
        weight=ScheduleWeight(schedule=schedule),
        full_up_to=0,
        corruption=corruption,
        schedule=schedule,
    )
    noisy = own.corrupt(pack([words] * count), generator(0))
    wanted = 0.5 if isinstance(corruption, ExactCount) else (size + 1) / (2 * size)
    for one in (noisy, own.complement(noisy)):
        shares = torch.bincount(one.groups.group, minlength=count) / size
        terms = own.weight(one.groups).terms(shares[one.groups.group], one.groups.group)
        assert float(terms.mean()) == pytest.approx(wanted, abs=0.025)
