"""Weight-only quantisation through torchao: the matrices of the blocks in one byte per weight.

Row r of a matrix (an output channel) becomes codes q_r with one scale s_r, so that w_r is about s_r q_r:

    int8  s_r = max|w_r| / 127.5, q_r whole numbers: off by at most s_r / 2
    fp8   s_r = max|w_r| / 448, q_r floats of 3 mantissa bits (e4m3): off by at most |w| / 16, and s_r / 1024 near 0

Scales are rounded to the precision that the weights had, so weights in bfloat16 lose a little more at the largest.
Products are computed in the precision of the activations. So weights take less memory, and reading them less time, but
nothing is multiplied in 8 bits. The embedding looks rows up and the head takes slices of its columns: both stay as they
are, and so do the norms.
"""

from __future__ import annotations

import copy
import logging
from typing import Any, get_args

import torch
from torch import nn
from typing_extensions import assert_never

from dimoo.backbone.config import QuantizeKind
from dimoo.backbone.model import Backbone
from dimoo.core.errors import BackendError, ConfigError
from dimoo.core.tensors import plain_tensors

_CODES: dict[torch.dtype, QuantizeKind] = {torch.int8: "int8", torch.float8_e4m3fn: "fp8"}
# torchao multiplies by int8 codes before it scales: those products overflow float16. Scales have float32 at best, so
# that float64 would promise more than it holds.
_PRECISIONS = {
    "int8": (torch.float32, torch.bfloat16),
    "fp8": (torch.float32, torch.bfloat16, torch.float16),
}


@torch.no_grad()
def quantized(backbone: Backbone, kind: QuantizeKind) -> Backbone:
    """The same network with quantised blocks. The given one is untouched; the new one shares the rest of its weights.

    For sampling: the new weights take no gradients.

    Args:
        backbone: with weights in float32 or bfloat16 (for fp8 also float16), on any device.
        kind: "int8" or "fp8".

    Raises:
        ConfigError: the network is quantised already, or has weights that the codes cannot hold: not finite, or, with
            fp8, a row of zeros.
        BackendError: see `check_quantize`.
    """
    if (found := quantization(backbone)) is not None:
        raise ConfigError(f"the network is quantised to {found} already; quantise one that was loaded without")
    check_quantize(kind, backbone.embedding.weight.dtype, backbone.device)
    # Other parameters on the same values: what the copy does with its own, as moving them, leaves the given one alone.
    shared = {id(weight): nn.Parameter(weight.detach(), requires_grad=False) for weight in backbone.parameters()}
    result = copy.deepcopy(backbone, shared)
    torchao = _torchao(kind)
    torchao.quantize_(
        result.blocks, _settings(torchao, kind), filter_fn=lambda module, _: isinstance(module, nn.Linear)
    )
    for name, weight in result.blocks.named_parameters():
        scale = dict(plain_tensors(weight)).get(".scale")
        if scale is not None and not scale.is_meta and not bool((scale.isfinite() & (scale > 0)).all()):
            raise ConfigError(
                f"{kind} cannot hold blocks.{name}: it has a row of zeros, or values that are not finite;"
                " use int8 for the former, or leave quantize out"
            )
    return result


def quantization(network: nn.Module) -> QuantizeKind | None:
    """How a network's weights are quantised, by the first that is; None: not at all, or in another way than ours."""
    for weight in network.parameters():
        codes = dict(plain_tensors(weight)).get(".qdata")
        if codes is not None:
            return _CODES.get(codes.dtype)
    return None


def check_quantize(kind: QuantizeKind, dtype: torch.dtype | None = None, device: torch.device | str = "cpu") -> None:
    """Refuse what cannot be quantised, before weights are read.

    Args:
        kind: "int8" or "fp8".
        dtype: of the weights before; None: not known yet.
        device: where products are computed.

    Raises:
        BackendError: there is no such kind, torchao is not installed, the kind does not go with the dtype, or the
            device cannot read its codes.
    """
    if kind not in get_args(QuantizeKind):
        raise BackendError(f"unknown quantize {kind!r}; choose from {', '.join(get_args(QuantizeKind))}")
    _torchao(kind)
    if dtype is not None and dtype not in _PRECISIONS[kind]:
        known = " or ".join(str(each).removeprefix("torch.") for each in _PRECISIONS[kind])
        raise BackendError(f"quantize={kind!r} does not go with {dtype}; use dtype {known}")
    codes = next(code for code, name in _CODES.items() if name == kind)
    try:
        torch.ones(1).to(codes).to(device).float()
    except (RuntimeError, TypeError, NotImplementedError) as error:
        reason = str(error).strip().splitlines()[0]
        raise BackendError(f"device {str(device)!r} cannot read {codes}: {reason}; use quantize='int8'") from error


def _settings(torchao: Any, kind: QuantizeKind) -> Any:
    """torchao's, without its changes to the settings of torch's compiler, which are those of the whole process."""
    match kind:
        case "int8":
            return torchao.Int8WeightOnlyConfig(set_inductor_config=False)
        case "fp8":
            return torchao.Float8WeightOnlyConfig(weight_dtype=torch.float8_e4m3fn, set_inductor_config=False)
        case _:
            assert_never(kind)


def _torchao(kind: QuantizeKind) -> Any:
    """The module `torchao.quantization`, imported when it is first wanted, which takes seconds."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)  # it warns of kernels that it was not built for here, none of which is used
    try:
        import torchao.quantization
    except ImportError as error:
        raise BackendError(
            f"quantize={kind!r} needs torchao, which is not here; pip install 'dimoo[quantize]'"
        ) from error
    finally:
        logging.disable(before)
    return torchao.quantization
