"""Interactive retouching: mark regions, have them made anew, undo, go on.

A session keeps the code grid beside the picture. A picture that is encoded again does not give back the codes that it
was decoded from, so without the grid everything would drift a little at every step; with it, codes outside the marks
are the very ones of the step before, and so are the pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image
from torch import Tensor

from dimoo.core.errors import RequestError
from dimoo.core.pictures import as_rgb
from dimoo.core.requests import Mark, RetouchRequest
from dimoo.diffusion.canvas import Plan
from dimoo.presets.config import ImageSettings
from dimoo.tasks.compose import Settings
from dimoo.tasks.inpaint import retouch
from dimoo.tasks.inputs import picture
from dimoo.tasks.job import Job
from dimoo.tasks.model import Dimoo
from dimoo.tasks.records.provenance import stamp
from dimoo.tasks.records.recorded import Session, Step
from dimoo.tokenizers.prompts import Grid, Prompts


@dataclass(frozen=True, kw_only=True, eq=False)
class _Stand:
    """The picture after some steps."""

    picture: Image.Image
    grid: Grid
    """Its codes."""
    steps: tuple[Step, ...]
    """What led here from the picture that was opened."""


class Retouching:
    """A session with one picture.

        session = Retouching(model, image)
        session.retouch(Box(0, 0, 16, 16), "a red apple")
        session.retouch([Polygon(points), brush], "the apple is gone", seed=7)
        session.undo()

    What fails leaves it as it was. Its pictures carry the record of the whole session, from the picture that was opened
    on, unless a step took a ready plan: `dimoo rerun` makes them again, and `resumed` opens the session to go on.
    """

    def __init__(self, model: Dimoo, image: Image.Image) -> None:
        """Open a picture, upright as its EXIF tag says; its size must be on the model's grid.

        Raises:
            RequestError: the model knows text only, or the picture's size is off the grid.
        """
        self._model = model
        upright = as_rgb(picture(image))
        self._stands = [_Stand(picture=upright, grid=model.kit.grid(upright), steps=())]
        self._now = 0

    @classmethod
    def resumed(cls, model: Dimoo, session: Session) -> Retouching:
        """A session of a record (`records.record.told_of`): its picture is opened and its steps are taken again.

        Raises:
            RequestError: as `Retouching` and `retouch`.
        """
        again = cls(model, session.image)
        for step in session.steps:
            again.retouch(**vars(step))
        return again

    @property
    def picture(self) -> Image.Image:
        """The picture as it stands."""
        return self._stands[self._now].picture.copy()

    @property
    def codes(self) -> Tensor:
        """Its codes, int64 [h, w] (or [h, w, codebooks])."""
        codes = self._stands[self._now].grid.codes
        assert codes is not None
        return codes.clone()

    @property
    def history(self) -> tuple[Step, ...]:
        """The steps that led here, the first one first: marks, prompt, feather, negative, seed and settings.

        On the picture that was opened, `retouch(**vars(step))` for each of them gives the same picture.
        """
        return self._stands[self._now].steps

    def retouch(
        self,
        marks: Mark | Sequence[Mark],
        prompt: str | None = None,
        *,
        feather: int = RetouchRequest.feather,
        negative: str | None = None,
        seed: int = 0,
        settings: ImageSettings | Plan | None = None,
    ) -> Image.Image:
        """Make marked regions anew; what was undone before can no longer be redone.

        Codes with no pixel in the marks stay, and so does every pixel outside the marks.

        Args:
            marks: boxes, polygons and brush masks as large as the picture; together they are the region.
            prompt: what should be there; None: whatever fits.
            feather: pixels inside the region over which the new picture fades in.
            negative: what guidance leads away from.
            seed: names the draws.
            settings: how to sample, as settings or a ready plan; the model's own settings by default.

        Raises:
            RequestError: there is no mark, one reaches out of the picture, the feather is negative, the prompt is too
                long, or a value is of a wrong type.
        """
        model, stand = self._model, self._stands[self._now]
        several = tuple(marks) if isinstance(marks, Sequence) else (marks,)
        how = model.config.image if settings is None else settings
        asked = {"marks": several, "prompt": prompt, "feather": feather, "negative": negative, "seed": seed}
        request = RetouchRequest(image=stand.picture, **asked)  # type: ignore[arg-type]
        job = retouch(model.kit, request, Settings(image=how, text=model.config.text), known=stand.grid)
        made, codes = model.run([_with_codes(job, model.prompts, stand.grid)])[0]
        steps = (*stand.steps, Step(**asked, settings=how))  # type: ignore[arg-type]
        stamp(model, made, Session(image=self._stands[0].picture, steps=steps))
        grid = Grid.of(stand.grid.modality, codes, stand.grid.codebooks)
        self._stands[self._now + 1 :] = [_Stand(picture=made, grid=grid, steps=steps)]
        self._now += 1
        return self.picture

    def undo(self) -> Image.Image:
        """Back to the picture before the last step.

        Raises:
            RequestError: there is no step to undo.
        """
        if self._now == 0:
            raise RequestError("there is nothing to undo; the picture is as it was opened")
        self._now -= 1
        return self.picture

    def redo(self) -> Image.Image:
        """Forward again to the picture before the last undo.

        Raises:
            RequestError: nothing was undone, or something else was done since.
        """
        if self._now + 1 == len(self._stands):
            raise RequestError("there is nothing to redo; this is the last step")
        self._now += 1
        return self.picture


def _with_codes(job: Job[Image.Image], prompts: Prompts, grid: Grid) -> Job[Any]:
    """The same job, whose result is the picture and its codes."""
    return Job(
        problem=job.problem,
        plans=job.plans,
        seed=job.seed,
        read=lambda ids: (job.read(ids), prompts.parts_of([grid], ids)[0]),
        cache=job.cache,
    )
