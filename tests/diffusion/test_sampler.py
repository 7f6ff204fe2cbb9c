from dataclasses import replace

import pytest
import torch
from sampler_oracle import CODES, MASK, STOP, TEXT, FakeDenoiser, fake_logits, naive_rows

from dimoo.core.errors import ConfigError
from dimoo.core.rng import generator
from dimoo.diffusion.canvas import Canvas, Plan, Span
from dimoo.diffusion.confidence import GumbelConfidence, Probability
from dimoo.diffusion.draw import Categorical, Greedy
from dimoo.diffusion.guidance import ClassifierFree, NoGuidance
from dimoo.diffusion.orders import BlockOrder, MaskGITOrder
from dimoo.diffusion.sampler import run, sample
from dimoo.diffusion.schedules import Cosine
from dimoo.diffusion.stopping import NoStop, StopAtToken

LINE = 17
MASKGIT = MaskGITOrder(schedule=Cosine())


def plan(steps, order=MASKGIT, **changes):
    defaults = Plan(
        steps=steps,
        order=order,
        draw=Greedy(),
        confidence=Probability(),
        guidance=NoGuidance(),
        stopping=NoStop(),
    )
    return replace(defaults, **changes)


def span(row, positions, columns, own_plan, **changes):
    return Span(row=row, positions=torch.tensor(positions), columns=columns, plan=own_plan, **changes)


def canvas_of(rows, spans):
    return Canvas.start(
        ids=torch.tensor([token for row in rows for token in row]),
        lengths=tuple(len(row) for row in rows),
        spans=tuple(spans),
        mask_id=MASK,
    )


def text_row(length, steps, block, **changes):
    """One row of text alone."""
    own_plan = plan(steps, BlockOrder(block=block), **changes)
    return canvas_of([[MASK] * length], [span(0, list(range(length)), TEXT, own_plan, forbidden=(MASK,), fill=0)])


def mixed(noisy, stopping=None):
    """Three rows: a picture with kept codes and guidance; text and picture at once; text that idles and may stop."""
    stopping = stopping or StopAtToken(token=STOP)
    wild = {"draw": Categorical(), "confidence": GumbelConfidence()} if noisy else {}
    picture = [MASK, 25, MASK, LINE, MASK, MASK, 30, LINE, MASK, MASK, MASK, LINE]
    both = [1, *[MASK] * 6, STOP, 2, MASK, MASK, LINE, MASK, MASK, LINE]
    words = [3, *[MASK] * 9, STOP]
    return canvas_of(
        [picture, both, words],
        [
            span(0, [0, 1, 2, 4, 5, 6, 8, 9, 10], CODES, plan(5, guidance=ClassifierFree(scale=2.0), **wild)),
            span(1, list(range(13, 19)), TEXT, plan(4, BlockOrder(block=3), **wild), forbidden=(MASK,)),
            span(1, [21, 22, 24, 25], CODES, plan(3, guidance=ClassifierFree(scale=1.0), **wild)),
            span(
                2,
                list(range(28, 37)),
                TEXT,
                plan(12, BlockOrder(block=3), stopping=stopping, **wild),
                forbidden=(MASK,),
                fill=4,
            ),
        ],
    )


def states(canvas, seeds, denoiser=None):
    return list(sample(denoiser or FakeDenoiser(), canvas, [generator(seed) for seed in seeds]))


@pytest.mark.parametrize("noisy", [False, True])
@pytest.mark.parametrize("seeds", [(0, 1, 9), (4, 4, 4), (31, 8, 5)])
@pytest.mark.parametrize(("stopping", "steps"), [(NoStop(), 11), (StopAtToken(token=STOP), 5)])
def test_every_step_of_every_row_is_that_of_plain_loops(noisy, seeds, stopping, steps):
    canvas = mixed(noisy, stopping)
    seen, wanted = states(canvas, seeds), naive_rows(canvas, seeds)
    assert len(seen) == steps
    for index, history in enumerate(wanted):
        assert MASK not in history[-1]
        for step, state in enumerate(seen):
            assert state.canvas.row(index).tolist() == history[min(step, len(history) - 1)]


