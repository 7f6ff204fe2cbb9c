"""`dimoo ask`, `dimoo caption`, `dimoo chat`: words from pictures and words."""

from __future__ import annotations

from pathlib import Path

import pytest
from command_line import failed, noisy_picture, run, told
from llada_like import llada_like
from PIL import Image
from tiny_checkpoint import save_tiny

import dimoo
from dimoo.diffusion.config import CategoricalConfig
from dimoo.presets.config import TextSettings


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    return noisy_picture(tmp_path / "picture.png")


# ask, caption


def test_ask_prints_only_the_answer(tiny: Path, picture: Path) -> None:
    result = run("ask", picture, "what is in the picture", "--model", tiny)
    with Image.open(picture) as seen:
        expected = dimoo.load(tiny).ask(seen, "what is in the picture")
    assert (result.exit_code, result.stdout) == (0, f"{expected}\n"), result.output


def test_caption_prints_only_the_caption(tiny: Path, picture: Path) -> None:
    result = run("caption", picture, "--model", tiny)
    with Image.open(picture) as seen:
        expected = dimoo.load(tiny).caption(seen)
    assert (result.exit_code, result.stdout) == (0, f"{expected}\n"), result.output


def test_ask_about_what_is_no_picture(tmp_path: Path) -> None:
    (tmp_path / "notes.png").write_text("words")
    failed(run("ask", tmp_path / "notes.png", "what"), "notes.png", "cannot be read")
    failed(run("ask", tmp_path / "none.png", "what"), "none.png", "does not exist")


def test_ask_nothing(tiny: Path, picture: Path) -> None:
    failed(run("ask", picture, " ", "--model", tiny), "question is empty")


def test_ask_about_a_picture_off_the_grid(tiny: Path, tmp_path: Path) -> None:
    Image.new("RGB", (20, 16)).save(tmp_path / "odd.png")
    failed(run("ask", tmp_path / "odd.png", "what", "--model", tiny), "(16, 20)", "(16, 24)")


@pytest.mark.parametrize("command", ["ask", "caption"])
def test_json_of_words(tiny: Path, picture: Path, command: str) -> None:
    question = {"ask": ("what is it",), "caption": ()}[command]
    facts = told(run(command, picture, *question, "--model", tiny, "--seed", 2, "--json"))
    assert facts["answer"] == run(command, picture, *question, "--model", tiny, "--seed", 2).stdout.rstrip("\n")
    prompt = question[0] if question else "describe the picture"
    assert {"prompt": prompt, "seed": 2, "model": str(tiny)}.items() <= facts.items()
    assert facts["seconds"] > 0
    assert facts["record"]["request"]["question"] == prompt


def test_ask_about_several_pictures(tiny: Path, picture: Path, tmp_path: Path) -> None:
    other = noisy_picture(tmp_path / "other.png", seed=1)
    facts = told(run("ask", picture, other, "which is it", "--model", tiny, "--tokens", 20, "--json"))
    with Image.open(picture) as first, Image.open(other) as second:
        assert facts["answer"] == dimoo.load(tiny).ask([first, second], "which is it", tokens=20)
    assert [Path(image["path"]).name for image in facts["record"]["request"]["images"]] == ["picture.png", "other.png"]
    assert run("ask", picture).exit_code == 2


def test_choices(tiny: Path, picture: Path) -> None:
    arguments = ("ask", picture, "which", "--choices", "the, draw,answer", "--model", tiny)
    with Image.open(picture) as seen:
        expected = dimoo.load(tiny).choose(seen, "which", ["the", "draw", "answer"])
    assert run(*arguments).stdout == f"{expected.answer}\n"
    facts = told(run(*arguments, "--json"))
    assert facts["probabilities"] == expected.probabilities
    assert (facts["answer"], facts["prompt"]) == (expected.answer, "which")
    failed(run("ask", picture, "which", "--choices", "the,umbrella", "--model", tiny), "'umbrella' takes")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--choices", "yes"), "'yes' is no choice"),
        (("--choices", "yes,,no"), "'yes,,no' is no choice"),
        (("--choices", "a,a"), "'a,a' is no choice"),
        (("--choices", "a,b", "--tokens", 4), "--tokens is for free answers"),
    ],
)
def test_choices_that_are_none(picture: Path, options: tuple[object, ...], message: str) -> None:
    result = run("ask", picture, "is it", "--model", "nowhere", *options)
    assert (result.exit_code, result.stdout) == (2, "")
    assert message in result.stderr


# chat


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("chat") / "llada"
    llada_like(sampling=TextSettings(draw=CategoricalConfig(temperature=2.0))).save(path)
    return path


def test_the_answer_alone(folder: Path) -> None:
    result = run("chat", "what is your name", "--model", folder, "--tokens", 9)
    assert result.exit_code == 0, result.output
    answer = dimoo.load(folder).chat("what is your name", tokens=9)
    assert answer
    assert result.stdout == f"{answer}\n"


@pytest.mark.parametrize(("options", "tokens"), [((), 6), (("--tokens", 9), 9)])
def test_json(folder: Path, options: tuple[object, ...], tokens: int) -> None:
    result = run("chat", "hello", "--model", folder, "--seed", 4, "--json", *options)
    answer = dimoo.load(folder).chat("hello", tokens=tokens, seed=4)
    assert answer != dimoo.load(folder).chat("hello", tokens=tokens)
    facts = told(result)
    assert {"answer": answer, "prompt": "hello", "seed": 4, "model": str(folder)}.items() <= facts.items()
    assert facts["seconds"] > 0
    assert facts["record"]["request"]["tokens"] == (tokens if options else None)


def test_chat_without_a_template_is_a_task_of_the_table(tiny: Path) -> None:
    assert run("chat", "hello", "--model", tiny).stdout == f"{dimoo.load(tiny).chat('hello')}\n"


def test_a_model_that_knows_text_only(folder: Path, tmp_path: Path) -> None:
    failed(run("generate", "a cat", "--model", folder, "--out", tmp_path / "a.png"), "this model knows text only")
