"""The likelihood bound of held-out examples: a plain loop over the same masks, and the same numbers for ever."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from tiny_recipes import Tiny, averages, before_step, checkpoint

from dimoo.backbone.layout import PackedLayout
from dimoo.core.errors import ConfigError
from dimoo.core.rng import generator
from dimoo.data.build import held_out
from dimoo.data.example import pictures_of, pixels_of
from dimoo.diffusion.corruption import Bernoulli
from dimoo.diffusion.times import AntitheticTimes
from dimoo.tokenizers.image.files import load_image_tokenizer
from dimoo.tokenizers.packing import pack
from recipes.config import DiffusionRecipe
from recipes.learning.assemble import build_module, diffusion_module
from recipes.learning.diffusion import DiffusionModule
from recipes.learning.steps import StepModule
from recipes.ranks import Ranks
from recipes.run import run
from recipes.watching.logs import read_rows
from recipes.watching.validation import TOGETHER, bound_objective, bounds, corrupted

EXAMPLES = 11


def plain(module: DiffusionModule) -> dict[str, float]:
    """Document by document, token by token, with all logits: the seed, the times and the masks said once more."""
    recipe = module.recipe
    source = held_out(module.source, examples=recipe.run.steps * recipe.run.batch_size)
    assert source is not None
    module.builder.mixture.__dict__.update(dropout=0.0, text_block=None)  # an own copy of the config
    sums: dict[str, list[float]] = {}
    for first in range(0, EXAMPLES, TOGETHER):
        places = range(first, min(first + TOGETHER, EXAMPLES))
        seeds = [generator(recipe.run.seed, "validate", "document", place) for place in places]
        batch = pack(module.builder.build([source.example(place) for place in places], seeds))
        rng = generator(recipe.run.seed, "validate", "noise", first // TOGETHER)
        times = AntitheticTimes().sample(len(batch.targets), rng)
        shares = module.objective.schedule.share(times)
        slopes = module.objective.schedule.derivative(times).abs()
        noisy = Bernoulli(at_least_one=False)(batch.ids, batch.group, shares, module.objective.vocabulary.mask, rng)
        logits = module.backbone.head(module.backbone(noisy.ids, PackedLayout.of(batch.lengths)))
        for place in range(len(batch.ids)):
            group = int(batch.group[place])
            if group < 0:
                continue
            target = batch.targets[group]
            start, stop = target.columns if recipe.slice_loss else (0, logits.shape[1])
            total = sums.setdefault(target.kind, [0.0, 0.0])
            total[1] += 1
            if noisy.masked[place]:
                scores = logits[place, start:stop].detach().double()
                nll = float(scores.logsumexp(0) - scores[int(batch.ids[place]) - start])
                total[0] += float(slopes[group]) / max(float(shares[group]), 1e-3) * nll
    return {f"bound/{kind}": total / count for kind, (total, count) in sums.items()}


def of_run(recipe: Any, folder: Path) -> DiffusionModule:
    """A module with the averaged weights of a run's last checkpoint."""
    assert isinstance(recipe, DiffusionRecipe)
    module = diffusion_module(recipe)
    module.backbone.load_state_dict(averages(checkpoint(folder)))
    return module


@pytest.mark.parametrize("slice_loss", ["true", "false"])
def test_the_bound_is_that_of_a_plain_loop_and_of_the_averaged_weights(tiny: Tiny, slice_loss: str) -> None:
    changes = ("run.validate_every=4", f"run.validate_examples={EXAMPLES}", "run.steps=4", "ema=0.6")
    recipe = tiny(
        "world_base",
        *changes,
        f"slice_loss={slice_loss}",
        "pack_tokens=400",
        "mixture.dropout=1.0",
        "mixture.text_block=2",
    )
    folder = run(recipe)
    (row,) = [row for row in read_rows(folder / "csv/metrics.csv") if "bound/image" in row]
    found = {name: value for name, value in row.items() if name != "step"}
    assert row["step"] == 4
    assert found == pytest.approx(plain(of_run(recipe, folder)), rel=1e-5)
    assert found.keys() == {"bound/image", "bound/text", "bound/padding"}


def test_numbers_do_not_depend_on_processes_nor_on_how_training_masks(tiny: Tiny) -> None:
    """Three packs in two processes: the second one computes its second for nothing. Kinds count by tokens."""
    made = []
    for changes in ((), ("full_up_to=1000", 'kind_weights={"image":0.1}', 'loss_weight={"kind":"mean_over_masked"}')):
        module = build_module(tiny("world_base", *changes))
        assert isinstance(module, DiffusionModule)
        source, numbers = held_out(module.source, examples=28), range(2 * TOGETHER + 3)
        assert source is not None
        parts: list[list[float]] = []

        class Part(Ranks):
            """One of two, who keeps what it would say."""

            def sums(self, values: Any, device: torch.device) -> list[float]:
                parts.append(list(values))  # noqa: B023
                return list(values)

        for rank in (0, 1):
            bounds(module, source, numbers, Part(rank=rank, world=2))
        bounds(module, source, numbers, Part())
        assert [a + b for a, b in zip(*parts[:2], strict=True)] == pytest.approx(parts[2], rel=1e-12)
        assert module.training
        made.append(bounds(module, source, numbers, Ranks()))
    assert made[0] == made[1]
    # An untrained network knows nothing: about the logarithm of how many ids a target may have.
    ids = 32 if module.recipe.slice_loss else module.objective.vocabulary.size
    assert made[0]["bound/image"] == pytest.approx(math.log(ids), rel=0.35)


