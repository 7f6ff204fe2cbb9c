"""Runs jobs of any mixture of tasks and sizes in one batch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from dimoo.core.errors import RequestError
from dimoo.core.rng import generator
from dimoo.denoise import BackboneDenoiser, Branch, MaskPredictor
from dimoo.diffusion.canvas import Canvas, Span
from dimoo.diffusion.sampler import State, sample
from dimoo.tasks.job import Job
from dimoo.tokenizers.vocabulary import Vocabulary

ResultT = TypeVar("ResultT")


class Stream(Generic[ResultT]):
    """The denoising of jobs, as it goes: iterate over its states, stop to cancel, or take the `results`.

    A job's result does not depend on the others. All randomness is drawn on the CPU from the job's seed, so that one
    seed means the same draws on every device.
    """

    def __init__(self, network: MaskPredictor, vocabulary: Vocabulary, jobs: Sequence[Job[ResultT]]) -> None:
        """Nothing is computed before the first state is asked for.

        Raises:
            RequestError: there is no job, or a job has no plan for what it wants made.
        """
        self._jobs = tuple(jobs)
        self._canvas = _start(vocabulary, self._jobs, network.device)
        branches = [
            {name: Branch(context=document.ids.to(network.device)) for name, document in job.problem.branches.items()}
            for job in self._jobs
        ]
        denoiser = BackboneDenoiser(network, self._canvas, branches)
        self._states = sample(denoiser, self._canvas, [generator(job.seed, "sample") for job in self._jobs])

    def __iter__(self) -> Iterator[State]:
        """The states still to come."""
        return self

    def __next__(self) -> State:
        """Take a step."""
        state = next(self._states)
        self._canvas = state.canvas
        return state

    def results(self) -> list[ResultT]:
        """Take the steps that are left, and read every job's answer, in order."""
        for _ in self:
            pass
        return [job.read(self._canvas.row(index).cpu()) for index, job in enumerate(self._jobs)]


def _start(vocabulary: Vocabulary, jobs: Sequence[Job[Any]], device: torch.device) -> Canvas:
    """The canvas before the first step: one row per job, one span per target group of its answer."""
    if not jobs:
        raise RequestError("there is no request to run; give at least one")
    ids: list[Tensor] = []
    spans: list[Span] = []
    offset = 0
    for row, job in enumerate(jobs):
        answer = job.problem.answer
        for index, target in enumerate(answer.targets):
            if target.modality not in job.plans:
                raise RequestError(f"the job has no plan for its {target.modality!r} targets; add one to its `plans`")
            positions = (answer.group == index).nonzero().squeeze(1) + offset
            spans.append(
                Span(
                    row=row,
                    positions=positions.to(device),
                    columns=target.columns,
                    plan=job.plans[target.modality],
                    forbidden=(vocabulary.mask,) if vocabulary.mask in range(*target.columns) else (),
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
