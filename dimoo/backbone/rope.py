"""Rotary position embedding (Su et al. 2021, arXiv 2104.09864), half-rotation form, one or several axes.

Axes: N = tokens, A = position axes, H = heads, D = head width, P = D / 2 rotary pairs.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dimoo.core.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Rotation:
    """The rotation of every token: fp32 cos and sin of its angles, [N, 1, P]; shared by all layers."""

    cos: Tensor
    sin: Tensor

    def apply(self, x: Tensor) -> Tensor:
        """Rotate pair (x_j, x_{j+P}) of every head by angle_j, in fp32; [N, H, D], dtype as `x`."""
        first, second = x.float().chunk(2, dim=-1)
        turned = (
            torch.addcmul(first * self.cos, second, self.sin, value=-1),
            torch.addcmul(second * self.cos, first, self.sin),
        )
        return torch.cat(turned, dim=-1).to(x.dtype)


@dataclass(frozen=True, kw_only=True)
class Rope:
    """Angles from positions: angle_j = position[axis of j] * theta^(-2k / D_a), k = index of j in its axis.

    The P pairs of a head are shared among A axes in the proportions `axes`; an axis has D_a = 2 P_a of the
    head's dimensions. With one axis this is the ordinary rotary embedding. Nothing is stored: angles are
    computed from the positions at each forward pass, so there is no longest sequence.
    """

    head_width: int
    theta: float
    axes: tuple[int, ...]

    def rotation(self, positions: Tensor) -> Rotation:
        """Cos and sin for positions int64 [N] or [N, A].

        Raises:
            ConfigError: the positions do not have one column per axis.
        """
        columns = positions.unsqueeze(-1) if positions.ndim == 1 else positions
        if columns.shape[-1] != len(self.axes):
            raise ConfigError(
                f"positions have {columns.shape[-1]} axes, the model's rope_axes {self.axes} want {len(self.axes)}"
            )
        unit = self.head_width // 2 // sum(self.axes)
        angles = [
            column.unsqueeze(-1).float() * self._frequencies(share * unit, positions.device)
            for column, share in zip(columns.unbind(-1), self.axes, strict=True)
        ]
        angle = torch.cat(angles, dim=-1).unsqueeze(1)
        return Rotation(cos=angle.cos(), sin=angle.sin())

    def _frequencies(self, pairs: int, device: torch.device) -> Tensor:
        exponents = torch.arange(pairs, dtype=torch.float32, device=device) / pairs
        return 1.0 / self.theta**exponents
