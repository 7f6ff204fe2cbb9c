"""The gallery's sections that begin with prompts: pictures of several sizes and how they come about, larger canvases,
retouching, questions about given pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

from dimoo.core.requests import AskRequest, Box, GenerateRequest, OutpaintRequest, Polygon
from dimoo.data.world.config import WorldConfig
from dimoo.data.world.language import noun_phrase, plain_caption
from dimoo.data.world.questions import QA, Kind, possible
from dimoo.data.world.sample import Canvas
from dimoo.data.world.scene import Entity, Scene
from dimoo.data.world.suite import PromptKind, prompts, qa_suite
from dimoo.evaluation.cases import look, picture_of
from dimoo.evaluation.criteria import fulfils
from dimoo.evaluation.judge import Judge
from dimoo.evaluation.strips import Section, Strip, Tile
from dimoo.evaluation.suites import canvas_of, plain
from dimoo.tasks.model import Dimoo
from dimoo.tasks.retouching import Retouching

DRAWN: dict[PromptKind, int] = {"one": 4, "two": 4, "count": 2, "place": 1, "size": 1}
"""Pictures by kind of prompt."""
OTHER_SIZES, ASKED_GIVEN, PREVIEWS, CONTINUED = 3, 7, 7, 2
ASKED_MADE: tuple[Kind, ...] = ("what", "color", "count", "exists")
"""Questions about generated pictures: those that a prompt alone answers, wherever the objects ended up."""


@dataclass(frozen=True, kw_only=True)
class Stage:
    """What is shown, and what judges it."""

    model: Dimoo
    world: WorldConfig
    judge: Judge
    seed: int

    def right(self, kind: PromptKind, truth: Scene, picture: Image.Image) -> bool:
        """Whether a picture has what a prompt of a kind asks for."""
        return fulfils(kind, truth, look(self.judge, [picture])[0])


def drawings(stage: Stage) -> Section:
    """Pictures from prompts, on the usual canvas and a few other ones, and a question about each that is simple."""
    world, seed = stage.world, stage.seed
    usual = canvas_of(world)
    others = [canvas for canvas in world.canvases if canvas != usual]
    wanted: list[tuple[PromptKind, int, Canvas]] = [(kind, count, usual) for kind, count in DRAWN.items()]
    wanted += [("one", 1, canvas) for canvas in others[:OTHER_SIZES]]
    drawn = [
        (kind, words, truth)
        for kind, count, canvas in wanted
        for words, truth in prompts(plain(world), kind, count, seed, canvas=canvas)
    ]
    made = stage.model.run(
        [
            GenerateRequest(prompt=words, height=truth.height, width=truth.width, seed=seed + index)
            for index, (_, words, truth) in enumerate(drawn)
        ]
    )
    asked = [_question(world, truth, turn) for turn, (_, _, truth) in enumerate(drawn)]
    answers = _answers(stage.model, made, asked)
    strips: list[Strip] = []
    for (kind, words, truth), picture, qa, answer in zip(drawn, made, asked, answers, strict=True):
        right = stage.right(kind, truth, picture)
        size = f"{picture.height}x{picture.width}"
        # An answer can be called right or wrong where the picture is what its prompt says.
        verdict = "" if not right else " (right)" if answer == qa.answer else f" (wrong: {qa.answer})"
        strips.append([Tile(picture=picture, lines=(words, size, f"{qa.question}? {answer}{verdict}"), right=right)])
    return Section(
        title="Pictures from prompts", note="Of several sizes, each with a question about it.", strips=strips
    )


def previews(stage: Stage) -> Section:
    """One picture on its way: grey is not decided yet."""
    (words, truth), *_ = prompts(plain(stage.world), "two", 1, stage.seed, canvas=canvas_of(stage.world))
    request = GenerateRequest(prompt=words, height=truth.height, width=truth.width, seed=stage.seed)
    stream = stage.model.stream([request])
    seen = [stream.preview(0) for _ in stream]
    chosen = sorted({round(step) for step in np.linspace(1, len(seen), PREVIEWS)})
    tiles = [Tile(picture=seen[step - 1], lines=(f"step {step} of {len(seen)}",)) for step in chosen]
    return Section(title="How a picture comes about", note=f"“{words}”", strips=[tiles])


def outpainting(stage: Stage) -> Section:
    """Pictures continued to both sides, and the result continued again."""
    world, step = stage.world, stage.model.kit.pictures.downsampling[1]
    canvas = min(world.canvases, key=lambda size: (size[1] < world.big, size[1]))
    pairs = prompts(plain(world), "one", CONTINUED, stage.seed + 2, canvas=canvas)
    rows: list[list[Tile]] = [[Tile(picture=picture_of(scene), lines=("given",))] for _, scene in pairs]
    for turn in range(2):
        requests = [
            OutpaintRequest(image=row[-1].picture, prompt=words, left=step, right=step, seed=stage.seed + turn)  # type: ignore[arg-type]
            for row, (words, _) in zip(rows, pairs, strict=True)
        ]
        for row, request, larger, (words, scene) in zip(rows, requests, stage.model.run(requests), pairs, strict=True):
            middle = larger.crop((step, 0, larger.width - step, larger.height))
            right = stage.right("one", scene, larger) and middle.tobytes() == request.image.tobytes()
            row.append(Tile(picture=larger, lines=(f"{larger.height}x{larger.width}: {words}",), right=right))
    return Section(
        title="Larger canvases", note="A column of codes is added on each side, twice; the middle stays.", strips=rows
    )


def retouching(stage: Stage) -> Section:
    """A session: a box, a polygon, and back."""
    (_, scene), *_ = prompts(plain(stage.world), "two", 1, stage.seed + 1, canvas=canvas_of(stage.world))
    first, second = scene.entities
    spare = [noun for noun in stage.world.words if noun not in scene.counts()]
    other = replace(second, noun=spare[stage.seed % len(spare)]) if spare else second
    both, alone = (replace(scene, entities=entities) for entities in ((first, other), (other,)))
    session = Retouching(stage.model, picture_of(scene))
    ground = f"on a {scene.background.colors[0]} background"
    tiles = [Tile(picture=session.picture, lines=("given",))]
    for kind, mark, words, truth in (
        ("two", Box(*_square(second)), plain_caption(both), both),
        ("one", _outline(first), f"{noun_phrase(other)} {ground}", alone),
    ):
        before, seed = session.picture, stage.seed + len(tiles)
        made = session.retouch(mark, words, feather=0, seed=seed)
        kept = _marked(before, mark).tobytes() == _marked(made, mark).tobytes()
        right = kept and stage.right("two" if kind == "two" else "one", truth, made)
        tiles += [
            Tile(picture=_marked(before, mark), lines=(f"marked by a {type(mark).__name__.lower()}",)),
            Tile(picture=made, lines=(words,), right=right),
        ]
    undone = session.undo()
    assert tiles[2].picture is not None
    same = undone.tobytes() == tiles[2].picture.tobytes()
    tiles.append(Tile(picture=undone, lines=("undone, the last step is taken back",), right=same))
    return Section(
        title="Retouching", note="What lies outside a mark stays, code by code and pixel by pixel.", strips=[tiles]
    )


def questions(stage: Stage) -> Section:
    """Questions of every kind about true pictures."""
    given = qa_suite(stage.world, ASKED_GIVEN, stage.seed, canvas=canvas_of(stage.world))
    pictures = [picture_of(scene) for scene, _ in given]
    answers = _answers(stage.model, pictures, [qa for _, qa in given])
    strips: list[Strip] = []
    for picture, (_, qa), answer in zip(pictures, given, answers, strict=True):
        truth = () if answer == qa.answer else (f"true: {qa.answer}",)
        lines = (f"{qa.question}? {answer}", *truth)
        strips.append([Tile(picture=picture, lines=lines, right=answer == qa.answer)])
    return Section(title="Questions", strips=strips)


def _question(world: WorldConfig, truth: Scene, turn: int) -> QA:
    """A question that the prompt of a picture answers; the kinds in turn, as far as the scene allows."""
    choices = [qa for kind in ASKED_MADE for qa in possible(truth, kind, nouns=world.words)[:2]]
    return choices[turn % len(choices)]


def _answers(model: Dimoo, pictures: Sequence[Image.Image], asked: Sequence[QA]) -> list[str]:
    return model.run(
        [
            AskRequest(images=(picture,), question=qa.question, tokens=model.config.answer_tokens)
            for picture, qa in zip(pictures, asked, strict=True)
        ]
    )


def _square(entity: Entity) -> tuple[int, int, int, int]:
    return entity.x, entity.y, entity.x + entity.size_px, entity.y + entity.size_px


def _outline(entity: Entity) -> Polygon:
    """An octagon around an object, cut off at the border of the picture."""
    (x, y), reach = entity.center, entity.size_px / 2
    angles = np.pi / 8 + np.arange(8) * np.pi / 4
    radius = 1.2 * reach / np.cos(np.pi / 8)
    return Polygon([(x + radius * float(np.cos(a)), y + radius * float(np.sin(a))) for a in angles])


def _marked(picture: Image.Image, mark: Box | Polygon) -> Image.Image:
    """The picture with what is marked in grey."""
    from dimoo.tasks.regions import GREY, region_of

    pixels = np.where(region_of(picture, [mark])[..., None], np.array(GREY, np.uint8), np.asarray(picture))
    return Image.fromarray(pixels)
