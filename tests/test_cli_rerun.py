"""`dimoo rerun`: what a command made comes out again, pixel for pixel."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from command_line import failed, noisy_picture, pixels, run, succeeded, told
from PIL import Image, PngImagePlugin
from tiny_checkpoint import tiny_model

import dimoo
from dimoo.cli.options import open_model
from dimoo.diffusion.config import CategoricalConfig
from dimoo.presets.config import ModelConfig, TextSettings
from dimoo.presets.families import FAMILIES
from dimoo.tasks.model import Dimoo


def save_changed(folder: Path, **changes: Any) -> Path:
    """Write the tiny model with another config; returns its folder."""
    model = tiny_model()
    config: ModelConfig = model.config.model_copy(update=changes)
    return Dimoo(
        config,
        backbone=model.backbone,
        text_tokenizer=model.prompts.text,
        image_tokenizer=model.kit.image_tokenizer,
    ).save(folder)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model, taught every family in name, its words drawn at random."""
    template = tiny_model().config.template.model_copy(update={"systems": dict.fromkeys(FAMILIES, "do")})
    text = TextSettings(draw=CategoricalConfig(temperature=5.0))
    return save_changed(tmp_path_factory.mktemp("rerun") / "tiny", template=template, text=text, name="ours")


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    return noisy_picture(tmp_path / "picture.png")


@pytest.fixture
def drawn(tiny: Path, tmp_path: Path) -> Path:
    """A picture of a cat."""
    succeeded(run("generate", "a cat", "--model", tiny, "--seed", 2, "--out", tmp_path / "cat.png"))
    return tmp_path / "cat.png"


def came_out_again(made: Path, again: Path) -> None:
    assert succeeded(run("rerun", made, "--out", again)) == f"{again}\n"
    assert (pixels(made) == pixels(again)).all()
    assert dimoo.read_record(made) == dimoo.read_record(again)


def test_a_picture_that_was_changed_afterwards_is_refused(drawn: Path, tmp_path: Path) -> None:
    with Image.open(drawn) as opened:
        text = opened.text  # type: ignore[attr-defined]
        changed = opened.convert("RGB")
    changed.putpixel((3, 4), tuple(255 - value for value in changed.getpixel((3, 4))))  # type: ignore[union-attr]
    info = PngImagePlugin.PngInfo()
    for name, value in text.items():
        info.add_itxt(name, value)
    changed.save(tmp_path / "changed.png", pnginfo=info)
    failed(run("rerun", tmp_path / "changed.png", "--out", tmp_path / "again.png"), "was changed after it was made")
    assert not (tmp_path / "again.png").exists()


def test_each_picture_of_a_batch(tiny: Path, tmp_path: Path) -> None:
    prompts = ("a cat", "two dogs left of a green apple", "")
    options = ("--out", tmp_path / "g.png", "--model", tiny, "--steps", 3, "--temperature", 2, "--guidance", 0.5)
    succeeded(run("generate", *prompts, *options, "--seed", 5, "--size", "24x16"))
    for index in range(3):
        came_out_again(tmp_path / f"g-{index}.png", tmp_path / f"h-{index}.png")
    assert (pixels(tmp_path / "g-0.png") != pixels(tmp_path / "g-1.png")).any()


def test_each_picture_of_a_batch_by_the_bundled_model(tmp_path: Path) -> None:
    prompts = ("a red circle", "a blue square left of a green circle on a white background")
    succeeded(run("generate", *prompts, "--steps", 4, "--seed", 7, "--out", tmp_path / "g.png"))
    for index in range(2):
        came_out_again(tmp_path / f"g-{index}.png", tmp_path / f"h-{index}.png")


def test_the_precision_is_that_of_the_record(tiny: Path, tmp_path: Path) -> None:
    succeeded(run("generate", "a cat", "--out", tmp_path / "g.png", "--model", tiny, "--dtype", "bfloat16"))
    assert dimoo.read_record(tmp_path / "g.png").model.dtype == "bfloat16"
    came_out_again(tmp_path / "g.png", tmp_path / "h.png")


@pytest.mark.parametrize(
    ("command", "options"),
    [
        ("edit", ("remove the cat",)),
        ("retouch", ("--box", "2,2,9,9", "--box", "12,0,24,5", "--feather", 2)),
        ("retouch", ("--polygon", "0,0 20,0 9.5,15", "--prompt", "a cat", "--negative", "a dog")),
        ("outpaint", ("--left", 8, "--bottom", 16, "--prompt", "a cat")),
        ("predict", ("--kind", "canny")),
    ],
)
def test_pictures_from_pictures(
    tiny: Path, picture: Path, tmp_path: Path, command: str, options: tuple[object, ...]
) -> None:
    made = tmp_path / "g.png"
    succeeded(run(command, picture, *options, "--seed", 3, "--out", made, "--model", tiny))
    picture.unlink()  # the record holds it
    came_out_again(made, tmp_path / "h.png")


def test_a_picture_that_came_with_words(tiny: Path, tmp_path: Path) -> None:
    succeeded(run("illustrate", "a cat", "--tokens", 3, "--out", tmp_path / "g.png", "--model", tiny))
    came_out_again(tmp_path / "g.png", tmp_path / "h.png")


