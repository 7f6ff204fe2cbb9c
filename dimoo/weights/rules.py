"""Declarative two-way renaming between a published checkpoint and our modules.

One table serves both directions, and nothing is skipped silently: a name that no rule knows, a name that a
rule wants but the checkpoint lacks, and a wrong shape are all errors, reported together.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from dimoo.core.errors import CheckpointError
from dimoo.core.tensors import raise_all

TensorMap = Callable[[Tensor], Tensor]
_PLACEHOLDER = re.compile(r"\{(\w+)\}")


def _same(tensor: Tensor) -> Tensor:
    return tensor


@dataclass(frozen=True, kw_only=True)
class Transform:
    """A pair of maps between their tensor and ours, each the inverse of the other."""

    to_ours: TensorMap = _same
    to_theirs: TensorMap = _same


IDENTITY = Transform()


@dataclass(frozen=True)
class Rename:
    """One rule: the tensor that we call `ours` is called `theirs` in the checkpoint.

    A placeholder as `{i}` stands for a number and must occur in both names. A name without placeholders is
    required: its absence is an error. `expand` makes every name of a regular table so.

    Raises:
        CheckpointError: the two names do not have the same placeholders.
    """

    ours: str
    theirs: str
    transform: Transform = IDENTITY

    def __post_init__(self) -> None:
        ours, theirs = set(_PLACEHOLDER.findall(self.ours)), set(_PLACEHOLDER.findall(self.theirs))
        if ours != theirs:
            raise CheckpointError(
                f"rule {self.ours!r} <-> {self.theirs!r}: the placeholders {sorted(ours)} and "
                f"{sorted(theirs)} differ, so it cannot be inverted; use the same ones on both sides"
            )


def expand(rules: Iterable[Rename], **counts: int) -> tuple[Rename, ...]:
    """Replace the placeholders named in `counts` by 0..count-1, so that every resulting name is required.

    `expand(rules, i=2)` turns one rule with `{i}` into two without. Rules that lack a placeholder stay.
    """
    expanded = []
    for rule in rules:
        names = [name for name in dict.fromkeys(_PLACEHOLDER.findall(rule.ours)) if name in counts]
        for numbers in itertools.product(*(range(counts[name]) for name in names)):
            values = dict(zip(names, map(str, numbers), strict=True))
            expanded.append(Rename(_fill(rule.ours, values), _fill(rule.theirs, values), rule.transform))
    return tuple(expanded)


@dataclass(frozen=True)
class Match:
    """What becomes of one tensor: its new name and values."""

    name: str
    values: TensorMap


def match_to_ours(rules: Sequence[Rename], names: Iterable[str]) -> dict[str, Match]:
    """By the published checkpoint's names: what each tensor is with us. Nothing is read.

    Raises:
        CheckpointError: lists every name that no rule knows, every required name that is absent, and every
            name that two rules claim.
    """
    return _match([(rule.theirs, rule.ours, rule.transform.to_ours) for rule in rules], names)


def match_to_theirs(rules: Sequence[Rename], names: Iterable[str]) -> dict[str, Match]:
    """By our names: what each tensor is in the published checkpoint; the inverse of `match_to_ours`.

    Raises:
        CheckpointError: as in `match_to_ours`.
    """
    return _match([(rule.ours, rule.theirs, rule.transform.to_theirs) for rule in rules], names)


def to_ours(rules: Sequence[Rename], tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename (and transform) a published checkpoint's tensors to our names.

    Raises:
        CheckpointError: as in `match_to_ours`.
    """
    return _apply(match_to_ours(rules, tensors), tensors)


def to_theirs(rules: Sequence[Rename], tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename (and transform) our tensors to the published checkpoint's names; the inverse of `to_ours`.

    Raises:
        CheckpointError: as in `match_to_ours`.
    """
    return _apply(match_to_theirs(rules, tensors), tensors)


def _apply(matches: Mapping[str, Match], tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {match.name: match.values(tensors[source]) for source, match in matches.items()}


def _match(table: Sequence[tuple[str, str, TensorMap]], names: Iterable[str]) -> dict[str, Match]:
    given = list(names)
    required = {source for source, _, _ in table if not _PLACEHOLDER.search(source)}
    problems = [f"missing: {name}" for name in sorted(required - set(given))]
    patterns = [(_pattern(source), target, transform) for source, target, transform in table]
    result: dict[str, Match] = {}
    taken: set[str] = set()
    for name in given:
        hits = [
            (_fill(target, hit.groupdict()), transform)
            for pattern, target, transform in patterns
            if (hit := pattern.fullmatch(name))
        ]
        targets = ", ".join(target for target, _ in hits)
        if not hits:
            problems.append(f"unknown: {name}")
        elif len(hits) > 1 or targets in taken:
            problems.append(f"ambiguous: {name} is claimed by more than one rule, as {targets}")
        else:
            taken.add(targets)
            result[name] = Match(*hits[0])
    raise_all(problems)
    return result


def _pattern(template: str) -> re.Pattern[str]:
    """A template as a regular expression: `{i}` is a number, the same one wherever it is repeated."""
    parts = _PLACEHOLDER.split(template)
    seen: set[str] = set()
    expression = re.escape(parts[0])
    for name, literal in zip(parts[1::2], parts[2::2], strict=True):
        expression += f"(?P={name})" if name in seen else rf"(?P<{name}>\d+)"
        expression += re.escape(literal)
        seen.add(name)
    return re.compile(expression)


def _fill(template: str, values: Mapping[str, str]) -> str:
    return _PLACEHOLDER.sub(lambda hit: values.get(hit[1], hit[0]), template)
