"""Full-forward logits of the released code, by weights that the loader read from a released checkpoint."""

from __future__ import annotations

import pytest
import torch
from golden_folder import Golden
from golden_release import Released

from dimoo.backbone.layout import PackedLayout
from dimoo.backbone.model import Backbone


def test_logits(golden: Golden, backbone: Backbone, logits_case: str) -> None:
    ids, wanted = golden.tensors[f"{logits_case}.ids"], golden.tensors[f"{logits_case}.logits"]
    layout = PackedLayout.of([ids.shape[1]] * ids.shape[0])
    with torch.no_grad():
        logits = backbone.head(backbone(ids.flatten(), layout)).view_as(wanted)
    torch.testing.assert_close(logits, wanted, atol=1e-4, rtol=0)


def test_rows_of_different_length_in_one_pack(golden: Golden, backbone: Backbone) -> None:
    """The stored rows, all in one stream: what the released code cannot do, and the same numbers."""
    names = sorted(key.removesuffix(".ids") for key in golden.tensors if key.startswith("logits.") and ".ids" in key)
    if not names:
        pytest.skip("this folder stores no logits")
    rows = [row for name in names for row in golden.tensors[f"{name}.ids"]]
    wanted = torch.cat([golden.tensors[f"{name}.logits"].flatten(0, 1) for name in names])
    with torch.no_grad():
        hidden = backbone(torch.cat(rows), PackedLayout.of([len(row) for row in rows]))
        torch.testing.assert_close(backbone.head(hidden), wanted, atol=1e-4, rtol=0)


def test_the_image_slice_of_the_head_alone(golden: Golden, released: Released, logits_case: str) -> None:
    backbone, codes = released.backbone, slice(*released.codes)
    ids, wanted = golden.tensors[f"{logits_case}.ids"][0], golden.tensors[f"{logits_case}.logits"][0]
    with torch.no_grad():
        hidden = backbone(ids, PackedLayout.of([len(ids)]))
        logits = backbone.head(hidden[::2], codes)
    torch.testing.assert_close(logits, wanted[::2, codes], atol=1e-4, rtol=0)
