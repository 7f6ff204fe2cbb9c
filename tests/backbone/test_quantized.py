"""Weight-only quantisation: what the codes are, what stays as it is, and what is refused."""

from __future__ import annotations

import logging
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from dimoo.backbone.build import build_backbone
from dimoo.backbone.compiled import compiled
from dimoo.backbone.config import BackboneConfig, QuantizeKind
from dimoo.backbone.init import initialise
from dimoo.backbone.layout import PackedLayout
from dimoo.backbone.model import Backbone
from dimoo.backbone.quantized import check_quantize, quantization, quantized
from dimoo.core.errors import BackendError, ConfigError
from dimoo.core.peak import held, peak_bytes
from dimoo.core.rng import generator
from dimoo.core.tensors import plain_tensors

pytest.importorskip("torchao")
KINDS: tuple[QuantizeKind, ...] = ("int8", "fp8")
SHAPE = BackboneConfig(d_model=32, layers=2, heads=4, kv_heads=2, mlp_hidden=48, vocab_size=40, attention="sdpa")
LAYOUT = PackedLayout.of([5, 1, 7], "cpu")
TOKENS = torch.arange(13) * 3
EVERY_KIND = pytest.mark.parametrize("kind", KINDS)


def plain(dtype: torch.dtype = torch.float32, seed: int = 0) -> Backbone:
    """Random weights, large enough that attention is not uniform."""
    model = initialise(build_backbone(SHAPE), generator(seed, "quantized"))
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim == 2:
                weight.mul_(8)
    return model.to(dtype).eval()


def matrices(model: Backbone) -> dict[str, Tensor]:
    """The weights of the blocks' linear modules."""
    return {f"{name}.weight": module.weight for name, module in model.named_modules() if is_matrix(name, module)}


def is_matrix(name: str, module: nn.Module) -> bool:
    return isinstance(module, nn.Linear) and name.startswith("blocks.")


def codes(weight: Tensor) -> tuple[Tensor, Tensor]:
    """(codes, scale [rows, 1])."""
    parts = dict(plain_tensors(weight))
    return parts[".qdata"], parts[".scale"]


def scales(weight: Tensor, kind: QuantizeKind) -> Tensor:
    """By the formula: the largest code is that of the largest weight."""
    return weight.float().abs().amax(dim=1, keepdim=True) / {"int8": 127.5, "fp8": 448}[kind]


def rounded(weight: Tensor, scale: Tensor, kind: QuantizeKind) -> Tensor:
    """The codes that lie nearest."""
    if kind == "int8":
        return (weight.float() * (1 / scale)).round().clamp(-128, 127).to(torch.int8)
    return (weight.float() / scale).to(torch.float8_e4m3fn)


def logits(model: Backbone) -> Tensor:
    with torch.no_grad():
        return model.head(model(TOKENS, LAYOUT))


@EVERY_KIND
@pytest.mark.parametrize(("dtype", "off"), [(torch.float32, 1e-6), (torch.bfloat16, 2**-8)])
def test_the_codes_are_those_of_the_formulas(kind: QuantizeKind, dtype: torch.dtype, off: float) -> None:
    """Up to a rounding of the scale to the weights' own precision."""
    model = plain(dtype)
    found = matrices(quantized(model, kind))
    assert len(found) == 14
    for name, weight in matrices(model).items():
        own, scale = codes(found[name])
        torch.testing.assert_close(scale, scales(weight, kind), rtol=off, atol=0)
        wanted = rounded(weight, scale, kind)
        assert own.dtype == wanted.dtype
        assert torch.equal(own.float(), wanted.float())


@EVERY_KIND
@given(seed=st.integers(0, 2**20), power=st.integers(-8, 12))
@settings(deadline=None, max_examples=10)
def test_no_weight_moves_further_than_half_a_step(kind: QuantizeKind, seed: int, power: int) -> None:
    linear = plain(seed=seed)
    with torch.no_grad():
        for weight in linear.parameters():
            weight.mul_(2.0**power)
    found = matrices(quantized(linear, kind))
    for name, weight in matrices(linear).items():
        own, scale = codes(found[name])
        error = (own.float() * scale - weight).abs()
        half = scale / 2 if kind == "int8" else torch.maximum(weight.abs() / 16, scale / 1024)
        assert (error <= half * (1 + 1e-4)).all()
        assert error.max() > 0


@EVERY_KIND
def test_what_is_computed_is_that_of_the_dequantised_weights(kind: QuantizeKind) -> None:
    model, same = plain(), plain()
    small = quantized(model, kind)
    with torch.no_grad():
        for name, weight in matrices(small).items():
            own, scale = codes(weight)
            same.get_parameter(name).copy_(own.float() * scale)
    torch.testing.assert_close(logits(small), logits(same), rtol=0, atol=2e-5)


