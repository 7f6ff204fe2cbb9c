"""Scores as files: one for programs, one for people."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from types import MappingProxyType

from dimoo.data.world.tasks import KINDS
from dimoo.evaluation.cases import CEILING, FLOOR, Case
from dimoo.evaluation.grids import captioned_grid
from dimoo.evaluation.page import inline, page, table
from dimoo.evaluation.score import Score

SCORES_FILE, PAGE_FILE = "scores.json", "index.html"
SHOWN, COLUMNS = 4, 8
HEAD = ("score", "value", "95% interval", "n", "prompts", "combinations", "floor", "ceiling")


def write_report(
    scores: Mapping[str, Score],
    cases: Sequence[Case],
    folder: Path,
    left_out: Mapping[str, str] = MappingProxyType({}),
    settings: Sequence[str] = (),
    scenes: str | None = None,
) -> Path:
    """Write `scores.json`, `right.png`, `wrong.png` and `index.html`, which shows all three and needs no other file.

    Args:
        scores: by name; `floor_NAME` and `ceiling_NAME` stand beside NAME.
        cases: the cases behind them, of which a few of each score are shown.
        folder: made where it is absent.
        left_out: kinds of tasks without a score, and why.
        settings: of sampling that are not the model's own, as the page says.
        scenes: whose scenes these are, as the page says, where they are not the model's own.

    Returns:
        The path of the page.
    """
    folder.mkdir(parents=True, exist_ok=True)
    values = {name: asdict(score) for name, score in scores.items()}
    (folder / SCORES_FILE).write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
    sections = [("Scores", table(HEAD, score_rows(scores, cases)))]
    for right, heading in ((True, "right"), (False, "wrong")):
        chosen = _examples(cases, right=right)
        if chosen:
            notes = [f"{case.name}: {case.words}" for case in chosen]
            sheet = captioned_grid([case.picture for case in chosen], notes, columns=COLUMNS)
            sheet.save(folder / f"{heading}.png")
            sections.append((f"Some that are {heading}", f'<img class="wide" src="{inline(sheet)}" alt="">'))
    if left_out:
        sections.append(("Left out", table(("task", "why"), list(left_out.items()))))
    path = folder / PAGE_FILE
    note = "Held-out prompts and questions of the built-in world, with Wilson's 95% intervals over prompts."
    note += " Prompts share held-out combinations, so the intervals say nothing about other combinations."
    note += f" Sampled with {', '.join(settings)}." if settings else ""
    note += "" if scenes is None else f" On the scenes of {scenes}."
    path.write_text(page("Evaluation", note, sections), encoding="utf-8")
    return path


def score_rows(scores: Mapping[str, Score], cases: Sequence[Case]) -> list[tuple[str, ...]]:
    """One row of text per score, in the order of `HEAD`; floors and ceilings stand beside their scores.

    "prompts" and "combinations" count the different prompts behind a picture score, and the different held-out
    combinations that they share: the interval is over prompts, so it is about just those combinations.
    """
    prompts: dict[str, set[str]] = {}
    combinations: dict[str, set[str]] = {}
    for case in cases:
        prompts.setdefault(case.name, set()).add(case.words)
        combinations.setdefault(case.name, set()).add(case.combination)
    return [
        (
            name.replace("_", " "),
            f"{score.score:.3f}",
            f"{score.low:.3f} to {score.high:.3f}",
            str(score.n),
            str(len(prompts[name])) if CEILING + name in scores else "",
            str(len(combinations[name])) if CEILING + name in scores else "",
            _value(scores, FLOOR + name),
            _value(scores, CEILING + name),
        )
        for name, score in scores.items()
        if not name.startswith((FLOOR, CEILING))
    ]


def _value(scores: Mapping[str, Score], name: str) -> str:
    return f"{scores[name].score:.3f}" if name in scores else ""


def _examples(cases: Sequence[Case], *, right: bool) -> list[Case]:
    """The first few of each score, the first one of each kind of a task; kinds of questions and bounds left out."""
    groups: dict[str, list[Case]] = {}
    for case in cases:
        if case.right == right and not case.name.startswith((FLOOR, CEILING, "questions_")):
            groups.setdefault(case.name, []).append(case)
    kinds = {kind for of_task in KINDS.values() for kind in of_task}
    return [
        case for name, group in groups.items() if name not in KINDS for case in group[: 1 if name in kinds else SHOWN]
    ]
