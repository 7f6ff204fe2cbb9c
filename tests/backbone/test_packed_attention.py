from __future__ import annotations

import sys
from itertools import pairwise
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from dimoo.backbone.attention import (
    AttentionBackend,
    AutoAttention,
    FlexAttention,
    SdpaAttention,
    VarlenAttention,
    XformersAttention,
    choose,
    flex,
    sdpa,
    varlen,
    xformers,
)
from dimoo.backbone.attention.choose import fastest
from dimoo.backbone.build import build_attention
from dimoo.backbone.layout import PackedLayout
from dimoo.core.errors import BackendError

PAIRS = [(3, 5), (3, 5), (7, 7), (1, 9), (3, 5), (7, 7), (3, 7)]


def naive(query: Tensor, key: Tensor, value: Tensor, layout: PackedLayout) -> Tensor:
    """Softmax attention, one sequence and one head at a time, in float64."""
    out = torch.zeros_like(query, dtype=torch.float64)
    share = query.shape[1] // key.shape[1]
    query_at = key_at = 0
    for queries, keys in zip(layout.query_lengths, layout.key_lengths, strict=True):
        for head in range(query.shape[1]):
            q = query[query_at : query_at + queries, head].double()
            k = key[key_at : key_at + keys, head // share].double()
            v = value[key_at : key_at + keys, head // share].double()
            out[query_at : query_at + queries, head] = (q @ k.T / q.shape[1] ** 0.5).softmax(1) @ v
        query_at, key_at = query_at + queries, key_at + keys
    return out


def sample(
    pairs: list[tuple[int, int]], heads: int = 4, kv_heads: int = 4, dtype: torch.dtype = torch.float32
) -> tuple[Tensor, Tensor, Tensor, PackedLayout]:
    queries, keys = zip(*pairs, strict=True)
    draw = torch.Generator().manual_seed(0)
    make = [(sum(queries), heads), (sum(keys), kv_heads), (sum(keys), kv_heads)]
    tensors = [torch.randn(*shape, 16, generator=draw).to(dtype).requires_grad_() for shape in make]
    layout = PackedLayout(positions=torch.arange(sum(queries)), query_lengths=queries, key_lengths=keys)
    return tensors[0], tensors[1], tensors[2], layout


def check_against_naive(backend: AttentionBackend, pairs: list[tuple[int, int]], kv_heads: int) -> None:
    query, key, value, layout = sample(pairs, kv_heads=kv_heads)
    out, wanted = backend.attend(query, key, value, layout), naive(query, key, value, layout)
    torch.testing.assert_close(out, wanted.float(), atol=2e-6, rtol=1e-5)
    pull = torch.randn(out.shape, generator=torch.Generator().manual_seed(1))
    got = torch.autograd.grad(out, (query, key, value), pull)
    true = torch.autograd.grad(wanted, (query, key, value), pull.double())
    for one, other in zip(got, true, strict=True):
        torch.testing.assert_close(one, other, atol=5e-6, rtol=1e-5)


@pytest.fixture
def on_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the GPU backends go past their device check."""
    for module in (flex, varlen, xformers):
        monkeypatch.setattr(module, "require_cuda", lambda name, query: None)


@pytest.mark.parametrize("kv_heads", [4, 2, 1])
@pytest.mark.parametrize("pairs", [PAIRS, [(5, 5)] * 3, [(4, 4)], [(1, 1), (2, 2)]])
def test_sdpa_equals_naive_forward_and_backward(pairs: list[tuple[int, int]], kv_heads: int) -> None:
    check_against_naive(SdpaAttention(), pairs, kv_heads)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 4), st.integers(1, 4)), min_size=1, max_size=8))
def test_sdpa_equals_naive_for_any_lengths(pairs: list[tuple[int, int]]) -> None:
    check_against_naive(SdpaAttention(), pairs, 2)


def test_equal_lengths_are_views_of_the_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    query, key, value, layout = sample([(5, 5)] * 3)
    seen: list[Tensor] = []

    def record(*tensors: Tensor, enable_gqa: bool) -> Tensor:
        seen.extend(tensors)
        return tensors[0]

    monkeypatch.setattr(sdpa, "scaled_dot_product_attention", record)
    SdpaAttention().attend(query, key, value, layout)
    assert [t.data_ptr() for t in seen] == [t.data_ptr() for t in (query, key, value)]


def test_sdpa_on_cpu_computes_half_precision_in_fp32(monkeypatch: pytest.MonkeyPatch) -> None:
    query, key, value, layout = sample(PAIRS, dtype=torch.bfloat16)
    seen: list[torch.dtype] = []
    real = sdpa.scaled_dot_product_attention

    def record(*tensors: Tensor, enable_gqa: bool) -> Tensor:
        out = real(*tensors, enable_gqa=enable_gqa)
        seen.extend([tensors[0].dtype, out.dtype])
        return out

    monkeypatch.setattr(sdpa, "scaled_dot_product_attention", record)
    with torch.autocast("cpu", torch.bfloat16):
        out = SdpaAttention().attend(query, key, value, layout)
    assert set(seen) == {torch.float32}
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(out, naive(query, key, value, layout).bfloat16(), atol=0, rtol=2**-7)


@pytest.mark.usefixtures("on_cpu")
@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize("kv_heads", [4, 2])
def test_flex_equals_naive(monkeypatch: pytest.MonkeyPatch, kv_heads: int) -> None:
    from torch.nn.attention.flex_attention import flex_attention

    monkeypatch.setattr(flex, "compiled_flex", lambda: flex_attention)
    *tensors, layout = sample(PAIRS, kv_heads=kv_heads)
    query, key, value = (tensor.detach() for tensor in tensors)  # flex has no backward on CPU
    out = FlexAttention().attend(query, key, value, layout)
    torch.testing.assert_close(out, naive(query, key, value, layout).float(), atol=2e-6, rtol=1e-5)


def test_sequence_ids_name_the_sequence_of_each_token() -> None:
    assert flex.sequence_ids(torch.tensor([0, 2, 5, 6], dtype=torch.int32)).tolist() == [0, 0, 1, 1, 1, 2]


@pytest.mark.usefixtures("on_cpu")
@pytest.mark.parametrize("kv_heads", [4, 2])
def test_varlen_hands_over_bounds_and_longest(monkeypatch: pytest.MonkeyPatch, kv_heads: int) -> None:
    import torch.nn.attention.varlen as real

    def kernel(
        query: Tensor, key: Tensor, value: Tensor, q_bounds: Tensor, k_bounds: Tensor, longest_q: int,
        longest_k: int, *, enable_gqa: bool = False,
    ) -> Tensor:  # fmt: skip
        q_lengths, k_lengths = (tuple(b - a for a, b in pairwise(bounds.tolist())) for bounds in (q_bounds, k_bounds))
        assert q_bounds.dtype == k_bounds.dtype == torch.int32
        assert (longest_q, longest_k) == (max(q_lengths), max(k_lengths))
        assert enable_gqa == (query.shape[1] != key.shape[1])
        positions = torch.arange(len(query))
        layout = PackedLayout(positions=positions, query_lengths=q_lengths, key_lengths=k_lengths)
        return naive(query, key, value, layout).to(query.dtype)

    monkeypatch.setattr(real, "varlen_attn", kernel)
    query, key, value, layout = sample(PAIRS, kv_heads=kv_heads, dtype=torch.float16)
    out = VarlenAttention().attend(query, key, value, layout)
    assert torch.equal(out, naive(query, key, value, layout).half())


@pytest.mark.usefixtures("on_cpu")
def test_varlen_refuses_fp32() -> None:
    with pytest.raises(BackendError, match=r"bf16 or fp16, not torch\.float32; use autocast"):
        VarlenAttention().attend(*sample(PAIRS))


@pytest.mark.usefixtures("on_cpu")
@pytest.mark.parametrize("kv_heads", [4, 2])
def test_xformers_gets_block_diagonal_bias_and_repeated_heads(monkeypatch: pytest.MonkeyPatch, kv_heads: int) -> None:
    made: list[Any] = []

    def from_seqlens(*, q_seqlen: list[int], kv_seqlen: list[int], device: torch.device) -> Any:
        made.append(SimpleNamespace(q=q_seqlen, kv=kv_seqlen, device=device))
        return made[-1]

    def kernel(query: Tensor, key: Tensor, value: Tensor, attn_bias: Any) -> Tensor:
        assert query.shape[0] == 1
        assert query.shape[2] == key.shape[2] == value.shape[2]
        positions = torch.arange(query.shape[1])
        layout = PackedLayout(positions=positions, query_lengths=tuple(attn_bias.q), key_lengths=tuple(attn_bias.kv))
        return naive(query[0], key[0], value[0], layout).float().unsqueeze(0)

    fakes = {
        "xformers": {},
        "xformers.ops": {"memory_efficient_attention": kernel},
        "xformers.ops.fmha": {},
        "xformers.ops.fmha.attn_bias": {"BlockDiagonalMask": SimpleNamespace(from_seqlens=from_seqlens)},
    }
    for name, members in fakes.items():
        module = ModuleType(name)
        vars(module).update(members)
        monkeypatch.setitem(sys.modules, name, module)
    query, key, value, layout = sample(PAIRS, kv_heads=kv_heads)
    for _ in range(2):
        out = XformersAttention().attend(query, key, value, layout)
        assert torch.equal(out, naive(query, key, value, layout).float())
    assert len(made) == 1, "the mask is built once per layout, not once per layer"


@pytest.mark.parametrize("backend", [VarlenAttention(), FlexAttention(), XformersAttention()])
def test_gpu_backends_refuse_the_cpu(backend: AttentionBackend) -> None:
    with pytest.raises(BackendError, match=r"CUDA only.*'cpu'; use attention='auto' or 'sdpa'"):
        backend.attend(*sample(PAIRS))


@pytest.mark.usefixtures("on_cpu")
@pytest.mark.parametrize(
    ("backend", "module", "fix"),
    [
        (VarlenAttention(), "torch.nn.attention.varlen", "install a newer torch"),
        (XformersAttention(), "xformers.ops", "pip install"),
    ],
)
def test_missing_installations_are_named(
    monkeypatch: pytest.MonkeyPatch, backend: AttentionBackend, module: str, fix: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(BackendError, match=rf"needs .*, which is not here; {fix}"):
        backend.attend(*sample(PAIRS, dtype=torch.bfloat16))


@pytest.mark.parametrize(
    ("device", "dtype", "varlen_here", "xformers_here", "wanted"),
    [
        ("cpu", torch.bfloat16, True, True, SdpaAttention),
        ("mps", torch.float16, True, True, SdpaAttention),
        ("cuda", torch.float32, True, True, SdpaAttention),
        ("cuda", torch.bfloat16, True, True, VarlenAttention),
        ("cuda", torch.float16, False, True, XformersAttention),
        ("cuda", torch.float16, False, False, SdpaAttention),
    ],
)
def test_auto_takes_the_fastest_available(
    monkeypatch: pytest.MonkeyPatch, device: str, dtype: torch.dtype, varlen_here: bool, xformers_here: bool,
    wanted: type,
) -> None:  # fmt: skip
    monkeypatch.setattr(choose, "has_varlen", lambda device: varlen_here)
    monkeypatch.setattr(choose, "find_spec", lambda name: object() if xformers_here else None)
    assert type(fastest.__wrapped__(torch.device(device), dtype)) is wanted


def test_auto_attends() -> None:
    query, key, value, layout = sample(PAIRS)
    assert torch.equal(
        AutoAttention().attend(query, key, value, layout), SdpaAttention().attend(query, key, value, layout)
    )


@pytest.mark.gpu
@pytest.mark.parametrize("backend", [AutoAttention(), SdpaAttention(), VarlenAttention(), FlexAttention()])
def test_backends_on_a_gpu_equal_naive(backend: AttentionBackend) -> None:
    query, key, value, layout = sample(PAIRS, kv_heads=2, dtype=torch.bfloat16)
    moved = PackedLayout(
        positions=layout.positions.cuda(), query_lengths=layout.query_lengths, key_lengths=layout.key_lengths
    )
    out = backend.attend(query.cuda(), key.cuda(), value.cuda(), moved)
    torch.testing.assert_close(out.cpu().double(), naive(query, key, value, layout), atol=2e-2, rtol=2e-2)


@pytest.mark.gpu
@pytest.mark.parametrize("backend", [AutoAttention(), SdpaAttention(), VarlenAttention(), FlexAttention()])
def test_gradients_of_backends_on_a_gpu_equal_naive(backend: AttentionBackend) -> None:
    *inputs, layout = sample(PAIRS, kv_heads=2, dtype=torch.bfloat16)
    moved = PackedLayout(
        positions=layout.positions.cuda(), query_lengths=layout.query_lengths, key_lengths=layout.key_lengths
    )
    here = [tensor.detach().double().requires_grad_() for tensor in inputs]
    there = [tensor.detach().cuda().requires_grad_() for tensor in inputs]
    wanted = torch.autograd.grad(naive(*here, layout).square().sum(), here)
    made = torch.autograd.grad(backend.attend(*there, moved).float().square().sum(), there)
    for got, want in zip(made, wanted, strict=True):
        torch.testing.assert_close(got.cpu().double(), want, atol=5e-2, rtol=5e-2)


def test_every_kind_builds_its_backend() -> None:
    built = {kind: type(build_attention(kind)) for kind in ("auto", "sdpa", "varlen", "flex", "xformers")}
    assert built == {
        "auto": AutoAttention,
        "sdpa": SdpaAttention,
        "varlen": VarlenAttention,
        "flex": FlexAttention,
        "xformers": XformersAttention,
    }
