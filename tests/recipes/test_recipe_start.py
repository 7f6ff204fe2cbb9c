"""What a run starts from: a text-only model that gets new ids, a model whose tokenizer is kept; the first phase."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from statistics import median

import pytest
import torch
from llada_like import UNUSED, llada_like
from tiny_recipes import Tiny, before_step, checkpoint, differences, power_cut
from tiny_recipes import of_text as text_start

import dimoo
from dimoo.core.errors import CheckpointError, ConfigError
from dimoo.core.rng import generator
from dimoo.tasks.assemble import load_backbone
from dimoo.tokenizers.image.extend import extended
from dimoo.tokenizers.image.files import load_image_tokenizer, save_image_tokenizer
from recipes.config import DiffusionRecipe
from recipes.learning.assemble import diffusion_module
from recipes.learning.diffusion import DiffusionModule
from recipes.run import export_run, main, run

CODES = 32
ADDED = 10


@pytest.fixture(scope="module")
def talker(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A text-only checkpoint of width 32."""
    return llada_like().save(tmp_path_factory.mktemp("talker") / "model")


def of_text(tiny: Tiny, talker: Path, *changes: str) -> DiffusionRecipe:
    """The first stage from a text-only model."""
    recipe = tiny("pretrain", *text_start(talker, CODES, ADDED), "mixture.pair=1.0", *changes)
    assert isinstance(recipe, DiffusionRecipe)
    return recipe


def test_a_text_model_keeps_its_rows_and_gets_rows_for_tags_and_codes(tiny: Tiny, talker: Path) -> None:
    module = diffusion_module(of_text(tiny, talker))
    before = dimoo.load(talker)
    kept, total = before.prompts.text.size, module.recipe.backbone.vocab_size
    vocabulary = module.builder.prompts.vocabulary
    assert before.config.backbone.vocab_size == kept + UNUSED
    assert vocabulary.columns("image") == (total - CODES, total)
    assert vocabulary.text_size == total - CODES
    assert vocabulary.special("image_start") == kept
    old = load_backbone(talker)
    for name, tensor in module.backbone.state_dict().items():
        wanted = old.state_dict()[name]
        if name in ("embedding.weight", "unembedding.weight"):
            assert torch.equal(tensor[:kept], wanted[:kept])
            spread = wanted[:kept].std(dim=0, correction=0)
            new = (tensor[kept:] - wanted[:kept].mean(dim=0)) / spread
            assert not torch.equal(tensor[kept : kept + UNUSED][: total - kept], wanted[kept:][: total - kept])
            assert abs(float(new.mean())) < 0.1
            assert abs(float(new.std()) - 1) < 0.1
        else:
            assert torch.equal(tensor, wanted), name


def test_what_it_exports_still_converses(tiny: Tiny, talker: Path) -> None:
    recipe = of_text(tiny, talker, "run.steps=2")
    model = dimoo.load(run(recipe) / "export")
    assert model.config.chat == dimoo.load(talker).config.chat
    assert model.config.text == dimoo.load(talker).config.text
    assert model.config.vocabulary.modality("image").size == CODES
    # And it is what the next stage goes on from.
    again = of_text(tiny, talker, f"warm_start={Path(recipe.run.folder) / recipe.run.name / 'export'}")
    module = diffusion_module(again)
    assert module.builder.prompts.vocabulary == model.config.vocabulary


