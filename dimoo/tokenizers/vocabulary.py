"""One id space for every modality. The only place in dimoo that knows token ids.

Text ids come first, special ids lie among them (they are entries of the text tokenizer), then one contiguous range
per modality: `[text | image codes | audio codes | ...]`. In Lumina-DiMOO the image codes begin at 126,356.
"""

from __future__ import annotations

from pydantic import Field, model_validator
from typing_extensions import Self

from dimoo.core.config import StrictConfig, parse
from dimoo.core.errors import ConfigError

TEXT = "text"


class Modality(StrictConfig):
    """The id range of one modality's codes and the text ids that open and close a piece of it."""

    name: str = Field(min_length=1)
    start: int = Field(ge=0)
    """First id of the range."""
    size: int = Field(gt=0)
    """Number of codes: codebook size times codebooks per position."""
    opening: int = Field(ge=0)
    closing: int = Field(ge=0)

    @property
    def stop(self) -> int:
        """One past the last id."""
        return self.start + self.size


class Vocabulary(StrictConfig):
    """Which id means what; saved with every checkpoint.

    Raises:
        ConfigError: (as a pydantic error inside `parse`) ranges overlap, or a special id is no text id.
    """

    text_size: int = Field(gt=0)
    """Text ids are 0 .. text_size - 1, the special ids among them."""
    mask: int
    pad: int
    end_of_text: int
    end_of_line: int
    """Stands after every row of an image; given, never masked, never a target."""
    unconditional: int
    """Replaces the prompt in the branch without condition."""
    answer_start: int
    answer_end: int
    modalities: tuple[Modality, ...] = ()

    @model_validator(mode="after")
    def _check(self) -> Self:
        specials = self.specials
        if len(set(specials.values())) != len(specials):
            raise ValueError(f"two special tokens share an id: {specials}")
        for name, index in specials.items():
            if not 0 <= index < self.text_size:
                raise ValueError(f"special token {name} has id {index}, outside the text ids 0..{self.text_size - 1}")
        end, names = self.text_size, {TEXT}
        for modality in sorted(self.modalities, key=lambda entry: entry.start):
            if modality.name in names:
                raise ValueError(f"modality {modality.name!r} is listed twice")
            if modality.start < end:
                raise ValueError(f"the range of {modality.name!r} starts at {modality.start}, inside ids below {end}")
            names.add(modality.name)
            end = modality.stop
        return self

    @property
    def specials(self) -> dict[str, int]:
        """Every special id by name, modality tags included."""
        named = {
            "mask": self.mask,
            "pad": self.pad,
            "end_of_text": self.end_of_text,
            "end_of_line": self.end_of_line,
            "unconditional": self.unconditional,
            "answer_start": self.answer_start,
            "answer_end": self.answer_end,
        }
        for modality in self.modalities:
            named[f"{modality.name}_start"] = modality.opening
            named[f"{modality.name}_end"] = modality.closing
        return named

    @property
    def size(self) -> int:
        """Rows of the embedding and of the head."""
        return max([self.text_size, *(modality.stop for modality in self.modalities)])

    def modality(self, name: str) -> Modality:
        """The entry of a modality.

        Raises:
            ConfigError: the vocabulary has no such modality.
        """
        for entry in self.modalities:
            if entry.name == name:
                return entry
        known = ", ".join(entry.name for entry in self.modalities) or "none"
        raise ConfigError(f"the vocabulary has no modality {name!r}; known: {known}")

    def columns(self, name: str) -> tuple[int, int]:
        """The ids (start, stop) that a position of this modality ("text" included) may take."""
        if name == TEXT:
            return 0, self.text_size
        entry = self.modality(name)
        return entry.start, entry.stop

    def with_modality(self, name: str, size: int, *, opening: int, closing: int) -> Vocabulary:
        """A new vocabulary with one more range at the end; grow the backbone to its `size` afterwards.

        Raises:
            ConfigError: the name or a tag is taken, a tag is no text id, or the size is not positive.
        """
        values = self.model_dump()
        entry = {"name": name, "start": self.size, "size": size, "opening": opening, "closing": closing}
        return parse(Vocabulary, {**values, "modalities": [*values["modalities"], entry]})
