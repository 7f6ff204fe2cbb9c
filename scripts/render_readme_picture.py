"""Make docs/images/demo.png with the bundled model: prompts, tasks, questions. Nothing is picked by hand.

python scripts/render_readme_picture.py
"""

from __future__ import annotations

from pathlib import Path

from PIL import Image

import dimoo
from dimoo.core.requests import AskRequest, GenerateRequest, InpaintRequest
from dimoo.data.world.atlas import lexicon
from dimoo.data.world.suite import prompts, qa_suite
from dimoo.data.world.tasks import WorldTask
from dimoo.evaluation.cases import picture_of
from dimoo.evaluation.grids import captioned_grid
from dimoo.evaluation.requests import request_of
from dimoo.evaluation.suites import canvas_of, plain, world_of
from dimoo.evaluation.task_cases import draw_cases
from dimoo.weights.hub import resolve

OUT = Path(__file__).parents[1] / "docs" / "images" / "demo.png"
SEED = 0
SHOWN: tuple[tuple[WorldTask, str], ...] = (
    ("edit", "edit_add"),
    ("edit", "edit_replace"),
    ("subject", "subject_one"),
    ("predict", "predict_canny"),
    ("control", "control_depth"),
    ("view", "view_mirrored"),
)


def main() -> None:
    """Write the picture."""
    model, world = dimoo.load("mini"), world_of(resolve("mini"))
    canvas = canvas_of(world)
    words = [text for kind, n in (("one", 8), ("two", 4)) for text, _ in prompts(plain(world), kind, n, SEED)]  # type: ignore[arg-type]
    asked = qa_suite(world, 4, SEED, canvas=canvas)
    (replaced, scene), *_ = prompts(plain(world), "one", 1, SEED + 1, canvas=canvas)
    before, mask = picture_of(scene), Image.new("L", (scene.width, scene.height))
    entity = scene.entities[0]
    mask.paste(255, (entity.x, entity.y, entity.x + entity.size_px, entity.y + entity.size_px))
    other = next(noun for noun in world.words if noun not in replaced)
    wanted = f"{lexicon()[other].article} {other} on a {scene.background.colors[0]} background"
    results = model.run(
        [
            *(GenerateRequest(prompt=text, seed=SEED + index) for index, text in enumerate(words)),
            InpaintRequest(image=before, mask=mask, prompt=wanted, seed=SEED),
            *(AskRequest(images=(picture_of(shown),), question=qa.question) for shown, qa in asked),
        ]
    )
    made, filled, answers = results[: len(words)], results[len(words)], results[len(words) + 1 :]
    tiles = [*made, before, filled, *(picture_of(shown) for shown, _ in asked)]
    notes = [*words, "given, its object masked", f"inpainted: {wanted}"]
    notes += [f"{qa.question}? {answer}" for (_, qa), answer in zip(asked, answers, strict=True)]
    one_object = plain(world).model_copy(update={"object_counts": (1.0, 0.0, 0.0, 0.0)})
    for task, kind in SHOWN:
        (case,) = draw_cases(one_object, task, kind, 1, SEED, split="train", canvas=canvas)
        tiles += [Image.fromarray(case.example.images[0]), model.run([request_of(case.example, SEED)])[0]]
        notes += ["given", " ".join(part for part in (case.example.option, case.example.words) if part)]
    captioned_grid(tiles, notes, columns=6).save(OUT)
    print(OUT)


if __name__ == "__main__":
    main()
