"""Low-rank adapters in the layout of Hugging Face peft, under the module names of the released models.

    adapter_config.json         peft_type "LORA", r, lora_alpha, target_modules, modules_to_save ...
    adapter_model.safetensors   base_model.model.<module>.lora_A.weight [r, in] and .lora_B.weight [out, r],
                                and base_model.model.<module>.weight of modules that were trained whole

So what peft trained on a released LLaDA or Lumina-DiMOO loads here, and what was trained here loads there.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dimoo.backbone.lora import adapters, folded
from dimoo.backbone.model import Backbone
from dimoo.core.errors import CheckpointError
from dimoo.core.files import read_object, write_tensors
from dimoo.core.tensors import mismatches, raise_all, read_tensors
from dimoo.weights.llada import llada_rules

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
PREFIX = "base_model.model."
A, B, WHOLE = ".lora_A.weight", ".lora_B.weight", ".weight"
_FIXED: dict[str, Any] = {"peft_type": "LORA", "bias": "none"}
"""The one kind of adapter that is computed here."""
_READ = frozenset({*_FIXED, "r", "lora_alpha", "use_rslora", "target_modules", "modules_to_save"})
_STARTS = (True, False, "gaussian", "orthogonal", "eva")
"""Ways to begin that leave the base as it is; after others the adapter fits a changed base only."""
_UNREAD = frozenset(
    {
        *("auto_mapping", "base_model_name_or_path", "inference_mode", "lora_dropout", "peft_version", "revision"),
        *("task_type", "megatron_core", "qalora_group_size", "layers_pattern", "eva_config", "runtime_config"),
    }
)
"""What changes nothing that a trained adapter computes, or nothing by itself. All other keys must be off."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Adapter:
    """What is added to a network: W + scale B A for some layers, and other weights for some modules."""

    scale: float
    layers: Mapping[str, tuple[Tensor, Tensor]]
    """A [r, in] and B [out, r] by our name of the layer."""
    modules: Mapping[str, Tensor]
    """Weights by our name of the module."""


def write_adapter(folder: Path, backbone: Backbone, *, base: str | None) -> Path:
    """Write the adapters of a network, and the modules that are trained beside them; returns the folder.

    Args:
        folder: where to; an older adapter in it is replaced.
        backbone: made by `dimoo.backbone.lora.adapted`.
        base: what the adapters belong to, as a folder or `owner/name`; other readers load it from there.

    Raises:
        CheckpointError: the network has no adapters, or the folder cannot be written.
    """
    layers = adapters(backbone)
    if not layers:
        raise CheckpointError("the network has no adapters; make them with dimoo.backbone.lora.adapted")
    theirs = {ours: name for name, ours in _names(backbone).items()}
    whole = [name for name in theirs if name not in layers and backbone.get_parameter(name + WHOLE).requires_grad]
    tensors: dict[str, Tensor] = {}
    for name, layer in layers.items():
        tensors[PREFIX + theirs[name] + A], tensors[PREFIX + theirs[name] + B] = layer.A, layer.B
    for name in whole:
        tensors[PREFIX + theirs[name] + WHOLE] = backbone.get_parameter(name + WHOLE)
    first = next(iter(layers.values()))
    settings = {
        **_FIXED,
        "base_model_name_or_path": base,
        "fan_in_fan_out": False,
        "inference_mode": True,
        "init_lora_weights": True,
        "lora_alpha": int(first.alpha) if first.alpha.is_integer() else first.alpha,
        "lora_dropout": 0.0,
        "modules_to_save": [theirs[name] for name in whole] or None,
        "r": first.rank,
        # An expression, not a list of ends: in the released names the head and a layer of the blocks end alike.
        "target_modules": _expression(theirs[name] for name in layers),
        "task_type": None,
        "use_dora": False,
        "use_rslora": False,
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / CONFIG).unlink(missing_ok=True)  # first out, last in: a folder in between is no adapter
        write_tensors(folder / WEIGHTS, {name: value.detach().cpu().contiguous() for name, value in tensors.items()})
        (folder / CONFIG).write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise CheckpointError(f"cannot write to {folder}: {error}; choose another folder") from error
    return folder


