"""The released samplers' tokens, exactly, through our loader, canvas, plans, denoiser and loop."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pytest
import torch
from golden_folder import Case, Golden
from golden_release import Released
from torch import Tensor

from dimoo.cache.max_logit import PaperMaxLogit, Timetable
from dimoo.cache.stored import StoredCache
from dimoo.core.rng import generator
from dimoo.denoise import Branch, Branches, Cache, NoCache, RoutedDenoiser
from dimoo.diffusion.canvas import Canvas, Plan, Span
from dimoo.diffusion.confidence import Probability
from dimoo.diffusion.draw import Greedy
from dimoo.diffusion.guidance import ClassifierFree, Guidance, MultiCondition
from dimoo.diffusion.orders import BlockOrder, MaskGITOrder
from dimoo.diffusion.sampler import run
from dimoo.diffusion.schedules import Cosine
from dimoo.diffusion.stopping import NoStop


@dataclass(frozen=True, kw_only=True)
class Row:
    """A case as one row of a canvas."""

    branches: Branches
    answer: Tensor
    """int64 [n], masks where it is to be made."""
    positions: Tensor
    """int64 [L]: what is denoised, within the answer."""
    columns: tuple[int, int]
    plan: Plan
    wanted: Tensor
    """int64 [L]: the released code's ids at `positions`."""
    cache: Cache = field(default_factory=NoCache)


@pytest.mark.cases("t2i", "inpaint", "i2i", "mmu")
def test_case(released: Released, case: Case) -> None:
    row = _row(released, case)
    (made,) = _sample(released, [row])
    assert made.tolist() == row.wanted.tolist()


def test_all_cases_in_one_batch(golden: Golden, released: Released) -> None:
    """What the released code cannot do: tasks, sizes, guidance, caches and step counts mixed, and the same tokens."""
    cases = [golden.case(name) for name in golden.info["cases"]]
    rows = [_row(released, case) for case in cases]
    for made, row in zip(_sample(released, rows), rows, strict=True):
        assert made.tolist() == row.wanted.tolist()


def _row(released: Released, case: Case) -> Row:
    settings, tensors = case.settings, case.tensors
    match case.kind:
        case "mmu":
            return _text(released, case)
        case "i2i":
            scales = (("no_text", settings["cfg_scale"]), ("no_image", settings["cfg_img"]))
            others = {name: tensors[f"uncond_{name.removeprefix('no_')}_ids"] for name, _ in scales}
            return _image(released, case, others, MultiCondition(scales=scales))
        case _:
            guidance = ClassifierFree(scale=settings["cfg_scale"])
            others = {name: tensors["uncond_ids"] for name in guidance.branches[1:]}
            return _image(released, case, others, guidance)


def _image(released: Released, case: Case, others: Mapping[str, Tensor], guidance: Guidance) -> Row:
    ids, start = case.tensors["input_ids"][0], case.settings["code_start"] - 2  # at <answer><IMAGE>
    height, width = case.settings["grid"]
    lines = torch.arange(2, 2 + height * (width + 1)).view(height, width + 1)
    contexts = {"condition": ids[:start], **{name: other[0] for name, other in others.items()}}
    return Row(
        branches={name: Branch(context=context) for name, context in contexts.items()},
        answer=ids[start:],
        positions=lines[:, :width].flatten(),
        columns=released.codes,
        plan=Plan(
            steps=case.settings["steps"],
            order=MaskGITOrder(schedule=Cosine()),
            draw=Greedy(),
            confidence=Probability(),
            guidance=guidance,
            stopping=NoStop(),
        ),
        wanted=case.tensors["output_codes"][0] + released.codes[0],
        cache=_cache(case),
    )


def _cache(case: Case) -> Cache:
    if not case.reuses:
        return NoCache()
    settings = case.settings
    timetable = Timetable(warmup=settings["warmup_ratio"], refresh=settings["refresh_interval"])
    return StoredCache(policy=PaperMaxLogit(share=1 - settings["cache_ratio"], timetable=timetable))


def _text(released: Released, case: Case) -> Row:
    settings, ids = case.settings, case.tensors["input_ids"][0]
    start = settings["code_start"] - 1  # at <answer>
    hidden = torch.full_like(ids[:start], released.mask)
    positions = torch.arange(1, 1 + settings["gen_length"])
    return Row(
        branches={
            "condition": Branch(context=ids[:start]),
            "unconditional": Branch(context=hidden, hide_given=True),
        },
        answer=ids[start:],
        positions=positions,
        columns=(0, released.backbone.vocab_size),
        plan=Plan(
            steps=settings["steps"],
            order=BlockOrder(block=settings["block_length"]),
            draw=Greedy(),
            confidence=Probability(dtype=torch.float64),
            guidance=ClassifierFree(scale=settings["cfg_scale"]),
            stopping=NoStop(),
        ),
        wanted=case.tensors["output_ids"][0, start:][positions],
    )


def _sample(released: Released, rows: Sequence[Row]) -> list[Tensor]:
    """What is made of each row, int64 [L]; everything else must stand as it was given."""
    spans, offset = [], 0
    for index, row in enumerate(rows):
        positions = row.positions + offset
        spans.append(Span(row=index, positions=positions, columns=row.columns, plan=row.plan))
        offset += len(row.answer)
    start = Canvas.start(
        ids=torch.cat([row.answer for row in rows]),
        lengths=tuple(len(row.answer) for row in rows),
        spans=tuple(spans),
        mask_id=released.mask,
    )
    requests, caches = [row.branches for row in rows], [row.cache for row in rows]
    denoiser = RoutedDenoiser(released.backbone, start, requests, caches)
    final = run(denoiser, start, [generator(index) for index in range(len(rows))])
    assert torch.equal(final.ids[~start.masked], start.ids[~start.masked])
    return [final.ids[span.positions] for span in spans]
