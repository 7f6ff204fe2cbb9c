"""Reading and writing the released layouts of Lumina-DiMOO and LLaDA, whole and damaged."""

from __future__ import annotations

import json
import logging
import pickle
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import released
import torch
from released import CODES, INDEX, LLADA, LUMINA, TEXT_IDS, edit_json, write_json, write_released
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, processors
from torch import Tensor

import dimoo
from dimoo.backbone.model import Backbone
from dimoo.core.errors import BackendError, CheckpointError
from dimoo.weights.convert import convert
from dimoo.weights.verify import verify

ROWS = TEXT_IDS + CODES
SHARD = "model-00002-of-00003.safetensors"
WTE = "model.transformer.wte.weight"
RELEASED_IDS = {
    "<|startoftext|>": 126080,
    "<|endoftext|>": 126081,
    "<|mdm_mask|>": 126336,
    "<|start_header_id|>": 126346,
    "<|end_header_id|>": 126347,
    "<|eot_id|>": 126348,
    "<IMAGE>": 126349,
    "</IMAGE>": 126350,
    "<uncondition>": 126351,
    "<answer>": 126354,
    "</answer>": 126355,
    **{tag: 126340 + index for index, tag in enumerate(("<system>", "</system>", "<user>", "</user>"))},
}
"""Where the release has its special tokens; those of a row's end and of padding (126084, 126339) have unknown names."""


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_released(tmp_path_factory.mktemp("released") / "Lumina-tiny")


@pytest.fixture
def folder(original: Path, tmp_path: Path) -> Path:
    return shutil.copytree(original, tmp_path / "Lumina-tiny")


@pytest.fixture
def text_only(tmp_path: Path) -> Path:
    return write_released(tmp_path / "LLaDA-tiny", text_only=True)


def tensors(folder: Path) -> dict[str, Tensor]:
    """All weights of the backbone."""
    return {name: tensor for file in folder.glob("*.safetensors") for name, tensor in load_file(file).items()}


def rewrite(folder: Path, change: Callable[[dict[str, Tensor]], object]) -> None:
    """Change the weights."""
    held = tensors(folder)
    change(held)
    released.write_shards(folder, held)


def relist(folder: Path, **changes: str | None) -> None:
    """Change the index; None takes a tensor out."""
    path = folder / INDEX
    listed = json.loads(path.read_text(encoding="utf-8"))
    weight_map = {**listed["weight_map"], **changes}
    write_json(path, {**listed, "weight_map": {name: file for name, file in weight_map.items() if file is not None}})


def refused(folder: Path, *parts: str) -> str:
    """The message with which a folder is refused; it must hold these."""
    with pytest.raises(CheckpointError) as caught:
        dimoo.load(folder)
    message = str(caught.value)
    assert [part for part in parts if part not in message] == [], message
    return message


# Reading


def test_what_is_read(original: Path) -> None:
    model = dimoo.load(original)
    assert isinstance(model.backbone, Backbone)
    theirs = tensors(original)
    assert model.config.name == "Lumina-tiny"
    assert torch.equal(model.backbone.embedding.weight, theirs[WTE].float())
    assert torch.equal(
        model.backbone.blocks[1].mlp.gate.weight, theirs["model.transformer.blocks.1.ff_proj.weight"].float()
    )
    vocabulary = model.config.vocabulary
    first = TEXT_IDS - len(LUMINA)
    assert vocabulary.columns("text") == (0, TEXT_IDS)
    assert vocabulary.columns("image") == (TEXT_IDS, ROWS)
    assert vocabulary.mask == first + LUMINA.index("<|mdm_mask|>")
    assert vocabulary.end_of_text == first + LUMINA.index("<|endoftext|>")
    assert vocabulary.end_of_line == first + LUMINA.index("<end_of_line>")
    assert vocabulary.modality("image").closing == first + LUMINA.index("</IMAGE>")
    assert model.config.template.systems["text_to_image"] == "Generate an image according to the text prompt."


