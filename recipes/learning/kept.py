"""What a checkpoint keeps: weights that are trained, what the optimiser knows of each by its name, and which base the
frozen ones are of, which it does not hold."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from hashlib import sha256
from typing import Any

import torch
from torch import Tensor, nn

from dimoo.core.errors import CheckpointError
from dimoo.weights.checkpoint import Filling


def fingerprint_of(filling: Filling) -> str:
    """A digest of every weight on disk: name, precision, shape and bytes; one tensor is read at a time.

    It does not depend on the files that they are in.

    Raises:
        CheckpointError: a file cannot be read.
    """
    found = sorted(f"{name}:{value.dtype}:{tuple(value.shape)}:{_digest(value)}" for name, value in filling.values())
    return sha256("\n".join(found).encode()).hexdigest()[:32]


def _digest(value: Tensor) -> str:
    return sha256(value.contiguous().view(-1).view(torch.uint8).numpy().data).hexdigest()


def require_base(base: str | None, saved: str | None) -> None:
    """See that adapters go on with the weights that they were trained on.

    Args:
        base: the fingerprint of those that there are.
        saved: of those that the checkpoint names.

    Raises:
        CheckpointError: they differ, or the checkpoint names none.
    """
    if base is not None and saved is None:
        raise CheckpointError(
            "the checkpoint was written by an older dimoo, which did not note the weights that its adapters belong to;"
            " export it with that version, and start from the export"
        )
    if base != saved:
        raise CheckpointError(
            f"the adapters in the checkpoint belong to weights with the fingerprint {saved}, but those of warm_start"
            f" have {base}: they have changed since; give the same ones back, or start a new run"
        )


def require_trained(own: Collection[str], saved: Collection[str] | None) -> None:
    """See that a checkpoint has what a module would put into one.

    Args:
        own: names of the weights that are trained.
        saved: of those in the checkpoint; None where it is in parts, which are looked for one by one as they are read.

    Raises:
        CheckpointError: some are missing.
    """
    missing = [] if saved is None else [name for name in own if name not in saved]
    if missing:
        raise CheckpointError(
            f"the checkpoint lacks {len(missing)} of the weights that are trained, the first of them {missing[0]};"
            " start the run anew"
        )


def by_name(saved: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """The optimiser's state with weights called by their names in place of their numbers, where it has numbers.

    Who counts weights in another order, as sharded runs do, then finds the same ones.

    Args:
        saved: the state, which is left as it is; empty where another process has it.
        names: of the weights, in the order of the numbers.
    """
    if not saved:
        return {}

    def name(key: int | str) -> str:
        return names[key] if isinstance(key, int) else key

    groups = [{**group, "params": [name(key) for key in group["params"]]} for group in saved["param_groups"]]
    return {"state": {name(key): kept for key, kept in saved["state"].items()}, "param_groups": groups}


def hold_what_is_trained(module: nn.Module) -> None:
    """Leave frozen weights out of a module's state, in place; what is loaded need not have them, but all else."""
    module.register_state_dict_post_hook(_without_frozen)  # type: ignore[no-untyped-call]
    module.register_load_state_dict_post_hook(_frozen_may_lack)  # type: ignore[no-untyped-call]


def _without_frozen(module: nn.Module, state: dict[str, Tensor], prefix: str, metadata: Mapping[str, Any]) -> None:
    del metadata
    for name in _frozen(module):
        del state[prefix + name]


def _frozen_may_lack(module: nn.Module, found: Any) -> None:
    frozen = _frozen(module)
    found.missing_keys[:] = [name for name in found.missing_keys if name not in frozen]


def _frozen(module: nn.Module) -> set[str]:
    return {name for name, weight in module.named_parameters() if not weight.requires_grad}
