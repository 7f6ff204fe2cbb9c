from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from dimoo.backbone.build import build_backbone
from dimoo.backbone.config import BackboneConfig
from dimoo.backbone.layout import PackedLayout
from dimoo.backbone.model import Backbone
from dimoo.core.errors import BackendError, ConfigError

LENGTHS = st.lists(st.integers(1, 9), min_size=1, max_size=7)


def tokens_of(lengths: list[int]) -> list[Tensor]:
    draw = torch.Generator().manual_seed(sum(lengths))
    return [torch.randint(0, 64, (length,), generator=draw) for length in lengths]


def run(model: Backbone, sequences: list[Tensor]) -> list[Tensor]:
    """The logits of each sequence of one packed forward."""
    lengths = [len(sequence) for sequence in sequences]
    with torch.no_grad():
        return list(model.head(model(torch.cat(sequences), PackedLayout.of(lengths))).split(lengths))


def naive_forward(model: Backbone, tokens: Tensor, heads: int, kv_heads: int, eps: float) -> Tensor:
    """The published equations for one sequence, head by head, written apart from the modules."""
    weights = {name: tensor.double() for name, tensor in model.state_dict().items()}

    def norm(x: Tensor, name: str) -> Tensor:
        return weights[name] * x / (x.square().mean(-1, keepdim=True) + eps).sqrt()

    def rotate(x: Tensor) -> Tensor:
        half = x.shape[-1] // 2
        frequency = 500000.0 ** (-torch.arange(half, dtype=torch.float64) / half)
        angle = torch.arange(len(x)).unsqueeze(1) * frequency
        turned = torch.complex(x[:, :half], x[:, half:]) * torch.polar(torch.ones_like(angle), angle)
        return torch.cat([turned.real, turned.imag], 1)

    x = weights["embedding.weight"][tokens]
    for layer in range(len(model.blocks)):
        prefix = f"blocks.{layer}."
        y = norm(x, prefix + "attention_norm.weight")
        query, key, value = (
            (y @ weights[f"{prefix}attention.{name}.weight"].T).chunk(parts, 1)
            for name, parts in (("query", heads), ("key", kv_heads), ("value", kv_heads))
        )
        mixed = []
        for head in range(heads):
            shared = head * kv_heads // heads
            scores = rotate(query[head]) @ rotate(key[shared]).T / query[head].shape[1] ** 0.5
            mixed.append(scores.softmax(1) @ value[shared])
        x = x + torch.cat(mixed, 1) @ weights[prefix + "attention.output.weight"].T
        y = norm(x, prefix + "mlp_norm.weight")
        gate, up = y @ weights[prefix + "mlp.gate.weight"].T, y @ weights[prefix + "mlp.up.weight"].T
        x = x + (gate * gate.sigmoid() * up) @ weights[prefix + "mlp.output.weight"].T
    return norm(x, "norm.weight") @ weights["unembedding.weight"].T


def test_forward_equals_the_equations(model: Backbone) -> None:
    for sequence, logits in zip(tokens := tokens_of([6, 9, 6]), run(model, tokens), strict=True):
        wanted = naive_forward(model, sequence, heads=4, kv_heads=2, eps=1e-5)
        torch.testing.assert_close(logits.double(), wanted, atol=2e-5, rtol=1e-5)


@settings(max_examples=25, deadline=None)
@given(LENGTHS)
def test_packed_equals_each_sequence_alone(model: Backbone, lengths: list[int]) -> None:
    sequences = tokens_of(lengths)
    for together, sequence in zip(run(model, sequences), sequences, strict=True):
        torch.testing.assert_close(together, run(model, [sequence])[0], atol=1e-5, rtol=1e-5)


@settings(max_examples=15, deadline=None)
@given(LENGTHS, st.randoms(use_true_random=False))
def test_permuting_sequences_permutes_outputs(model: Backbone, lengths: list[int], random: object) -> None:
    sequences, order = tokens_of(lengths), list(range(len(lengths)))
    random.shuffle(order)  # type: ignore[attr-defined]
    straight, shuffled = run(model, sequences), run(model, [sequences[index] for index in order])
    for place, index in enumerate(order):
        torch.testing.assert_close(shuffled[place], straight[index], atol=1e-5, rtol=1e-5)


