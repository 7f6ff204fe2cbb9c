from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from dimoo.backbone.adapter import PaddedEncoder
from dimoo.backbone.layout import PackedLayout
from dimoo.core.errors import BackendError


class Rectangular(nn.Module):
    """A foreign encoder: learned positions, torch's own masked layer."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.tokens, self.positions = nn.Embedding(20, 16), nn.Embedding(12, 16)
        self.layer = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0, batch_first=True)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        x = self.tokens(ids) + self.positions(torch.arange(ids.shape[1]))
        out: Tensor = self.layer(x, src_key_padding_mask=~mask)
        return out


@pytest.fixture
def adapter() -> PaddedEncoder:
    unembedding = torch.randn(20, 16, generator=torch.Generator().manual_seed(0))
    return PaddedEncoder(Rectangular(), unembedding=nn.Parameter(unembedding), pad=3)


def test_batched_equals_single(adapter: PaddedEncoder) -> None:
    lengths = [5, 2, 7, 5]
    tokens = torch.randint(0, 20, (sum(lengths),), generator=torch.Generator().manual_seed(0))
    packed = adapter(tokens, PackedLayout.of(lengths)).split(lengths)
    for together, sequence in zip(packed, tokens.split(lengths), strict=True):
        alone = adapter.encoder(sequence.unsqueeze(0), torch.ones(1, len(sequence), dtype=torch.bool))[0]
        torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)


def test_rectangle_is_right_padded_with_the_given_id() -> None:
    seen: list[Tensor] = []

    class Spy(nn.Module):
        def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
            seen.extend([ids, mask])
            return ids.unsqueeze(-1).float()

    adapter = PaddedEncoder(Spy(), unembedding=nn.Parameter(torch.ones(1, 1)), pad=9)
    hidden = adapter(torch.tensor([1, 2, 3, 4]), PackedLayout.of([1, 3]))
    assert seen[0].tolist() == [[1, 9, 9], [2, 3, 4]]
    assert seen[1].tolist() == [[True, False, False], [True, True, True]]
    assert hidden.flatten().tolist() == [1, 2, 3, 4]


def test_head_computes_the_asked_columns(adapter: PaddedEncoder) -> None:
    rows = torch.ones(2, 16)
    torch.testing.assert_close(adapter.head(rows, slice(4, 7)), adapter.head(rows)[:, 4:7])


def test_stores_and_partial_layouts_are_refused(adapter: PaddedEncoder) -> None:
    class Store:
        def extend(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
            return key, value

    whole = PackedLayout.of([3])
    partial = PackedLayout(positions=torch.arange(3), query_lengths=(3,), key_lengths=(5,))
    shifted = PackedLayout(positions=torch.arange(3) + 1, query_lengths=(3,), key_lengths=(3,))
    with pytest.raises(BackendError, match="no cache, but Store was given"):
        adapter(torch.arange(3), whole, Store())
    for layout in (partial, shifted):
        with pytest.raises(BackendError, match="whole sequences"):
            adapter(torch.arange(3), layout)
