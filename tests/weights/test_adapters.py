"""Adapters in the layout of peft: ours there, theirs here, and nothing half understood."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_checkpoint import save_tiny
from torch import Tensor, nn

import dimoo
from dimoo.backbone.build import build_backbone
from dimoo.backbone.config import BackboneConfig, LoRAConfig
from dimoo.backbone.init import initialise
from dimoo.backbone.lora import adapted, adapters, merged
from dimoo.backbone.model import Backbone
from dimoo.cli.options import Device, DType, open_model
from dimoo.core.errors import CheckpointError
from dimoo.core.rng import generator
from dimoo.weights.adapters import merge_adapter, read_adapter, write_adapter
from dimoo.weights.llada import llada_rules
from dimoo.weights.rules import to_theirs

CONFIG = BackboneConfig(d_model=16, layers=2, heads=2, kv_heads=1, mlp_hidden=24, vocab_size=40)
BLOCK = "base_model.model.model.transformer.blocks.{}."
HEAD, TABLE = "model.transformer.ff_out", "model.transformer.wte"


def base() -> Backbone:
    return initialise(build_backbone(CONFIG), generator(0, "base"))


def trained(backbone: Backbone, **changes: Any) -> Backbone:
    made = adapted(backbone, LoRAConfig(**{"rank": 2, "alpha": 3.0, **changes}), generator(1))
    with torch.no_grad():
        for index, (name, weight) in enumerate(made.named_parameters()):
            if weight.requires_grad and not name.endswith(".A"):
                weight.add_(0.1 * torch.randn(weight.shape, generator=generator(2, index)))
    return made


def close(one: Backbone, other: Backbone) -> None:
    assert one.state_dict().keys() == other.state_dict().keys()
    for name, weight in one.state_dict().items():
        torch.testing.assert_close(weight, other.state_dict()[name], rtol=1e-6, atol=1e-6)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_adapter(tmp_path / "adapter", trained(base(), modules_to_save=("unembedding",)), base="owner/name")


def change(folder: Path, **settings: Any) -> None:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))


def rewrite(folder: Path, act: Callable[[dict[str, Tensor]], object]) -> None:
    path = folder / "adapter_model.safetensors"
    tensors = load_file(path)
    act(tensors)
    save_file(tensors, path)


def test_names_shapes_and_settings_are_those_of_peft(folder: Path) -> None:
    """As peft 0.21 writes them for a network with the released names."""
    layers = {"q_proj": (16, 16), "k_proj": (16, 8), "v_proj": (16, 8), "attn_out": (16, 16)}
    layers |= {"ff_proj": (16, 24), "up_proj": (16, 24), "ff_out": (24, 16)}
    wanted = {"base_model.model.model.transformer.ff_out.weight": (40, 16)}
    for name, (inputs, outputs) in layers.items():
        for block in (0, 1):
            wanted[BLOCK.format(block) + name + ".lora_A.weight"] = (2, inputs)
            wanted[BLOCK.format(block) + name + ".lora_B.weight"] = (outputs, 2)
    found = load_file(folder / "adapter_model.safetensors")
    assert {name: tuple(tensor.shape) for name, tensor in found.items()} == wanted
    assert {tensor.dtype for tensor in found.values()} == {torch.float32}
    settings = json.loads((folder / "adapter_config.json").read_text())
    assert settings | {"target_modules": ""} == {
        "peft_type": "LORA",
        "task_type": None,
        "base_model_name_or_path": "owner/name",
        "r": 2,
        "lora_alpha": 3,
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "init_lora_weights": True,
        "use_rslora": False,
        "use_dora": False,
        "modules_to_save": [HEAD],
        "target_modules": "",
    }


def test_out_and_in_again_is_exact(folder: Path) -> None:
    made = trained(base(), modules_to_save=("unembedding",))
    with torch.device("meta"):
        skeleton = build_backbone(CONFIG)
    read = read_adapter(folder, skeleton)
    assert read.scale == 1.5
    assert read.layers.keys() == adapters(made).keys()
    for name, layer in adapters(made).items():
        assert torch.equal(read.layers[name][0], layer.A)
        assert torch.equal(read.layers[name][1], layer.B)
    assert read.modules.keys() == {"unembedding"}
    assert torch.equal(read.modules["unembedding"], made.unembedding.weight)
    plain = base()
    assert merge_adapter(plain, read) is plain
    assert all(torch.equal(value, plain.state_dict()[name]) for name, value in merged(made).state_dict().items())


def test_some_layers_alone(tmp_path: Path) -> None:
    made = trained(base(), targets=("mlp.output", "attention.key"))
    folder = write_adapter(tmp_path / "some", made, base=None)
    assert read_adapter(folder, base()).layers.keys() == adapters(made).keys()
    assert len(load_file(folder / "adapter_model.safetensors")) == 2 * 2 * 2
    expression = json.loads((folder / "adapter_config.json").read_text())["target_modules"]
    assert expression == r"model\.transformer\.blocks\.\d+\.k_proj|model\.transformer\.blocks\.\d+\.ff_out"


def test_ends_of_names_mean_the_head_too_and_rank_stabilised_scales_by_the_root(folder: Path) -> None:
    """`ff_out` is the head, and a layer of each block: peft adapts them all."""
    keep = (".ff_out.lora", ".q_proj.lora")
    rewrite(folder, lambda held: [held.pop(name) for name in list(held) if not any(part in name for part in keep)])
    rewrite(
        folder,
        lambda held: held.update(
            {f"base_model.model.{HEAD}.lora_{part}.weight": torch.ones(*shape) for part, shape in HEAD_SHAPES.items()}
        ),
    )
    change(folder, target_modules=["ff_out", "q_proj"], modules_to_save=None, use_rslora=True)
    read = read_adapter(folder, base())
    assert read.scale == pytest.approx(3 / 2**0.5)
    assert "unembedding" in read.layers
    before, after = base(), merge_adapter(base(), read)
    shift = after.unembedding.weight - before.unembedding.weight
    torch.testing.assert_close(shift, torch.full((40, 16), 2 * 3 / 2**0.5))


HEAD_SHAPES = {"A": (2, 16), "B": (40, 2)}


@pytest.mark.parametrize(
    ("settings", "part"),
    [
        ({"peft_type": "LOHA"}, "peft_type is 'LOHA', not 'LORA'"),
        ({"use_dora": True}, "use_dora is True, and is not supported"),
        ({"bias": "all"}, "bias is 'all', not 'none'"),
        ({"fan_in_fan_out": True}, "fan_in_fan_out"),
        ({"layers_to_transform": [0]}, "layers_to_transform"),
        ({"rank_pattern": {"q_proj": 4}}, "rank_pattern"),
        ({"alpha_pattern": {"q_proj": 4}}, "alpha_pattern"),
        ({"trainable_token_indices": [3]}, "trainable_token_indices"),
        ({"something_of_next_year": {"on": 1}}, "something_of_next_year"),
        ({"init_lora_weights": "pissa"}, "'pissa', which changes the base"),
        ({"r": "2"}, "r is '2', not a whole number"),
        ({"r": 0}, "r is 0"),
        ({"lora_alpha": None}, "lora_alpha is None"),
        ({"use_rslora": 1}, "use_rslora is 1"),
        ({"target_modules": None}, "target_modules is None"),
        ({"target_modules": "("}, r"target_modules '\(' is no expression"),
        ({"modules_to_save": "wte"}, "modules_to_save is 'wte', not names"),
        ({"target_modules": ["proj"]}, r"names no layer of this model.*model\.transformer\.blocks\.0\.q_proj"),
        ({"r": 3}, r"wrong shape: .*q_proj\.lora_A\.weight is \(2, 16\), the model wants \(3, 16\)"),
        ({"modules_to_save": None}, r"unknown: base_model\.model\.model\.transformer\.ff_out\.weight"),
        ({"modules_to_save": ["wte", "transformer.ff_out"]}, r"missing: .*wte\.weight"),
    ],
)
def test_what_is_not_computed_here_is_refused(folder: Path, settings: dict[str, Any], part: str) -> None:
    change(folder, **settings)
    with pytest.raises(CheckpointError, match=part):
        read_adapter(folder, base())


def test_what_says_nothing_about_the_numbers_is_passed_over(folder: Path) -> None:
    change(
        folder, peft_version="0.21.2", lora_dropout=0.1, task_type="FEATURE_EXTRACTION", loftq_config={}, revision="x"
    )
    change(folder, megatron_core="megatron.core", qalora_group_size=16, auto_mapping={"a": "b"}, use_bdlora=None)
    assert len(read_adapter(folder, base()).layers) == 14


def test_every_tensor_that_does_not_fit_is_listed(folder: Path) -> None:
    first, second, third = (
        BLOCK.format(0) + name for name in ("q_proj.lora_A.weight", "q_proj.extra", "up_proj.lora_B.weight")
    )
    rewrite(folder, lambda held: held.update({second: held.pop(first), third: torch.zeros(24, 2, dtype=torch.int8)}))
    with pytest.raises(CheckpointError) as caught:
        read_adapter(folder, base())
    for line in ("3 problems", f"missing: {first}", f"unknown: {second}", f"wrong dtype: {third} is torch.int8"):
        assert line in str(caught.value)


def test_files_that_are_not_there(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"adapter_config\.json"):
        read_adapter(tmp_path, base())
    (folder / "adapter_model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="no weights at"):
        read_adapter(folder, base())
    with pytest.raises(CheckpointError, match="the network has no adapters"):
        write_adapter(tmp_path / "none", base(), base=None)
    with pytest.raises(CheckpointError, match="cannot write to"):
        write_adapter(folder / "adapter_config.json", trained(base()), base=None)


def test_a_model_takes_it_as_it_is_loaded(tmp_path: Path) -> None:
    tiny = save_tiny(tmp_path / "tiny")
    plain = dimoo.load_backbone(tiny)
    made = trained(plain, targets=("attention.query", "mlp.output"), modules_to_save=("embedding",))
    folder = write_adapter(tmp_path / "adapter", made, base=str(tiny))
    close(dimoo.load_backbone(tiny, adapter=folder), merged(made))
    with_it = dimoo.load(tiny, adapter=str(folder))
    assert with_it.fingerprint == dimoo.load(tiny, adapter=folder).fingerprint != dimoo.load(tiny).fingerprint
    assert open_model(str(tiny), Device.CPU, DType.FLOAT32, adapter=str(folder)).fingerprint == with_it.fingerprint
    saved = with_it.save(tmp_path / "merged")
    assert dimoo.load(saved).fingerprint == with_it.fingerprint
    with pytest.raises(CheckpointError, match="no checkpoint folder at"):
        dimoo.load(tiny, adapter=tmp_path / "nowhere")
    with_it.backbone = made
    with pytest.raises(CheckpointError, match=r"adapters beside them; .*merged\(backbone\)"):
        with_it.save(tmp_path / "unmerged")


# The library itself, where it is installed


class Named(nn.Module):
    """The base's linear layers under the released names; any of them can be asked."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        tensors = to_theirs(llada_rules(len(backbone.blocks)), backbone.state_dict())
        for name, tensor in tensors.items():
            *path, last = name.removesuffix(".weight").split(".")
            at: nn.Module = self
            for step in path:
                if not hasattr(at, step):
                    at.add_module(step, nn.Module())
                at = at.get_submodule(step)
            made: nn.Module
            if tensor.ndim == 1:
                made = nn.RMSNorm(len(tensor))
            elif last == "wte":
                made = nn.Embedding(*tensor.shape)
            else:
                made = nn.Linear(tensor.shape[1], tensor.shape[0], bias=False)
            made.weight = nn.Parameter(tensor.clone())
            at.add_module(last, made)

    def forward(self, x: Tensor) -> Tensor:
        return x