@pytest.mark.parametrize(("kind", "off"), [("int8", 0.02), ("fp8", 0.12)])
def test_logits_move_a_little(kind: QuantizeKind, off: float) -> None:
    model = plain()
    before, after = logits(model), logits(quantized(model, kind))
    error = float((after - before).norm() / before.norm())
    assert off / 5 < error < off


@EVERY_KIND
def test_the_given_network_and_the_rest_of_the_weights_are_left_alone(kind: QuantizeKind) -> None:
    model = plain()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    small = quantized(model, kind)
    others = {name: weight for name, weight in small.named_parameters() if name not in matrices(small)}
    assert {name.split(".")[-2] for name in others} == {
        "embedding",
        "unembedding",
        "norm",
        "attention_norm",
        "mlp_norm",
    }
    for name, weight in others.items():
        assert weight.data_ptr() == model.get_parameter(name).data_ptr()  # shared, not copied
    small.to("meta")
    assert quantization(model) is None
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(weight.requires_grad for weight in model.parameters())
    assert not any(weight.requires_grad for weight in small.parameters())


@EVERY_KIND
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_weight_takes_a_byte(kind: QuantizeKind, dtype: torch.dtype) -> None:
    model = plain(dtype)
    small = quantized(model, kind)
    weights = sum(weight.numel() for weight in matrices(model).values())
    rows = sum(len(weight) for weight in matrices(model).values())
    beside = 5 if kind == "int8" else 4  # a row's scale, and torchao's zero point, which is 0
    assert held(small) == held(model) - weights * dtype.itemsize + weights + rows * beside
    with torch.device("meta"):
        shadow = quantized(build_backbone(SHAPE).to(dtype), kind)
    assert held(shadow) == held(small)


@pytest.mark.parametrize(("kind", "copies"), [("int8", 1), ("fp8", 2)])
def test_memory_counts_the_weights_that_are_written_out_to_multiply(kind: QuantizeKind, copies: int) -> None:
    """One matrix in float32 at a time, for fp8 before and after it is scaled, besides the inputs and the output."""
    linear = quantized(plain(), kind).blocks[0].mlp.up  # type: ignore[union-attr]
    x = torch.ones(8, 32)
    output, matrix = 4 * 8 * 48, 4 * 32 * 48
    found = peak_bytes(lambda: linear(x))
    assert copies * matrix <= found <= copies * matrix + 2 * output


@EVERY_KIND
def test_it_can_be_compiled(kind: QuantizeKind) -> None:
    small = quantized(plain(), kind)
    made = compiled(small, backend="eager")
    assert quantization(made) == kind
    assert torch.equal(logits(made), logits(small))


@EVERY_KIND
def test_which_it_is_can_be_told(kind: QuantizeKind) -> None:
    small = quantized(plain(), kind)
    assert quantization(small) == kind
    with pytest.raises(ConfigError, match=f"quantised to {kind} already"):
        quantized(small, "int8")


def test_weights_without_a_code_are_refused() -> None:
    model = plain()
    with torch.no_grad():
        model.get_parameter("blocks.1.mlp.gate.weight")[3] = 0
    with pytest.raises(ConfigError, match=r"fp8 cannot hold blocks\.1\.mlp\.gate\.weight: it has a row of zeros"):
        quantized(model, "fp8")
    assert logits(quantized(model, "int8")).isfinite().all()
    with torch.no_grad():
        model.get_parameter("blocks.0.attention.key.weight")[0, 0] = torch.nan
    for kind in KINDS:
        with pytest.raises(ConfigError, match=r"cannot hold blocks\.0\.attention\.key\.weight"):
            quantized(model, kind)


@pytest.mark.parametrize(("kind", "dtype"), [("int8", torch.float16), ("int8", torch.float64), ("fp8", torch.float64)])
def test_precisions_that_do_not_go_with_it_are_refused(kind: QuantizeKind, dtype: torch.dtype) -> None:
    with pytest.raises(BackendError, match=f"{kind}.*does not go with {dtype}; use dtype float32 or bfloat16"):
        quantized(plain(dtype), kind)


def test_other_kinds_are_refused() -> None:
    with pytest.raises(BackendError, match="unknown quantize 'int3'; choose from int8, fp8"):
        check_quantize("int3")  # type: ignore[arg-type]


@EVERY_KIND
def test_without_torchao_the_fix_is_named(kind: QuantizeKind, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "torchao"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "torchao", None)  # type: ignore[arg-type]
    before = logging.root.manager.disable
    with pytest.raises(BackendError, match=r"needs torchao.*pip install 'dimoo\[quantize\]'"):
        check_quantize(kind)
    assert logging.root.manager.disable == before


def test_the_settings_of_the_compiler_are_left_alone() -> None:
    import torch._inductor.config as compiler

    before = compiler.coordinate_descent_tuning, compiler.force_fuse_int_mm_with_mul
    for kind in KINDS:
        quantized(plain(), kind)
    assert (compiler.coordinate_descent_tuning, compiler.force_fuse_int_mm_with_mul) == before
    assert not all(before)
