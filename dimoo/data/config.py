"""Where training examples come from and what is asked of them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator
from typing_extensions import Self

from dimoo.core.config import StrictConfig
from dimoo.data.world.config import WorldConfig
from dimoo.data.world.tasks import PICTURE, task_of

Side = Annotated[int, Field(ge=1)]
"""Of a picture, in pixels."""
Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]
BUCKET_UNIT = 32
"""In pixels: the sides of the sizes that pictures are sorted into are multiples of it."""


class Phase(StrictConfig):
    """A stretch of a curriculum."""

    share: float = Field(gt=0, le=1)
    """Share of the run's examples."""
    world: WorldConfig
    tasks: dict[str, Weight] = Field(default={PICTURE: 1.0})
    """How often an example is one of each task or kind ("edit", "edit_add"), relative; "picture" is one with its
    caption and questions."""

    @model_validator(mode="after")
    def _some(self) -> Self:
        for name in self.tasks:
            if name != PICTURE:
                task_of(name)
        if not any(self.tasks.values()):
            raise ValueError("the tasks have no weight; give one of them some")
        return self


class WorldSourceConfig(StrictConfig):
    """The built-in world, easy scenes first if the phases say so."""

    kind: Literal["world"] = "world"
    phases: tuple[Phase, ...] = Field(min_length=1)
    """In order; their shares sum to 1. The last one is what the model is evaluated on."""

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if abs(sum(phase.share for phase in self.phases) - 1) > 1e-6:
            raise ValueError(f"the shares of the phases sum to {sum(phase.share for phase in self.phases)}, not to 1")
        return self


class _FilesConfig(StrictConfig):
    path: str
    size: tuple[Side, Side] | Annotated[int, Field(ge=BUCKET_UNIT, multiple_of=BUCKET_UNIT)]
    """(height, width) in pixels that every picture is resized to cover and centrally cropped to; or a number n: each
    picture takes that of the sizes of about n x n pixels which it fills best (SPEC section 1)."""
    on_bad: Literal["raise", "report"] = "raise"
    """What unreadable rows do: stop with a list of them all, or be listed in the log and left out."""
    verify: Literal["pixels", "headers"] = "pixels"
    """How pictures are looked at before training: all are decoded; or only their headers are read, which is faster, and
    a picture with damage behind its header ends the run when it is drawn."""
    held_out: int = Field(default=0, ge=0)
    """Examples that are never trained on."""


class FolderSourceConfig(_FilesConfig):
    """Pictures in a folder, each with its caption in a text file of the same name."""

    kind: Literal["folder"] = "folder"


class JsonlSourceConfig(_FilesConfig):
    """A JSONL file of captioned pictures, conversations about pictures, and tasks with their answers."""

    kind: Literal["jsonl"] = "jsonl"


class ShardSourceConfig(StrictConfig):
    """What `dimoo encode` made of a folder or a JSONL file: pictures as codes."""

    kind: Literal["shards"] = "shards"
    path: str
    held_out: int = Field(default=0, ge=0)
    """Examples that are never trained on."""


SourceConfig = Annotated[
    WorldSourceConfig | FolderSourceConfig | JsonlSourceConfig | ShardSourceConfig, Field(discriminator="kind")
]


class DropoutConfig(StrictConfig):
    """Conditions that are left out each on its own, where a picture is made; answers in words keep theirs."""

    words: float = Field(default=0.1, ge=0, le=1)
    """How often the words are."""
    pictures: float = Field(default=0.1, ge=0, le=1)
    """How often the pictures are, all of them. Guidance that leaves out one of several wants the even dropout."""


class MixtureConfig(StrictConfig):
    """What is asked of an example, by relative weight; an example without a caption or question takes what it can."""

    pair: float = Field(default=0.0, ge=0)
    """Text to image with the caption masked as well, by a share of its own: stage I of Lumina-DiMOO."""
    text_to_image: float = Field(default=0.6, ge=0)
    question: float = Field(default=0.25, ge=0)
    caption: float = Field(default=0.15, ge=0)
    question_tokens: int = Field(default=8, ge=2)
    """Tokens planned for the answer to a question, its end included."""
    caption_tokens: int = Field(default=24, ge=2)
    """Tokens planned for a caption, its end included."""
    dropout: Annotated[float, Field(ge=0, le=1)] | DropoutConfig = 0.1
    """How often an example is trained without its condition, or without a part of it, as guidance will ask for it: the
    parts evenly, or words and pictures each by a probability of its own."""
    text_block: int | None = Field(default=None, ge=1)
    """Learn an answer in words by one block of this many tokens at a time, with what comes after it hidden, as text is
    made in blocks; None: all of it at once."""

    @model_validator(mode="after")
    def _some(self) -> Self:
        if self.pair + self.text_to_image + self.question + self.caption <= 0:
            raise ValueError("pair, text_to_image, question and caption are all 0; give one of them a weight")
        return self
