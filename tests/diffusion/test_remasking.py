import math
from dataclasses import dataclass, field, replace

import pytest
import torch
from sampler_oracle import CODES, MASK, STOP, TEXT, FakeDenoiser, fake_logits

from dimoo.core.errors import ConfigError
from dimoo.core.rng import generator
from dimoo.diffusion.canvas import Canvas, Plan, Span
from dimoo.diffusion.confidence import GumbelConfidence, Probability
from dimoo.diffusion.draw import Categorical, Greedy
from dimoo.diffusion.guidance import ClassifierFree, NoGuidance
from dimoo.diffusion.guidance_steps import Interval
from dimoo.diffusion.orders import BlockOrder, MaskGITOrder, RandomOrder
from dimoo.diffusion.parallel import AdaptiveOrder, Threshold
from dimoo.diffusion.progress import Progress
from dimoo.diffusion.remasking import NoRemasking, Refinement, ReMDM
from dimoo.diffusion.sampler import sample
from dimoo.diffusion.schedules import Arccos, Cosine, Linear
from dimoo.diffusion.settled import SettledOrder
from dimoo.diffusion.spread import HaltonOrder, StratifiedOrder
from dimoo.diffusion.stopping import NoStop, StopAtToken

MASKGIT = MaskGITOrder(schedule=Cosine())
COUNTED = [
    MASKGIT,
    RandomOrder(schedule=Linear()),
    HaltonOrder(schedule=Arccos(), grid=(4, 5)),
    StratifiedOrder(schedule=Linear(), grid=(5, 4)),
]
ELSE = [
    BlockOrder(block=4),
    AdaptiveOrder(rule=Threshold()),
    SettledOrder(order=MASKGIT),
]


def plan(order=MASKGIT, steps=6, **changes):
    defaults = Plan(
        steps=steps,
        order=order,
        draw=Greedy(),
        confidence=Probability(),
        guidance=NoGuidance(),
        stopping=NoStop(),
    )
    return replace(defaults, **changes)


def canvas_of(own_plan, row=(MASK,) * 20, columns=CODES, **changes):
    span = Span(row=0, positions=torch.arange(len(row)), columns=columns, plan=own_plan, **changes)
    return Canvas.start(ids=torch.tensor(row), lengths=(len(row),), spans=(span,), mask_id=MASK)


def states(canvas, seed=0, denoiser=None):
    return list(sample(denoiser or FakeDenoiser(), canvas, [generator(seed)]))


# ReMDM


@pytest.mark.parametrize("order", COUNTED)
@pytest.mark.parametrize("remasking", [ReMDM(eta=0.6), ReMDM(eta=0.2, strategy="cap"), ReMDM(eta=1.0)])
def test_the_masked_counts_are_those_without_it(order, remasking):
    row = [25 if place % 7 == 3 else MASK for place in range(20)]
    plain = states(canvas_of(plan(order), row))
    canvas = canvas_of(plan(order, remasking=remasking, draw=Categorical()), row)
    taken_back = 0
    before, given = canvas, ~canvas.masked
    lefts = []
    for state in states(canvas):
        now = state.canvas
        again = (now.masked & ~before.masked).nonzero()[:, 0]
        assert not set(again.tolist()) & set(state.committed.tolist())
        assert bool(before.masked[state.committed].all())
        assert torch.equal(now.ids[given], canvas.ids[given])
        left = int(now.masked.sum())
        lefts.append(left)
        assert state.committed.numel() == int(before.masked.sum()) - left + again.numel()
        taken_back += again.numel()
        before = now
    assert lefts == [int(state.canvas.masked.sum()) for state in plain]
    assert lefts[-1] == 0
    assert taken_back


LINEAR = MaskGITOrder(schedule=Linear())


def progress(masked, unmasked, step=5, steps=8):
    """Offsets 0..: masked ones, then unmasked ones, then as many given."""
    flags = torch.tensor([True] * masked + [False] * 2 * unmasked)
    initial = torch.tensor([True] * (masked + unmasked) + [False] * unmasked)
    return Progress.of(step=step, steps=steps, initial=initial, masked=flags)


def numbers(remasking, now, runs):
    certainty, rng = torch.zeros(len(now.masked)), generator(1)
    return [remasking.again(LINEAR, now, certainty, rng).numel() for _ in range(runs)]


