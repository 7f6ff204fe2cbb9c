"""Low-rank adapters on the linear layers of the blocks (LoRA, Hu et al., arXiv 2106.09685).

    y = W x + (alpha / r) B A x

W is frozen; A and B are trained. B begins as zeros, so that an adapted network begins equal to its base, bit for bit.

Axes: in, out = inputs and outputs of a layer, r = rank.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from dimoo.backbone.block import Linear
from dimoo.backbone.config import LoRAConfig
from dimoo.backbone.model import Backbone
from dimoo.backbone.quantized import quantization
from dimoo.core.errors import ConfigError
from dimoo.core.sharded import fill


class LoRALinear(Linear):
    """W x + (alpha / r) B A x. The weight W [out, in] keeps its name; A [r, in] and B [out, r] are float32."""

    def __init__(self, weight: nn.Parameter, a: Tensor, b: Tensor, alpha: float) -> None:
        with torch.device("meta"):  # its weight is the given one
            super().__init__(weight.shape[1], weight.shape[0])
        self.weight = weight
        self.A, self.B = nn.Parameter(a), nn.Parameter(b)
        self.alpha = alpha

    @property
    def rank(self) -> int:
        """r."""
        return self.A.shape[0]

    @property
    def scale(self) -> float:
        """alpha / r."""
        return self.alpha / self.rank

    def forward(self, input: Tensor) -> Tensor:
        """[N, in] -> [N, out], in the precision of the input."""
        # A and B are cast, not the input: they are small, and an input in float32 would be kept for the gradients.
        low = linear(linear(input, self.A.to(input.dtype)), self.B.to(input.dtype))
        return linear(input, self.weight) + self.scale * low


def folded(weight: Tensor, a: Tensor, b: Tensor, scale: float) -> Tensor:
    """W + scale B A [out, in] of W [out, in], A [r, in] and B [out, r]: computed in float32, in the dtype of W."""
    low = b.to(weight.device).float() @ a.to(weight.device).float()
    return (weight.float() + scale * low).to(weight.dtype)


@torch.no_grad()
def adapted(backbone: Backbone, config: LoRAConfig, generator: torch.Generator) -> Backbone:
    """The same network with new adapters, and all else frozen but `modules_to_save`.

    The given one is untouched. The new one shares its frozen weights, and has copies of the modules that are trained
    whole. Adapters begin as `begin_adapters` has it; on the meta device they have no values.

    Args:
        backbone: the base; its blocks may be quantised.
        config: rank, scale, and which layers.
        generator: draws A.

    Raises:
        ConfigError: the network has adapters already.
    """
    if adapters(backbone):
        raise ConfigError("the network has adapters already; adapt merged(network), or train these")
    memo = _frozen(backbone)
    for whole in config.modules_to_save:
        weight = backbone.get_parameter(f"{whole}.weight")
        memo[id(weight)] = nn.Parameter(weight.detach().clone())
    for block in backbone.blocks:
        for name in config.targets:
            layer = block.get_submodule(name)
            shared = memo[id(layer.weight)]
            assert isinstance(shared, nn.Parameter)
            outputs, inputs = shared.shape
            a = torch.empty(config.rank, inputs, device=shared.device)
            b = torch.empty(outputs, config.rank, device=shared.device)
            memo[id(layer)] = LoRALinear(shared, a, b, config.alpha).train(layer.training)
    return begin_adapters(copy.deepcopy(backbone, memo), config, generator)


@torch.no_grad()
def begin_adapters(backbone: Backbone, config: LoRAConfig, generator: torch.Generator) -> Backbone:
    """Give the adapters of a network, which may be sharded, their first values in place, and return it.

    A ~ U(-1 / sqrt(in), 1 / sqrt(in)), which is Kaiming's with a = sqrt(5), as in peft; B = 0. Values depend on the
    generator alone, not on the device of the network, nor on how many processes share it.
    """
    for block in backbone.blocks:
        for layer in (block.get_submodule(name) for name in config.targets):
            assert isinstance(layer, LoRALinear)
            layer.B.zero_()
            if not layer.A.is_meta:
                bound = layer.in_features**-0.5
                values = torch.empty(layer.A.shape, device=generator.device)
                fill(layer.A, values.uniform_(-bound, bound, generator=generator))
    return backbone


@torch.no_grad()
def merged(backbone: Backbone) -> Backbone:
    """The network without adapters that computes what the adapted one does: they are folded into its weights.

    The given one is untouched; the new one shares the weights that had no adapters. None takes gradients.

    Raises:
        ConfigError: the weights under the adapters are quantised.
    """
    if (kind := quantization(backbone)) is not None and adapters(backbone):
        raise ConfigError(f"adapters cannot be folded into weights quantised to {kind}; adapt the network as it was")
    memo = _frozen(backbone)
    for layer in adapters(backbone).values():
        with torch.device("meta"):
            plain = Linear(layer.in_features, layer.out_features)
        plain.weight = nn.Parameter(folded(layer.weight, layer.A, layer.B, layer.scale), requires_grad=False)
        memo[id(layer)] = plain.train(layer.training)
    return copy.deepcopy(backbone, memo)


def adapters(network: nn.Module) -> dict[str, LoRALinear]:
    """The layers that have adapters, by name; of a network without them none."""
    return {name: module for name, module in network.named_modules() if isinstance(module, LoRALinear)}


def _frozen(backbone: Backbone) -> dict[int, nn.Module | nn.Parameter]:
    """What a deep copy is to take for each parameter: another one on the same values, without gradients."""
    return {id(weight): nn.Parameter(weight.detach(), requires_grad=False) for weight in backbone.parameters()}
