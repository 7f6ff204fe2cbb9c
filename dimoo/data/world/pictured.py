"""Tasks whose answer is a picture: inpainting, subjects, styles, maps, views, illustrated words."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from dimoo.data.example import TaskExample
from dimoo.data.world.config import WorldConfig
from dimoo.data.world.dice import below, distinct
from dimoo.data.world.draws import TRIES, Draw, TaskCase
from dimoo.data.world.holdout import held_out_color
from dimoo.data.world.language import PLACES, RELATIONS, caption, noun_phrase, plain_caption
from dimoo.data.world.maps import map_of
from dimoo.data.world.render import render
from dimoo.data.world.scene import Background, Entity, Scene, region, relation
from dimoo.data.world.styles import stylise


def inpaint(draw: Draw, kind: str) -> TaskCase:
    """A picture of which a part is given.

    "inpaint_region": all but a box around one object, with the caption of the whole or, in a quarter of cases, the name
    of the object. "inpaint_extend": whole rows and columns, from half to 7/8 of a side; missing on one or two sides.
    """
    for _ in range(TRIES):
        scene = draw.scene()
        words = caption(scene, draw.rng)
        if kind == "inpaint_region":
            entity = scene.entities[below(draw.rng, len(scene.entities))]
            given = ~_box(draw, entity, scene)
            words = noun_phrase(entity) if draw.one_in(4) else words
        else:
            given = _crop(draw, scene)
        if given.any() and not given.all():
            example = TaskExample(task="inpaint", words=words, image=render(scene), given=given)
            return TaskCase(kind=kind, example=example, before=None, scene=scene)
    raise draw.impossible(kind)


def subject(draw: Draw, kind: str) -> TaskCase:
    """One or two objects, each from a picture of its own, together on a plain background; no noun is said."""
    for _ in range(TRIES):
        scene = draw.plain(objects=1 if kind == "subject_one" else 2)
        entities = scene.entities
        words = "this object"
        if kind == "subject_one":
            place = region(entities[0], scene)
            if place is not None and draw.one_in(3):
                words += f" {PLACES[place]}"
        else:
            where = relation(*entities)
            if where is None:
                continue
            words = f"the first object {RELATIONS[where][below(draw.rng, 2)]} the second"
        references = [_alone(draw, entity) for entity in entities]
        example = TaskExample(
            task="subject",
            words=f"{words} on a {scene.background.colors[0]} background",
            images=tuple(render(reference) for reference in references),
            image=render(scene),
        )
        return TaskCase(kind=kind, example=example, before=references[0], scene=scene)
    raise draw.impossible(kind)


def style(draw: Draw, kind: str) -> TaskCase:
    """The first picture in the style of the second, which shows another scene."""
    scene = draw.scene()
    known = replace(draw, split="any" if draw.split == "any" else "train", canvas=(scene.height, scene.width))
    reference = next((other for _ in range(TRIES) if (other := known.scene()) != scene), None)
    if reference is None:
        raise draw.impossible(kind)
    content, name = render(scene), _detail(kind)
    example = TaskExample(
        task="style", images=(content, stylise(render(reference), name)), image=stylise(content, name)
    )
    return TaskCase(kind=kind, example=example, before=scene, scene=scene)


def restyle(draw: Draw, kind: str) -> TaskCase:
    """A picture in a style that is named: "make it grey"."""
    scene, name = draw.scene(), _detail(kind)
    content = render(scene)
    example = TaskExample(task="restyle", words=f"make it {name}", images=(content,), image=stylise(content, name))
    return TaskCase(kind=kind, example=example, before=scene, scene=scene)


def control(draw: Draw, kind: str) -> TaskCase:
    """A picture from its map and its caption, which names every object."""
    scene, name = draw.scene(), _detail(kind)
    example = TaskExample(
        task="control",
        words=caption(scene, draw.rng),
        option=name,
        images=(map_of(scene, name),),
        image=render(scene),
    )
    return TaskCase(kind=kind, example=example, before=scene, scene=scene)


def predict(draw: Draw, kind: str) -> TaskCase:
    """The map of a picture."""
    scene, name = draw.scene(), _detail(kind)
    example = TaskExample(task="predict", option=name, images=(render(scene),), image=map_of(scene, name))
    return TaskCase(kind=kind, example=example, before=scene, scene=scene)


def view(draw: Draw, kind: str) -> TaskCase:
    """An object on white (or the first colour), seen mirrored left to right or rotated by 180 degrees."""
    colors = draw.config.colors
    scene = draw.plain(objects=1, colors=("white",) if "white" in colors else colors[:1])
    front, name = render(scene), _detail(kind)
    turned = np.ascontiguousarray(front[:, ::-1] if name == "mirrored" else front[::-1, ::-1])
    example = TaskExample(task="view", option=name, images=(front,), image=turned)
    return TaskCase(kind=kind, example=example, before=scene, scene=scene)


def illustrate(draw: Draw, kind: str) -> TaskCase:
    """A picture and its plain caption, from words that name one or two objects and nothing else."""
    scene = draw.scene(objects=1 if kind == "illustrate_one" else 2)
    words = " and ".join(noun_phrase(entity) for entity in scene.entities)
    example = TaskExample(task="illustrate", words=words, image=render(scene), text=plain_caption(scene))
    return TaskCase(kind=kind, example=example, before=None, scene=scene)


def _detail(kind: str) -> str:
    """ "grey" of "style_grey"."""
    return kind.partition("_")[2]


def _box(draw: Draw, entity: Entity, scene: Scene) -> NDArray[np.bool_]:
    """The object's square out to the grid, in half of cases one step larger; bool [height, width]."""
    step = draw.config.align
    margin = step * below(draw.rng, 2)
    right, bottom = (-(-(low + entity.size_px) // step) * step for low in (entity.x, entity.y))
    inside = np.zeros((scene.height, scene.width), bool)
    larger = inside.copy()
    inside[entity.y : bottom, entity.x : right] = True
    larger[max(0, entity.y - margin) : bottom + margin, max(0, entity.x - margin) : right + margin] = True
    return inside if larger.all() else larger


def _crop(draw: Draw, scene: Scene) -> NDArray[np.bool_]:
    """Along one side a stretch at an end or anywhere, or along both sides one from a corner; bool [height, width]."""
    step = draw.config.align
    axes = [axis for axis, side in enumerate((scene.height, scene.width)) if side >= 2 * step]
    chosen = distinct(draw.rng, axes, min(len(axes), 1 + below(draw.rng, 2)))
    given = np.ones((scene.height, scene.width), bool)
    for axis in chosen:
        cells = given.shape[axis] // step
        least = -(-cells // 2)
        kept = least + below(draw.rng, 7 * cells // 8 - least + 1)
        free = cells - kept
        anywhere = len(chosen) == 1 and draw.one_in(2)
        start = below(draw.rng, free + 1) if anywhere else free * below(draw.rng, 2)
        line = np.zeros(given.shape[axis], bool)
        line[start * step : (start + kept) * step] = True
        given &= line[:, None] if axis == 0 else line
    return given


def _alone(draw: Draw, entity: Entity) -> Scene:
    """The object alone, as central as the grid allows, on a colour that training knows it on."""
    config = draw.config
    height, width = _reference_canvas(config)
    colors = [color for color in config.colors if not held_out_color(entity.noun, color, config.holdout)]
    color = (colors or config.colors)[below(draw.rng, len(colors or config.colors))]
    x, y = ((side - entity.size_px) // 2 // config.align * config.align for side in (width, height))
    return Scene(
        height=height,
        width=width,
        background=Background(colors=(color,)),
        entities=(replace(entity, x=x, y=y),),
    )


def _reference_canvas(config: WorldConfig) -> tuple[int, int]:
    """The smallest canvas that holds a big object; where none does, the smallest of all."""
    holding = [canvas for canvas in config.canvases if config.capacity(canvas, config.big)]
    return min(holding or config.canvases, key=lambda canvas: canvas[0] * canvas[1])