def test_a_picture_whose_record_lies_beside_it(tiny: Path, tmp_path: Path) -> None:
    succeeded(run("generate", "a cat", "--out", tmp_path / "g.jpg", "--model", tiny))
    succeeded(run("rerun", tmp_path / "g.jpg", "--out", tmp_path / "h.png"))
    succeeded(run("generate", "a cat", "--out", tmp_path / "i.png", "--model", tiny))
    assert (pixels(tmp_path / "h.png") == pixels(tmp_path / "i.png")).all()


@pytest.mark.parametrize(("command", "words"), [("ask", ("what is it",)), ("caption", ()), ("chat", ("what are you",))])
def test_words(tiny: Path, picture: Path, tmp_path: Path, command: str, words: tuple[str, ...]) -> None:
    seen = () if command == "chat" else (picture,)
    said = succeeded(run(command, *seen, *words, "--json", "--seed", 4, "--model", tiny))
    answer, file = json.loads(said)["answer"], tmp_path / "said.json"
    file.write_text(said)
    assert str(picture) in said or command == "chat"
    assert answer
    assert succeeded(run("rerun", file)) == f"{answer}\n"
    facts = told(run("rerun", file, "--json"))
    fingerprint = dimoo.load(tiny).fingerprint
    assert facts == {"answer": answer, "equal": True, "model": str(tiny), "fingerprint": fingerprint}
    file.write_text(json.dumps({**json.loads(said), "answer": answer + "!"}))
    result = run("rerun", file)
    assert (result.exit_code, result.stdout) == (1, f"{answer}\n")
    assert "differs from the recorded one" in result.stderr
    file.write_text(json.dumps(json.loads(said)["record"]))  # nothing is known of the answer
    assert told(run("rerun", file, "--json"))["equal"] is None


def test_choices(tiny: Path, picture: Path, tmp_path: Path) -> None:
    said = succeeded(run("ask", picture, "is it", "--choices", "the,draw,answer", "--json", "--model", tiny))
    facts, file = json.loads(said), tmp_path / "said.json"
    file.write_text(said)
    assert told(run("rerun", file, "--json"))["equal"] is True
    assert succeeded(run("rerun", file)) == f"{facts['answer']}\n"
    others = {**facts, "answer": min(facts["probabilities"], key=facts["probabilities"].get)}
    file.write_text(json.dumps(others))
    assert run("rerun", file).exit_code == 1


def test_a_retouching_session(tiny: Path, picture: Path, tmp_path: Path) -> None:
    session = dimoo.Retouching(dimoo.load(tiny), Image.open(picture))
    session.retouch(dimoo.Box(0, 0, 9, 9), "a cat", feather=2, seed=3)
    session.retouch(dimoo.Box(5, 5, 20, 16), settings=dimoo.ImageSettings(steps=2), seed=4)
    dimoo.save_picture(session.picture, tmp_path / "g.png")
    came_out_again(tmp_path / "g.png", tmp_path / "h.png")


def test_a_model_named_by_a_relative_path(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tiny.parent.parent)
    made = tmp_path / "g.png"
    succeeded(run("generate", "a cat", "--model", tiny.relative_to(tiny.parent.parent), "--out", made))
    monkeypatch.chdir(tmp_path)
    came_out_again(made, tmp_path / "h.png")