def merged_by_peft(model: Any) -> dict[str, Tensor]:
    weights = model.merge_and_unload().state_dict()
    assert isinstance(weights, dict)
    return weights


def test_ours_there(tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    made = trained(base(), modules_to_save=("embedding", "unembedding"))
    folder = write_adapter(tmp_path / "ours", made, base=None)
    found = merged_by_peft(peft.PeftModel.from_pretrained(Named(base()), folder))
    wanted = to_theirs(llada_rules(CONFIG.layers), merged(made).state_dict())
    assert found.keys() == wanted.keys()
    for name, weight in wanted.items():
        torch.testing.assert_close(found[name], weight, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    "settings",
    [
        {"target_modules": ["q_proj", "ff_out"]},
        {"target_modules": r".*\.blocks\.\d+\.(?:v_proj|ff_out)", "modules_to_save": ["wte", "transformer.ff_out"]},
        {"target_modules": ["up_proj"], "use_rslora": True},
        {"target_modules": "all-linear"},
    ],
)
def test_theirs_here(tmp_path: Path, settings: dict[str, Any]) -> None:
    peft = pytest.importorskip("peft")
    model = peft.get_peft_model(Named(base()), peft.LoraConfig(r=3, lora_alpha=5, lora_dropout=0.1, **settings))
    with torch.no_grad():
        for index, weight in enumerate(each for each in model.parameters() if each.requires_grad):
            weight.add_(0.1 * torch.randn(weight.shape, generator=generator(4, index)))
    model.save_pretrained(tmp_path / "theirs")
    ours = merge_adapter(base(), read_adapter(tmp_path / "theirs", base()))
    wanted = merged_by_peft(model)
    found = to_theirs(llada_rules(CONFIG.layers), ours.state_dict())
    assert found.keys() == wanted.keys()
    assert (
        sum(not torch.equal(weight, ours) for weight, ours in zip(base().parameters(), ours.parameters(), strict=True))
        > 1
    )
    for name, weight in wanted.items():
        torch.testing.assert_close(found[name], weight, rtol=1e-6, atol=1e-6)
