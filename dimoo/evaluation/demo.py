"""The gallery that `dimoo demo` writes: pictures from prompts, inpainting, and answers, each with its truth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from html import escape
from pathlib import Path

from PIL import Image

from dimoo.core.requests import AskRequest, GenerateRequest, InpaintRequest
from dimoo.data.world.config import WorldConfig
from dimoo.data.world.language import plain_caption
from dimoo.data.world.questions import QA, Kind, possible
from dimoo.data.world.sample import Canvas
from dimoo.data.world.scene import Scene
from dimoo.data.world.suite import PromptKind, prompts, qa_suite
from dimoo.evaluation.cases import look, picture_of
from dimoo.evaluation.criteria import fulfils
from dimoo.evaluation.judge import Judge
from dimoo.evaluation.page import figure, mark, page
from dimoo.evaluation.suites import canvas_of, plain
from dimoo.tasks.model import Dimoo

DRAWN: dict[PromptKind, int] = {"one": 4, "two": 4, "count": 2, "place": 1, "size": 1}
"""Pictures of the gallery by kind of prompt."""
OTHER_SIZES, ASKED_GIVEN = 3, 7
ASKED_MADE: tuple[Kind, ...] = ("what", "color", "count", "exists")
"""Questions about generated pictures: those that a prompt alone answers, wherever the objects ended up."""
NOTE = (
    "Prompts for whole pictures and questions about given ones hold combinations that training never showed."
    " A tick: the exact judge finds in the picture what was asked for, or the answer is the true one."
)


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """A prompt, and the scene that it describes."""

    kind: PromptKind
    words: str
    truth: Scene


@dataclass(frozen=True, kw_only=True)
class Filling:
    """A picture, a region to be made anew, and what should be there afterwards."""

    title: str
    before: Image.Image
    mask: Image.Image
    after: Drawing


def make_demo(model: Dimoo, world: WorldConfig, folder: Path, seed: int) -> Path:
    """Write `index.html` and its pictures.

    Args:
        model: what is shown.
        world: what it was trained for, see `dimoo.evaluation.suites.world_of`.
        folder: made where it is absent.
        seed: of prompts and sampling.

    Returns:
        The path of the page.
    """
    folder.mkdir(parents=True, exist_ok=True)
    drawings, fillings = _drawings(world, seed), _fillings(world, seed)
    given = qa_suite(world, ASKED_GIVEN, seed, canvas=canvas_of(world))
    shown = [picture_of(scene) for scene, _ in given]
    results = model.run(
        [
            *(
                GenerateRequest(prompt=one.words, height=one.truth.height, width=one.truth.width, seed=seed + index)
                for index, one in enumerate(drawings)
            ),
            *(
                InpaintRequest(image=one.before, mask=one.mask, prompt=one.after.words, seed=seed + index)
                for index, one in enumerate(fillings)
            ),
            *_ask(model, shown, [qa for _, qa in given]),
        ]
    )
    made, filled = results[: len(drawings)], results[len(drawings) : len(drawings) + len(fillings)]
    judge = Judge(world=world)
    rights = [_right(judge, one, picture) for one, picture in zip(drawings, made, strict=True)]
    about = [index for index, one in enumerate(drawings) if one.kind in ("one", "two", "count")]
    asked = [_question(world, drawings[index].truth, turn) for turn, index in enumerate(about)]
    answers = model.run(_ask(model, [made[index] for index in about], asked))
    sections = [
        ("Pictures from prompts", _show_drawings(folder, drawings, made, rights)),
        ("Inpainting: before, mask, after", _show_fillings(folder, fillings, filled, judge)),
        (
            "Questions about generated pictures, marked where the picture is what its prompt says",
            _show_answers(
                folder, "made", [made[index] for index in about], asked, answers, [rights[index] for index in about]
            ),
        ),
        (
            "Questions about given pictures",
            _show_answers(folder, "given", shown, [qa for _, qa in given], results[-len(given) :], [True] * len(given)),
        ),
    ]
    path = folder / "index.html"
    path.write_text(page(f"dimoo: {model.config.name}", NOTE, sections), encoding="utf-8")
    return path


def _drawings(world: WorldConfig, seed: int) -> list[Drawing]:
    """The usual canvas, and one object on a few other ones."""
    usual = canvas_of(world)
    wanted: list[tuple[PromptKind, int, Canvas]] = [(kind, count, usual) for kind, count in DRAWN.items()]
    others = [canvas for canvas in world.canvases if canvas != usual]
    wanted += [("one", 1, canvas) for canvas in others[:OTHER_SIZES]]
    return [
        Drawing(kind=kind, words=words, truth=truth)
        for kind, count, canvas in wanted
        for words, truth in prompts(plain(world), kind, count, seed, canvas=canvas)
    ]


def _fillings(world: WorldConfig, seed: int) -> list[Filling]:
    """One object replaced, one added, one removed."""
    pairs = prompts(plain(world), "two", 3, seed + 1, canvas=canvas_of(world))
    fillings = []
    for title, (words, scene) in zip(("replace", "add", "remove"), pairs, strict=True):
        first, second = scene.entities
        alone = replace(scene, entities=(first,))
        after = Drawing(kind="two", words=words, truth=scene)
        match title:
            case "replace":
                spare = [noun for noun in world.words if noun not in scene.counts()]
                old = replace(second, noun=spare[seed % len(spare)]) if spare else first
                before = replace(scene, entities=(first, old))
            case "add":
                before = alone
            case _:
                before, after = scene, Drawing(kind="one", words=plain_caption(alone), truth=alone)
        mask = Image.new("L", (scene.width, scene.height))
        mask.paste(255, (second.x, second.y, second.x + second.size_px, second.y + second.size_px))
        fillings.append(Filling(title=title, before=picture_of(before), mask=mask, after=after))
    return fillings


def _question(world: WorldConfig, truth: Scene, turn: int) -> QA:
    """A question that the prompt of a picture answers; the kinds in turn, as far as the scene allows."""
    choices = [qa for kind in ASKED_MADE for qa in possible(truth, kind, nouns=world.words)[:2]]
    return choices[turn % len(choices)]


def _ask(model: Dimoo, pictures: Sequence[Image.Image], asked: Sequence[QA]) -> list[AskRequest]:
    return [
        AskRequest(images=(picture,), question=qa.question, tokens=model.config.answer_tokens)
        for picture, qa in zip(pictures, asked, strict=True)
    ]


def _right(judge: Judge, drawing: Drawing, picture: Image.Image) -> bool:
    return fulfils(drawing.kind, drawing.truth, look(judge, [picture])[0])


def _show_drawings(
    folder: Path, drawings: Sequence[Drawing], made: Sequence[Image.Image], rights: Sequence[bool]
) -> str:
    tiles = []
    for index, (one, picture, right) in enumerate(zip(drawings, made, rights, strict=True)):
        size = f"{picture.height}x{picture.width}"
        source = _save(folder, f"prompt_{index:02}.png", picture)
        tiles.append(figure(source, f"{escape(one.words)} {mark(right)}", f"<small>{size}</small>"))
    return f'<div class="grid">{"".join(tiles)}</div>'


def _show_fillings(folder: Path, fillings: Sequence[Filling], filled: Sequence[Image.Image], judge: Judge) -> str:
    strips = []
    for one, picture in zip(fillings, filled, strict=True):
        tiles = [
            figure(_save(folder, f"inpaint_{one.title}_before.png", one.before), f"before: {one.title}"),
            figure(_save(folder, f"inpaint_{one.title}_mask.png", one.mask), "mask"),
            figure(
                _save(folder, f"inpaint_{one.title}_after.png", picture),
                f"{escape(one.after.words)} {mark(_right(judge, one.after, picture))}",
            ),
        ]
        strips.append(f'<div class="strip">{"".join(tiles)}</div>')
    return "".join(strips)


def _show_answers(
    folder: Path,
    name: str,
    pictures: Sequence[Image.Image],
    asked: Sequence[QA],
    answers: Sequence[str],
    sure: Sequence[bool],
) -> str:
    """Questions below their pictures; `sure` says where the expected answer is known to be the true one."""
    tiles = []
    for index, (picture, qa, answer, known) in enumerate(zip(pictures, asked, answers, sure, strict=True)):
        right = answer == qa.answer if known else None
        truth = f"<small>true: {escape(qa.answer)}</small>" if right is False else ""
        source = _save(folder, f"{name}_{index:02}.png", picture)
        tiles.append(figure(source, f"{escape(qa.question)}?", f"<b>{escape(answer)}</b> {mark(right)}", truth))
    return f'<div class="grid">{"".join(tiles)}</div>'


def _save(folder: Path, name: str, picture: Image.Image) -> str:
    picture.save(folder / name)
    return name
