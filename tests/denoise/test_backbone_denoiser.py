import pytest
import torch

from dimoo.backbone.layout import PackedLayout
from dimoo.core.errors import ConfigError
from dimoo.core.rng import generator
from dimoo.denoise import BackboneDenoiser, Branch
from dimoo.diffusion.canvas import Canvas, Plan, Span
from dimoo.diffusion.confidence import Probability
from dimoo.diffusion.draw import Greedy
from dimoo.diffusion.guidance import ClassifierFree, NoGuidance
from dimoo.diffusion.orders import MaskGITOrder
from dimoo.diffusion.sampler import Query, run
from dimoo.diffusion.schedules import Cosine
from dimoo.diffusion.stopping import NoStop
from dimoo.diffusion.turn import Region

MASK, TEXT, CODES = 0, (0, 20), (20, 36)
BOTH = ("condition", "unconditional")


def branch(*ids, **changes):
    return Branch(context=torch.tensor(ids, dtype=torch.int64), **changes)


def plan(steps=3, guidance=None):
    return Plan(
        steps=steps,
        order=MaskGITOrder(schedule=Cosine()),
        draw=Greedy(),
        confidence=Probability(),
        guidance=guidance or NoGuidance(),
        stopping=NoStop(),
    )


def span(row, positions, columns, own_plan):
    return Span(row=row, positions=torch.tensor(positions), columns=columns, plan=own_plan)


def query(row, positions, columns, branches):
    return Query(
        row=row,
        positions=torch.tensor(positions),
        region=Region(first=min(positions), last=max(positions), complete=True),
        columns=columns,
        branches=branches,
        step=0,
        steps=3,
        written=0,
    )


def naive(backbone, start, canvas, requests, wanted):
    """Every branch alone through the network, all logits, then the slice."""
    context = requests[wanted.row]
    first = sum(start.lengths[: wanted.row])
    row, given = canvas.row(wanted.row), start.row(wanted.row) != MASK
    result = []
    for name in wanted.branches:
        shown = torch.where(given, MASK, row) if context[name].hide_given else row
        ids = torch.cat([context[name].context, shown])
        with torch.no_grad():
            logits = backbone.head(backbone(ids, PackedLayout.of([len(ids)])))
        rows = wanted.positions - first + len(context[name].context)
        result.append(logits[rows, slice(*wanted.columns)])
    return torch.stack(result)


@pytest.fixture
def requests():
    return [
        {"condition": branch(9, 10, 11, 12, 5), "unconditional": branch(9, 4, 5)},
        {"condition": branch(13, 14, 30, 31, 3, 15, 16)},
        {"condition": branch(17, 5), "unconditional": branch(MASK, MASK, hide_given=True), "no_image": branch(18)},
    ]


@pytest.fixture
def canvas():
    """A picture; text and a picture at once; a picture of another size with kept codes."""
    return Canvas.start(
        ids=torch.tensor(
            [*[MASK, MASK, 3, MASK, MASK, 3], *[MASK, MASK, MASK, 6, MASK, 3], *[MASK, 25, MASK, 3, 26, MASK, MASK, 3]]
        ),
        lengths=(6, 6, 8),
        spans=(
            span(0, [0, 1, 3, 4], CODES, plan(guidance=ClassifierFree(scale=2.0))),
            span(1, [6, 7, 8], TEXT, plan()),
            span(1, [10], CODES, plan()),
            span(2, [12, 13, 14, 16, 17, 18], CODES, plan(5, guidance=ClassifierFree(scale=1.0))),
        ),
        mask_id=MASK,
    )


QUERIES = [
    query(0, [0, 1, 3, 4], CODES, BOTH),
    query(1, [6, 7, 8], TEXT, BOTH[:1]),
    query(1, [10], CODES, BOTH[:1]),
    query(2, [14, 12, 18], CODES, ("condition", "no_image", "unconditional")),
]


class Spy:
    """How many tokens and head rows a model computes."""

    def __init__(self, backbone, monkeypatch):
        self.tokens, self.rows, self.columns = [], [], []
        head = backbone.head
        backbone.embedding.register_forward_hook(lambda module, inputs, output: self.tokens.append(len(output)))

        def counted(rows, columns=None):
            logits = head(rows, columns)
            self.rows.append(logits.shape[0])
            self.columns.append(logits.shape[1])
            return logits

        monkeypatch.setattr(backbone, "head", counted)