def test_the_oracle_cases_differ_by_seed_where_there_is_noise():
    finals = {
        noisy: [states(mixed(noisy), s)[-1].canvas.ids.tolist() for s in ((0, 1, 2), (3, 4, 5))] for noisy in (0, 1)
    }
    assert finals[0][0] == finals[0][1]
    assert finals[1][0] != finals[1][1]
    assert finals[1][0] == states(mixed(True), (0, 1, 2))[-1].canvas.ids.tolist()


def test_given_tokens_and_the_start_are_untouched_and_no_mask_is_left():
    canvas = mixed(True)
    before, masked = canvas.ids.clone(), canvas.masked.clone()
    for state in states(canvas, (0, 1, 2)):
        assert torch.equal(state.canvas.ids[~masked], before[~masked])
        assert torch.equal(state.canvas.masked, state.canvas.ids == MASK)
    assert torch.equal(canvas.ids, before)
    assert torch.equal(canvas.masked, masked)
    assert not state.canvas.masked.any()


def test_ids_come_from_the_columns_of_their_span():
    canvas = mixed(True)
    final = run(FakeDenoiser(), canvas, [generator(0)] * 3)
    for each in canvas.spans:
        made = final.ids[each.positions]
        assert bool(((made >= each.columns[0]) & (made < each.columns[1])).all())


@pytest.mark.parametrize(
    ("total", "steps", "counts"),
    [
        (12, 3, [2, 5, 5]),  # left: floor(12 * .866), floor(12 * .49999997) = 5 as float32 has it, 0
        (4, 8, [1, 1, 1, 1]),  # at least one a step, so it ends early
        (5, 1, [5]),
    ],
)
def test_commit_counts(total, steps, counts):
    canvas = canvas_of([[MASK] * total], [span(0, list(range(total)), CODES, plan(steps))])
    seen = states(canvas, (0,))
    assert [state.committed.numel() for state in seen] == counts
    assert [state.step for state in seen] == list(range(1, len(counts) + 1))
    assert {state.steps for state in seen} == {steps}
    written = torch.cat([state.committed for state in seen])
    assert sorted(written.tolist()) == list(range(total))


def test_offsets_that_an_order_names_are_not_looked_for(monkeypatch):
    """Among the candidates, that is by a sort, are only flags."""
    canvas = canvas_of([[MASK] * 12], [span(0, list(range(12)), CODES, plan(3))])
    wanted = [state.committed.tolist() for state in states(canvas, (0,))]
    monkeypatch.setattr("dimoo.diffusion.turn.places", None)
    assert [state.committed.tolist() for state in states(canvas, (0,))] == wanted


def test_share_done_counts_what_was_masked_at_the_start():
    total = 12 + 6 + 4 + 9 - 2 - 3  # masked positions of `mixed`
    canvas = mixed(False)
    assert int(canvas.masked.sum()) == total
    shares = [state.share_done for state in states(canvas, (0, 0, 0))]
    lefts = [int(state.canvas.masked.sum()) for state in states(canvas, (0, 0, 0))]
    assert shares == [1 - left / total for left in lefts]
    assert shares == sorted(shares)
    assert shares[-1] == 1.0


def test_committed_are_the_positions_that_changed():
    canvas = mixed(False)
    before = canvas.ids
    for state in states(canvas, (0, 0, 0)):
        changed = (state.canvas.ids != before).nonzero().squeeze(1)
        # The third row may be filled by its stopping rule, which is not counted.
        assert set(changed.tolist()) - set(state.committed.tolist()) <= set(range(28, 37))
        assert set(state.committed.tolist()) <= set(changed.tolist())
        before = state.canvas.ids


class Scripted:
    """Logits that make a greedy sampler write `script` (id by canvas position), the first or the last the surest."""

    def __init__(self, *script, last_first=False):
        self.script, self.sign, self.asked = script, 1 if last_first else -1, []

    def __call__(self, canvas, queries):
        self.asked.append(queries)
        answers = []
        for query in queries:
            logits = torch.zeros(1, query.positions.numel(), query.columns[1] - query.columns[0])
            for index, position in enumerate(query.positions.tolist()):
                logits[0, index, self.script[position] - query.columns[0]] = 10.0 + self.sign * 0.5 * position
            answers.append(logits)
        return answers


