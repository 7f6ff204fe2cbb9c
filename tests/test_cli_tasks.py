"""The commands that make pictures from pictures, on a tiny random model that was "taught" every task."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import failed, pictures_in, pixels, run, succeeded, told
from PIL import Image
from tiny_checkpoint import tiny_model

import dimoo
from dimoo import conditions
from dimoo.presets.tasks import STANDARD, TaskText
from dimoo.tokenizers.template import PromptTemplate

KINDS = {"canny": "edges", "depth": "depth"}
TASKS: dict[str, TaskText] = {
    **STANDARD,
    "control": STANDARD["control"].model_copy(update={"text": "{option}: {words}", "options": KINDS}),
    "predict": STANDARD["predict"].model_copy(update={"options": KINDS}),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = tiny_model()
    systems = {family: family for family in {entry.family for entry in TASKS.values()}}
    template = PromptTemplate(systems=systems, max_prompt_tokens=128)
    config = model.config.model_copy(update={"template": template, "tasks": TASKS})
    able = dimoo.Dimoo(
        config,
        backbone=model.backbone,
        text_tokenizer=model.prompts.text,
        image_tokenizer=model.kit.image_tokenizer,
    )
    return able.save(tmp_path_factory.mktemp("able") / "model")


@pytest.fixture(scope="module")
def model(folder: Path) -> dimoo.Dimoo:
    return dimoo.load(folder)


@pytest.fixture
def inputs(tmp_path: Path) -> dict[str, Path]:
    return pictures_in(tmp_path)


@dataclass(frozen=True)
class Case:
    """A command in words of `inputs`, what the library's call is for it, and what its JSON says of it."""

    arguments: tuple[str, ...]
    call: Callable[..., Any]
    said: dict[str, Any]

    def run(self, inputs: dict[str, Path], *options: object) -> Any:
        return run(*(inputs.get(argument, argument) for argument in self.arguments), *options)


def opened(path: Path) -> Image.Image:
    return Image.open(path).copy()


CASES = {
    "edit": Case(
        ("edit", "one", "add a cat"),
        lambda m, one, two, mask, **how: m.edit(one, "add a cat", **how),
        {"instruction": "add a cat"},
    ),
    "subject": Case(
        ("subject", "one", "--prompt", "a cat"),
        lambda m, one, two, mask, **how: m.subject(one, "a cat", **how),
        {"prompt": "a cat"},
    ),
    "subject of two": Case(
        ("subject", "one", "two", "--prompt", "a cat", "--size", "8x16"),
        lambda m, one, two, mask, **how: m.subject([one, two], "a cat", size=(8, 16), **how),
        {"prompt": "a cat", "size": [8, 16]},
    ),
    "style like": Case(
        ("style", "one", "--like", "two"),
        lambda m, one, two, mask, **how: m.stylize(one, two, **how),
        {"prompt": None},
    ),
    "style to": Case(
        ("style", "one", "--to", "make it grey"),
        lambda m, one, two, mask, **how: m.stylize(one, "make it grey", **how),
        {"prompt": "make it grey", "like": None},
    ),
    "view": Case(
        ("view", "one", "--view", "mirrored"),
        lambda m, one, two, mask, **how: m.view(one, "mirrored", **how),
        {"view": "mirrored"},
    ),
    "control": Case(
        ("control", "two", "--kind", "canny", "--prompt", "a cat"),
        lambda m, one, two, mask, **how: m.control(two, "canny", "a cat", **how),
        {"prompt": "a cat", "kind": "canny"},
    ),
    "control from a picture": Case(
        ("control", "one", "--kind", "canny", "--prompt", "a cat", "--from-picture"),
        lambda m, one, two, mask, **how: m.control(conditions.make("canny", one), "canny", "a cat", **how),
        {"prompt": "a cat", "kind": "canny"},
    ),
    "predict": Case(
        ("predict", "one", "--kind", "depth"),
        lambda m, one, two, mask, **how: m.predict(one, "depth", **how),
        {"kind": "depth"},
    ),
    "outpaint": Case(
        ("outpaint", "one", "--left", "8", "--bottom", "16", "--prompt", "a cat"),
        lambda m, one, two, mask, **how: m.outpaint(one, "a cat", left=8, bottom=16, **how),
        {"prompt": "a cat", "size": [32, 32]},
    ),
    "inpaint": Case(
        ("inpaint", "one", "--mask", "mask", "--prompt", "a cat"),
        lambda m, one, two, mask, **how: m.inpaint(one, mask, "a cat", **how),
        {"prompt": "a cat"},
    ),
    "retouch": Case(
        ("retouch", "one", "--box", "0,0,4,4", "--box", "8, 8, 12, 16", "--feather", "2"),
        lambda m, one, two, mask, **how: m.retouch(
            one, [dimoo.Box(0, 0, 4, 4), dimoo.Box(8, 8, 12, 16)], feather=2, **how
        ),
        {"prompt": None},
    ),
    "retouch with all marks": Case(
        ("retouch", "one", "--polygon", "0,0 8.5,0 8,8", "--mask", "mask", "--box", "20,1,24,2", "--prompt", "a cat"),
        lambda m, one, two, mask, **how: m.retouch(
            one, [dimoo.Polygon(((0, 0), (8.5, 0), (8, 8))), mask, dimoo.Box(20, 1, 24, 2)], "a cat", **how
        ),
        {"prompt": "a cat"},
    ),
}
every_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