def test_the_pack_equals_every_branch_alone(backbone, canvas, requests):
    denoiser = BackboneDenoiser(backbone, canvas, requests)
    for wanted, logits in zip(QUERIES, denoiser(canvas, QUERIES), strict=True):
        torch.testing.assert_close(logits, naive(backbone, canvas, canvas, requests, wanted), atol=1e-5, rtol=0)
        assert not logits.requires_grad


def test_later_steps_see_what_was_committed(backbone, canvas, requests):
    denoiser = BackboneDenoiser(backbone, canvas, requests)
    first = denoiser(canvas, QUERIES)
    later = canvas.commit(torch.tensor([3, 7, 16 + 1]), torch.tensor([28, 12, 35]))
    left = [query(0, [0, 1, 4], CODES, BOTH), *QUERIES[1:]]
    for wanted, logits in zip(left, denoiser(later, left), strict=True):
        torch.testing.assert_close(logits, naive(backbone, canvas, later, requests, wanted), atol=1e-5, rtol=0)
    again = denoiser(canvas, QUERIES)  # a denoiser remembers nothing of the canvas
    assert all(torch.equal(one, two) for one, two in zip(first, again, strict=True))


def test_hidden_given_tokens_are_masked_and_committed_ones_are_not(backbone, canvas, requests):
    """Guidance of text: the second branch sees neither prompt nor given answer tokens."""
    later = canvas.commit(torch.tensor([12]), torch.tensor([33]))
    wanted = query(2, [14], CODES, ("unconditional",))
    (logits,) = BackboneDenoiser(backbone, canvas, requests)(later, [wanted])
    stream = torch.tensor([MASK, MASK, 33, MASK, MASK, MASK, MASK, MASK, MASK, MASK])
    with torch.no_grad():
        alone = backbone.head(backbone(stream, PackedLayout.of([10])))[4:5, slice(*CODES)]
    torch.testing.assert_close(logits[0], alone, atol=1e-5, rtol=0)


def test_rows_without_a_query_leave_the_stream(backbone, canvas, requests, monkeypatch):
    denoiser, spy = BackboneDenoiser(backbone, canvas, requests), Spy(backbone, monkeypatch)
    denoiser(canvas, QUERIES)
    denoiser(canvas, QUERIES[1:3])
    (logits,) = denoiser(canvas, QUERIES[3:])
    # Row 0: contexts 5 and 3, canvas 6. Row 1, once for its two spans: 7 and 6. Row 2: 2, 1 and 2, canvas 8.
    assert spy.tokens == [11 + 9 + 13 + 10 + 9 + 10, 13, 10 + 9 + 10]
    torch.testing.assert_close(logits, naive(backbone, canvas, canvas, requests, QUERIES[3]), atol=1e-5, rtol=0)


def test_the_head_computes_what_was_asked_and_nothing_else(backbone, canvas, requests, monkeypatch):
    denoiser, spy = BackboneDenoiser(backbone, canvas, requests), Spy(backbone, monkeypatch)
    denoiser(canvas, QUERIES)
    assert sum(rows * columns for rows, columns in zip(spy.rows, spy.columns, strict=True)) == (
        2 * 4 * 16 + 3 * 20 + 1 * 16 + 3 * 3 * 16
    )


def test_sampling_runs_fewer_tokens_as_rows_finish(backbone, canvas, requests, monkeypatch):
    spy = Spy(backbone, monkeypatch)
    final = run(BackboneDenoiser(backbone, canvas, requests), canvas, [generator(0)] * 3)
    assert not final.masked.any()
    # Row 1's picture of one token is done after a step; rows 0 and 1 have 3 steps, row 2 as many as its 4 masks.
    assert spy.tokens == [20 + 13 + 20, 20 + 13 + 20, 20 + 13 + 20, 20]


def test_a_branch_that_the_request_lacks_is_named(backbone, canvas, requests):
    denoiser = BackboneDenoiser(backbone, canvas, requests)
    with pytest.raises(ConfigError, match=r"request 1 has no branch 'unconditional'.*it has condition"):
        denoiser(canvas, [query(1, [6], TEXT, BOTH)])


def test_contexts_and_canvas_are_left_as_they_are(backbone, canvas, requests):
    before = [entry.context.clone() for row in requests for entry in row.values()]
    ids = canvas.ids.clone()
    run(BackboneDenoiser(backbone, canvas, requests), canvas, [generator(0)] * 3)
    assert torch.equal(canvas.ids, ids)
    after = [entry.context for row in requests for entry in row.values()]
    assert all(torch.equal(one, two) for one, two in zip(before, after, strict=True))