def test_an_early_stop_fills_the_rest_and_the_row_leaves_the_queries():
    def words(row, positions, steps):
        own_plan = plan(steps, BlockOrder(block=1), stopping=StopAtToken(token=STOP))
        return span(row, positions, TEXT, own_plan, forbidden=(MASK,), fill=5)

    canvas = canvas_of([[MASK] * 6, [MASK] * 4], [words(0, list(range(6)), 6), words(1, [6, 7, 8, 9], 4)])
    denoiser = Scripted(1, STOP, 2, 2, 2, 2, 3, 3, 3, 3)
    seen = states(canvas, (0, 0), denoiser)
    assert [[query.row for query in queries] for queries in denoiser.asked] == [[0, 1], [0, 1], [1], [1]]
    assert seen[1].canvas.ids.tolist() == [1, STOP, 5, 5, 5, 5, 3, 3, MASK, MASK]
    assert seen[1].committed.tolist() == [1, 7]  # what was filled was not drawn
    assert seen[1].share_done == 0.8
    assert seen[-1].canvas.ids.tolist() == [1, STOP, 5, 5, 5, 5, 3, 3, 3, 3]


def test_no_stop_before_what_precedes_the_token_is_there():
    canvas = text_row(4, 4, 4, stopping=StopAtToken(token=STOP))
    lines = [state.canvas.ids.tolist() for state in states(canvas, (0,), Scripted(1, 2, 3, STOP, last_first=True))]
    assert lines == [[MASK, MASK, MASK, STOP], [MASK, MASK, 3, STOP], [MASK, 2, 3, STOP], [1, 2, 3, STOP]]


def test_a_committed_mask_id_stays_masked_and_is_drawn_again_later():
    canvas = canvas_of([[MASK] * 4], [span(0, [0, 1, 2, 3], TEXT, plan(4, BlockOrder(block=2)))])
    calls = [Scripted(MASK, 8, 9, 9), Scripted(7, 8, 9, 9), Scripted(7, 8, 9, 9), Scripted(7, 8, 9, 9)]
    remaining = iter(calls)
    seen = states(canvas, (0,), lambda canvas, queries: next(remaining)(canvas, queries))
    assert [state.canvas.ids.tolist() for state in seen] == [
        [MASK, MASK, MASK, MASK],  # the mask was the surest token of the first block
        [7, MASK, MASK, MASK],
        [7, 8, MASK, MASK],  # the first block's leftover competes in the second
        [7, 8, 9, MASK],  # and its place is missing at the end
    ]
    asked = [call.asked[0][0].positions.tolist() for call in calls]
    assert asked == [[0, 1], [0, 1], [1, 2, 3], [2, 3]]
    assert seen[-1].share_done == 0.75


def test_a_span_is_asked_no_more_than_its_steps():
    """Its last step drew a mask: that stays, while another row has steps left."""
    spans = [span(0, [0, 1], TEXT, plan(2)), span(1, [2, 3, 4, 5], TEXT, plan(4))]
    denoiser = Scripted(1, MASK, 2, 2, 2, 2)
    seen = states(canvas_of([[MASK] * 2, [MASK] * 4], spans), (0, 0), denoiser)
    assert [[query.row for query in queries] for queries in denoiser.asked] == [[0, 1], [0, 1], [1], [1]]
    assert seen[-1].canvas.ids.tolist() == [1, MASK, 2, 2, 2, 2]


@pytest.mark.parametrize("noisy", [False, True])
def test_forbidden_ids_are_never_drawn(noisy):
    wild = {"draw": Categorical(temperature=5.0), "confidence": GumbelConfidence()} if noisy else {}
    forbidden = tuple(range(2, 20))  # all but 0 and 1
    own = span(0, list(range(30)), TEXT, plan(3, **wild), forbidden=forbidden)
    final = run(FakeDenoiser(), canvas_of([[MASK] * 30], [own]), [generator(0)])
    assert set(final.ids.tolist()) == {0, 1}


