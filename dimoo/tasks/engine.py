"""Runs jobs of any mixture of tasks and sizes in one batch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Generic, TypeVar, overload

import torch
from torch import Tensor

from dimoo.core.errors import DataError, RequestError
from dimoo.core.rng import generator
from dimoo.denoise import Branch, Cache, MaskPredictor, RoutedDenoiser
from dimoo.diffusion.canvas import Canvas, Span
from dimoo.diffusion.sampler import State, sample
from dimoo.diffusion.trajectory import Recorder, Trajectory, replay
from dimoo.tasks.job import Job
from dimoo.tokenizers.vocabulary import Vocabulary

ResultT = TypeVar("ResultT")


class Stream(Generic[ResultT]):
    """The denoising of jobs, as it goes: iterate over its states, or take the `results`.

    Stop iterating to cancel: nothing runs on behind. Between two steps there are previews and the record so far, and
    whoever stopped may go on, by iterating again or by `results`.
    """

    def __init__(self, jobs: Sequence[Job[ResultT]], start: Canvas, states: Iterator[State]) -> None:
        """A stream of states that begin at the jobs' canvas `start`; `sampled` and `replayed` make them."""
        self._jobs, self._canvas = tuple(jobs), start
        self._states = Recorder(states, start)

    @classmethod
    def sampled(
        cls,
        network: MaskPredictor,
        vocabulary: Vocabulary,
        jobs: Sequence[Job[ResultT]],
        *,
        cache: Cache | None = None,
    ) -> Stream[ResultT]:
        """The jobs, denoised by a network. Nothing is computed before the first state is asked for.

        A job's result does not depend on the others. All randomness is drawn on the CPU from the job's seed, so that
        one seed means the same draws on every device.

        Args:
            network: the transformer.
            vocabulary: its ids.
            jobs: what is to be made.
            cache: one for all jobs; None: each job's own.

        Raises:
            RequestError: there is no job, a job has no plan for what it wants made, or a plan's guidance takes a branch
                that the job's problem does not have.
            ConfigError: a cache cannot serve the jobs: the network takes no stored keys and values, or the store would
                take more than its bound.
        """
        start = start_of(vocabulary, jobs, network.device)
        branches = [
            {name: Branch(context=document.ids.to(network.device)) for name, document in job.problem.branches.items()}
            for job in jobs
        ]
        denoiser = RoutedDenoiser(network, start, branches, [job.cache if cache is None else cache for job in jobs])
        return cls(jobs, start, sample(denoiser, start, [generator(job.seed, "sample") for job in jobs]))

    @classmethod
    def replayed(cls, vocabulary: Vocabulary, jobs: Sequence[Job[ResultT]], trajectory: Trajectory) -> Stream[ResultT]:
        """A recorded run of the jobs over again, exactly and without a network; its canvases are on the CPU.

        Raises:
            RequestError: as `sampled`.
            DataError: the trajectory is that of other jobs: its first canvas is another one. What was said is no part
                of a canvas, so requests of other words alone are not noticed.
        """
        start = start_of(vocabulary, jobs, torch.device("cpu"))
        if start.lengths != trajectory.lengths:
            raise DataError(
                f"the trajectory has rows of {trajectory.lengths} tokens, the requests of {start.lengths}; give the"
                " requests that were recorded, in the same order"
            )
        others = int((start.ids != trajectory.ids).sum())
        if others or start.mask_id != trajectory.mask_id:
            raise DataError(
                f"the trajectory begins with other tokens than the requests at {others} of {len(start.ids)} positions,"
                f" its mask is the id {trajectory.mask_id}, the model's {start.mask_id}; give the requests that were"
                " recorded, in the same order, to the model that served them"
            )
        return cls(jobs, start, replay(trajectory))

    def __iter__(self) -> Iterator[State]:
        """The states still to come."""
        return self

    def __next__(self) -> State:
        """Take a step."""
        state = next(self._states)
        self._canvas = state.canvas
        return state

    def results(self) -> list[ResultT]:
        """Take the steps that are left, and read every job's answer, in order.

        Raises:
            DataError: this is the replay of a run that was not recorded to its end.
        """
        for _ in self:
            pass
        if left := int(self._canvas.masked.sum()):
            raise DataError(
                f"the record ends with {left} positions still masked; record a run to its end, or take the `preview`"
            )
        return [job.read(row) for job, row in zip(self._jobs, self._rows(), strict=True)]

    @overload
    def preview(self, index: int) -> ResultT | None: ...
    @overload
    def preview(self, index: None = None) -> list[ResultT | None]: ...
    def preview(self, index: int | None = None) -> ResultT | list[ResultT | None] | None:
        """A result as it stands now: what is not made yet is grey in pictures and left out of words.

        Args:
            index: of the job; None: all, in order.

        Returns:
            What the job's `preview` makes of its present tokens, None where the job has none.

        Raises:
            RequestError: there is no such job.
        """
        looks = [job.preview for job in self._jobs]
        if index is not None:
            if not -len(looks) <= index < len(looks):
                raise RequestError(
                    f"there is no job {index}: this stream has {len(looks)}, numbered from 0, not by steps; without a"
                    " number preview() gives all of them"
                )
            look = looks[index]
            return None if look is None else look(self._canvas.row(index).cpu())
        return [None if look is None else look(row) for look, row in zip(looks, self._rows(), strict=True)]

    def record(self) -> Trajectory:
        """The run from its first canvas to the last state that was taken: a few bytes per token and step.

        `dimoo.diffusion.trajectory` saves and loads it, `Dimoo.replay` runs it over again.
        """
        return self._states.trajectory

    def _rows(self) -> list[Tensor]:
        return [self._canvas.row(index).cpu() for index in range(len(self._jobs))]


def start_of(vocabulary: Vocabulary, jobs: Sequence[Job[Any]], device: torch.device) -> Canvas:
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
            plan, branches = job.plans[target.modality], job.problem.branches
            if missing := [name for name in plan.guidance.branches if name not in branches]:
                raise RequestError(
                    f"the guidance of the {target.modality!r} targets takes the branch"
                    f" {', '.join(map(repr, missing))}, but request {row} has {', '.join(map(repr, branches))} only;"
                    " set its scale to 0, or give the request what that branch leaves out"
                )
            positions = (answer.group == index).nonzero().squeeze(1) + offset
            spans.append(
                Span(
                    row=row,
                    positions=positions.to(device),
                    columns=target.columns,
                    plan=plan,
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