@pytest.mark.parametrize(
    ("remasking", "mean"),
    [
        (ReMDM(eta=0.3), 0.3 * 6),  # sigma_max u = min(12 unmasked, 6 left)
        (ReMDM(eta=1.0), 6.0),
        (ReMDM(eta=0.3, strategy="cap"), 0.3 * 12),
        (ReMDM(eta=0.9, strategy="cap"), 6.0),  # capped by sigma_max
        (ReMDM(eta=0.02, strategy="cap"), 0.24),
    ],
)
def test_the_mean_number_taken_back_is_the_papers(remasking, mean):
    now = progress(masked=12, unmasked=12)
    assert LINEAR.left(now) == 6  # 24 (1 - 6 / 8)
    counts = numbers(remasking, now, 300)
    assert set(counts) <= {math.floor(mean), math.ceil(mean)}
    assert abs(sum(counts) / len(counts) - mean) < 0.08


@pytest.mark.parametrize("by_confidence", [False, True])
def test_it_takes_back_what_was_committed_evenly_or_the_unsure(by_confidence):
    """A few of very many, so that taking some changes little for the others."""
    each, levels = 10_000, torch.tensor([0.0, 0.2, 0.4, 0.6, 0.8, 1.0])
    now = progress(masked=6 * each, unmasked=6 * each)
    certainty = torch.full((18 * each,), torch.inf)
    certainty[6 * each : 12 * each] = levels.repeat(each)
    taken = ReMDM(eta=0.1, by_confidence=by_confidence).again(LINEAR, now, certainty, generator(3))
    assert taken.numel() == 3_000  # a tenth of what is left, 1 - 6 / 8 of 12 * 10000
    assert taken.unique().numel() == 3_000
    shares = torch.bincount((certainty[taken] * 5).round().long(), minlength=6) / 3_000
    weights = torch.exp(-levels) if by_confidence else torch.ones(6)
    assert (shares - weights / weights.sum()).abs().max() < 0.02


def test_nothing_is_taken_back_at_first_and_at_last():
    remasking = ReMDM(eta=1.0)
    assert numbers(remasking, progress(12, 0, step=0), 3) == [0, 0, 0]
    assert numbers(remasking, progress(4, 8, step=7), 3) == [0, 0, 0]
    assert numbers(remasking, progress(1, 8, step=3), 3) == [0, 0, 0]  # it ends early: all is committed


def test_it_is_drawn_from_the_rows_generator():
    canvas = canvas_of(plan(remasking=ReMDM(eta=0.5)))
    runs = [[state.canvas.ids.tolist() for state in states(canvas, seed)] for seed in (0, 0, 1)]
    assert runs[0] == runs[1] != runs[2]
    assert states(canvas_of(plan()), 0)[-1].canvas.ids.tolist() == states(canvas_of(plan()), 1)[-1].canvas.ids.tolist()


@pytest.mark.parametrize("order", ELSE)
def test_orders_without_fixed_counts_are_refused(order):
    with pytest.raises(ConfigError, match=f"not {type(order).__name__}.*use the order 'maskgit', 'random'"):
        plan(order, remasking=ReMDM(eta=0.5))
    for remasking in (NoRemasking(), Refinement()):
        plan(order, steps=5, remasking=remasking)


# Refinement


def naive_refinement(row, places, rounds, share, own_plan):
    """A picture made in one step, then refined, by lists; its ids after each step."""
    guide = own_plan.guidance.branches
    row, sure, history = list(row), {}, []
    masked = list(places)
    for _ in range(1 + rounds):
        if not masked:
            count = math.ceil(share * len(places))
            masked = sorted(places, key=lambda place: (sure[place], place))[:count]
            for place in masked:
                row[place] = MASK
        made = {}
        for place in masked:
            scores = [fake_logits(row, place, branch)[slice(*CODES)] for branch in guide]
            logits = scores[0] if len(guide) == 1 else 3 * scores[0] - 2 * scores[1]
            made[place] = int(logits.argmax())
            sure[place] = float(logits.softmax(-1).max())
        for place, code in made.items():
            row[place] = code + CODES[0]
        masked = []
        history.append(list(row))
    return history


@pytest.mark.parametrize(("rounds", "share"), [(1, 0.1), (3, 0.25), (2, 1.0), (2, 0.01)])
@pytest.mark.parametrize("guidance", [NoGuidance(), ClassifierFree(scale=2.0)])
def test_refinement_equals_plain_loops(rounds, share, guidance):
    row = [MASK, 25, *[MASK] * 7, 30, 31, MASK, MASK, MASK]
    own_plan = plan(steps=1, remasking=Refinement(rounds=rounds, share=share), guidance=guidance)
    wanted = naive_refinement(row, [i for i, token in enumerate(row) if token == MASK], rounds, share, own_plan)
    seen = states(canvas_of(own_plan, row))
    assert [state.canvas.ids.tolist() for state in seen] == wanted
    assert {state.steps for state in seen} == {1 + rounds}
    assert [state.share_done for state in seen] == [1.0] * (1 + rounds)


