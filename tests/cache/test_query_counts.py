"""What a query says of its row is what its canvas says, though it is counted along without asking the device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from cached_rows import MASK, Row, edit, joint, picture, requests_of, start_of, text
from torch import Tensor

from dimoo.backbone.model import Backbone
from dimoo.core.rng import generator
from dimoo.denoise import NoCache
from dimoo.diffusion.canvas import Canvas
from dimoo.diffusion.confidence import Probability
from dimoo.diffusion.remasking import Refinement, Remasking, ReMDM
from dimoo.diffusion.sampler import Query, sample
from dimoo.diffusion.stopping import StopAtToken


def taken_back(remasking: Remasking, **changes: Any) -> Row:
    row = picture(steps=6, size=(3, 3))
    (positions, columns, own) = row.parts[0]
    own = replace(own, remasking=remasking, confidence=Probability(), **changes)
    return replace(row, parts=((positions, columns, own),))


def stopping_at(token: int) -> Row:
    row = text(steps=9, length=9, seed=3)
    own = replace(row.parts[0][2], stopping=StopAtToken(token=token))
    return replace(row, parts=((row.parts[0][0], row.parts[0][1], own),))


def joint_stopping_at(token: int) -> Row:
    """Words that may end early, and a picture that goes on."""
    row = joint(steps=(6, 6), seed=3)
    (positions, columns, own), picture_span = row.parts
    own = replace(own, stopping=StopAtToken(token=token))
    return replace(row, parts=((positions, columns, own), picture_span))


ROWS = {
    "plain": lambda: [picture(steps=6), edit(steps=5), text(steps=8, length=8, block=4), joint(steps=(6, 4))],
    "stop": lambda: [stopping_at(token) for token in range(20)],
    "taken back": lambda: [taken_back(ReMDM(eta=0.5))],
    "stop beside a picture": lambda: [joint_stopping_at(token) for token in range(20)],
    "refined": lambda: [taken_back(Refinement(rounds=2, share=0.3))],
}


@pytest.mark.parametrize("name", ROWS)
def test_the_counts_of_a_query_are_those_of_the_canvas(backbone: Backbone, name: str) -> None:
    rows = ROWS[name]()
    start, before = start_of(rows), {}
    denoiser = NoCache().denoiser(backbone, start, requests_of(rows))
    compared = 0

    def watched(canvas: Canvas, queries: Sequence[Query]) -> list[Tensor]:
        nonlocal compared
        for query in queries:
            now, offset = canvas.row(query.row).tolist(), sum(canvas.lengths[: query.row])
            assert int(canvas.masked[offset : offset + len(now)].sum()) == now.count(MASK)
            step, seen = before.get(query.row, (None, now))
            if step == query.step - 1:
                changed = sum(one != other for one, other in zip(now, seen, strict=True))
                compared += 1
                assert query.written >= changed
                assert query.written == changed or name == "refined"  # there a token comes back as it was
        before.update({query.row: (query.step, canvas.row(query.row).tolist()) for query in queries})
        return denoiser(canvas, queries)

    states = list(sample(watched, start, [generator(row.seed) for row in rows]))
    assert compared >= 5
    assert states[-1].share_done == 1.0
    if name.startswith("stop"):
        assert (states[-1].canvas.ids == 1).any()  # some were filled