def test_the_text_only_layout(text_only: Path) -> None:
    model = dimoo.load(text_only)
    vocabulary = model.config.vocabulary
    assert vocabulary.modalities == ()
    assert vocabulary.columns("text") == (0, ROWS)
    assert vocabulary.mask == TEXT_IDS - len(LLADA) + LLADA.index("<|mdm_mask|>")
    assert vocabulary.pad == vocabulary.end_of_text
    chat = model.config.chat
    assert chat is not None
    assert (chat.jinja, chat.begin, chat.end) == (released.CHAT, "<|startoftext|>", "<|endoftext|>")
    assert chat.stops == ("<|eot_id|>", "<|endoftext|>")


def test_one_file_is_as_good_as_shards(original: Path, folder: Path) -> None:
    held = tensors(folder)
    for file in [*folder.glob("*.safetensors"), folder / INDEX]:
        file.unlink()
    save_file(held, folder / "model.safetensors")
    one, many = dimoo.load_backbone(folder).state_dict(), dimoo.load_backbone(original).state_dict()
    assert all(torch.equal(one[name], many[name]) for name in many)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("named", [False, True])
def test_every_precision(original: Path, dtype: torch.dtype, named: bool) -> None:
    backbone = dimoo.load_backbone(original, dtype=str(dtype).removeprefix("torch.") if named else dtype)
    assert {parameter.dtype for parameter in backbone.parameters()} == {dtype}
    assert torch.equal(backbone.embedding.weight, tensors(original)[WTE].to(dtype))


def test_progress_counts_the_bytes_in_the_files(original: Path) -> None:
    seen: list[tuple[int, int]] = []
    dimoo.load(original, progress=lambda *now: seen.append(now))
    total = sum(tensor.nbytes for tensor in tensors(original).values())
    assert seen[-1] == (total, total)


def test_no_code_of_a_folder_is_run(folder: Path, tmp_path: Path) -> None:
    trap = f"open({str(tmp_path / 'ran')!r}, 'w').close()\n"
    for name in ("modeling_llada", "configuration_llada", "tokenization_llada", "__init__"):
        (folder / f"{name}.py").write_text(trap, encoding="utf-8")
    edit_json(folder / "tokenizer_config.json", auto_map={"AutoTokenizer": ["tokenization_llada.Tokenizer", None]})
    assert "auto_map" in json.loads((folder / "config.json").read_text(encoding="utf-8"))
    dimoo.load(folder)
    assert not (tmp_path / "ran").exists()
    assert [name for name in sys.modules if name.endswith("_llada")] == []


# Writing


@pytest.mark.parametrize("kind", ["multimodal", "text-only"])
@pytest.mark.parametrize("shard_size", ["5GB", 20_000])
def test_written_and_read_again(
    original: Path, text_only: Path, tmp_path: Path, kind: str, shard_size: int | str
) -> None:
    source = original if kind == "multimodal" else text_only
    model = dimoo.load(source, dtype=torch.bfloat16)
    again = model.save(tmp_path / "again", layout="lumina", shard_size=shard_size)
    assert (again / INDEX).exists() == (shard_size != "5GB")
    assert not (again / "image_tokenizer").exists()
    ours, theirs = tensors(again), tensors(source)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    settings, given = (json.loads((place / "config.json").read_text(encoding="utf-8")) for place in (again, source))
    assert settings["dimoo"]["vocabulary"]["mask"] == model.config.vocabulary.mask
    shared = settings.keys() & given.keys()
    assert {"d_model", "n_layers", "vocab_size", "mask_token_id", "rope_theta", "model_type"} <= shared
    notes = {"pad_token_id"}  # LLaDA's says its end of text; a multimodal model has a pad of its own
    assert {key: settings[key] for key in shared - notes} == {key: given[key] for key in shared - notes}
    if kind == "multimodal":
        ours, theirs = (load_file(place / "vqvae" / "diffusion_pytorch_model.safetensors") for place in (again, source))
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    loaded = dimoo.load(again)
    assert loaded.config.model_copy(update={"name": model.config.name}) == model.config