def read_adapter(folder: Path, backbone: Backbone) -> Adapter:
    """Read an adapter of ours or of peft's for a network, which may be on the meta device and is left as it is.

    Raises:
        CheckpointError: a file is missing or corrupt; the adapter is of another kind, or uses what is not computed
            here; lists every missing or unknown tensor and every wrong shape.
    """
    inside = folder / "adapter"
    if not (folder / CONFIG).exists() and (inside / CONFIG).is_file():
        raise CheckpointError(f"there is no {CONFIG} in {folder}, but in a folder of it; give {inside}")
    settings = read_object(folder / CONFIG)
    raise_all(_unsupported(settings), f"the adapter in {folder} is of a kind that is not computed here")
    rank, names = settings["r"], _names(backbone)
    shapes = {name: tuple(backbone.get_parameter(ours + WHOLE).shape) for name, ours in names.items()}
    linear = [name for name, ours in names.items() if isinstance(backbone.get_submodule(ours), nn.Linear)]
    low = [name for name in linear if _targeted(name, settings)]
    if not low:
        raise CheckpointError(
            f"target_modules {settings['target_modules']!r} of the adapter in {folder} names no layer of this model;"
            f" its layers are called as {linear[0]}"
        )
    whole = [name for name in names if name.endswith(tuple(settings.get("modules_to_save") or ()))]
    wanted: dict[str, tuple[int, ...]] = {PREFIX + name + A: (rank, shapes[name][1]) for name in low}
    wanted |= {PREFIX + name + B: (shapes[name][0], rank) for name in low}
    wanted |= {PREFIX + name + WHOLE: shapes[name] for name in whole}
    tensors = read_tensors(folder / WEIGHTS)
    problems = mismatches(wanted, {name: value.shape for name, value in tensors.items()})
    problems += [
        f"wrong dtype: {name} is {value.dtype}" for name, value in tensors.items() if not value.is_floating_point()
    ]
    raise_all(problems, f"the adapter in {folder} does not fit this model")
    alpha = float(settings["lora_alpha"])
    return Adapter(
        scale=alpha / (math.sqrt(rank) if settings.get("use_rslora") else rank),
        layers={names[name]: (tensors[PREFIX + name + A], tensors[PREFIX + name + B]) for name in low},
        modules={names[name]: tensors[PREFIX + name + WHOLE] for name in whole},
    )


@torch.no_grad()
def merge_adapter(backbone: Backbone, adapter: Adapter) -> Backbone:
    """Fold an adapter that was read for it into a network's weights, in place, and return the network.

    W becomes W + scale B A, layer by layer, computed in float32: no second copy of the network is made.
    """
    for name, (a, b) in adapter.layers.items():
        weight = backbone.get_parameter(name + WHOLE)
        weight.copy_(folded(weight, a, b, adapter.scale))
    for name, values in adapter.modules.items():
        backbone.get_parameter(name + WHOLE).copy_(values)
    return backbone


def _names(backbone: Backbone) -> dict[str, str]:
    """Our names of the modules by the released ones."""
    rules = llada_rules(len(backbone.blocks))
    return {rule.theirs.removesuffix(WHOLE): rule.ours.removesuffix(WHOLE) for rule in rules}


def _expression(names: Iterable[str]) -> str:
    """For just these names in all blocks."""
    return "|".join(dict.fromkeys(re.sub(r"\.\d+\\.", r".\\d+\\.", re.escape(name)) for name in names))


def _unsupported(settings: Mapping[str, Any]) -> list[str]:
    """One line for each setting that is not as it must be."""
    found = [
        f"{key} is {settings.get(key)!r}, not {want!r}" for key, want in _FIXED.items() if settings.get(key) != want
    ]
    rank, alpha = settings.get("r"), settings.get("lora_alpha")
    if type(rank) is not int or rank < 1:
        found.append(f"r is {rank!r}, not a whole number from 1 on")
    if type(alpha) not in (int, float):
        found.append(f"lora_alpha is {alpha!r}, not a number")
    if type(settings.get("use_rslora", False)) is not bool:
        found.append(f"use_rslora is {settings['use_rslora']!r}, neither true nor false")
    targets, saved = settings.get("target_modules"), settings.get("modules_to_save")
    if not (isinstance(targets, str) or _is_names(targets)):
        found.append(f"target_modules is {targets!r}, neither names nor an expression")
    if not (saved is None or _is_names(saved)):
        found.append(f"modules_to_save is {saved!r}, not names")
    if isinstance(targets, str):
        try:
            re.compile(targets)
        except re.error as error:
            found.append(f"target_modules {targets!r} is no expression: {error}")
    if (start := settings.get("init_lora_weights", True)) not in _STARTS:
        found.append(f"init_lora_weights is {start!r}, which changes the base; convert the adapter with peft")
    off = settings.keys() - _READ - _UNREAD - {"init_lora_weights"}
    return found + [f"{key} is {settings[key]!r}, and is not supported" for key in sorted(off) if settings[key]]


def _is_names(values: Any) -> bool:
    return isinstance(values, list) and all(isinstance(value, str) and value for value in values)


def _targeted(name: str, settings: Mapping[str, Any]) -> bool:
    """Whether `target_modules` means a module, as peft reads it: an expression for the whole name, or its ends."""
    targets = settings["target_modules"]
    if isinstance(targets, str):
        return re.fullmatch(targets, name) is not None
    return any(name == target or name.endswith(f".{target}") for target in targets)
