from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from dimoo.backbone.norm import RMSNorm
from dimoo.backbone.rope import Rope
from dimoo.core.errors import ConfigError


def vectors(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def naive_rotation(x: Tensor, positions: list[list[int]], axes: tuple[int, ...], theta: float) -> Tensor:
    """One pair of numbers at a time, as complex multiplication in double precision."""
    out, pairs = x.clone(), x.shape[-1] // 2
    for token, row in enumerate(positions):
        start = 0
        for axis, share in enumerate(axes):
            own = pairs * share // sum(axes)
            for k in range(own):
                angle = row[axis] * theta ** (-k / own)
                turn = complex(math.cos(angle), math.sin(angle))
                for head in range(x.shape[1]):
                    j = start + k
                    z = turn * complex(float(x[token, head, j]), float(x[token, head, j + pairs]))
                    out[token, head, j], out[token, head, j + pairs] = z.real, z.imag
            start += own
    return out


@pytest.mark.parametrize("axes", [(1,), (1, 1), (2, 1, 1)])
def test_rotation_equals_complex_multiplication(axes: tuple[int, ...]) -> None:
    x, theta = vectors(3, 2, 16), 100.0
    positions = [[0] * len(axes), [5, 3, 1][: len(axes)], [2, 11, 7][: len(axes)]]
    rotation = Rope(head_width=16, theta=theta, axes=axes).rotation(torch.tensor(positions))
    torch.testing.assert_close(rotation.apply(x), naive_rotation(x, positions, axes, theta), atol=2e-6, rtol=1e-5)


def test_one_axis_takes_flat_positions() -> None:
    rope, positions = Rope(head_width=8, theta=100.0, axes=(1,)), torch.tensor([0, 4, 9])
    flat, column = rope.rotation(positions), rope.rotation(positions.unsqueeze(1))
    assert torch.equal(flat.cos, column.cos)
    assert torch.equal(flat.sin, column.sin)


def test_products_depend_on_position_differences_only() -> None:
    rope = Rope(head_width=16, theta=100.0, axes=(1,))
    query, key = vectors(2, 1, 1, 16)
    near = rope.rotation(torch.tensor([7])).apply(query) * rope.rotation(torch.tensor([3])).apply(key)
    far = rope.rotation(torch.tensor([107])).apply(query) * rope.rotation(torch.tensor([103])).apply(key)
    torch.testing.assert_close(near.sum(), far.sum(), atol=1e-4, rtol=0)


def test_half_precision_is_rotated_in_fp32() -> None:
    rotation = Rope(head_width=16, theta=5e5, axes=(1,)).rotation(torch.tensor([1000, 4001, 7]))
    x = vectors(3, 2, 16).bfloat16()
    assert rotation.cos.dtype == torch.float32
    assert torch.equal(rotation.apply(x), rotation.apply(x.float()).bfloat16())


def test_wrong_number_of_axes_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"positions have 1 axes.*\(1, 1\) want 2"):
        Rope(head_width=16, theta=100.0, axes=(1, 1)).rotation(torch.tensor([0, 1]))


def rms_norm(width: int, eps: float) -> RMSNorm:
    norm = RMSNorm(width, eps)
    norm.weight.data.copy_(1 + vectors(width))
    return norm


def test_norm_divides_by_root_mean_square() -> None:
    x, norm = vectors(5, 16) * 3, rms_norm(16, 0.1)
    wanted = norm.weight.double() * x.double() / (x.double().square().mean(1, keepdim=True) + 0.1).sqrt()
    torch.testing.assert_close(norm(x), wanted.float(), atol=1e-6, rtol=1e-6)


def test_norm_casts_back_before_the_weight() -> None:
    x, norm = (vectors(5, 16) * 300).bfloat16(), rms_norm(16, 1e-5).bfloat16()
    quotient = x.float() / (x.float().square().mean(1, keepdim=True) + 1e-5).sqrt()
    assert torch.equal(norm(x), norm.weight * quotient.bfloat16())