@pytest.mark.parametrize(("name", "phase"), [("sft", 0), ("world_all", 0), ("world_all", 2)])
def test_once_begun_a_run_needs_its_warm_start_no_more(
    name: str, phase: int, tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where codes were added, for which thousands of examples are looked at, and their rows trained at first."""
    recipe = tiny(name)
    assert isinstance(recipe, DiffusionRecipe)
    shutil.copytree(str(recipe.warm_start), tmp_path / "first")
    changes = (f"warm_start={tmp_path / 'first'}", f"new_rows_steps={phase}")
    whole, broken = (tiny(name, *changes, f"run.name={it}") for it in ("whole", "broken"))
    wanted = checkpoint(run(whole))["state_dict"]
    with monkeypatch.context() as patch:
        before_step(patch, DiffusionModule, 4, power_cut)
        with pytest.raises(ConnectionError):
            run(broken)
    shutil.rmtree(tmp_path / "first")
    assert list(differences(checkpoint(run(broken, resume=True))["state_dict"], wanted)) == []
    export_run(broken)


def test_a_warm_start_that_is_not_there_is_named(tiny: Tiny) -> None:
    with pytest.raises(CheckpointError, match=r"warm_start: no checkpoint folder at '/nowhere'.*--from"):
        diffusion_module(DiffusionRecipe.model_validate(tiny("sft", "warm_start=/nowhere")))


def test_at_first_nothing_but_new_rows_moves(tiny: Tiny, talker: Path) -> None:
    """With weight decay, which must not shrink what stays."""
    changes = ("run.save_every=1", "optimizer.weight_decay=0.5", "ema=0", "run.steps=3")
    first = diffusion_module(of_text(tiny, talker, *changes)).backbone.state_dict()
    recipe = of_text(tiny, talker, "new_rows_steps=3", *changes)
    after = {name.removeprefix("backbone."): tensor for name, tensor in checkpoint(run(recipe))["state_dict"].items()}
    kept = dimoo.load(talker).prompts.text.size
    for name, tensor in after.items():
        if name in ("embedding.weight", "unembedding.weight"):
            assert torch.equal(tensor[:kept], first[name][:kept]), name
            assert not torch.equal(tensor[kept], first[name][kept]), name  # the first new id opens every picture
        else:
            assert torch.equal(tensor, first[name]), name
    whole = of_text(tiny, talker, "new_rows_steps=2", "run.name=whole", *changes)
    moved = {name.removeprefix("backbone."): t for name, t in checkpoint(run(whole))["state_dict"].items()}
    assert all(not torch.equal(tensor, first[name]) for name, tensor in moved.items())


def test_a_run_broken_off_in_the_first_phase_goes_on_as_if_it_had_not_been(tiny: Tiny, talker: Path) -> None:
    changes = ("new_rows_steps=3", "run.steps=5", "run.save_every=2")
    one = checkpoint(run(of_text(tiny, talker, *changes)))
    with pytest.MonkeyPatch.context() as patch:

        def stop(module: DiffusionModule) -> None:
            raise KeyboardInterrupt

        before_step(patch, DiffusionModule, 2, stop)
        with pytest.raises(BaseException, match=r"stopped|^$"):
            run(of_text(tiny, talker, "run.name=other", *changes))
    two = checkpoint(run(of_text(tiny, talker, "run.name=other", *changes), resume=True))
    assert list(differences(one["state_dict"], two["state_dict"])) == []


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        (("new_rows_steps=2",), r"new_rows_steps is 2, but .* knows all 1056 ids"),
        (("text_tokenizer=warm_start", "backbone.vocab_size=1060"), r"has 1056 ids .* the recipe 1060 with 32 codes"),
    ],
)
def test_what_does_not_fit_a_multimodal_start(tiny: Tiny, changes: tuple[str, ...], wanted: str) -> None:
    with pytest.raises(ConfigError, match=wanted):
        diffusion_module(DiffusionRecipe.model_validate(tiny("sft", *changes)))


def test_too_few_rows_for_the_added_ids(tiny: Tiny, talker: Path) -> None:
    size = dimoo.load(talker).prompts.text.size
    with pytest.raises(ConfigError, match=rf"{size + ADDED} text ids and 32 image codes need {size + ADDED + 32}"):
        diffusion_module(of_text(tiny, talker, f"backbone.vocab_size={size + ADDED + 31}"))


@pytest.mark.parametrize("change", ["text_tokenizer=warm_start", "new_rows_steps=1"])
def test_a_start_is_needed(tiny: Tiny, change: str) -> None:
    with pytest.raises(ConfigError, match=r"goes on from a checkpoint; set warm_start"):
        tiny("world_base", change)


def test_a_kind_that_there_is_not_has_no_weight(tiny: Tiny) -> None:
    with pytest.raises(ConfigError, match=r"kind_weights names 'sound'; the targets of this model are text, padding"):
        diffusion_module(DiffusionRecipe.model_validate(tiny("world_base", 'kind_weights={"sound":1.0}')))


def test_from_names_a_checkpoint_or_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "runs/first/export").mkdir(parents=True)
    run_folder = str(tmp_path / "runs/first")
    (tmp_path / "runs/going_on").mkdir()
    (tmp_path / "runs/going_on/recipe.json").touch()
    for place, wanted in (("mini", "mini"), (run_folder, f"{run_folder}/export"), ("owner/name", "owner/name")):
        assert main(["sft", "--from", place, "--print"]) == 0
        assert json.loads(capsys.readouterr().out)["warm_start"] == wanted
    for arguments, error in (
        (["world_tokenizer", "--from", "mini"], "--from is for recipes of kind 'diffusion', not 'tokenizer'"),
        (["sft", "--from", "mini", "--resume", "runs/sft"], "--resume RUN takes the settings of RUN; leave"),
        (["sft", "--from", "mini", "--export", "runs/sft"], "--export RUN takes the settings of RUN; leave"),
        (["sft", "--from", "mini", "--resume", "--set", f"run.folder={tmp_path}/none"], "no checkpoint at"),
        (["sft", "--from", str(tmp_path / "runs/going_on")], "has not been exported yet; export it: --export"),
    ):
        assert main(arguments) == 1
        assert error in " ".join(capsys.readouterr().err.split())


def test_a_start_whose_codes_mean_something_else_is_refused(tiny: Tiny, tmp_path: Path, image_tokenizer: Path) -> None:
    """Of as many codes, and of more that do not begin with its own."""
    other = load_image_tokenizer(image_tokenizer)
    with torch.no_grad():
        other.quantizer.initialise(torch.randn(1, 4, 8, 8, generator=generator(0)), generator(1))
    save_image_tokenizer(other, tmp_path / "as_many")
    save_image_tokenizer(extended(other, 48), tmp_path / "more")
    for name, size in (("as_many", 1056), ("more", 1072)):
        recipe = tiny("sft", f"image_tokenizer={tmp_path / name}", f"backbone.vocab_size={size}")
        with pytest.raises(ConfigError, match=r"another image tokenizer than .*; set image_tokenizer to its own, or"):
            diffusion_module(DiffusionRecipe.model_validate(recipe))


def test_the_spike_guard_begins_anew_where_more_is_trained(tiny: Tiny, talker: Path) -> None:
    """The norm of all gradients is several times that of the new rows', and no spike."""
    folder = run(of_text(tiny, talker, "new_rows_steps=15", "optimizer.spike=3", "run.steps=40"))
    with (folder / "csv/metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 40
    norms = [float(row["grad_norm"]) for row in rows]
    assert min(norms[15:20]) > 3 * median(norms[:15]), "else a guard that goes on would not mind either"
    assert rows[20]["skipped"] == "0.0"


def test_something_must_weigh(tiny: Tiny) -> None:
    nothing = 'kind_weights={"text":0.0,"padding":0.0,"image":0.0}'
    with pytest.raises(ConfigError, match=r"kind_weights is 0 for text, padding, image: nothing would be learnt"):
        diffusion_module(DiffusionRecipe.model_validate(tiny("world_base", nothing)))


def test_rows_that_stand_for_other_words_are_not_taken_over(tiny: Tiny, talker: Path) -> None:
    shape = text_start(talker, CODES, ADDED)[2]
    recipe = tiny("pretrain", f"warm_start={talker}", shape, "backbone.vocab_size=1200")
    with pytest.raises(ConfigError, match=r"has another text tokenizer than 'mini'.*set text_tokenizer to warm_start"):
        diffusion_module(DiffusionRecipe.model_validate(recipe))


@pytest.mark.parametrize("name", ["../out", "a/b", "..", "."])
def test_a_run_stays_in_its_folder(tiny: Tiny, name: str) -> None:
    with pytest.raises(ConfigError, match=r"run\.name"):
        tiny("world_base", f"run.name={name}")


def test_as_many_processes_as_were_started(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match=r"has started 2 processes, but run.devices x run.nodes is 1"):
        run(tiny("world_base"))


def test_a_start_of_another_shape_names_the_settings_that_differ(tiny: Tiny) -> None:
    """Also heads and rotary frequencies, of which no tensor tells."""
    recipe = tiny("sft", "backbone.layers=2", "backbone.heads=1", "backbone.kv_heads=1", "backbone.rope_theta=500")
    with pytest.raises(ConfigError) as error:
        diffusion_module(DiffusionRecipe.model_validate(recipe))
    assert str(error.value).partition(" has another shape than the recipe: ")[2] == (
        "backbone.layers 2 against its 1, backbone.heads 1 against its 2, backbone.kv_heads 1 against its 2,"
        " backbone.rope_theta 500.0 against its 10000.0; take its: --set backbone.layers=1 --set backbone.heads=2"
        " --set backbone.kv_heads=2 --set backbone.rope_theta=10000.0"
    )