@every_case
def test_a_command_writes_what_the_library_makes(
    case: Case, folder: Path, model: dimoo.Dimoo, inputs: dict[str, Path], tmp_path: Path
) -> None:
    expected = case.call(model, *map(opened, inputs.values()), seed=3)
    out = tmp_path / "new" / "out.png"
    facts = told(case.run(inputs, "--out", out, "--model", folder, "--seed", 3, "--json"))
    assert np.array_equal(pixels(out), pixels(expected))
    wanted = {"size": [expected.height, expected.width], **case.said, "seed": 3, "out": str(out)}
    assert wanted.items() <= facts.items()
    assert facts["pictures"] == [{key: facts[key] for key in facts["pictures"][0]}]
    assert set(facts) - set(facts["pictures"][0]) == {"pictures", "model", "seconds"}
    assert facts["model"] == str(folder)
    assert facts["seconds"] > 0


@every_case
def test_nothing_is_written_when_it_fails(case: Case, inputs: dict[str, Path], tmp_path: Path) -> None:
    out = tmp_path / "new" / "out.png"
    failed(case.run(inputs, "--out", out, "--preview", tmp_path / "steps", "--model", "nowhere"), "'nowhere'")
    assert not out.parent.exists()
    assert not (tmp_path / "steps").exists()


@every_case
def test_files_are_checked_before_the_model_loads(case: Case, inputs: dict[str, Path], tmp_path: Path) -> None:
    options = ("--model", "nowhere")
    failed(case.run(inputs, "--out", tmp_path / "out.xyz", *options), "out.xyz", "use .png")
    failed(case.run(inputs, "--out", tmp_path / "out.xbm", *options), "out.xbm", "use .png")  # two colours only
    failed(case.run(inputs, "--out", tmp_path, *options), "use .png")
    failed(case.run(inputs, "--out", inputs["one"] / "out.png", *options), "cannot make the folder", "one.png")
    for name in set(inputs) & set(case.arguments):
        missing = {**inputs, name: tmp_path / "none.png"}
        failed(case.run(missing, "--out", tmp_path / "out.png", *options), "none.png", "does not exist")


def test_the_path_alone_without_json(folder: Path, inputs: dict[str, Path], tmp_path: Path) -> None:
    result = CASES["edit"].run(inputs, "--out", tmp_path / "out.png", "--model", folder)
    assert succeeded(result) == f"{tmp_path / 'out.png'}\n"


