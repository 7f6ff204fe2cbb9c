"""A message and the parts of its answer -> a job: what every task comes down to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from PIL.Image import Image
from torch import Tensor

from dimoo.cache.build import build_cache
from dimoo.cache.config import NoCacheConfig
from dimoo.core.errors import RequestError
from dimoo.denoise import Cache, NoCache
from dimoo.diffusion.canvas import Plan
from dimoo.presets.config import ImageSettings, TextSettings
from dimoo.tasks.inputs import whole, words
from dimoo.tasks.job import Job, Kit
from dimoo.tasks.plans import image_plan, text_plan
from dimoo.tasks.problem import Problem
from dimoo.tasks.problems import NEGATIVE_IN, problem
from dimoo.tokenizers.prompts import Grid, Said, Words
from dimoo.tokenizers.vocabulary import TEXT

Part = Image | str


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How to sample each modality: settings, or ready plans."""

    image: ImageSettings | Plan
    text: TextSettings | Plan

    def cache(self, *, pictures: bool, words: bool) -> Cache:
        """The cache of an answer that has pictures, words or both; a ready plan brings none.

        Raises:
            RequestError: it has both, and each is to have a cache of its own.
        """
        parts = [part for part, used in ((self.image, pictures), (self.text, words)) if used]
        wanted = {part.cache for part in parts if not isinstance(part, Plan)} - {NoCacheConfig()}
        if len(wanted) > 1:
            raise RequestError(
                "the answer has pictures and words, which are computed together, but their settings name two caches,"
                f" {' and '.join(sorted(repr(config) for config in wanted))}; give both the same, or one of them none"
            )
        return build_cache(wanted.pop()) if wanted else NoCache()


def compose(
    kit: Kit,
    family: str,
    said: Said,
    answer: Sequence[Grid | Words],
    *,
    settings: Settings,
    seed: Any,
    negative: Any = None,
) -> Job[list[Part]]:
    """The job of a message; its result is the parts of the answer, pictures and words, in order.

    Args:
        kit: the model's tokenizers.
        family: the task family.
        said: the user's words and pictures.
        answer: what is to be made; all parts are denoised together.
        settings: how.
        seed: names the draws.
        negative: what guidance leads away from, in place of nothing.

    Raises:
        RequestError: the answer is empty, the model was not taught the family, a text is too long, or all together is,
            guidance is asked for a condition that is not given, a negative prompt where no guidance would use it, the
            order walks over a picture and the answer has several of different sizes, or a value is of a wrong type.
    """
    prompts, vocabulary = kit.prompts, kit.prompts.vocabulary
    if not answer:
        raise RequestError("nothing is asked for; say what the answer is, as (PictureAnswer(),)")
    if family not in prompts.template.systems:
        known = ", ".join(prompts.template.systems) or "none"
        raise RequestError(f"this model was not taught the task family {family!r}; it knows {known}")
    against = None if negative is None else words(negative, "negative prompt")
    if against is not None and not any(isinstance(part, Grid) for part in answer):
        raise RequestError("a negative prompt guides pictures, but the answer has none; leave it out")
    made = problem(prompts, family, said, answer, negative=against)
    _fits(made, kit.max_tokens)
    grids = [part for part in answer if isinstance(part, Grid)]
    plans = {
        grid.modality: image_plan(
            settings.image, made.branches, [other.shape for other in grids if other.modality == grid.modality]
        )
        for grid in grids
    }
    lengths = [part.length for part in answer if isinstance(part, Words)]
    if lengths:
        stops = [vocabulary.special("answer_end")]
        plans[TEXT] = text_plan(settings.text, tokens=max(lengths), stops=stops, branches=made.branches)
    used = {name for plan in plans.values() for name in plan.guidance.branches}
    if against is not None and used.isdisjoint(NEGATIVE_IN):
        holding = " or ".join(repr(name) for name in NEGATIVE_IN if name in made.branches)
        raise RequestError(
            f"a negative prompt does nothing without guidance by the branch {holding}, where it stands; set a scale for"
            " that, or leave the negative prompt out"
        )

    def read(ids: Tensor, unknown: int | None = None) -> list[Part]:
        found = prompts.parts_of(answer, ids, unknown=unknown)
        return [part if isinstance(part, str) else kit.decode(part) for part in found]

    return Job(
        problem=made,
        plans=plans,
        seed=whole(seed, "seed"),
        read=read,
        preview=lambda ids: read(ids, vocabulary.mask),
        cache=settings.cache(pictures=any(isinstance(part, Grid) for part in answer), words=bool(lengths)),
    )


def _fits(made: Problem, most: int | None) -> None:
    context, answer = max(map(len, made.branches.values())), len(made.answer)
    if most is not None and context + answer > most:
        raise RequestError(
            f"the request takes {context} tokens and its answer {answer}, together {context + answer}, more than the"
            f" {most} that this model takes; ask for a smaller picture or fewer tokens, or show less"
        )


def only(job: Job[list[Part]]) -> Job[Any]:
    """A job of an answer of one part, whose result is that part."""
    return job.then(lambda parts: parts[0])


def masked(grid: Grid, remade: Tensor) -> Grid:
    """A known grid with the codes at `remade`, bool [*shape], to be made."""
    assert grid.codes is not None
    where = remade if grid.codebooks == 1 else remade[..., None]
    return replace(grid, codes=torch.where(where, -1, grid.codes))
