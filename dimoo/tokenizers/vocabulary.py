"""One id space for every modality. The only place in dimoo that knows token ids.

Text ids come first, special ids lie among them (they are entries of the text tokenizer), then one contiguous range
per modality: `[text | image codes | audio codes | ...]`. In Lumina-DiMOO the image codes begin at 126,356. A language
model such as LLaDA has the text ids alone, and fewer special ones.
"""

from __future__ import annotations

from pydantic import Field, model_validator
from typing_extensions import Self

from dimoo.core.config import StrictConfig, parse
from dimoo.core.errors import ConfigError

TEXT = "text"
MULTIMODAL = ("end_of_line", "unconditional", "answer_start", "answer_end")
"""Special ids that a text-only model need not have."""


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
        ConfigError: (as a pydantic error inside `parse`) ranges overlap, a special id is no text id, or a vocabulary
            with modalities lacks one.
    """

    text_size: int = Field(gt=0)
    """Text ids are 0 .. text_size - 1, the special ids among them."""
    mask: int
    pad: int
    """Fills what follows a text answer; may be `end_of_text`, as in LLaDA."""
    end_of_text: int
    end_of_line: int | None = None
    """Stands after every row of an image; given, never masked, never a target."""
    unconditional: int | None = None
    """Replaces the prompt in the branch without condition."""
    answer_start: int | None = None
    answer_end: int | None = None
    modalities: tuple[Modality, ...] = ()

    @model_validator(mode="after")
    def _check(self) -> Self:
        specials = self.specials
        missing = [name for name in MULTIMODAL if name not in specials]
        if self.modalities and missing:
            raise ValueError(f"a vocabulary with modalities needs the special tokens {', '.join(missing)}")
        distinct = {name: index for name, index in specials.items() if name != "pad" or index != self.end_of_text}
        if len(set(distinct.values())) != len(distinct):
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
        """Every special id that there is by name, modality tags included."""
        named = {"mask": self.mask, "pad": self.pad, "end_of_text": self.end_of_text}
        for name in MULTIMODAL:
            if (index := getattr(self, name)) is not None:
                named[name] = index
        for modality in self.modalities:
            named[f"{modality.name}_start"] = modality.opening
            named[f"{modality.name}_end"] = modality.closing
        return named

    @property
    def size(self) -> int:
        """Rows of the embedding and of the head."""
        return max([self.text_size, *(modality.stop for modality in self.modalities)])

    def special(self, name: str) -> int:
        """The id of a special token, as "answer_end".

        Raises:
            ConfigError: the vocabulary has none of that name.
        """
        specials = self.specials
        if name in specials:
            return specials[name]
        cause = "" if self.modalities else "; this model is text-only: dimoo.grow adds the tokens of other modalities"
        raise ConfigError(f"the vocabulary has no special token {name!r}; known: {', '.join(specials)}{cause}")

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

    def shifted(self, text_size: int) -> Vocabulary:
        """A new vocabulary with room for `text_size` text ids: the ranges of the modalities begin behind them.

        Raises:
            ConfigError: a special id has no room any more.
        """
        values, by = self.model_dump(), text_size - self.text_size
        moved = [{**entry, "start": entry["start"] + by} for entry in values["modalities"]]
        return parse(Vocabulary, {**values, "text_size": text_size, "modalities": moved})

    def with_modality(self, name: str, size: int, *, opening: int, closing: int) -> Vocabulary:
        """A new vocabulary with one more range at the end; grow the backbone to its `size` afterwards.

        Raises:
            ConfigError: the name or a tag is taken, a tag is no text id, or the size is not positive.
        """
        values = self.model_dump()
        entry = {"name": name, "start": self.size, "size": size, "opening": opening, "closing": closing}
        return parse(Vocabulary, {**values, "modalities": [*values["modalities"], entry]})