@dataclass
class DictStore:
    """Keeps keys and values of whole sequences; `rows` are the stream positions that a step computes anew."""

    rows: Tensor
    kept: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict)

    def extend(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        if layer not in self.kept:
            self.kept[layer] = key, value
        old_key, old_value = self.kept[layer]
        index = self.rows
        self.kept[layer] = old_key.index_copy(0, index, key), old_value.index_copy(0, index, value)
        return self.kept[layer]


@settings(max_examples=15, deadline=None)
@given(LENGTHS, st.data())
def test_a_subset_of_queries_against_stored_keys_equals_the_full_run(
    model: Backbone, lengths: list[int], data: st.DataObject
) -> None:
    tokens, layout = torch.cat(tokens_of(lengths)), PackedLayout.of(lengths)
    picks = [sorted(data.draw(st.sets(st.integers(0, length - 1), min_size=1))) for length in lengths]
    starts = [sum(lengths[:index]) for index in range(len(lengths))]
    rows = torch.tensor([start + pick for start, row in zip(starts, picks, strict=True) for pick in row])
    store = DictStore(torch.arange(sum(lengths)))
    with torch.no_grad():
        full = model(tokens, layout, store)
        store.rows = rows
        partial = PackedLayout(
            positions=layout.positions[rows],
            query_lengths=tuple(len(row) for row in picks),
            key_lengths=layout.key_lengths,
        )
        some = model(tokens[rows], partial, store)
    torch.testing.assert_close(some, full[rows], atol=1e-5, rtol=1e-5)


def test_stored_keys_are_used_and_not_computed_again(model: Backbone) -> None:
    tokens, layout = torch.cat(tokens_of([5, 4])), PackedLayout.of([5, 4])
    store = DictStore(torch.arange(9))
    with torch.no_grad():
        full = model(tokens, layout, store)
        key, value = store.kept[0]
        store.kept[0] = key, value * 2
        store.rows = torch.tensor([1, 6])
        partial = PackedLayout(positions=torch.tensor([1, 1]), query_lengths=(1, 1), key_lengths=(5, 4))
        some = model(tokens[[1, 6]], partial, store)
    assert (some - full[[1, 6]]).abs().max() > 0.01


def test_head_computes_the_asked_columns(model: Backbone) -> None:
    rows = torch.randn(5, 32, generator=torch.Generator().manual_seed(0))
    full = model.head(rows)
    assert full.shape == (5, 64)
    part = model.head(rows, slice(40, 56))
    assert part.shape == (5, 16)
    torch.testing.assert_close(part, full[:, 40:56], atol=1e-6, rtol=1e-6)


def test_embeddings_can_be_fed(model: Backbone) -> None:
    tokens, layout = torch.cat(tokens_of([5, 4])), PackedLayout.of([5, 4])
    assert torch.equal(model(tokens, layout), model.encode(model.embed(tokens), layout))


def test_gradients_of_a_pack_are_the_sum_of_each_alone(make_model: Callable[..., Backbone]) -> None:
    model, sequences = make_model(), tokens_of([5, 3, 5])

    def gradients(parts: list[Tensor]) -> list[Tensor]:
        logits = model.head(model(torch.cat(parts), PackedLayout.of([len(part) for part in parts])))
        loss = nn.functional.cross_entropy(logits, torch.cat(parts), reduction="sum")
        return list(torch.autograd.grad(loss, list(model.parameters())))

    alone = [gradients([sequence]) for sequence in sequences]
    for together, *parts in zip(gradients(sequences), *alone, strict=True):
        torch.testing.assert_close(together, sum(parts), atol=1e-4, rtol=1e-4)


def test_several_position_axes(make_model: Callable[..., Backbone]) -> None:
    model, tokens = make_model(rope_axes=(1, 1)), torch.arange(4)
    grid = torch.tensor([[0, 0], [0, 1], [1, 0], [1, 1]])

    def hidden(positions: Tensor) -> Tensor:
        layout = PackedLayout(positions=positions, query_lengths=(4,), key_lengths=(4,))
        return model(tokens, layout)

    torch.testing.assert_close(hidden(grid + torch.tensor([3, 5])), hidden(grid), atol=2e-5, rtol=1e-5)
    for axis in (0, 1):
        stretched = grid.clone()
        stretched[:, axis] *= 3
        assert (hidden(stretched) - hidden(grid)).abs().max() > 1e-3
    with pytest.raises(ConfigError, match="positions have 1 axes"):
        model(tokens, PackedLayout.of([4]))


def test_wrong_stream_length_and_foreign_store_are_refused(model: Backbone) -> None:
    with pytest.raises(BackendError, match="stream has 3 tokens, its layout 4"):
        model(torch.arange(3), PackedLayout.of([4]))
    partial = PackedLayout(positions=torch.arange(2), query_lengths=(2,), key_lengths=(5,))
    with pytest.raises(BackendError, match=r"NoKV gave 2 keys and 2 values to block 0.*has 5"):
        model(torch.arange(2), partial)


def test_state_holds_weights_only(model: Backbone) -> None:
    layout, before = PackedLayout.of([4, 2]), set(vars(model))
    model(torch.arange(6), layout)
    assert set(vars(model)) == before
    assert set(model.state_dict()) == {name for name, _ in model.named_parameters()}
    assert not any("rope" in name for name in model.state_dict())


def test_runs_on_the_meta_device() -> None:
    huge = BackboneConfig(d_model=4096, layers=32, heads=32, kv_heads=32, mlp_hidden=12288, vocab_size=134548)
    with torch.device("meta"):
        model = build_backbone(huge)
    assert all(parameter.is_meta for parameter in model.parameters())
    assert (
        sum(parameter.numel() for parameter in model.parameters())
        == 32 * (4 * 4096**2 + 3 * 4096 * 12288 + 2 * 4096) + 4096 + 2 * 134548 * 4096
    )
    hidden = model(torch.zeros(7, dtype=torch.int64, device="meta"), PackedLayout.of([4, 3], "meta"))
    assert hidden.shape == (7, 4096)
    assert model.head(hidden[:2], slice(126356, 134548)).shape == (2, 8192)


@pytest.mark.parametrize(
    "change",
    [
        {"rope_theta": 100.0},
        {"norm_eps": 0.5},
        {"rope_axes": (2, 2)},
        {"heads": 2},
        {"kv_heads": 4},
        {"mlp_hidden": 64},
        {"layers": 3},
        {"d_model": 64},
        {"vocab_size": 70},
        {"attention": "sdpa"},
    ],
)
def test_every_setting_changes_the_model(
    make_model: Callable[..., Backbone], model: Backbone, change: dict[str, object]
) -> None:
    def probe(which: Backbone) -> tuple[object, ...]:
        positions = torch.arange(4)
        if len(which.rope.axes) > 1:
            positions = torch.stack([positions, positions], 1)
        layout = PackedLayout(positions=positions, query_lengths=(4,), key_lengths=(4,))
        logits = which.head(which(torch.arange(4), layout))
        return logits.shape, logits.double().sum().item(), repr(which.blocks[0].attention.backend)

    assert probe(make_model(**change)) != probe(model)
