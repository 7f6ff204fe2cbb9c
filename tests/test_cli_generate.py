"""`dimoo generate`, and how pictures are sampled."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from command_line import failed, noisy_picture, pixels, run, succeeded, told
from PIL import Image
from tiny_checkpoint import save_tiny

import dimoo
from dimoo.cli.sampling import NoiseDType, image_settings
from dimoo.core.errors import ConfigError
from dimoo.diffusion.config import CategoricalConfig, GreedyConfig, ProbabilityConfig
from dimoo.presets import lumina_dimoo_8b
from dimoo.presets.config import ImageSettings


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    return noisy_picture(tmp_path / "picture.png")


def test_generate_writes_what_the_library_makes(tiny: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "a.png"
    result = run("generate", "a cat", "--size", "16x24", "--seed", 3, "--out", out, "--model", tiny)
    assert (result.exit_code, result.stdout) == (0, f"{out}\n"), result.output
    (expected,) = dimoo.load(tiny).generate("a cat", size=(16, 24), seed=3)
    with Image.open(out) as made:
        assert made.size == (24, 16)  # Pillow says (width, height)
        assert np.array_equal(np.asarray(made), np.asarray(expected))


def test_generate_numbers_several_prompts(tiny: Path, tmp_path: Path) -> None:
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


def test_generate_passes_the_sampling_options_on(tiny: Path, tmp_path: Path) -> None:
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
def test_a_size_that_is_no_size_is_wrong_usage(tmp_path: Path, size: str) -> None:
    result = run("generate", "a cat", f"--size={size}", "--out", tmp_path / "a.png")
    assert result.exit_code == 2
    assert f"'{size}' is no size; write HEIGHTxWIDTH in pixels, as 64x64" in result.stderr


def test_a_size_off_the_grid_names_the_nearest(tiny: Path, tmp_path: Path) -> None:
    result = run("generate", "a cat", "--size", "16x21", "--out", tmp_path / "a.png", "--model", tiny)
    failed(result, "(16, 21)", "(16, 24)")
    assert not (tmp_path / "a.png").exists()


def test_too_long_a_prompt(tiny: Path, tmp_path: Path) -> None:
    failed(run("generate", "cat " * 200, "--out", tmp_path / "a.png", "--model", tiny), "128", "shorten")


def test_an_output_of_unknown_format_fails_before_the_model_loads(tmp_path: Path) -> None:
    failed(run("generate", "a cat", "--out", tmp_path / "a.xyz", "--model", "nowhere"), "a.xyz", "use .png")


def test_an_output_folder_that_cannot_be_made(picture: Path) -> None:
    failed(run("generate", "a cat", "--out", picture / "a.png", "--model", "nowhere"), "cannot make the folder")


def test_options_out_of_range_are_wrong_usage(tmp_path: Path) -> None:
    for option in ("--steps=0", "--guidance=-1", "--temperature=-1"):
        assert run("generate", "a cat", "--out", tmp_path / "a.png", option).exit_code == 2


def test_guidance_is_the_scale_of_every_condition_that_is_not_named() -> None:
    defaults = ImageSettings(guidance=2.0, conditions={"no_text": 2.5, "no_image": 4.0, "no_image_2": 1.0})

    def scales(**given: float) -> list[float]:
        settings = image_settings(defaults, **given)
        return [settings.guidance, *(settings.conditions[name] for name in defaults.conditions)]

    assert scales() == [2, 2.5, 4, 1]
    assert scales(guidance=0) == [0, 0, 0, 0]
    assert scales(guidance=3, guidance_image=7) == [3, 3, 7, 3]
    without = image_settings(defaults.model_copy(update={"conditions": {"no_text": 2.5, "no_image": 0.0}}), guidance=3)
    assert without.conditions == {"no_text": 3, "no_image": 0}  # what the model does not guide by stays so
    assert scales(guidance_text=7) == [2, 7, 4, 1]
    assert scales(guidance_image=0) == [2, 2.5, 0, 1]


def test_several_pictures_of_several_prompts(tiny: Path, tmp_path: Path) -> None:
    options = ("--out", tmp_path / "f.png", "--model", tiny, "--seed", 5, "--num-images", 2, "--json")
    facts = told(run("generate", "a cat", "a fox", *options))
    expected = dimoo.load(tiny).generate(["a cat", "a fox"], seed=5, num_images=2)
    for index, (each, picture) in enumerate(zip(facts["pictures"], expected, strict=True)):
        out = tmp_path / f"f-{index}.png"
        assert each == {"prompt": ["a cat", "a fox"][index // 2], "out": str(out), "seed": 5 + index, "size": [16, 16]}
        assert np.array_equal(pixels(out), pixels(picture))
    assert {key: facts[key] for key in facts["pictures"][0]} == facts["pictures"][0]


def test_a_negative_prompt(tiny: Path, tmp_path: Path) -> None:
    options = ("--out", tmp_path / "a.png", "--model", tiny, "--guidance", 3000)
    succeeded(run("generate", "a cat", *options, "--negative", "a fox"))
    model = dimoo.load(tiny)
    settings = model.config.image.model_copy(update={"guidance": 3000.0})
    away, plain = (model.generate("a cat", negative=words, settings=settings)[0] for words in ("a fox", None))
    assert np.array_equal(pixels(tmp_path / "a.png"), pixels(away))
    assert not np.array_equal(pixels(away), pixels(plain))
    failed(run("generate", "a cat", *options[:-1], 0, "--negative", "a fox"), "negative prompt does nothing")


def test_previews_show_pictures_as_they_stand(tiny: Path, tmp_path: Path) -> None:
    out, steps = tmp_path / "a.png", tmp_path / "new" / "steps"
    succeeded(run("generate", "a cat", "--size", "32x32", "--out", out, "--model", tiny, "--preview", steps))
    looks = [steps / f"step-{step:03}.png" for step in (1, 2, 3, 4)]
    assert sorted(steps.iterdir()) == looks
    grey = [float((pixels(look) == 128).all(-1).mean()) for look in looks]
    assert grey[0] > grey[1] > grey[2] > grey[3]
    assert np.array_equal(pixels(looks[-1]), pixels(out))


def test_previews_of_several_pictures_after_every_second_step(tiny: Path, tmp_path: Path) -> None:
    options = ("--model", tiny, "--preview", tmp_path / "steps", "--preview-every", 2)
    succeeded(run("generate", "a cat", "a fox", "--out", tmp_path / "a.png", *options))
    names = {path.name for path in (tmp_path / "steps").iterdir()}
    assert names == {f"step-00{step}-{index}.png" for step in (2, 4) for index in (0, 1)}
