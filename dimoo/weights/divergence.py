"""Where two models diverge, as a report: what `dimoo.weights.trace` finds."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

SHOWN_NAMES = 6
_SHOWN_ROWS = 40


@dataclass(frozen=True, kw_only=True)
class TraceRow:
    """One output of a module, or the run's result, in both models."""

    name: str
    """In the first model; from a module's second call on with its number, as `norm#2`."""
    second_name: str
    """In the second model."""
    shape: tuple[int, ...]
    second_shape: tuple[int, ...]
    difference: float
    """max |a - b|; infinite where the shapes cannot be compared, or NaN or infinity stands at other places."""
    relative: float
    """max |a - b| / max |a|, a being the first model's output."""
    close: bool
    """max |a - b| <= atol + rtol max |a|. The scale is the tensor's, since rounding in a sum is that of its parts."""
    inputs_close: bool | None
    """The same of the first tensor that the module was called with; None where there is none to compare."""

    @property
    def comparable(self) -> bool:
        """Whether both outputs have equally many values."""
        return math.prod(self.shape) == math.prod(self.second_shape)

    @property
    def remark(self) -> str:
        """What the numbers do not say, or nothing."""
        if not self.comparable:
            return f"the shape is {list(self.second_shape)} in the second"
        return "NaN or infinity at other places" if math.isinf(self.difference) else ""


@dataclass(frozen=True, kw_only=True)
class Trace:
    """Every compared output, in the order in which the first model's modules finish; `str()` is a report."""

    rows: tuple[TraceRow, ...]
    only_first: tuple[str, ...]
    """Calls of the first model without counterpart, not compared."""
    only_second: tuple[str, ...]
    """Calls of the second model without counterpart, not compared."""

    @property
    def first_divergence(self) -> str | None:
        """Name of the first row that is not close, None if all are."""
        row = self._first()
        return None if row is None else row.name

    @property
    def verdict(self) -> str:
        """One sentence: what differs first, and where to look."""
        row = self._first()
        if row is None:
            worst = max(self.rows, key=lambda each: each.relative)
            return f"no divergence in {len(self.rows)} outputs; the largest is {worst.relative:.1e} at {worst.name}"
        who = row.name if row.name == row.second_name else f"{row.name} ({row.second_name} in the second)"
        index = self.rows.index(row)
        after = f"after {self.rows[index - 1].name}" if index else "before it"
        if not row.comparable:
            return f"{who} has another shape: look at the sizes in the two configurations"
        match row.inputs_close:
            case None:
                return f"{who} differs while all before it agrees: look at what is computed {after}"
            case False:
                return f"{who} differs, and so does its input: look at what is computed {after}"
            case True if any(each.name.startswith(f"{row.name}.") for each in self.rows[:index]):
                return f"{who} differs while its inputs and the modules inside agree: look at its own code"
            case _:
                return f"{who} differs while its inputs agree: look at its weights and settings"

    def __str__(self) -> str:
        """The verdict, and the table around the first divergence."""
        first = self._first()
        index = 0 if first is None else self.rows.index(first)
        start = max(0, min(index - _SHOWN_ROWS // 2, len(self.rows) - _SHOWN_ROWS))
        shown = self.rows[start : start + _SHOWN_ROWS]
        width = max(len("layer"), *(len(row.name) for row in shown))
        lines = [self.verdict, "", f"    {'layer':{width}}  {'difference':>10}  {'relative':>8}  shape"]
        lines += [f"    ... {start} before"] if start else []
        for row in shown:
            mark = "-->" if row is first else "   " if row.close else "  x"
            numbers = f"{row.difference:10.1e}  {row.relative:8.1e}  {list(row.shape)}"
            lines.append(f"{mark} {row.name:{width}}  {numbers}  {row.remark}".rstrip())
        rest = len(self.rows) - start - len(shown)
        lines += [f"    ... {rest} after"] if rest else []
        for which, names in (("first", self.only_first), ("second", self.only_second)):
            lines += [f"not compared, only in the {which}: {abbreviated(names)}"] if names else []
        return "\n".join(lines)

    def _first(self) -> TraceRow | None:
        return next((row for row in self.rows if not row.close), None)


def abbreviated(names: Iterable[str]) -> str:
    """The first few names, and how many more there are."""
    every = list(names)
    more = f" ... and {len(every) - SHOWN_NAMES} more" if len(every) > SHOWN_NAMES else ""
    return (", ".join(every[:SHOWN_NAMES]) or "none") + more
