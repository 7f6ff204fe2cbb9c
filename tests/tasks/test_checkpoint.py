import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from task_cases import all_equal, mixture

from dimoo.backbone.model import Backbone
from dimoo.core.errors import BackendError, CheckpointError
from dimoo.core.rng import generator
from dimoo.tasks.assemble import load
from dimoo.tasks.model import Dimoo
from dimoo.tokenizers.image.build import build_image_tokenizer
from dimoo.tokenizers.image.config import ImageTokenizerConfig, PatchNetworkConfig, VectorQuantizerConfig
from dimoo.tokenizers.image.files import save_image_tokenizer
from dimoo.tokenizers.text import train_bpe
from dimoo.weights.layout import with_fingerprints

FILES = [
    "config.json",
    "model.safetensors",
    "tokenizer.json",
    "image_tokenizer/config.json",
    "image_tokenizer/model.safetensors",
]


@pytest.fixture(scope="module")
def saved(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved") / "deep" / "checkpoint"
    model.save(folder, dtype=torch.float32, card="# tiny\n")
    return folder


@pytest.fixture
def copy(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "copy")


def edit(path, **changes):
    values = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**values, **changes}), encoding="utf-8")


def test_what_is_written(saved):
    assert sorted(str(path.relative_to(saved)) for path in saved.rglob("*") if path.is_file()) == sorted(
        [*FILES, "README.md"]
    )
    assert (saved / "README.md").read_text(encoding="utf-8") == "# tiny\n"


def test_out_and_in_again_is_the_same_model(model, saved):
    loaded = load(saved)
    assert loaded.config == model.config
    own, theirs = model.backbone.state_dict(), loaded.backbone.state_dict()
    assert own.keys() == theirs.keys()
    assert all(torch.equal(own[name], theirs[name]) for name in own)
    assert loaded.kit.image_tokenizer.fingerprint == model.kit.image_tokenizer.fingerprint
    assert loaded.prompts.text.fingerprint == model.prompts.text.fingerprint
    assert not loaded.backbone.training
    assert all_equal(model.run(mixture()), loaded.run(mixture()))


def test_bfloat16_rounds_the_backbone_and_nothing_else(model, tmp_path):
    model.save(tmp_path, dtype="bfloat16")
    assert {tensor.dtype for tensor in load_file(tmp_path / "model.safetensors").values()} == {torch.bfloat16}
    loaded = load(tmp_path)
    for name, tensor in loaded.backbone.state_dict().items():
        assert tensor.dtype == torch.float32
        assert torch.equal(tensor, model.backbone.state_dict()[name].bfloat16().float())
    assert loaded.kit.image_tokenizer.fingerprint == model.kit.image_tokenizer.fingerprint


def test_the_backbone_takes_the_dtype_asked_for(saved):
    loaded = load(saved, dtype=torch.float64)
    assert {parameter.dtype for parameter in loaded.backbone.parameters()} == {torch.float64}
    assert {tensor.dtype for tensor in loaded.kit.image_tokenizer.parameters()} == {torch.float32}


def test_saving_over_a_checkpoint_replaces_it(model, copy):
    model.save(copy, dtype=torch.bfloat16)
    assert load_file(copy / "model.safetensors")["norm.weight"].dtype == torch.bfloat16


@pytest.mark.parametrize("name", FILES)
def test_missing_files(copy, name):
    (copy / name).unlink()
    with pytest.raises(CheckpointError, match=name.split("/")[0]):
        load(copy)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", ["truncated", "emptied", "garbage"])
