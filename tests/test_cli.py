"""The command line, on a tiny random model; see test_readme for the bundled one."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import command_line
import numpy as np
import pytest
from command_line import failed
from PIL import Image
from rich.progress import Progress
from tiny_checkpoint import save_tiny
from typer.testing import Result

import dimoo
from dimoo.cli.options import Attention, Device, DType, open_model
from dimoo.cli.pictures import NoiseDType, image_settings
from dimoo.core.errors import ConfigError
from dimoo.diffusion.config import CategoricalConfig, GreedyConfig, ProbabilityConfig
from dimoo.evaluation.suites import evaluate, world_of
from dimoo.presets import lumina_dimoo_8b
from dimoo.presets.config import ImageSettings

Run = Callable[..., Result]


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def run() -> Run:
    return command_line.run


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    pixels = np.random.default_rng(0).integers(0, 256, (16, 24, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "picture.png")
    return tmp_path / "picture.png"


# start-up


@pytest.mark.parametrize(
    "arguments", [["--help"], ["--version"], *([name, "--help"] for name in ("generate", "train", "evaluate"))]
)
def test_help_loads_no_torch(arguments: list[str]) -> None:
    script = (
        "import sys\nfrom dimoo.cli import app\n"
        f"app({arguments!r}, standalone_mode=False)\n"
        "print([name for name in ('torch', 'lightning', 'numpy', 'PIL', 'recipes') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_help_takes_less_than_half_a_second() -> None:
    def cost() -> float:
        """Processor seconds, which a busy machine does not stretch as it does the wall clock."""
        command = [sys.executable, "-c", "from dimoo.cli import main; main()", "--help"]
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(command, capture_output=True, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    assert min(cost() for _ in range(3)) < 0.5


def test_help_names_every_command(run: Run) -> None:
    listed = run("--help").stdout
    for name in ("generate", "inpaint", "ask", "caption", "chat", "demo", "evaluate", "info", "train"):
        assert f"\n  {name} " in listed


def test_version(run: Run) -> None:
    assert run("--version").stdout == f"{dimoo.__version__}\n"


# generate


def test_generate_writes_what_the_library_makes(run: Run, tiny: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "a.png"
    result = run("generate", "a cat", "--size", "16x24", "--seed", 3, "--out", out, "--model", tiny)
    assert (result.exit_code, result.stdout) == (0, f"{out}\n"), result.output
    (expected,) = dimoo.load(tiny).generate("a cat", size=(16, 24), seed=3)
    with Image.open(out) as made:
        assert made.size == (24, 16)  # Pillow says (width, height)
        assert np.array_equal(np.asarray(made), np.asarray(expected))


def test_generate_numbers_several_prompts(run: Run, tiny: Path, tmp_path: Path) -> None:
    result = run("generate", "a cat", "a fox", "--out", tmp_path / "f.png", "--model", tiny, "--seed", 5)
    paths = [tmp_path / "f-0.png", tmp_path / "f-1.png"]
    assert result.stdout.splitlines() == [str(path) for path in paths]
    for path, expected in zip(paths, dimoo.load(tiny).generate(["a cat", "a fox"], seed=5), strict=True):
        with Image.open(path) as made:
            assert made.size == (16, 16)  # the model's own size
            assert np.array_equal(np.asarray(made), np.asarray(expected))


def test_generate_applies_the_sampling_options(tiny: Path) -> None:
    defaults = dimoo.load(tiny).config.image
    changed = image_settings(defaults, steps=2, guidance=0.5, temperature=0.25)
    assert (changed.steps, changed.guidance, changed.draw) == (2, 0.5, CategoricalConfig(temperature=0.25))
    greedy = image_settings(defaults, temperature=0)
    assert greedy == defaults.model_copy(update={"draw": GreedyConfig()})
    assert image_settings(greedy, temperature=0.5).draw == CategoricalConfig(temperature=0.5)
    assert image_settings(defaults) == defaults


def test_the_noise_dtype_is_that_of_all_noise_that_is_drawn() -> None:
    def noises(settings: ImageSettings) -> dict[str, str | None]:
        parts = {"draw": settings.draw, "confidence": settings.confidence}
        return {name: getattr(part, "noise", None) for name, part in parts.items()}

    defaults, coarse = ImageSettings(), NoiseDType.BFLOAT16
    both = image_settings(defaults, temperature=0.5, noise=coarse)
    assert noises(both) == {"draw": "bfloat16", "confidence": "bfloat16"}
    assert both.draw == CategoricalConfig(temperature=0.5, noise="bfloat16")
    assert image_settings(both, noise=NoiseDType.FLOAT32) == image_settings(defaults, temperature=0.5)
    assert noises(image_settings(defaults, temperature=0, noise=coarse)) == {"draw": None, "confidence": "bfloat16"}
    retuned = lumina_dimoo_8b.image_settings()
    assert image_settings(retuned, noise=coarse) == lumina_dimoo_8b.image_settings("bfloat16")
    certain = defaults.model_copy(update={"confidence": ProbabilityConfig()})
    assert noises(image_settings(certain, noise=coarse)) == {"draw": "bfloat16", "confidence": None}
    with pytest.raises(ConfigError, match="'greedy' draw and 'probability' confidence draw no noise"):
        image_settings(certain, temperature=0, noise=coarse)


def test_generate_passes_the_sampling_options_on(run: Run, tiny: Path, tmp_path: Path) -> None:
    options = ("--steps", 2, "--guidance", 1.5, "--temperature", 0.5, "--noise-dtype", "bfloat16")
    result = run("generate", "a cat", "--out", tmp_path / "a.png", "--model", tiny, *options)
    assert result.exit_code == 0, result.output
    model = dimoo.load(tiny)
    options = {"steps": 2, "guidance": 1.5, "temperature": 0.5}
    settings = image_settings(model.config.image, noise=NoiseDType.BFLOAT16, **options)
    assert settings != image_settings(model.config.image, **options)
    with Image.open(tmp_path / "a.png") as made:
        assert np.array_equal(np.asarray(made), np.asarray(model.generate("a cat", settings=settings)[0]))


@pytest.mark.parametrize("size", ["64", "64x", "0x16", "axb", "64x64x3", "-8x8", "6.5x8"])
def test_a_size_that_is_no_size_is_wrong_usage(run: Run, tmp_path: Path, size: str) -> None:
    result = run("generate", "a cat", f"--size={size}", "--out", tmp_path / "a.png")
    assert result.exit_code == 2
    assert f"'{size}' is no size; write HEIGHTxWIDTH in pixels, as 64x64" in result.stderr


def test_a_size_off_the_grid_names_the_nearest(run: Run, tiny: Path, tmp_path: Path) -> None:
    result = run("generate", "a cat", "--size", "16x21", "--out", tmp_path / "a.png", "--model", tiny)
    failed(result, "(16, 21)", "(16, 24)")
    assert not (tmp_path / "a.png").exists()


def test_too_long_a_prompt(run: Run, tiny: Path, tmp_path: Path) -> None:
    failed(run("generate", "cat " * 200, "--out", tmp_path / "a.png", "--model", tiny), "128", "shorten")


def test_an_output_of_unknown_format_fails_before_the_model_loads(run: Run, tmp_path: Path) -> None:
    failed(run("generate", "a cat", "--out", tmp_path / "a.xyz", "--model", "nowhere"), "a.xyz", "use .png")


def test_an_output_folder_that_cannot_be_made(run: Run, picture: Path) -> None:
    failed(run("generate", "a cat", "--out", picture / "a.png", "--model", "nowhere"), "cannot make the folder")


def test_options_out_of_range_are_wrong_usage(run: Run, tmp_path: Path) -> None:
    for option in ("--steps=0", "--guidance=-1", "--temperature=-1"):
        assert run("generate", "a cat", "--out", tmp_path / "a.png", option).exit_code == 2


# models


def test_an_unknown_model(run: Run, tmp_path: Path) -> None:
    failed(run("generate", "a cat", "--out", tmp_path / "a.png", "--model", "nowhere"), "'nowhere'", '"mini"')


def test_a_folder_that_is_no_checkpoint(run: Run, tmp_path: Path) -> None:
    failed(run("info", tmp_path), str(tmp_path), "config.json")


def test_corrupt_weights(run: Run, tmp_path: Path) -> None:
    folder = save_tiny(tmp_path / "tiny")
    (folder / "model.safetensors").write_bytes(b"not safetensors")
    failed(run("generate", "a cat", "--out", tmp_path / "a.png", "--model", folder), "model.safetensors", "corrupt")
    failed(run("info", folder), "model.safetensors", "copy it again")


def test_missing_weights(run: Run, tmp_path: Path) -> None:
    folder = save_tiny(tmp_path / "tiny")
    (folder / "model.safetensors").unlink()
    failed(run("generate", "a cat", "--out", tmp_path / "a.png", "--model", folder), "no weights at")


@pytest.mark.parametrize("command", ["generate", "chat"])
def test_a_device_and_an_attention_that_are_not_there(run: Run, tiny: Path, tmp_path: Path, command: str) -> None:
    options = ("--out", tmp_path / "a.png", "--model", tiny) if command == "generate" else ("--model", tiny)
    failed(run(command, "a cat", *options, "--device", "mps"), "cannot compute in torch.float32 on device 'mps'")
    failed(run(command, "a cat", *options, "--device", "cpu", "--attention", "xformers"), "xformers")
    result = run(command, "a cat", *options, "--attention", "fast")
    assert result.exit_code == 2
    assert "'auto', 'sdpa', 'varlen', 'flex', 'xformers'" in result.stderr


def test_the_attention_is_passed_on(tiny: Path) -> None:
    def attention(kind: Attention | None) -> str:
        backbone = open_model(str(tiny), Device.CPU, DType.FLOAT32, kind).backbone
        return type(backbone.blocks[0].attention.backend).__name__

    kinds = [attention(kind) for kind in (None, Attention.AUTO, Attention.SDPA)]
    assert kinds == ["AutoAttention", "AutoAttention", "SdpaAttention"]


@pytest.mark.parametrize(("large", "terminal", "shown"), [(0, True, True), (10**9, True, False), (0, False, False)])
def test_a_bar_shows_while_much_is_loaded(
    run: Run, tiny: Path, picture: Path, monkeypatch: pytest.MonkeyPatch, large: int, terminal: bool, shown: bool
) -> None:
    monkeypatch.setattr("dimoo.cli.options.LARGE", large)
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    if terminal:
        monkeypatch.setenv("FORCE_COLOR", "1")
    result = run("caption", picture, "--model", tiny)
    assert result.exit_code == 0
    assert ("loading" in result.stderr) == shown
    assert shown or result.stderr == ""


# inpaint


def test_inpaint_leaves_the_rest_alone(run: Run, tiny: Path, picture: Path, tmp_path: Path) -> None:
    region = np.zeros((16, 24), dtype=np.uint8)
    region[3:7, 10:20] = 255
    Image.fromarray(region).save(tmp_path / "mask.png")
    out = tmp_path / "out.png"
    options = ("--mask", tmp_path / "mask.png", "--prompt", "a cat", "--out", out, "--model", tiny, "--seed", 2)
    result = run("inpaint", picture, *options)
    assert (result.exit_code, result.stdout) == (0, f"{out}\n"), result.output
    with Image.open(picture) as before, Image.open(out) as after, Image.open(tmp_path / "mask.png") as mask:
        expected = dimoo.load(tiny).inpaint(before, mask, "a cat", seed=2)
        assert np.array_equal(np.asarray(after), np.asarray(expected))
        same = (np.asarray(before) == np.asarray(after)).all(axis=2)
    assert same[region == 0].all()
    assert not same[region > 0].all()


def test_inpaint_needs_a_mask(run: Run, picture: Path, tmp_path: Path) -> None:
    result = run("inpaint", picture, "--prompt", "a cat", "--out", tmp_path / "out.png")
    assert result.exit_code == 2
    assert "--mask" in result.stderr


def test_inpaint_refuses_a_mask_of_another_size(run: Run, tiny: Path, picture: Path, tmp_path: Path) -> None:
    Image.new("L", (8, 8), 255).save(tmp_path / "mask.png")
    options = ("--mask", tmp_path / "mask.png", "--prompt", "a cat", "--out", tmp_path / "o.png", "--model", tiny)
    failed(run("inpaint", picture, *options), "8x8", "16x24")


def test_inpaint_refuses_an_empty_mask(run: Run, tiny: Path, picture: Path, tmp_path: Path) -> None:
    Image.new("L", (24, 16), 0).save(tmp_path / "mask.png")
    options = ("--mask", tmp_path / "mask.png", "--prompt", "a cat", "--out", tmp_path / "o.png", "--model", tiny)
    failed(run("inpaint", picture, *options), "selects no pixel")


def test_inpaint_says_which_file_is_missing(run: Run, picture: Path, tmp_path: Path) -> None:
    options = ("--mask", tmp_path / "none.png", "--prompt", "a cat", "--out", tmp_path / "o.png")
    failed(run("inpaint", picture, *options), "none.png", "does not exist")


# ask, caption


def test_ask_prints_only_the_answer(run: Run, tiny: Path, picture: Path) -> None:
    result = run("ask", picture, "what is in the picture", "--model", tiny)
    with Image.open(picture) as seen:
        expected = dimoo.load(tiny).ask(seen, "what is in the picture")
    assert (result.exit_code, result.stdout) == (0, f"{expected}\n"), result.output


def test_caption_prints_only_the_caption(run: Run, tiny: Path, picture: Path) -> None:
    result = run("caption", picture, "--model", tiny)
    with Image.open(picture) as seen:
        expected = dimoo.load(tiny).caption(seen)
    assert (result.exit_code, result.stdout) == (0, f"{expected}\n"), result.output


def test_ask_about_what_is_no_picture(run: Run, tmp_path: Path) -> None:
    (tmp_path / "notes.png").write_text("words")
    failed(run("ask", tmp_path / "notes.png", "what"), "notes.png", "cannot be read")
    failed(run("ask", tmp_path / "none.png", "what"), "none.png", "does not exist")


def test_ask_nothing(run: Run, tiny: Path, picture: Path) -> None:
    failed(run("ask", picture, " ", "--model", tiny), "question is empty")


def test_ask_about_a_picture_off_the_grid(run: Run, tiny: Path, tmp_path: Path) -> None:
    Image.new("RGB", (20, 16)).save(tmp_path / "odd.png")
    failed(run("ask", tmp_path / "odd.png", "what", "--model", tiny), "(16, 20)", "(16, 24)")


# demo, evaluate


def test_evaluate_writes_and_prints_the_scores(run: Run, tiny: Path, tmp_path: Path) -> None:
    out = tmp_path / "scores"
    result = run("evaluate", tiny, "--suite", "world", "--limit", 2, "--seed", 3, "--batch", 4, "--out", out)
    assert result.exit_code == 0, result.output
    with Progress(disable=True) as progress:
        model, world = dimoo.load(tiny), world_of(tiny)
        evaluation = evaluate(model, world, limit=2, seed=3, batch=4, progress=progress)
    expected = evaluation.scores
    written = json.loads((out / "scores.json").read_text(encoding="utf-8"))
    assert written == {name: asdict(score) for name, score in expected.items()}
    ceiling, floor = expected["ceiling_two_objects"], expected["floor_two_objects"]
    (row,) = (line.split() for line in result.stdout.splitlines() if line.startswith("two objects"))
    score = expected["two_objects"]
    cases = [case for case in evaluation.cases if case.name == "two_objects"]
    kinds = [len({case.words for case in cases}), len({case.combination for case in cases})]
    shown = [score.score, score.low, score.high, score.n, *kinds, floor.score, ceiling.score]
    assert [float(word) for word in row[2:] if word != "to"] == pytest.approx(shown, abs=6e-4)
    assert result.stdout.splitlines()[-1] == str(out / "index.html")
    assert (out / "index.html").is_file()


def test_demo_prints_where_the_page_is(run: Run, tiny: Path, tmp_path: Path) -> None:
    result = run("demo", "--out", tmp_path / "gallery", "--model", tiny)
    assert (result.exit_code, result.stdout) == (0, f"{tmp_path / 'gallery' / 'index.html'}\n"), result.output
    page = (tmp_path / "gallery" / "index.html").read_text(encoding="utf-8")
    assert "<img" in page


def test_evaluate_rejects_what_it_does_not_know(run: Run, tmp_path: Path) -> None:
    result = run("evaluate", "mini", "--suite", "moon", "--out", tmp_path)
    assert result.exit_code == 2
    assert "'moon'" in result.stderr
    assert "world" in result.stderr
    failed(run("evaluate", "nowhere", "--out", tmp_path), "'nowhere'")


@pytest.mark.parametrize("arguments", [("demo",), ("evaluate", "nowhere")])
def test_an_output_folder_that_is_a_file_fails_before_the_model_loads(
    run: Run, picture: Path, arguments: tuple[str, ...]
) -> None:
    failed(run(*arguments, "--out", picture), "cannot make the folder", "picture.png", "choose another --out")


# train


def test_train_prints_the_resolved_recipe(run: Run) -> None:
    result = run("train", "world_tokenizer", "--set", "run.steps=7", "--set", "run.name=seven", "--print")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["run"] | {"steps": 7, "name": "seven"} == json.loads(result.stdout)["run"]


def test_train_reports_an_unknown_recipe(run: Run) -> None:
    result = run("train", "nothing")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "no recipe 'nothing'" in result.stderr
    assert "world_base" in result.stderr


@pytest.mark.parametrize("missing", ["recipes", "lightning"])
def test_train_says_how_to_get_what_is_missing(missing: str) -> None:
    script = f"import sys\nsys.modules[{missing!r}] = None\nfrom dimoo.cli import main\nmain()"
    command = [sys.executable, "-c", script, "train", "world_tokenizer", "--dry-run"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert missing in done.stderr
    assert 'clone the repository and run pip install -e ".[train]"' in done.stderr


def test_a_transparent_mask_pixel_is_not_masked(run: Run, tiny: Path, tmp_path: Path) -> None:
    picture, mask, out = tmp_path / "f.png", tmp_path / "m.png", tmp_path / "g.png"
    Image.new("RGB", (16, 16), (200, 30, 30)).save(picture)
    layer = Image.new("RGBA", (16, 16), (255, 255, 255, 0))
    layer.paste((255, 255, 255, 255), (0, 8, 16, 16))
    layer.save(mask)
    result = run("inpaint", picture, "--mask", mask, "--prompt", "a cat", "--out", out, "--model", tiny)
    assert result.exit_code == 0, result.output
    assert Image.open(out).crop((0, 0, 16, 8)).tobytes() == Image.open(picture).crop((0, 0, 16, 8)).tobytes()
    assert Image.open(out).tobytes() != Image.open(picture).tobytes()