def test_several_pictures_of_one_request(
    folder: Path, model: dimoo.Dimoo, inputs: dict[str, Path], tmp_path: Path
) -> None:
    options = ("--model", folder, "--num-images", 2, "--seed", 7)
    result = CASES["edit"].run(inputs, "--out", tmp_path / "out.png", *options)
    paths = [tmp_path / "out-0.png", tmp_path / "out-1.png"]
    assert succeeded(result).splitlines() == list(map(str, paths))
    for path, seed in zip(paths, (7, 8), strict=True):
        assert np.array_equal(pixels(path), pixels(model.edit(opened(inputs["one"]), "add a cat", seed=seed)))
    facts = told(CASES["edit"].run(inputs, "--out", tmp_path / "out.png", *options, "--json"))
    assert [(each["out"], each["seed"]) for each in facts["pictures"]] == [(str(paths[0]), 7), (str(paths[1]), 8)]
    assert facts["out"] == str(paths[0])


# illustrate, map


def test_illustrate_prints_the_words(folder: Path, model: dimoo.Dimoo, tmp_path: Path) -> None:
    out = tmp_path / "out.png"
    arguments = ("illustrate", "a cat", "--out", out, "--model", folder, "--seed", 2, "--size", "8x16", "--tokens", 5)
    picture, words = model.illustrate("a cat", seed=2, size=(8, 16), tokens=5)
    assert words
    assert succeeded(run(*arguments)) == f"{words}\n"
    assert np.array_equal(pixels(out), pixels(picture))
    facts = told(run(*arguments, "--json"))
    wanted = {"answer": words, "prompt": "a cat", "out": str(out), "size": [8, 16], "seed": 2}
    assert wanted.items() <= facts.items()


@pytest.mark.parametrize("kind", ["canny", "soft_edges"])
def test_map_needs_no_model(inputs: dict[str, Path], tmp_path: Path, kind: str) -> None:
    out = tmp_path / "map.png"
    assert succeeded(run("map", inputs["one"], "--kind", kind, "--out", out)) == f"{out}\n"
    assert np.array_equal(pixels(out), pixels(conditions.make(kind, opened(inputs["one"]))))
    facts = told(run("map", inputs["one"], "--kind", kind, "--out", out, "--json"))
    assert facts == {"out": str(out), "kind": kind, "size": [16, 24]}


def test_a_map_that_needs_a_network_is_refused(inputs: dict[str, Path], tmp_path: Path) -> None:
    failed(run("map", inputs["one"], "--kind", "depth", "--out", tmp_path / "m.png"), "dimoo predict --kind depth")
    failed(run("map", inputs["one"], "--kind", "moods", "--out", tmp_path / "m.png"), "'moods'", "canny, soft_edges")
    assert not (tmp_path / "m.png").exists()


def test_what_the_model_does_not_know_is_named_with_what_it_knows(
    folder: Path, inputs: dict[str, Path], tmp_path: Path
) -> None:
    options = ("--out", tmp_path / "out.png", "--model", folder)
    failed(run("predict", inputs["one"], "--kind", "flow", *options), "'flow'", "canny, depth")
    failed(run("outpaint", inputs["one"], "--left", 4, "--prompt", "p", *options), "left 4", "8")
    assert not (tmp_path / "out.png").exists()


def test_guidance_of_a_prompt_with_pictures(
    folder: Path, model: dimoo.Dimoo, inputs: dict[str, Path], tmp_path: Path
) -> None:
    def made(*options: object) -> Any:
        succeeded(CASES["edit"].run(inputs, "--out", tmp_path / "out.png", "--model", folder, *options))
        return pixels(tmp_path / "out.png")

    def expected(**scales: float) -> Any:
        settings = model.config.image.model_copy(update={"conditions": scales})
        return pixels(model.edit(opened(inputs["one"]), "add a cat", settings=settings))

    assert np.array_equal(made("--guidance-text", 3000, "--guidance-image", 0), expected(no_text=3000.0))
    assert np.array_equal(made("--guidance", 0, "--guidance-image", 3000), expected(no_image=3000.0))
    assert np.array_equal(made("--guidance", 3000), expected(no_text=3000.0, no_image=3000.0))
    assert not np.array_equal(expected(no_text=3000.0), expected(no_image=3000.0))