def test_what_we_write_needs_no_names_of_special_tokens(folder: Path, tmp_path: Path) -> None:
    """The ids stand in the "dimoo" section of config.json, so that any tokenizer serves."""
    model = dimoo.load(folder)
    again = model.save(tmp_path / "again", layout="lumina")
    edited = (again / "tokenizer.json").read_text(encoding="utf-8").replace("<end_of_line>", "<row>")
    (again / "tokenizer.json").write_text(edited, encoding="utf-8")
    settings = json.loads((again / "config.json").read_text(encoding="utf-8"))
    edit_json(again / "config.json", dimoo={**settings["dimoo"], "text_fingerprint": None})
    assert dimoo.load(again).config.vocabulary == model.config.vocabulary


def test_the_released_ids_need_no_names(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """126,356 text ids, two special tokens without a known spelling; and tables padded to 134,656 rows."""
    text_ids, codes, width = 126_356, 8192, 8
    released.write_tokenizer(tmp_path / "tokenizer.json", text_ids, RELEASED_IDS)
    released.write_vqvae(tmp_path / "vqvae", codes)
    for rows in (134_548, 134_656):
        write_json(tmp_path / "config.json", released.model_config(rows, RELEASED_IDS))
        edit_json(tmp_path / "config.json", d_model=width, mlp_hidden_size=16, n_layers=1, n_heads=2, n_kv_heads=2)
        released.write_shards(tmp_path, released.backbone_tensors(rows, width=width, hidden=16, layers=1))
        caplog.clear()
        with caplog.at_level(logging.INFO):
            model = dimoo.load(tmp_path)
        vocabulary = model.config.vocabulary
        assert (vocabulary.end_of_line, vocabulary.pad, vocabulary.mask) == (126_084, 126_339, 126_336)
        assert vocabulary.columns("image") == (text_ids, text_ids + codes)
        said = "the last 108 of 134656 rows have no id; they are left alone"
        assert (said in caplog.messages) == (rows == 134_656)
    for layout in ("lumina", "dimoo"):
        again = dimoo.load(model.save(tmp_path / layout, layout=layout))
        assert again.config.vocabulary == vocabulary
        assert again.config.backbone.vocab_size == 134_656
    # Tags at ids that codes have too: no prompt of ours holds them, and the ids of codes are certain.
    tags = {"<canny>": text_ids, "<depth>": text_ids + 1, **RELEASED_IDS}
    released.write_tokenizer(tmp_path / "tokenizer.json", text_ids + 2, tags)
    assert dimoo.load(tmp_path).config.vocabulary == vocabulary
    edit_json(tmp_path / "config.json", vocab_size=134_549, embedding_size=134_549)
    refused(tmp_path, "134549 rows", "126356 text ids", "8192 codes")
    edit_json(tmp_path / "config.json", vocab_size=134_656, embedding_size=134_656)
    released.write_vqvae(tmp_path / "vqvae", codes - 64)
    refused(tmp_path, "134656 rows", "126356 text ids", "8128 codes")


# Bad input: files


def test_a_truncated_shard(folder: Path) -> None:
    path = folder / SHARD
    path.write_bytes(path.read_bytes()[:-100])
    refused(folder, SHARD, "corrupt or cut off", "download or copy it again")


def test_an_index_that_names_a_missing_file(folder: Path) -> None:
    (folder / SHARD).unlink()
    refused(folder, f"no weights at {folder / SHARD}")


@pytest.mark.parametrize("garbage", ["", "{", "[1]", '{"weight_map": 3}', "\ufffd"])
def test_an_index_that_is_garbage(folder: Path, garbage: str) -> None:
    (folder / INDEX).write_text(garbage, encoding="utf-8")
    refused(folder, f"cannot read {folder / INDEX}")


@pytest.mark.parametrize("outside", ["../{}", "/etc/{}", "vqvae/{}"])
def test_an_index_that_leads_out_of_the_folder(folder: Path, outside: str) -> None:
    shutil.copy(folder / SHARD, folder.parent / SHARD)
    relist(folder, **{WTE: outside.format(SHARD)})
    refused(folder, repr(outside.format(SHARD)), "no file in the folder")


def test_a_tensor_in_two_shards(folder: Path) -> None:
    held = load_file(folder / SHARD)
    other = "model-00001-of-00003.safetensors"
    twice = next(iter(load_file(folder / other)))
    save_file({**held, twice: torch.ones(1)}, folder / SHARD)
    refused(folder, f"{twice} is in {other} and in {SHARD}")


def test_a_tensor_that_the_index_lacks(folder: Path) -> None:
    relist(folder, **{WTE: None})
    refused(folder, f"holds {WTE}, which {INDEX} lacks")


def test_weights_that_are_a_pickle(folder: Path, tmp_path: Path) -> None:
    for file in [*folder.glob("*.safetensors"), folder / INDEX]:
        file.unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Trap(tmp_path / "ran")))
    refused(folder, "pytorch_model.bin can run code and is never loaded", "convert it to safetensors")
    assert not (tmp_path / "ran").exists()
    pickle.loads((folder / "pytorch_model.bin").read_bytes())
    assert (tmp_path / "ran").exists()  # the trap works


