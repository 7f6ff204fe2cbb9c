"""What `verify` finds in a folder, sound or damaged. The folders are put together by hand, not by our writer."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from released import INDEX, edit_json, write_json, write_released, write_shards, write_tokenizer
from safetensors.torch import load_file, save_file
from tiny_checkpoint import save_tiny
from torch import Tensor

from dimoo.core.errors import CheckpointError
from dimoo.tasks.assemble import load
from dimoo.weights.verify import Report, image_layout, verify

SHARD, NEXT = "model-00002-of-00003.safetensors", "model-00003-of-00003.safetensors"
VQ = "vqvae/diffusion_pytorch_model.safetensors"
WTE, NORM = "model.transformer.wte.weight", "model.transformer.ln_f.weight"


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("originals")
    write_released(folder / "lumina")
    write_released(folder / "text_only", text_only=True)
    save_tiny(folder / "dimoo")
    return folder


@pytest.fixture
def folder(originals: Path, tmp_path: Path) -> Path:
    return shutil.copytree(originals / "lumina", tmp_path / "lumina")


@pytest.fixture
def ours(originals: Path, tmp_path: Path) -> Path:
    return shutil.copytree(originals / "dimoo", tmp_path / "dimoo")


def held(folder: Path) -> dict[str, Tensor]:
    return {name: tensor for file in folder.glob("*.safetensors") for name, tensor in load_file(file).items()}


def rewrite(folder: Path, change: Callable[[dict[str, Tensor]], object]) -> None:
    tensors = held(folder)
    change(tensors)
    write_shards(folder, tensors)


def spoil(path: Path, name: str, *values: float) -> None:
    """Put values that are not finite, say, into a tensor of a file."""
    tensors = load_file(path)
    tensors[name].view(-1)[: len(values)] = torch.tensor(values, dtype=tensors[name].dtype)
    save_file(tensors, path)


def holds(report: Report, *parts: str) -> None:
    """Exactly these problems, each known by a part of its message."""
    assert len(report.problems) == len(parts), report.problems
    for part in parts:
        assert [problem for problem in report.problems if part in problem], (part, report.problems)
    assert not report.ok


@pytest.mark.parametrize("layout", ["lumina", "text_only", "dimoo"])
def test_a_sound_folder(originals: Path, layout: str) -> None:
    seen: list[tuple[int, int]] = []
    report = verify(originals / layout, lambda *now: seen.append(now))
    assert (report.problems, report.ok) == ((), True)
    assert report.layout == {"text_only": "lumina"}.get(layout, layout)
    tensors = [tensor for file in (originals / layout).rglob("*.safetensors") for tensor in load_file(file).values()]
    sizes = (len(tensors), sum(tensor.numel() for tensor in tensors), sum(tensor.nbytes for tensor in tensors))
    assert (report.tensors, report.numbers, report.nbytes) == sizes
    whole = sum(tensor.nbytes for tensor in held(originals / layout).values())
    assert seen[-1] == (whole, whole)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)


def test_nothing_is_written(originals: Path) -> None:
    def state() -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in originals.rglob("*") if path.is_file()}

    before = state()
    for kind in ("lumina", "dimoo"):
        verify(originals / kind)
    assert state() == before


# An image tokenizer alone


@pytest.mark.parametrize(
    ("place", "layout"), [("lumina/vqvae", "vqvae"), ("dimoo/image_tokenizer", "image_tokenizer"), ("lumina", None)]
)
def test_what_an_image_tokenizer_is(originals: Path, place: str, layout: str | None) -> None:
    assert image_layout(originals / place) == layout
    if layout is not None:
        report = verify(originals / place)
        assert (report.layout, report.problems, report.notes) == (layout, (), ())
        (file,) = (originals / place).glob("*.safetensors")
        assert report.tensors == len(load_file(file)) > 0


def test_an_image_tokenizer_alone_that_is_damaged(folder: Path) -> None:
    spoil(folder / VQ, "encoder.conv_in.weight", float("nan"), float("inf"), float("-inf"))
    size = load_file(folder / VQ)["encoder.conv_in.weight"].numel()
    report = verify(folder / "vqvae")
    assert report.problems == (f"{VQ}: encoder.conv_in.weight holds 1 NaN and 2 infinite of {size} numbers",)
    (folder / VQ).write_bytes(b"")
    holds(verify(folder / "vqvae"), "corrupt")
    (folder / VQ).unlink()
    holds(verify(folder / "vqvae"), "no weights at")


# Values


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_one_number_that_is_not_finite(folder: Path, dtype: torch.dtype, bad: float) -> None:
    def change(tensors: dict[str, Tensor]) -> None:
        tensors.update({name: tensor.to(dtype) for name, tensor in tensors.items()})
        tensors[WTE][-1, -1] = bad

    rewrite(folder, change)
    counts = "1 NaN and 0 infinite" if bad != bad else "0 NaN and 1 infinite"
    (problem,) = verify(folder).problems
    assert f"{WTE} holds {counts} of {held(folder)[WTE].numel():,} numbers" in problem


def test_values_that_are_not_finite_are_counted_in_every_tensor(folder: Path) -> None:
    nan, inf = float("nan"), float("inf")

    def change(tensors: dict[str, Tensor]) -> None:
        tensors[WTE].view(-1)[:5] = torch.tensor([nan, inf, nan, -inf, nan])
        tensors[NORM][0] = inf

    rewrite(folder, change)
    spoil(folder / VQ, "quantize.embedding.weight", nan)
    holds(
        verify(folder),
        f"{WTE} holds 3 NaN and 2 infinite of",
        f"{NORM} holds 0 NaN and 1 infinite of 32 numbers",
        f"{VQ}: quantize.embedding.weight holds 1 NaN and 0 infinite",
    )


def test_large_values_are_finite(folder: Path) -> None:
    """What overflows a narrower type, or their sum, is no problem."""

    def change(tensors: dict[str, Tensor]) -> None:
        tensors.update({name: tensor.double() for name, tensor in tensors.items()})
        tensors[WTE].fill_(1e308)

    rewrite(folder, change)
    assert verify(folder).ok


# Files and tensors


def test_a_truncated_shard(folder: Path) -> None:
    """The cause alone: that its tensors are missing goes without saying, and other files are checked all the same."""
    (folder / SHARD).write_bytes((folder / SHARD).read_bytes()[:-100])
    holds(verify(folder), f"{SHARD} is corrupt or cut off")
    other = next(path for path in sorted(folder.glob("*.safetensors")) if path.name != SHARD)
    tensors = load_file(other)
    name = sorted(tensors)[0]
    save_file({**tensors, name: tensors[name].flatten()[:3].clone()}, other)
    holds(verify(folder), f"{SHARD} is corrupt or cut off", f"wrong shape: {name} is (3,)")


def test_an_index_that_names_a_missing_file(folder: Path) -> None:
    (folder / SHARD).unlink()
    holds(verify(folder), f"no weights at {folder / SHARD}")


def test_names_and_shapes(folder: Path) -> None:
    def change(tensors: dict[str, Tensor]) -> None:
        del tensors["model.transformer.blocks.0.q_proj.weight"]
        tensors["model.transformer.extra.weight"] = torch.zeros(3)
        tensors[NORM] = torch.ones(7)

    rewrite(folder, change)
    holds(
        verify(folder),
        "missing: model.transformer.blocks.0.q_proj.weight",
        "unknown: model.transformer.extra.weight",
        f"wrong shape: {NORM} is (7,), the model wants (32,)",
    )


def test_a_tensor_in_two_files_and_one_that_the_index_lacks(folder: Path) -> None:
    twice, extra = next(iter(load_file(folder / SHARD))), "model.transformer.extra.weight"
    save_file({**load_file(folder / NEXT), twice: torch.ones(1), extra: torch.ones(1)}, folder / NEXT)
    holds(
        verify(folder),
        f"{twice} is in {SHARD} and in {NEXT}",
        f"{NEXT} holds {extra}, which {INDEX} lacks",
        f"unknown: {extra}",
    )


def test_weights_that_are_no_floating_point_numbers(folder: Path) -> None:
    rewrite(folder, lambda tensors: tensors.update({NORM: torch.ones(32, dtype=torch.int8)}))
    holds(verify(folder), f"{NORM} is of dtype I8")


def test_several_dtypes_are_a_note(folder: Path) -> None:
    rewrite(folder, lambda tensors: tensors.update({NORM: tensors[NORM].float()}))
    report = verify(folder)
    assert report.ok
    others = len(held(folder)) - 1
    (note,) = report.notes
    assert note.startswith(f"several dtypes: BF16 in {others} tensors (")
    assert note.endswith(f"; F32 in 1 tensors ({NORM})")


def test_files_beside_the_checkpoint_are_a_note(folder: Path) -> None:
    (folder / "pytorch_model.bin").write_bytes(b"pickle")
    save_file({"x": torch.ones(1)}, folder / "old.safetensors")
    report = verify(folder)
    assert report.ok
    assert [note.split(" ")[0] for note in report.notes] == ["old.safetensors", "pytorch_model.bin"]


# Parts


def test_everything_at_once(folder: Path) -> None:
    """No problem hides another, in whatever part it is."""
    rewrite(folder, lambda tensors: tensors[WTE].fill_(float("nan")))
    rewrite(folder, lambda tensors: tensors.update({NORM: torch.ones(7)}))
    spoil(folder / VQ, "quantize.embedding.weight", float("nan"))
    settings = folder / "vqvae" / "config.json"
    settings.write_text(settings.read_text(encoding="utf-8").replace('"silu"', '"relu"'), encoding="utf-8")
    (folder / "tokenizer.json").write_text("{", encoding="utf-8")
    holds(
        verify(folder),
        "is not a tokenizer.json",
        "act_fn",
        f"wrong shape: {NORM}",
        f"{WTE} holds",
        f"{VQ}: quantize.embedding.weight holds 1 NaN",
    )


@pytest.mark.parametrize("text", ["", "[]", "{", '{"model_type": "bert"}'])
def test_without_a_config_the_files_are_still_checked(folder: Path, text: str) -> None:
    (folder / "config.json").write_text(text, encoding="utf-8")
    rewrite(folder, lambda tensors: tensors[NORM].fill_(float("inf")))
    report = verify(folder)
    assert report.layout == "unknown"
    holds(report, "is no checkpoint", f"{NORM} holds 0 NaN and 32 infinite")


def test_a_config_that_describes_no_backbone(folder: Path) -> None:
    edit_json(folder / "config.json", n_layers=None, alibi=True)
    (problem,) = verify(folder).problems
    assert "missing: n_layers" in problem
    assert "alibi = True" in problem


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    report = verify(tmp_path / "nowhere")
    assert not report.ok
    assert report.tensors == 0


def test_another_number_of_rows(folder: Path) -> None:
    rewrite(folder, lambda tensors: tensors.update({WTE: tensors[WTE][:-1].clone()}))
    holds(verify(folder), f"wrong shape: {WTE} is (383, 32), the model wants (384, 32)")


def test_both_tokenizers_are_not_those_of_the_training(ours: Path) -> None:
    edit_json(ours / "config.json", text_fingerprint="abc", image_fingerprint="def")
    holds(verify(ours), "the text tokenizer has the fingerprint", "the image tokenizer has the fingerprint")


def test_unknown_fingerprints_are_a_note(ours: Path) -> None:
    settings = json.loads((ours / "config.json").read_text(encoding="utf-8"))
    assert (settings["text_fingerprint"], settings["image_fingerprint"]) == (None, None)
    assert [note.split(" which ")[1].split()[0] for note in verify(ours).notes] == ["text", "image"]


def test_a_tokenizer_without_a_tag_of_the_prompts(folder: Path) -> None:
    path = folder / "tokenizer.json"
    path.write_text(path.read_text(encoding="utf-8").replace("</user>", "</usar>"), encoding="utf-8")
    holds(verify(folder), "'</user>'")


def test_a_chat_template_that_is_none(originals: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(originals / "text_only", tmp_path / "text")
    edit_json(folder / "tokenizer_config.json", chat_template="{% for %}")
    holds(verify(folder), "template")


def test_another_mask_than_config_json_says_is_a_note(folder: Path) -> None:
    edit_json(folder / "config.json", mask_token_id=5)
    report = verify(folder)
    assert report.ok
    assert any("says mask_token_id 5; the mask that is used is" in note for note in report.notes)


def test_a_picture_size_off_the_grid(ours: Path) -> None:
    edit_json(ours / "config.json", image_size=[16, 20])
    holds(verify(ours), "(16, 20) is not a multiple of 8")


def test_rows_without_an_id_are_a_note(folder: Path, tmp_path: Path) -> None:
    load(folder).save(tmp_path / "again", layout="lumina")
    wider = held(tmp_path / "again")
    for name in (WTE, "model.transformer.ff_out.weight"):
        wider[name] = torch.cat([wider[name], torch.zeros(10, 32)])
    save_file(wider, tmp_path / "again" / "model.safetensors")
    edit_json(tmp_path / "again" / "config.json", vocab_size=394, embedding_size=394)
    report = verify(tmp_path / "again")
    assert (report.problems, report.notes) == ((), ("the last 10 of 394 rows have no id",))


@pytest.mark.parametrize("damage", ["tokenizer", "codes", "rows"])
def test_what_is_refused_by_load_is_a_problem(folder: Path, damage: str) -> None:
    if damage == "tokenizer":
        write_tokenizer(folder / "tokenizer.json", 300, {"<|mdm_mask|>": 3})
    elif damage == "codes":
        settings = folder / "vqvae" / "config.json"
        write_json(settings, {**json.loads(settings.read_text(encoding="utf-8")), "num_vq_embeddings": 32})
    else:
        edit_json(folder / "config.json", vocab_size=400, embedding_size=400)
    with pytest.raises(CheckpointError):
        load(folder)
    assert not verify(folder).ok