@pytest.mark.parametrize("order", [*COUNTED, *ELSE])
def test_refinement_follows_any_order(order):
    row = [25 if place % 6 == 1 else MASK for place in range(20)]
    own_plan = plan(order, steps=10, remasking=Refinement(rounds=2, share=0.3))
    canvas = canvas_of(own_plan, row)
    denoiser = FakeDenoiser()
    seen = states(canvas, denoiser=denoiser)
    first = next(index for index, state in enumerate(seen) if not state.canvas.masked.any())
    assert len(seen) == first + 3
    for state in seen[first + 1 :]:
        assert not state.canvas.masked.any()
        assert state.committed.numel() == math.ceil(0.3 * int(canvas.masked.sum()))
        assert bool(canvas.masked[state.committed].all())
        assert torch.equal(state.canvas.ids[~canvas.masked], canvas.ids[~canvas.masked])
    queries = [query for queries in denoiser.asked for query in queries]
    assert [query.step for query in queries] == [i for i, state in enumerate(seen) if state.committed.numel()]
    assert {query.steps for query in queries} == {12}


def test_rounds_are_guided_as_the_last_step():
    late = Interval(guidance=ClassifierFree(scale=1.0), start=0.6, stop=1.0)
    early = Interval(guidance=ClassifierFree(scale=1.0), start=0.0, stop=0.5)
    for guidance, branches in ((late, 2), (early, 1)):
        denoiser = FakeDenoiser()
        states(canvas_of(plan(steps=3, guidance=guidance, remasking=Refinement(rounds=2))), denoiser=denoiser)
        assert [len(queries[0].branches) for queries in denoiser.asked[-2:]] == [branches] * 2


def test_they_are_so_also_where_the_order_was_done_before():
    """All is sure at once, in the first of ten steps; guidance begins in the ninth."""
    late = Interval(guidance=ClassifierFree(scale=1.0), start=0.8, stop=1.0)
    order, denoiser = AdaptiveOrder(rule=Threshold(threshold=0.0)), FakeDenoiser()
    states(canvas_of(plan(order, 10, guidance=late, remasking=Refinement(rounds=2))), denoiser=denoiser)
    assert [(query.step, len(query.branches)) for (query,) in denoiser.asked] == [(0, 1), (1, 2), (2, 2)]


def test_rows_are_refined_when_they_are_done():
    """One row ends early and is refined while the other is still made."""
    spans = tuple(
        Span(
            row=row,
            positions=torch.arange(8) + 8 * row,
            columns=CODES,
            plan=plan(steps=steps, remasking=Refinement(rounds=2, share=0.5)),
        )
        for row, steps in ((0, 2), (1, 5))
    )
    canvas = Canvas.start(ids=torch.full((16,), MASK), lengths=(8, 8), spans=spans, mask_id=MASK)
    denoiser = FakeDenoiser()
    seen = list(sample(denoiser, canvas, [generator(0), generator(1)]))
    assert [[query.row for query in queries] for queries in denoiser.asked] == [[0, 1]] * 4 + [[1]] * 3
    assert [query.positions.numel() for queries in denoiser.asked[2:4] for query in queries if query.row == 0] == [4, 4]
    assert not seen[-1].canvas.masked.any()


@pytest.mark.parametrize("block", [1, 8])
def test_what_an_early_stop_filled_is_left_alone(block):
    """Also if it was predicted, and was less sure than what was drawn."""
    own_plan = plan(BlockOrder(block=block), 8, stopping=StopAtToken(token=STOP), remasking=Refinement(share=1.0))

    def denoiser(canvas, queries):
        (query,) = queries
        logits = torch.zeros(1, query.positions.numel(), 20)
        for index, position in enumerate(query.positions.tolist()):
            logits[0, index, STOP if position == 2 else 3] = 5.0 - 0.1 * position
        return [logits]

    seen = states(canvas_of(own_plan, (MASK,) * 8, TEXT, forbidden=(MASK,), fill=7), denoiser=denoiser)
    assert [state.committed.tolist() for state in seen] == [[0], [1], [2], [0, 1, 2]]
    assert seen[-1].canvas.ids.tolist() == [3, 3, STOP, 7, 7, 7, 7, 7]