class Trap:
    """Whoever unpickles it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[[Path], None], tuple[Path]]:
        return Path.touch, (self.path,)


def test_shards_without_an_index(folder: Path) -> None:
    (folder / INDEX).unlink()
    refused(folder, "no weights at", SHARD, f"is {INDEX} missing?")


# Bad input: tensors


def test_all_that_is_wrong_with_the_tensors_is_one_error(folder: Path) -> None:
    norm, gate = "model.transformer.ln_f.weight", "model.transformer.blocks.1.ff_proj.weight"

    def change(held: dict[str, Tensor]) -> None:
        held["model.transformer.blocks.2.ff_proj.weight"] = held[gate]
        held["rotary.inv_freq"] = torch.ones(4)
        held[WTE] = held[WTE][:, :16].clone()
        del held[norm], held[gate]

    rewrite(folder, change)
    refused(
        folder,
        f"missing: {norm}",
        f"missing: {gate}",
        "unknown: model.transformer.blocks.2.ff_proj.weight",
        "unknown: rotary.inv_freq",
        f"wrong shape: {WTE} is (384, 16), the model wants (384, 32)",
        "5 problems",
        "nothing was loaded",
    )


@pytest.mark.parametrize("dtype", [torch.int8, torch.int64, torch.uint8, torch.bool, torch.float8_e4m3fn])
def test_weights_that_are_no_floating_point_numbers(folder: Path, dtype: torch.dtype) -> None:
    rewrite(folder, lambda held: held.update({WTE: held[WTE].to(dtype)}))
    message = refused(folder, f"{WTE} is of dtype ", "weights are F64, F32, F16, BF16")
    assert re.search(r"dtype (I8|I64|U8|BOOL|F8_E4M3)\b", message)


# Bad input: ids and sizes


@pytest.mark.parametrize("rows", [ROWS + 16, ROWS - 16])
def test_a_config_with_another_number_of_rows(folder: Path, rows: int) -> None:
    edit_json(folder / "config.json", vocab_size=rows, embedding_size=rows)
    refused(folder, f"{rows} rows", f"{TEXT_IDS} text ids", f"{CODES} codes", str(ROWS))


def test_a_text_model_with_another_number_of_rows(text_only: Path) -> None:
    edit_json(text_only / "config.json", vocab_size=400, embedding_size=400)
    refused(text_only, f"wrong shape: {WTE} is (384, 32), the model wants (400, 32)")


@pytest.mark.parametrize("rows", [ROWS + 64, ROWS + 1, ROWS - 1])
def test_weights_with_another_number_of_rows(folder: Path, rows: int) -> None:
    """Config and weights agree with each other, and with no tokenizer."""
    edit_json(folder / "config.json", vocab_size=rows, embedding_size=rows)
    released.write_shards(folder, released.backbone_tensors(rows))
    refused(folder, f"{rows} rows", f"{TEXT_IDS} text ids", f"{CODES} codes")


@pytest.mark.parametrize("codes", [CODES // 2, CODES - 1, CODES + 1, 8192])
def test_a_codebook_that_does_not_match_the_head(folder: Path, codes: int) -> None:
    shutil.rmtree(folder / "vqvae")
    released.write_vqvae(folder / "vqvae", codes)
    refused(folder, f"{ROWS} rows", f"the {codes} codes of the image tokenizer")


@pytest.mark.parametrize(
    ("token", "name"),
    [
        ("<|mdm_mask|>", "mask"),
        ("<answer>", "answer_start"),
        ("</IMAGE>", "image_end"),
        ("<end_of_line>", "end_of_line"),
    ],
)
def test_a_tokenizer_without_a_special_token(folder: Path, token: str, name: str) -> None:
    retokenize(folder, {other: index for other, index in special_ids().items() if other != token})
    refused(folder, "lacks special tokens", f"{name}: {token!r}")


def test_a_tokenizer_without_any_special_token(folder: Path) -> None:
    retokenize(folder, {})
    refused(folder, "lacks special tokens", "mask", "'<IMAGE>'", "'<uncondition>'", "'</answer>'")


def test_a_tokenizer_without_a_tag_of_the_prompts(folder: Path) -> None:
    """Pictures go before `</user>`, so that one must be one id; the others may be several."""
    retokenize(folder, {token: index for token, index in special_ids().items() if token != "</user>"})
    refused(folder, "prompt tag '</user>'", "add it as a special token")
    retokenize(folder, {token: index for token, index in special_ids().items() if token not in ("<system>", "<user>")})
    (made,) = dimoo.load(folder).generate("a cat", size=(16, 16), settings=dimoo.ImageSettings(steps=1))
    assert made.size == (16, 16)


def test_a_text_model_without_a_mask(text_only: Path) -> None:
    retokenize(text_only, {"<|endoftext|>": 100})
    refused(text_only, "lacks '<|mdm_mask|>'")


def test_a_special_token_among_the_image_codes(folder: Path) -> None:
    retokenize(folder, {**special_ids(), "<answer>": TEXT_IDS + 3})
    refused(folder, f"{ROWS} rows", f"{TEXT_IDS + 4} text ids")


def test_code_ranges_that_overlap_text(folder: Path, tmp_path: Path) -> None:
    again = dimoo.load(folder).save(tmp_path / "again", layout="lumina")
    settings = json.loads((again / "config.json").read_text(encoding="utf-8"))
    settings["dimoo"]["vocabulary"]["modalities"][0]["start"] = 300
    write_json(again / "config.json", settings)
    refused(again, "the range of 'image' starts at 300, inside ids below 320")


def test_text_ids_that_reach_into_the_codes(folder: Path, tmp_path: Path) -> None:
    again = dimoo.load(folder).save(tmp_path / "again", layout="lumina")
    released.write_tokenizer(again / "tokenizer.json", TEXT_IDS + 10, special_ids())
    refused(again, "the text tokenizer has 330 ids, the vocabulary room for 320: text and codes would overlap")


def test_image_tokens_without_an_image_tokenizer(folder: Path) -> None:
    shutil.rmtree(folder / "vqvae")
    refused(folder, "image tokens but no vqvae/ folder", "copy the release's vqvae folder there")


def special_ids() -> dict[str, int]:
    return {token: TEXT_IDS - len(LUMINA) + index for index, token in enumerate(LUMINA)}


def retokenize(folder: Path, specials: dict[str, int]) -> None:
    size = max([TEXT_IDS, *(index + 1 for index in specials.values())])
    released.write_tokenizer(folder / "tokenizer.json", size, specials)


# Bad input: config.json


@pytest.mark.parametrize(
    ("settings", "wanted"),
    [
        ('{"model_type": "gpt2", "n_layer": 12}', "no checkpoint that we know"),
        ("[]", "it holds list, not an object"),
        ("[" * 100_000, "cannot read"),
        ("{", "cannot read"),
        ('{"_class_name": "VQModel"}', "use dimoo.load_image_tokenizer"),
        ('{"d_model": 32}', "missing: n_layers"),
    ],
)
def test_a_config_of_something_else(folder: Path, settings: str, wanted: str) -> None:
    (folder / "config.json").write_text(settings, encoding="utf-8")
    refused(folder, wanted, str(folder))


def test_a_switch_that_we_do_not_compute(folder: Path) -> None:
    edit_json(folder / "config.json", weight_tying=True, alibi=True)
    refused(folder, "weight_tying = True", "alibi = True")


def test_a_chat_template_that_is_none(text_only: Path) -> None:
    edit_json(text_only / "tokenizer_config.json", chat_template="{% for message in messages %}")
    refused(text_only, "the model's chat template is no Jinja template")
    (text_only / "tokenizer_config.json").write_text("{", encoding="utf-8")
    refused(text_only, "cannot read", "tokenizer_config.json")


# Bad input: where and how to compute


@pytest.mark.parametrize("dtype", [torch.int8, "int4", "bf16", torch.complex64])
def test_a_precision_that_weights_cannot_have(original: Path, dtype: torch.dtype | str) -> None:
    with pytest.raises(BackendError, match=re.escape(f"{dtype!r} is no precision of weights; use one of float32")):
        dimoo.load(original, dtype=dtype)


@pytest.mark.parametrize("device", ["nonsense", "cuda:77", "meta"])
def test_a_device_that_is_not_there(original: Path, device: str) -> None:
    with pytest.raises(BackendError, match=re.escape(f"on device {device!r}")):
        dimoo.load(original, device=device)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_machine_without_cuda(original: Path) -> None:
    with pytest.raises(BackendError, match=r"on device 'cuda'.*use device='cpu', or another dtype"):
        dimoo.load(original, device="cuda")


@pytest.mark.parametrize("attention", ["varlen", "xformers"])
def test_an_attention_that_needs_cuda(
    original: Path, tmp_path: Path, attention: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is known before the weights are read, be it asked for or the checkpoint's own."""
    ours = dimoo.load(original).save(tmp_path / "ours")
    monkeypatch.setattr("dimoo.weights.shards.Shards.read", lambda *_: pytest.fail("the weights were read"))
    with pytest.raises(BackendError, match=f"attention='{attention}'.*attention='auto'"):
        dimoo.load(original, attention=attention)
    settings = json.loads((ours / "config.json").read_text(encoding="utf-8"))
    edit_json(ours / "config.json", backbone={**settings["backbone"], "attention": attention})
    with pytest.raises(BackendError, match=f"attention='{attention}'.*attention='auto'"):
        dimoo.load(ours)