def test_forbidding_leaves_the_denoisers_logits_alone():
    kept = []

    def denoiser(canvas, queries):
        kept.append(torch.zeros(1, queries[0].positions.numel(), 20))
        return [kept[-1]]

    run(denoiser, text_row(4, 4, 4), [generator(0)])
    assert all(bool((logits == 0).all()) for logits in kept)


def test_an_idle_step_asks_nothing():
    canvas = text_row(3, 6, 3)  # 6 steps for 3 tokens: the last 3 would idle, but then all is done
    denoiser = FakeDenoiser()
    assert len(states(canvas, (0,), denoiser)) == 3
    canvas = text_row(4, 8, 2)  # each block idles for 2 of its 4 steps
    denoiser = FakeDenoiser()
    seen = states(canvas, (0,), denoiser)
    assert [state.committed.numel() for state in seen] == [1, 1, 0, 0, 1, 1]
    assert len(denoiser.asked) == 4
    assert all(query.positions.numel() for queries in denoiser.asked for query in queries)


def test_an_idle_row_leaves_the_query_of_its_step():
    own_plan = plan(8, BlockOrder(block=2))
    canvas = canvas_of(
        [[MASK] * 4, [MASK] * 4],
        [
            span(0, [0, 1, 2, 3], TEXT, own_plan, forbidden=(MASK,)),
            span(1, [4, 5, 6, 7], CODES, plan(4)),
        ],
    )
    denoiser = FakeDenoiser()
    states(canvas, (0, 0), denoiser)
    assert [[query.row for query in queries] for queries in denoiser.asked] == [[0, 1], [0, 1], [1], [1], [0], [0]]


def test_queries_name_the_masked_positions_columns_and_branches():
    denoiser = FakeDenoiser()
    states(mixed(False), (0, 0, 0), denoiser)
    first = denoiser.asked[0]
    assert [query.row for query in first] == [0, 1, 1, 2]
    assert [query.columns for query in first] == [CODES, TEXT, CODES, TEXT]
    both, one = ("condition", "unconditional"), ("condition",)
    assert [query.branches for query in first] == [both, one, both, one]
    assert [query.positions.tolist() for query in first] == [
        [0, 2, 4, 5, 8, 9, 10],
        [13, 14, 15],  # the first block alone
        [21, 22, 24, 25],
        [28, 29, 30],
    ]


def test_a_row_alone_equals_the_row_in_a_batch():
    whole = mixed(True)
    final = run(FakeDenoiser(), whole, [generator(seed) for seed in (4, 5, 6)])
    offset = 0
    for index, length in enumerate(whole.lengths):
        alone = Canvas.start(
            ids=whole.row(index),
            lengths=(length,),
            spans=tuple(
                replace(each, row=0, positions=each.positions - offset) for each in whole.spans if each.row == index
            ),
            mask_id=MASK,
        )
        assert run(FakeDenoiser(), alone, [generator(4 + index)]).ids.tolist() == final.row(index).tolist()
        offset += length


def test_one_generator_per_row():
    with pytest.raises(ConfigError, match="3 rows need as many generators, not 2"):
        next(sample(FakeDenoiser(), mixed(False), [generator(0), generator(1)]))


def test_nothing_masked_means_no_step():
    canvas = canvas_of([[1, 2]], [span(0, [0, 1], TEXT, plan(3))])
    denoiser = FakeDenoiser()
    assert states(canvas, (0,), denoiser) == []
    assert run(denoiser, canvas, [generator(0)]) is canvas
    assert denoiser.asked == []


def test_it_is_lazy_and_a_states_canvas_can_be_kept():
    denoiser = FakeDenoiser()
    stream = sample(denoiser, mixed(True), [generator(seed) for seed in (0, 1, 2)])
    state = next(stream)
    assert len(denoiser.asked) == 1  # no step ahead of the one asked for: whoever stops iterating cancels
    kept = state.canvas.ids.clone()
    next(stream)
    assert torch.equal(state.canvas.ids, kept)


def test_fake_logits_see_row_position_and_branch():
    base = fake_logits([1, 2], 0, "condition")
    for other in (([2, 1], 0, "condition"), ([1, 2], 1, "condition"), ([1, 2], 0, "unconditional")):
        assert not torch.equal(base, fake_logits(*other))
