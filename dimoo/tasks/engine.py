"""Runs jobs of any mixture of tasks and sizes in one batch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

from dimoo.backbone.model import Backbone
from dimoo.core.errors import RequestError
from dimoo.core.rng import generator
from dimoo.denoise import BackboneDenoiser, Branch
from dimoo.diffusion.canvas import Canvas, Span
from dimoo.diffusion.sampler import State, sample
from dimoo.tasks.job import Job
from dimoo.tokenizers.vocabulary import TEXT, Vocabulary

ResultT = TypeVar("ResultT")


def run(backbone: Backbone, vocabulary: Vocabulary, jobs: Sequence[Job[ResultT]]) -> list[ResultT]:
    """Denoise all jobs together and read their answers; a job's result does not depend on the others."""
    canvas = start(vocabulary, jobs, backbone.embedding.weight.device)
    for state in stream(backbone, canvas, jobs):
        canvas = state.canvas
    return [job.read(canvas.row(index).cpu()) for index, job in enumerate(jobs)]


def stream(backbone: Backbone, canvas: Canvas, jobs: Sequence[Job[Any]]) -> Iterator[State]:
    """The states of the denoising of `canvas`, which `start` made of the jobs; stop iterating to cancel."""
    device = canvas.ids.device
    branches = [
        {name: Branch(context=document.ids.to(device)) for name, document in job.problem.branches.items()}
        for job in jobs
    ]
    generators = [generator(job.seed, "sample", device=device) for job in jobs]
    return sample(BackboneDenoiser(backbone, canvas, branches), canvas, generators)


def start(vocabulary: Vocabulary, jobs: Sequence[Job[Any]], device: torch.device) -> Canvas:
    """The canvas before the first step: one row per job, one span per target group of its answer.

    Raises:
        RequestError: there is no job, or nothing to denoise in one.
    """
    if not jobs:
        raise RequestError("there is no request to run; give at least one")
    ids: list[Tensor] = []
    spans: list[Span] = []
    offset = 0
    for row, job in enumerate(jobs):
        answer = job.problem.answer
        for index, target in enumerate(answer.targets):
            plan = job.plans[target.modality]
            positions = (answer.group == index).nonzero().squeeze(1) + offset
            columns = vocabulary.columns(target.modality)
            spans.append(
                Span(
                    row=row,
                    positions=positions.to(device),
                    columns=columns,
                    plan=plan,
                    forbidden=(vocabulary.mask,) if target.modality == TEXT else (),
                    fill=vocabulary.pad,
                )
            )
        ids.append(answer.ids)
        offset += len(answer)
    return Canvas.start(
        ids=torch.cat(ids).to(device),
        lengths=tuple(part.numel() for part in ids),
        spans=tuple(spans),
        mask_id=vocabulary.mask,
    )
