"""Several sources one after the other: easy examples first."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

from dimoo.data.example import Example, Picture, Source


@dataclass(frozen=True, kw_only=True)
class Curriculum:
    """Source i serves the indices from `starts[i]` on, until the next one starts; the last one has no end."""

    sources: Sequence[Source]
    starts: Sequence[int]

    @property
    def size(self) -> int | None:
        """None where the last source is endless."""
        last = self.sources[-1].size
        return None if last is None else self.starts[-1] + last

    def example(self, index: int) -> Example[Picture]:
        """The example at an index; a source is asked for the same index, so that stages never share an example."""
        return self.sources[bisect_right(self.starts, index) - 1].example(index)