@pytest.mark.parametrize(
    ("change", "said"), [({"device": "xpu"}, "'xpu', which is not here"), ({"attention": "varlen"}, "cannot be had")]
)
def test_where_it_was_made_is_taken_where_it_is_there(
    change: dict[str, str], said: str, drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    asked = []

    def opened(*how: Any, **named: Any) -> Dimoo:
        asked.append(tuple(getattr(each, "value", each) for each in how[1:]))
        return open_model(*how, **named)

    monkeypatch.setattr("dimoo.cli.rerun.open_model", opened)
    came_out_again(drawn, tmp_path / "h.png")
    assert asked == [("cpu", "float32", "sdpa")]
    assert caplog.text == ""
    record = dimoo.read_record(drawn)
    record.model_copy(update={"model": record.model.model_copy(update=change)}).save(tmp_path / "g.json")
    facts = told(run("rerun", tmp_path / "g.json", "--out", tmp_path / "h.png", "--json"))
    assert facts["equal"]
    assert said in caplog.text
    assert asked[-1] == (("auto", "float32", "sdpa") if "device" in change else ("cpu", "float32"))


def test_json(tiny: Path, drawn: Path, tmp_path: Path) -> None:
    out = tmp_path / "h.png"
    fingerprint = dimoo.load(tiny).fingerprint
    facts = told(run("rerun", drawn, "--out", out, "--json"))
    assert facts == {"out": str(out), "equal": True, "model": str(tiny), "fingerprint": fingerprint}


def test_another_place_of_the_same_model(tiny: Path, drawn: Path, tmp_path: Path) -> None:
    moved = dimoo.load(tiny).save(tmp_path / "moved")
    out = tmp_path / "h.png"
    assert told(run("rerun", drawn, "--out", out, "--model", moved, "--json"))["model"] == str(moved)
    assert (pixels(out) == pixels(drawn)).all()


def test_another_model_is_refused_or_forced(tiny: Path, drawn: Path, tmp_path: Path) -> None:
    other = save_changed(tmp_path / "other", name="theirs")
    prints = dimoo.load(tiny).fingerprint, dimoo.load(other).fingerprint
    options = ("--out", tmp_path / "h.png", "--model", other)
    failed(run("rerun", drawn, *options), str(other), "'ours'", *prints, "--model", "--force")
    assert not (tmp_path / "h.png").exists()
    result = run("rerun", drawn, *options, "--force", "--json")
    equal = bool((pixels(drawn) == pixels(tmp_path / "h.png")).all())
    assert (json.loads(result.stdout)["equal"], result.exit_code) == (equal, int(not equal))
    assert dimoo.read_record(tmp_path / "h.png").model.source == str(other)


def test_a_picture_that_comes_out_otherwise_is_written_and_told_of(drawn: Path, tmp_path: Path) -> None:
    record = dimoo.read_record(drawn)
    dreamt = record.model_copy(update={"request": {**record.request, "seed": 99}})
    dreamt.save(tmp_path / "g.json")
    result = run("rerun", tmp_path / "g.json", "--out", tmp_path / "h.png", "--json")
    assert (result.exit_code, json.loads(result.stdout)["equal"]) == (1, False)
    for part in ("error: ", "differs from the recorded one", f"dimoo {dimoo.__version__}", "cpu"):
        assert part in result.stderr
    assert (pixels(tmp_path / "h.png") != pixels(drawn)).any()
    assert dimoo.read_record(tmp_path / "h.png").request["seed"] == 99


def test_a_model_that_is_gone_or_not_named(drawn: Path, tmp_path: Path) -> None:
    record = dimoo.read_record(drawn)
    for source, message in ((str(tmp_path / "gone"), "no checkpoint folder"), (None, "give --model PATH")):
        model = record.model.model_copy(update={"source": source})
        record.model_copy(update={"model": model}).save(tmp_path / "g.json")
        failed(run("rerun", tmp_path / "g.json", "--out", tmp_path / "h.png"), message)
    model = record.model.model_copy(update={"dtype": "int8"})
    record.model_copy(update={"model": model}).save(tmp_path / "g.json")
    failed(run("rerun", tmp_path / "g.json", "--out", tmp_path / "h.png"), "int8")


def test_files_without_a_record(picture: Path, tmp_path: Path) -> None:
    for path in (picture, tmp_path / "none.png"):
        failed(run("rerun", path, "--out", tmp_path / "h.png"), str(path))


def test_out_is_for_pictures_and_only_for_them(tiny: Path, picture: Path, drawn: Path, tmp_path: Path) -> None:
    said = succeeded(run("ask", picture, "what", "--json", "--model", tiny))
    (tmp_path / "said.json").write_text(said)
    for arguments in ((drawn,), (tmp_path / "said.json", "--out", tmp_path / "h.png")):
        result = run("rerun", *arguments)
        assert (result.exit_code, result.stdout) == (2, "")
        assert "--out" in result.stderr
    failed(run("rerun", drawn, "--out", tmp_path / "h.nothing"), "h.nothing", "no picture format")


def test_any_setting_can_be_set_and_is_recorded(tiny: Path, tmp_path: Path) -> None:
    plain, made = tmp_path / "plain.png", tmp_path / "made.png"
    same = "a cat", "--model", tiny, "--seed", 2, "--steps", 6
    changed = "--set", "draw.kind=greedy", "--set", "cache.kind=block", "--set", "cache.scope=masked"
    succeeded(run("generate", *same, "--out", plain))
    succeeded(run("generate", *same, *changed, "--out", made))
    record = dimoo.read_record(made)
    assert record.image.cache.kind == "block"
    assert record.image.cache.scope == "masked"
    assert (pixels(plain) != pixels(made)).any()
    came_out_again(made, tmp_path / "again.png")


def test_words_too(tiny: Path, picture: Path, tmp_path: Path) -> None:
    asked = "ask", picture, "what is it", "--model", tiny, "--json"
    plain = told(run(*asked))
    made = told(run(*asked, "--set", "draw.kind=greedy", "--set", "cache.kind=block"))
    assert plain["record"]["text"]["draw"]["kind"] == "categorical"
    assert made["record"]["text"]["draw"]["kind"] == "greedy"
    assert made["record"]["text"]["cache"]["kind"] == "block"
    assert plain["record"]["model"]["fingerprint"] == made["record"]["model"]["fingerprint"]
    file = tmp_path / "answer.json"
    file.write_text(json.dumps(made))
    assert succeeded(run("rerun", file)).strip() == made["answer"]


def test_a_setting_that_is_not_there_is_refused(tiny: Path, tmp_path: Path) -> None:
    wrong = run("generate", "a cat", "--model", tiny, "--set", "cache.kind=warp", "--out", tmp_path / "a.png")
    failed(wrong, "warp", "max_logit")
