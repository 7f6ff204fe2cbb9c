import pytest
import torch

from dimoo.core.errors import ConfigError
from dimoo.diffusion.canvas import Canvas, Plan, Span
from dimoo.diffusion.confidence import Probability
from dimoo.diffusion.draw import Greedy
from dimoo.diffusion.guidance import NoGuidance
from dimoo.diffusion.orders import BlockOrder, MaskGITOrder
from dimoo.diffusion.schedules import Cosine
from dimoo.diffusion.stopping import NoStop

MASK = 9


def plan(steps=2, order=None):
    return Plan(
        steps=steps,
        order=order or MaskGITOrder(schedule=Cosine()),
        draw=Greedy(),
        confidence=Probability(),
        guidance=NoGuidance(),
        stopping=NoStop(),
    )


def span(row, positions, **changes):
    return Span(row=row, positions=torch.tensor(positions), columns=(0, 9), **{"plan": plan(), **changes})


@pytest.fixture
def canvas():
    return Canvas.start(
        ids=torch.tensor([1, MASK, MASK, 2, 3, MASK, 4]),
        lengths=(4, 3),
        spans=(span(0, [1, 2, 3]), span(1, [5])),
        mask_id=MASK,
    )


def test_exactly_the_positions_with_the_mask_id_are_masked(canvas):
    assert canvas.masked.tolist() == [False, True, True, False, False, True, False]


def test_start_does_not_share_the_ids_that_it_was_given():
    ids = torch.tensor([MASK, 1])
    canvas = Canvas.start(ids=ids, lengths=(2,), spans=(span(0, [0]),), mask_id=MASK)
    ids[0] = 5
    assert canvas.ids.tolist() == [MASK, 1]


def test_rows(canvas):
    assert canvas.row(0).tolist() == [1, MASK, MASK, 2]
    assert canvas.row(1).tolist() == [3, MASK, 4]


def test_commit_makes_a_new_canvas(canvas):
    before = canvas.ids.clone(), canvas.masked.clone()
    after = canvas.commit(torch.tensor([5, 1]), torch.tensor([8, 7]))
    assert after.ids.tolist() == [1, 7, MASK, 2, 3, 8, 4]
    assert after.masked.tolist() == [False, False, True, False, False, False, False]
    assert torch.equal(canvas.ids, before[0])
    assert torch.equal(canvas.masked, before[1])


def test_a_committed_mask_id_leaves_its_position_masked(canvas):
    after = canvas.commit(torch.tensor([1, 2]), torch.tensor([MASK, 6]))
    assert after.masked.tolist() == [False, True, False, False, False, True, False]


@pytest.mark.parametrize(
    ("lengths", "spans", "message"),
    [
        ((3,), [[1, 2]], "do not sum to the 4"),
        ((4,), [[1]], "exactly one span"),  # position 2 is in none
        ((4,), [[1, 2], [2]], "exactly one span"),  # ... and here in two
        ((4,), [], "exactly one span"),
    ],
)
def test_a_canvas_whose_masks_are_not_covered_once_is_refused(lengths, spans, message):
    with pytest.raises(ConfigError, match=message):
        Canvas.start(
            ids=torch.tensor([0, MASK, MASK, 0]),
            lengths=lengths,
            spans=tuple(span(0, positions) for positions in spans),
            mask_id=MASK,
        )


def test_given_positions_may_lie_in_two_spans_or_none():
    spans = (span(0, [0, 1]), span(0, [0, 2]))
    canvas = Canvas.start(ids=torch.tensor([5, MASK, MASK, 5]), lengths=(4,), spans=spans, mask_id=MASK)
    assert int(canvas.masked.sum()) == 2


def test_a_span_that_its_order_cannot_sample_is_refused_at_once():
    with pytest.raises(ConfigError, match="3 steps cannot be divided evenly over 2 blocks"):
        span(0, [0, 1, 2, 3], plan=plan(steps=3, order=BlockOrder(block=2)))
