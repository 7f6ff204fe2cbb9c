"""Tasks as data: how each is said to a model, what it may be given, and what it answers. Free of torch.

A task that needs nothing else is an entry in a checkpoint's table, and `dimoo.TaskRequest` runs it.
"""

from __future__ import annotations

from string import Formatter
from typing import Annotated, Literal

from pydantic import Field, model_validator
from typing_extensions import Self

from dimoo.core.config import StrictConfig
from dimoo.presets import families

Count = Annotated[int, Field(ge=0)]


class TaskText(StrictConfig):
    """One task."""

    family: str
    """The task family, a key of the prompt template's `systems`."""
    text: str = "{words}"
    """What the user says: {words} stands for the request's words, {option} for what its option is called; braces that
    are meant as they are stand twice."""
    options: dict[str, str] = Field(default={})
    """What a request chooses from, by the name that it uses: what the text calls it. Empty: where the text has
    {option}, any words do."""
    images: tuple[Count, Count] = (0, 0)
    """How many pictures a request brings: at least, at most."""
    answer: Literal["image", "text", "both"] = "image"
    """What is made; "both" is a picture and then words, denoised together."""
    size: Literal["picture", "model"] = "model"
    """How large the picture is where a request does not say: as the first picture given, or the model's own size."""

    @model_validator(mode="after")
    def _possible(self) -> Self:
        least, most = self.images
        if least > most:
            raise ValueError(f"images={self.images}: at least {least} is above at most {most}")
        if self.size == "picture" and not least:
            raise ValueError("size 'picture' needs a task that always brings one; set images or size 'model'")
        if self.size == "picture" and self.answer == "text":
            raise ValueError("size 'picture' is that of a picture that is made, but the answer is 'text'; leave it out")
        try:
            fields = list(Formatter().parse(self.text))
        except ValueError as error:
            raise ValueError(f"the text {self.text!r} may hold {{words}} and {{option}} only ({error})") from error
        for _, name, form, conversion in fields:
            if name is not None and (name not in ("words", "option") or form or conversion):
                raise ValueError(f"the text {self.text!r} may hold {{words}} and {{option}} only, as they stand here")
        return self

    @property
    def takes(self) -> frozenset[str]:
        """Which of "words" and "option" the text has a place for."""
        return frozenset(name for _, name, _, _ in Formatter().parse(self.text) if name is not None)


INPAINT = "inpaint"
"""The task that fills regions: it needs one besides words, so `dimoo.TaskRequest` cannot run it."""

STANDARD: dict[str, TaskText] = {
    "generate": TaskText(family=families.TEXT_TO_IMAGE),
    INPAINT: TaskText(family=families.TEXT_TO_IMAGE),
    "edit": TaskText(family=families.EDITING, images=(1, 1), size="picture"),
    "subject": TaskText(family=families.SUBJECT, images=(1, 4)),
    "style": TaskText(family=families.STYLE, images=(2, 2), size="picture"),
    "restyle": TaskText(family=families.STYLE, images=(1, 1), size="picture"),
    "control": TaskText(family=families.CONTROL, text="{option}: {words}", images=(1, 1), size="picture"),
    "predict": TaskText(family=families.DENSE, text="{option}", images=(1, 1), size="picture"),
    "view": TaskText(family=families.MULTI_VIEW, text="{option}", images=(1, 1), size="picture"),
    "ask": TaskText(family=families.UNDERSTANDING, images=(1, 8), answer="text"),
    "chat": TaskText(family=families.UNDERSTANDING, answer="text"),
    "illustrate": TaskText(family=families.OTHER, answer="both"),
}
"""The table of a model whose config has none."""