# Bad input: settings


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"vocab_size": -1}, "vocab_size -1 must be a number from 1 to the 384 rows"),
        ({"vocab_size": 385}, "vocab_size 385 must be a number from 1 to the 384 rows"),
        ({"embedding_size": None, "vocab_size": "384"}, "vocab_size '384' must be a number"),
        ({"n_heads": 5, "n_kv_heads": 5}, "config.json is not valid"),
        ({"d_model": "32"}, "config.json is not valid"),
        ({"n_layers": 0}, "config.json is not valid"),
        ({"n_layers": 10**6}, "config.json is not valid"),
        ({"d_model": 2**31}, "config.json is not valid"),
        ({"dimoo": [1]}, "as 'dimoo', which must be an object"),
    ],
)
def test_numbers_that_make_no_model(folder: Path, changes: dict[str, object], message: str) -> None:
    edit_json(folder / "config.json", **changes)
    refused(folder, message, "Lumina-tiny")
    assert any(message in problem for problem in verify(folder).problems)


def test_several_chat_templates_without_a_default(text_only: Path) -> None:
    edit_json(text_only / "tokenizer_config.json", chat_template=[{"name": "tools", "template": "x"}])
    refused(text_only, "cannot read", "default")
    edit_json(text_only / "tokenizer_config.json", chat_template=[{"nam": "default", "template": "x"}])
    refused(text_only, "cannot read", "KeyError")
    (text_only / "chat_template.jinja").write_bytes(b"\xff\xfe\x00")
    refused(text_only, "chat_template.jinja", "UnicodeDecodeError")