def test_a_filled_place_that_had_drawn_a_mask_is_left_alone():
    own_plan = plan(BlockOrder(block=4), 2, stopping=StopAtToken(token=STOP), remasking=Refinement(share=1.0))

    def denoiser(canvas, queries):
        (query,) = queries
        logits = torch.zeros(1, query.positions.numel(), 20)
        for index, position in enumerate(query.positions.tolist()):
            logits[0, index, (STOP, MASK, 3, 3)[position]] = 9.0 - position
        return [logits]

    seen = states(canvas_of(own_plan, (MASK,) * 4, TEXT, fill=7), denoiser=denoiser)
    assert [state.committed.tolist() for state in seen] == [[0, 1], [0]]
    assert [state.canvas.ids.tolist() for state in seen] == [[STOP, 7, 7, 7]] * 2


@dataclass(frozen=True)
class Watched:
    """Takes the first two back in the third step and makes all anew in the end; notes the certainty."""

    weighs: bool
    seen: list = field(default_factory=list)
    rounds: int = 1

    def validate(self, order):
        pass

    def again(self, order, progress, certainty, generator):
        self.seen.append((progress.masked, certainty))
        return torch.arange(1, 3 if progress.step == 2 else 1)

    def anew(self, certainty, drawn):
        self.seen.append((torch.zeros_like(certainty, dtype=torch.bool), certainty))
        return torch.arange(1, 1 + drawn)


@pytest.mark.parametrize("weighs", [False, True])
def test_a_certainty_is_that_of_a_drawn_token_that_stands_there(weighs):
    class ReadingOrder:
        def validate(self, length, steps):
            pass

        def candidates(self, progress):
            return progress.open

        def commit(self, progress, candidates, confidence, generator):
            return candidates[: 4 if progress.step + 1 < progress.steps else None]

    remasking = Watched(weighs)
    seen = states(canvas_of(plan(ReadingOrder(), remasking=remasking), [25, *[MASK] * 12, 26]))
    assert seen[-1].committed.tolist() == list(range(1, 13))
    assert [int(masked.sum()) for masked, _ in remasking.seen] == [12, 8, 4, 2, 0]
    for masked, certainty in remasking.seen:
        drawn = ~masked
        drawn[[0, -1]] = False  # given
        assert torch.equal(certainty.isfinite(), drawn & weighs)


def test_a_place_that_drew_a_mask_counts_once():
    """The first of four is the surest and becomes a mask, a step later a token; then half of the four are made anew."""
    own_plan = plan(steps=3, remasking=Refinement(share=0.5))
    calls = []

    def denoiser(canvas, queries):
        (query,) = queries
        logits = torch.zeros(1, query.positions.numel(), 20)
        for index, position in enumerate(query.positions.tolist()):
            logits[0, index, MASK if position == 0 and not calls else 3] = 9.0 - position
        calls.append(query.positions.tolist())
        return [logits]

    seen = states(canvas_of(own_plan, (MASK,) * 4, TEXT), denoiser=denoiser)
    assert calls == [[0, 1, 2, 3], [0, 1, 2, 3], [3], [2, 3]]
    assert [state.committed.tolist() for state in seen] == [[0], [0, 1, 2], [3], [2, 3]]
    assert seen[-1].canvas.ids.tolist() == [3] * 4


def test_the_certainty_is_that_of_the_drawn_token_and_not_its_noisy_rank():
    """Whatever confidence the order goes by."""
    finals = [
        states(canvas_of(plan(steps=1, confidence=confidence, remasking=Refinement(share=0.2))), seed)[-1].committed
        for confidence in (Probability(), GumbelConfidence(temperature=50.0))
        for seed in (0, 1)
    ]
    assert len({tuple(positions.tolist()) for positions in finals}) == 1


def test_nothing_masked_means_no_round():
    canvas = canvas_of(plan(remasking=Refinement()), (25, 26))
    assert states(canvas) == []


@pytest.mark.parametrize(
    "make",
    [
        lambda: ReMDM(eta=0.0),
        lambda: ReMDM(eta=1.5),
        lambda: Refinement(rounds=0),
        lambda: Refinement(share=0.0),
        lambda: Refinement(share=1.1),
    ],
)
def test_bad_values(make):
    with pytest.raises(ConfigError):
        make()