def test_a_resumed_run_logs_the_same_numbers_and_training_does_not_notice(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    changes = ("run.validate_every=3", f"run.validate_examples={EXAMPLES}", "ema=0.6")
    whole = run(tiny("world_base", *changes, "run.name=whole"))
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("step")]
    assert ["bound/image" in line for line in lines] == [False, False, True, True, True, True, True]

    def stop(module: StepModule) -> None:
        raise ConnectionError("out")

    with monkeypatch.context() as patch:
        before_step(patch, DiffusionModule, 4, stop)
        with pytest.raises(ConnectionError):
            run(tiny("world_base", *changes, "run.name=broken"))
    folder = run(tiny("world_base", *changes, "run.name=broken"), resume=True)
    assert (folder / "csv/metrics.csv").read_text() == (whole / "csv/metrics.csv").read_text()
    rows = read_rows(whole / "csv/metrics.csv")
    measured = [row for row in rows if "bound/image" in row]
    assert [row["step"] for row in measured] == [3, 6]
    without = run(tiny("world_base", "ema=0.6", "run.name=without"))
    assert read_rows(without / "csv/metrics.csv") == [row for row in rows if row not in measured]


def test_a_tokenizer_is_measured_on_every_picture_that_is_held_out(tiny: Tiny) -> None:
    recipe = tiny("world_tokenizer", "run.validate_every=7", f"run.validate_examples={EXAMPLES}")
    folder = run(recipe)
    (row,) = [row for row in read_rows(folder / "csv/metrics.csv") if "psnr/held_out" in row]
    tokenizer = load_image_tokenizer(folder / "export")
    source = held_out(build_module(recipe).source, examples=28)
    assert source is not None
    values = []
    for number in range(EXAMPLES):
        for picture in pictures_of(source.example(number)):
            pixels = torch.from_numpy(pixels_of(picture)).permute(2, 0, 1).float()[None] / 255
            made = tokenizer.decode(tokenizer.encode(pixels))
            values.append(-10 * math.log10(float((made - pixels).square().mean())))
    assert len(values) >= EXAMPLES
    assert row["psnr/held_out"] == pytest.approx(sum(values) / len(values), abs=1e-4)


def test_files_need_examples_that_are_held_out(tiny: Tiny, tmp_path: Path) -> None:
    lines = []
    for number in range(6):
        Image.new("RGB", (32, 32), (40 * number, 0, 0)).save(tmp_path / f"{number}.png")
        lines.append(json.dumps({"image": f"{number}.png", "caption": f"number {number}"}))
    (tmp_path / "rows.jsonl").write_text("\n".join(lines))
    source = {"kind": "jsonl", "path": str(tmp_path / "rows.jsonl"), "size": [32, 32]}
    changes = ("run.validate_every=2", "run.steps=2", "mixture.question=0")
    with pytest.raises(ConfigError, match=r"validate_every 2 needs examples that are held out; set source\.held_out"):
        tiny("world_base", *changes, f"source={json.dumps(source)}")
    recipe = tiny("world_base", *changes, f"source={json.dumps({**source, 'held_out': 2})}")
    rows = read_rows(run(recipe) / "csv/metrics.csv")  # two are fewer than are asked for
    assert [row["step"] for row in rows if any(name.startswith("bound/") for name in row)] == [2]


def test_there_is_no_bound_where_nothing_was_masked(tiny: Tiny) -> None:
    """Example by example, each with noise of its own: a bound of each kind of which a token was masked."""
    recipe = tiny("world_base")
    module = build_module(recipe)
    assert isinstance(module, DiffusionModule)
    source = held_out(module.source, examples=28)
    assert source is not None
    untouched = 0
    for number in range(24):
        seeded = recipe.run.model_copy(update={"seed": number})
        module.recipe = module.recipe.model_copy(update={"run": seeded})
        noisy = corrupted(module, bound_objective(module.objective), source, [number], 0)
        masked = dict(zip((target.kind for target in noisy.batch.targets), noisy.groups.masked().tolist(), strict=True))
        found = bounds(module, source, [number], Ranks())
        assert found.keys() == {f"bound/{kind}" for kind, count in masked.items() if count}
        assert all(value > 0 for value in found.values())
        untouched += sum(count == 0 for count in masked.values())
    assert untouched > 0