@pytest.mark.parametrize("settings", ["[1]", '"x"', "null"])
def test_an_image_tokenizers_config_of_something_else(folder: Path, settings: str) -> None:
    (folder / "vqvae" / "config.json").write_text(settings, encoding="utf-8")
    refused(folder, "not an object", "vqvae")


@pytest.mark.parametrize("dtype", [torch.int8, torch.complex64])
def test_image_tokenizer_weights_that_are_no_real_numbers(folder: Path, dtype: torch.dtype) -> None:
    path = folder / "vqvae" / "diffusion_pytorch_model.safetensors"
    held = load_file(path)
    save_file({**held, "encoder.conv_in.weight": held["encoder.conv_in.weight"].to(dtype)}, path)
    refused(folder, "wrong dtype", str(dtype))


@pytest.mark.parametrize(("weight_map", "wanted"), [({}, "names no tensor"), ({"a": "x" * 300}, "x" * 300)])
def test_an_index_of_nothing(folder: Path, weight_map: dict[str, str], wanted: str) -> None:
    write_json(folder / INDEX, {"weight_map": weight_map})
    refused(folder, wanted)


def test_both_an_index_and_a_single_file(folder: Path) -> None:
    """Which of two models it is cannot be known."""
    save_file(tensors(folder), folder / "model.safetensors")
    refused(folder, "both model.safetensors.index.json and model.safetensors")


