"""`dimoo interleave`: a message in turns."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command_line import failed, pictures_in, pixels, run, succeeded, told
from PIL import Image
from tiny_checkpoint import tiny_model

import dimoo
from dimoo.core.pictures import as_rgb
from dimoo.core.requests import InterleavedRequest, PictureAnswer, TextAnswer
from dimoo.presets.families import FAMILIES


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = tiny_model()
    template = model.config.template.model_copy(update={"systems": dict.fromkeys(FAMILIES, "do")})
    able = dimoo.Dimoo(
        model.config.model_copy(update={"template": template}),
        backbone=model.backbone,
        text_tokenizer=model.prompts.text,
        image_tokenizer=model.kit.image_tokenizer,
    )
    return able.save(tmp_path_factory.mktemp("turns") / "tiny")


def test_parts_and_answers_keep_their_order(tiny: Path, tmp_path: Path) -> None:
    files = pictures_in(tmp_path)
    parts = ("this", files["one"], "and that", files["two"], "both")
    want = ("--want", "image:8x16", "--want", "text:3", "--want", "image")
    out = tmp_path / "new" / "g.png"
    arguments = ("interleave", *parts, *want, "--seed", 5, "--out", out, "--model", tiny)
    lines = succeeded(run(*arguments)).splitlines()
    images = [as_rgb(Image.open(files[name])) for name in ("one", "two")]
    request = InterleavedRequest(
        parts=("this", images[0], "and that", images[1], "both"),
        answer=(PictureAnswer(height=8, width=16), TextAnswer(tokens=3), PictureAnswer()),
        seed=5,
    )
    ((first, words, second),) = dimoo.load(tiny).run([request])
    paths = [out.with_name("g-0.png"), out.with_name("g-1.png")]
    assert lines == [str(paths[0]), *words.splitlines(), str(paths[1])]
    for path, made in zip(paths, (first, second), strict=True):
        assert (pixels(path) == pixels(made)).all()
    facts = told(run(*arguments, "--json"))
    assert facts["parts"] == [
        {"out": str(paths[0]), "size": [8, 16]},
        {"answer": words},
        {"out": str(paths[1]), "size": [16, 16]},
    ]
    assert (facts["seed"], facts["model"]) == (5, str(tiny))
    again = tmp_path / "again.png"
    succeeded(run("rerun", paths[1], "--out", again))
    assert (pixels(again) == pixels(paths[1])).all()


def test_words_alone(tiny: Path) -> None:
    facts = json.loads(succeeded(run("interleave", "hello", "--want", "text:4", "--json", "--model", tiny)))
    assert [list(part) for part in facts["parts"]] == [["answer"]]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("hello", "--want", "image"), "--out G.png"),
        (("hello", "--want", "text", "--out", "g.png"), "no picture is wanted"),
        (("hello", "--want", "sound", "--out", "g.png"), "'sound' is no part of an answer"),
        (("hello", "--want", "text:0"), "'text:0' is no part"),
        (("hello", "--want", "image:8", "--out", "g.png"), "'8' is no size"),
        (("hello", "gone.png", "--want", "text"), "no picture file 'gone.png'"),
        (("hello",), "--want"),
        (("--want", "text"), "PART"),
    ],
)
def test_wrong_usage(arguments: tuple[str, ...], message: str) -> None:
    result = run("interleave", *arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert message in " ".join(result.stderr.split())


def test_settings_are_of_pictures_or_of_words(tiny: Path, tmp_path: Path) -> None:
    asked = "interleave", "a cat", "--want", "image:8x16", "--want", "text:4", "--model", tiny, "--json"
    greedy = "--set", "image.draw.kind=greedy", "--set", "text.steps_per_token=0.5"
    first, again = (told(run(*asked, *greedy, "--seed", seed, "--out", tmp_path / f"{seed}.png")) for seed in (1, 2))
    assert first["seed"] != again["seed"]
    record = dimoo.read_record(tmp_path / "1.png")
    assert record.image.draw.kind == "greedy"
    assert record.text.steps_per_token == 0.5
    failed(run(*asked, "--set", "steps=3", "--out", tmp_path / "x.png"), "steps=3", "image.steps=8")
