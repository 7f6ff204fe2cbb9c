"""Rows of different caches in one run: each by its own, equal ones together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import pytest
import torch
from forwarding import Forwarding
from torch import Tensor

from dimoo.backbone.model import Backbone
from dimoo.cache.blocks import BlockCache
from dimoo.cache.frozen import FrozenContext
from dimoo.cache.max_logit import MaxLogit, PaperMaxLogit, Timetable
from dimoo.cache.stored import StoredCache
from dimoo.core.errors import ConfigError
from dimoo.core.rng import generator
from dimoo.denoise import BackboneDenoiser, Branch, Branches, Cache, MaskPredictor, NoCache, RoutedDenoiser
from dimoo.diffusion.canvas import Canvas, Plan, Span
from dimoo.diffusion.confidence import GumbelConfidence
from dimoo.diffusion.draw import Categorical
from dimoo.diffusion.guidance import ClassifierFree
from dimoo.diffusion.orders import MaskGITOrder
from dimoo.diffusion.sampler import Denoiser, Query, sample
from dimoo.diffusion.schedules import Cosine
from dimoo.diffusion.stopping import NoStop
from dimoo.diffusion.turn import Region

MASK, CODES, LENGTHS, STEPS = 0, (20, 36), (6, 9, 6, 8, 7), (4, 6, 6, 5, 3)
FROZEN = StoredCache(policy=FrozenContext(refresh=4))
AIMED = StoredCache(policy=MaxLogit(share=0.3, timetable=Timetable(warmup=0.0, refresh=4)))


def start_of(rows: Sequence[int]) -> Canvas:
    """Pictures of different lengths and numbers of steps."""
    spans, offset = [], 0
    for index, row in enumerate(rows):
        plan = Plan(
            steps=STEPS[row],
            order=MaskGITOrder(schedule=Cosine()),
            draw=Categorical(),
            confidence=GumbelConfidence(),
            guidance=ClassifierFree(scale=2.0),
            stopping=NoStop(),
        )
        positions = torch.arange(offset, offset + LENGTHS[row])
        spans.append(Span(row=index, positions=positions, columns=CODES, plan=plan))
        offset += LENGTHS[row]
    lengths = tuple(LENGTHS[row] for row in rows)
    return Canvas.start(ids=torch.full((offset,), MASK), lengths=lengths, spans=tuple(spans), mask_id=MASK)


def branches_of(rows: Sequence[int]) -> list[Branches]:
    return [
        {
            "condition": Branch(context=torch.arange(9, 13 + row)),
            "unconditional": Branch(context=torch.tensor([4, 5])),
        }
        for row in rows
    ]


@dataclass
class Kept(Forwarding):
    """A denoiser that keeps calls and answers."""

    denoiser: Denoiser
    calls: list[tuple[Canvas, list[Query], list[Tensor]]] = field(default_factory=list)

    def __call__(self, canvas: Canvas, queries: Sequence[Query]) -> list[Tensor]:
        answers = self.denoiser(canvas, queries)
        self.calls.append((canvas, list(queries), [logits.clone() for logits in answers]))
        return answers


def sampled(network: MaskPredictor, rows: Sequence[int], caches: Sequence[Cache]) -> tuple[Kept, list[list[int]]]:
    """What was answered, and the ids of each row at the end."""
    start = start_of(rows)
    kept = Kept(RoutedDenoiser(network, start, branches_of(rows), caches))
    *_, last = sample(kept, start, [generator(row) for row in rows])
    return kept, [last.canvas.row(index).tolist() for index in range(len(rows))]


@pytest.fixture
def forwards(backbone: Backbone) -> Iterator[list[int]]:
    """The tokens of each forward pass."""
    tokens: list[int] = []
    hook = backbone.embedding.register_forward_hook(lambda module, inputs, output: tokens.append(len(output)))
    yield tokens
    hook.remove()


MIXED: list[Cache] = [NoCache(), FROZEN, AIMED, NoCache(), StoredCache(policy=BlockCache(scope="masked"))]
EARLY = Timetable(warmup=0.0, refresh=3)
ASKING: list[Cache] = [
    StoredCache(policy=PaperMaxLogit(share=0.2, timetable=EARLY)),
    StoredCache(policy=PaperMaxLogit(share=0.7, timetable=EARLY)),
    StoredCache(policy=PaperMaxLogit(share=0.4, timetable=EARLY)),
    NoCache(),
    StoredCache(policy=PaperMaxLogit(share=0.7, timetable=EARLY)),
]
"""Three caches that ask the device for numbers, each for its own; the sampler reads all of them together."""


@pytest.mark.parametrize("caches", [MIXED, ASKING], ids=["mixed", "asking"])
def test_each_row_equals_its_run_alone(backbone: Backbone, caches: list[Cache]) -> None:
    together, ids = sampled(backbone, range(5), caches)
    for row, cache in enumerate(caches):
        alone, own = sampled(backbone, [row], [cache])
        assert own == [ids[row]]
        answers = [
            logits
            for _, queries, answers in together.calls
            for query, logits in zip(queries, answers, strict=True)
            if query.row == row
        ]
        for logits, (_, _, (wanted,)) in zip(answers, alone.calls, strict=True):
            torch.testing.assert_close(logits, wanted, atol=1e-5, rtol=0)
    # So that it says something: another cache, another picture.
    assert sampled(backbone, range(5), [NoCache()] * 5)[1][1:3] != ids[1:3]


def test_rows_without_a_cache_are_the_plain_denoisers_bit_for_bit(backbone: Backbone) -> None:
    together, _ = sampled(backbone, range(5), MIXED)
    plain = BackboneDenoiser(backbone, start_of(range(5)), branches_of(range(5)))
    for canvas, queries, answers in together.calls:
        own = [index for index, query in enumerate(queries) if query.row in (0, 3)]
        wanted = plain(canvas, [queries[index] for index in own]) if own else []
        assert all(torch.equal(answers[index], logits) for index, logits in zip(own, wanted, strict=True))


def test_all_without_a_cache_are_one_pass_of_the_plain_denoiser(backbone: Backbone, forwards: list[int]) -> None:
    routed, _ = sampled(backbone, range(5), [NoCache() for _ in range(5)])
    assert len(forwards) == len(routed.calls) == 6
    plain = BackboneDenoiser(backbone, start_of(range(5)), branches_of(range(5)))
    for canvas, queries, answers in routed.calls:
        assert all(torch.equal(one, two) for one, two in zip(answers, plain(canvas, queries), strict=True))


def test_equal_caches_share_a_pass(backbone: Backbone, forwards: list[int]) -> None:
    again = StoredCache(policy=FrozenContext(refresh=4))
    assert again is not FROZEN
    sampled(backbone, range(5), [NoCache(), FROZEN, StoredCache(policy=FrozenContext(refresh=5)), NoCache(), again])
    contexts, other = [4 + row + 2 for row in range(5)], [2 * length for length in LENGTHS]
    whole = [context + canvas for context, canvas in zip(contexts, other, strict=True)]
    # By cache: rows 0 and 3, rows 1 and 4, row 2. Rows leave after 4, 6, 6, 5 and 3 steps.
    assert forwards == [
        *(whole[0] + whole[3], whole[1] + whole[4], whole[2]),
        *(whole[0] + whole[3], other[1] + other[4], other[2]),
        *(whole[0] + whole[3], other[1] + other[4], other[2]),
        *(whole[0] + whole[3], other[1], other[2]),
        *(whole[3], whole[1], other[2]),
        *(other[1], whole[2]),
    ]


@dataclass(frozen=True)
class Marked:
    """A cache whose answers say which cache, row and query they are of; it keeps what it was told."""

    number: int
    told: list[object] = field(default_factory=list, compare=False)

    def denoiser(self, network: MaskPredictor, start: Canvas, requests: Mapping[int, Branches]) -> Denoiser:
        self.told.append(dict(requests))
        return lambda canvas, queries: [
            torch.tensor([self.number, query.row, int(query.positions[0])]) for query in queries
        ]


def query(row: int, position: int) -> Query:
    return Query(
        row=row,
        positions=torch.tensor([position]),
        region=Region(first=position, last=position, complete=True),
        columns=CODES,
        branches=("condition",),
        step=0,
        steps=1,
        written=0,
    )


def test_answers_come_in_the_order_of_the_queries(backbone: Backbone) -> None:
    caches = [Marked(7), Marked(8), Marked(7), Marked(9)]
    requests = branches_of(range(4))
    routed = RoutedDenoiser(backbone, start_of(range(4)), requests, caches)
    assert caches[0].told == [{0: requests[0], 2: requests[2]}]
    assert [cache.told for cache in caches[1:]] == [[{1: requests[1]}], [], [{3: requests[3]}]]
    asked = [query(3, 21), query(0, 0), query(1, 6), query(0, 3), query(2, 15), query(1, 8)]
    answers = routed(start_of(range(4)), asked)
    numbers = [7, 8, 7, 9]
    assert [answer.tolist() for answer in answers] == [
        [numbers[one.row], one.row, int(one.positions[0])] for one in asked
    ]


def test_a_cache_whose_rows_are_done_is_not_asked(backbone: Backbone) -> None:
    @dataclass(frozen=True)
    class Silent:
        def denoiser(self, network: MaskPredictor, start: Canvas, requests: Mapping[int, Branches]) -> Denoiser:
            def refuse(canvas: Canvas, queries: Sequence[Query]) -> list[Tensor]:
                raise AssertionError("asked")

            return refuse

    routed = RoutedDenoiser(backbone, start_of(range(2)), branches_of(range(2)), [Silent(), Marked(1)])
    (answer,) = routed(start_of(range(2)), [query(1, 6)])
    assert answer.tolist() == [1, 1, 6]


@pytest.mark.parametrize("caches", [[], [NoCache()], [NoCache()] * 3])
def test_there_is_a_cache_for_each_row(backbone: Backbone, caches: list[Cache]) -> None:
    with pytest.raises(ConfigError, match=f"2 rows need as many caches, not {len(caches)}"):
        RoutedDenoiser(backbone, start_of(range(2)), branches_of(range(2)), caches)