# What is taken over


def test_the_longest_conversation_is_the_checkpoints(text_only: Path) -> None:
    edit_json(text_only / "config.json", max_sequence_length=12_345)
    model = dimoo.load(text_only)
    assert model.config.chat is not None
    assert model.config.chat.max_tokens == 12_345


@pytest.mark.parametrize("kind", ["multimodal", "text-only"])
def test_converting_within_the_layout_keeps_what_other_readers_read(
    original: Path, text_only: Path, tmp_path: Path, kind: str
) -> None:
    source = original if kind == "multimodal" else text_only
    made = convert(source, tmp_path / "made", layout="lumina", dtype=torch.float32)
    before, after = (json.loads((place / "config.json").read_text(encoding="utf-8")) for place in (source, made))
    # The precision is another one; of the token ids we say those that our vocabulary has.
    ours = {"torch_dtype", "pad_token_id"}
    assert {key: after.get(key) for key in before.keys() - ours} == {key: before[key] for key in before.keys() - ours}
    assert "torch_dtype" not in after
    assert (made / "tokenizer_config.json").read_bytes() == (source / "tokenizer_config.json").read_bytes()
    assert dimoo.load(made).config.chat == dimoo.load(source).config.chat


def test_a_tokenizer_that_begins_every_text_begins_every_prompt(folder: Path) -> None:
    """As the released code, which calls its tokenizer with special tokens on."""
    plain = dimoo.load(folder).prompts.context("text_to_image", "a cat").ids.tolist()
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    begin = tokenizer.token_to_id("<|startoftext|>")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<|startoftext|> $A", special_tokens=[("<|startoftext|>", begin)]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    model = dimoo.load(folder)
    assert model.prompts.context("text_to_image", "a cat").ids.tolist() == [begin, *plain]
    assert model.prompts.text_answer("a cat", 6).ids.tolist()[1] != begin
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A <|startoftext|>", special_tokens=[("<|startoftext|>", begin)]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    with pytest.raises(CheckpointError, match=r"ends a prompt with '<\|startoftext\|>', not with '</user>'"):
        dimoo.load(folder).generate("a cat", size=(16, 16))