def test_corrupt_files(copy, name, damage):
    path = copy / name
    whole = path.read_bytes()
    path.write_bytes({"truncated": whole[: len(whole) // 2], "emptied": b"", "garbage": b"\xff\xfe\x00{" * 20}[damage])
    with pytest.raises(CheckpointError, match=name.split("/")[0]):
        load(copy)


def test_no_folder(tmp_path):
    with pytest.raises(CheckpointError, match=r"no checkpoint folder at '.*nowhere'; give a folder, \"mini\""):
        load(tmp_path / "nowhere")
    (tmp_path / "file").write_text("x", encoding="utf-8")
    with pytest.raises(CheckpointError, match="file' is a file; give the folder"):
        load(tmp_path / "file")
    with pytest.raises(CheckpointError, match="not None"):
        load(None)
    with pytest.raises(CheckpointError, match=r"cannot write to .*; choose another folder"):
        load("mini").save(tmp_path / "file")


def test_an_unknown_attention_is_named(saved):
    with pytest.raises(BackendError, match="unknown attention 'nope'; choose from auto, sdpa"):
        load(saved, attention="nope")


@pytest.mark.parametrize("size", ["abc", 0, -1, 1.5])
def test_a_shard_size_that_is_none(model, tmp_path, size):
    with pytest.raises(CheckpointError, match=f"shard_size {size!r} is no size"):
        model.save(tmp_path / "new", shard_size=size)
    assert not (tmp_path / "new").exists()


def test_weights_are_as_readable_as_other_files(model, tmp_path):
    folder = model.save(tmp_path / "new")
    (tmp_path / "usual").touch()
    usual = (tmp_path / "usual").stat().st_mode
    assert {path.stat().st_mode for path in folder.rglob("*") if path.is_file()} == {usual}


def test_a_card_of_any_encoding_is_kept(model, tmp_path):
    model.save(tmp_path / "new")
    (tmp_path / "new" / "README.md").write_bytes(b"# caf\xe9\n")
    model.save(tmp_path / "new")
    assert (tmp_path / "new" / "README.md").read_bytes() == b"# caf\xe9\n"


def test_an_unknown_key_in_the_config_is_named(copy):
    edit(copy / "config.json", colour="red")
    with pytest.raises(CheckpointError, match=r"config.json is not valid(.|\n)*colour.*'red'"):
        load(copy)


def test_another_format_is_refused(copy):
    edit(copy / "config.json", format="dimoo-9")
    with pytest.raises(CheckpointError, match=r"config.json is not valid: format: 'dimoo-9': should be 'dimoo-1'$"):
        load(copy)


def test_tensors_must_fit_exactly(copy):
    path = copy / "model.safetensors"
    tensors = load_file(path)
    without = {name: tensor for name, tensor in tensors.items() if name != "norm.weight"}
    for broken, message in (
        (without, "missing: norm.weight"),
        ({**tensors, "extra.weight": torch.zeros(1)}, "unknown: extra.weight"),
        ({**tensors, "norm.weight": torch.zeros(7)}, r"wrong shape: norm.weight is \(7,\)"),
    ):
        save_file(broken, path)
        with pytest.raises(CheckpointError, match=message):
            load(copy)


def test_vocabulary_and_backbone_must_agree(model, copy):
    values = json.loads((copy / "config.json").read_text(encoding="utf-8"))
    size = model.config.vocabulary.size
    edit(copy / "config.json", backbone={**values["backbone"], "vocab_size": size + 1})
    with pytest.raises(CheckpointError, match=f"has {size} ids, the backbone {size + 1}"):
        load(copy)


def test_codebook_and_vocabulary_must_agree(copy):
    config = ImageTokenizerConfig(
        network=PatchNetworkConfig(patch=8, width=16), quantizer=VectorQuantizerConfig(size=32, dim=8)
    )
    save_image_tokenizer(build_image_tokenizer(config, generator(0)), copy / "image_tokenizer")
    with pytest.raises(CheckpointError, match=r"codes for \{'image': 64\}, the tokenizers give \{'image': 32\}"):
        load(copy)


def test_a_vocabulary_without_images_is_refused(model, copy):
    values = json.loads((copy / "config.json").read_text(encoding="utf-8"))
    text_size = model.config.vocabulary.text_size
    edit(
        copy / "config.json",
        vocabulary={**values["vocabulary"], "modalities": []},
        backbone={**values["backbone"], "vocab_size": text_size},
    )
    with pytest.raises(CheckpointError, match=r"codes for no modality, the tokenizers give \{'image': 64\}"):
        load(copy)


def test_a_text_tokenizer_with_more_ids_than_the_vocabulary_is_refused(model, copy):
    other = train_bpe([f"word{index} " * 3 for index in range(2000)], size=model.config.vocabulary.text_size + 50)
    other.save(copy / "tokenizer.json")
    with pytest.raises(CheckpointError, match=f"has {other.size} ids, the vocabulary room for"):
        load(copy)


def test_only_known_image_tokenizers_are_saved(model, tmp_path):
    class Other:
        modality = "image"

    odd = Dimoo(model.config, backbone=model.backbone, text_tokenizer=model.prompts.text, image_tokenizer=Other())
    with pytest.raises(CheckpointError, match="type Other"):
        odd.save(tmp_path)


def test_a_save_that_fails_leaves_the_old_checkpoint(model, copy, monkeypatch):
    def broken(*_):
        raise OSError("disk full")

    (copy / "notes.txt").write_text("mine", encoding="utf-8")
    before = {path.relative_to(copy): path.read_bytes() for path in copy.rglob("*") if path.is_file()}
    monkeypatch.setattr("dimoo.weights.ours.save_image_tokenizer", broken)
    with pytest.raises(CheckpointError, match=r"cannot write to .*copy: disk full; what was there is left as it was"):
        model.save(copy)
    assert {path.relative_to(copy): path.read_bytes() for path in copy.rglob("*") if path.is_file()} == before
    assert [path.name for path in copy.parent.iterdir()] == [copy.name]
    monkeypatch.undo()
    model.save(copy)
    assert (copy / "notes.txt").read_text(encoding="utf-8") == "mine"
    assert (copy / "README.md").read_text(encoding="utf-8") == "# tiny\n"  # authors wrote it
    assert [path.name for path in copy.parent.iterdir()] == [copy.name]


def test_a_model_of_another_kind_is_left_alone(model, tmp_path):
    files = {"config.json": '{"model_type": "qwen2"}', "model-00001-of-00002.safetensors": "x", "tokenizer.json": "{}"}
    for name, text in files.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(CheckpointError, match="holds other files than a checkpoint of ours"):
        model.save(tmp_path)
    assert {path.name: path.read_text(encoding="utf-8") for path in tmp_path.iterdir()} == files


def test_a_link_stays_a_link_and_what_lies_beside_is_not_touched(model, tmp_path, monkeypatch):
    """A home folder's link to a large disk; runs and their checkpoints within."""
    disk = tmp_path / "disk"
    (disk / "runs").mkdir(parents=True)
    model.save(disk / "model")
    (disk / "model" / "runs").mkdir()
    notes = disk / "model" / "runs" / "notes.txt"
    notes.write_text("mine", encoding="utf-8")
    (tmp_path / "link").symlink_to(disk / "model")
    before = notes.stat().st_ino
    model.save(tmp_path / "link", dtype="bfloat16")
    assert (tmp_path / "link").is_symlink()
    assert notes.stat().st_ino == before
    assert load_file(disk / "model" / "model.safetensors")["norm.weight"].dtype == torch.bfloat16
    monkeypatch.chdir(disk / "model")
    model.save(".")
    assert load_file("model.safetensors")["norm.weight"].dtype == torch.float32
    assert notes.read_text(encoding="utf-8") == "mine"


@pytest.mark.parametrize("stage", range(1, 12))
def test_a_save_that_is_broken_off_while_files_move_leaves_the_old_checkpoint(model, copy, monkeypatch, stage):
    before = {path.relative_to(copy): path.read_bytes() for path in copy.rglob("*") if path.is_file()}
    rename, calls = Path.rename, []

    def broken(self, target):
        calls.append(self)
        if len(calls) == stage:
            raise KeyboardInterrupt
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", broken)
    if stage <= 10:  # five files of the old checkpoint go, five of the new one come
        with pytest.raises(KeyboardInterrupt):
            model.save(copy, dtype="bfloat16", card="# new\n")
        assert {path.relative_to(copy): path.read_bytes() for path in copy.rglob("*") if path.is_file()} == before
    else:
        model.save(copy, dtype="bfloat16", card="# new\n")
        assert len(calls) == 10
    assert [path.name for path in copy.iterdir() if path.name.startswith(".")] == []


def test_a_save_that_fails_leaves_no_folder(model, tmp_path, monkeypatch):
    def broken(*_):
        raise OSError("disk full")

    monkeypatch.setattr("dimoo.weights.ours.save_image_tokenizer", broken)
    with pytest.raises(CheckpointError, match="disk full"):
        model.save(tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_folder_of_other_things_is_left_alone(model, tmp_path):
    (tmp_path / "thesis.tex").write_text("x", encoding="utf-8")
    with pytest.raises(CheckpointError, match="holds other files than a checkpoint"):
        model.save(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize("what", ["text", "image"])
def test_another_tokenizer_of_the_same_size_is_refused(model, tmp_path, what):
    config = with_fingerprints(model.config, model.prompts.text, model.kit.image_tokenizer)
    parts = {"text_tokenizer": model.prompts.text, "image_tokenizer": model.kit.image_tokenizer}
    own = Dimoo(config, backbone=model.backbone, **parts)
    own.save(tmp_path / "own")
    assert load(tmp_path / "own").config == config
    edit(tmp_path / "own" / "config.json", **{f"{what}_fingerprint": "abc"})
    with pytest.raises(CheckpointError, match=rf"the {what} tokenizer has the fingerprint \w+, .* with abc"):
        load(tmp_path / "own")
    wrong = Dimoo(config.model_copy(update={f"{what}_fingerprint": "abc"}), backbone=model.backbone, **parts)
    with pytest.raises(CheckpointError, match="with abc"):
        wrong.save(tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_backbone_is_never_allocated_in_another_dtype(saved, monkeypatch):
    seen = []
    empty = Backbone.to_empty
    monkeypatch.setattr(
        Backbone, "to_empty", lambda self, **kw: seen.append({p.dtype for p in self.parameters()}) or empty(self, **kw)
    )
    load(saved, dtype=torch.bfloat16)
    assert seen == [{torch.bfloat16}]
