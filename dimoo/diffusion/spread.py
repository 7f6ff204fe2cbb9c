"""Orders that spread each step's tokens evenly over a picture, whatever the predictions say.

What is committed together lies far apart, so that drawing it independently costs little; and it is known beforehand,
so that only those cells are predicted. Axes: h, w = the picture's code grid, L = h w its cells in reading order.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from dimoo.core.device import sent
from dimoo.core.errors import ConfigError
from dimoo.diffusion.orders import ScheduledOrder, check_steps
from dimoo.diffusion.progress import Progress, places


@dataclass(frozen=True, kw_only=True)
class GridOrder(ScheduledOrder, ABC):
    """Commits the next masked cells of a fixed sequence, as many as the schedule says. Given cells are skipped.

    Raises:
        ConfigError: the grid is empty, or the offset is negative.
    """

    grid: tuple[int, int]
    """(h, w)"""
    offset: int = 0
    """Where the sequence starts."""

    def __post_init__(self) -> None:
        if min(self.grid) < 1:
            raise ConfigError(f"grid {self.grid} must have at least one row and one column")
        if self.offset < 0:
            raise ConfigError(f"offset {self.offset} must be at least 0, where the sequence begins")

    @cached_property
    def cells(self) -> Tensor:
        """int64 [L]: each cell once, as it comes."""
        return self.sequence()

    @abstractmethod
    def sequence(self) -> Tensor:
        """The cells, int64 [L]; `cells` keeps them."""

    def validate(self, length: int, steps: int) -> None:
        """The span must be the grid, in at least one step."""
        check_steps(steps)
        height, width = self.grid
        if length != height * width:
            raise ConfigError(
                f"the order walks over a grid of {height} x {width} cells, but {length} positions are to be denoised;"
                " give it the picture's grid"
            )

    def candidates(self, progress: Progress) -> Tensor:
        """The cells of this step alone."""
        cells = sent(self.cells, progress.masked.device)
        masked = cells[places(progress.masked[cells], progress.left)]
        return masked[: self.count(progress, progress.left)].sort().values

    def commit(self, progress: Progress, candidates: Tensor, confidence: Tensor, generator: torch.Generator) -> Tensor:
        """All of them."""
        del progress, confidence, generator
        return candidates


@dataclass(frozen=True, kw_only=True)
class HaltonOrder(GridOrder):
    """The Halton sequence in two dimensions (Halton-MaskGIT, arXiv 2503.17076, there with the schedule `Arccos`).

    Point i = 0, 1, ... lies in row floor(h r_2(i)) and column floor(w r_3(i)), r_b(i) the digits of i in base b
    mirrored at the point. A cell counts where it comes first. `offset` turns the sequence of cells, as the paper does
    picture by picture: the one at (offset mod L) comes first and those before it last.
    """

    def sequence(self) -> Tensor:
        """The cells, int64 [L]."""
        height, width = self.grid
        total, found = height * width, torch.empty(0, dtype=torch.int64)
        # Every 2^a 3^b points hit each of as many rectangles of side 2^-a, 3^-b: so many points reach every cell.
        points = _power(2, 2 * height) * _power(3, 2 * width)
        for start in range(0, points, 8 * total):
            index = torch.arange(start, min(start + 8 * total, points))
            rows, columns = (_mirrored(index, base, side) for base, side in ((2, height), (3, width)))
            found = _first(torch.cat([found, rows * width + columns]))
            if found.numel() == total:
                break
        return found.roll(-(self.offset % total))


@dataclass(frozen=True, kw_only=True)
class StratifiedOrder(GridOrder):
    """Progressive multi-jittered order: at every moment all blocks of a size have had an equal share.

    Take any k and the blocks of 2^k x 2^k cells that lie in the grid, counted from its corner: the numbers of cells
    that they have had differ by at most one. Of a square of side 2^k the first 4^j cells are one for each of 4^j
    blocks, so each round halves the blocks. LaViDa-O's stratified sampler (arXiv 2509.19244) does this with chance in
    it. Here nothing is drawn: the sequence is Sobol's (0, 2)-sequence in base 2 on the smallest such square that holds
    the grid, less the cells outside. `offset` starts at another point: in place of point i comes point i xor offset
    (mod the square's cells), which keeps the shares equal.
    """

    def sequence(self) -> Tensor:
        """The cells, int64 [L]."""
        height, width = self.grid
        levels = (max(self.grid) - 1).bit_length()
        bits = 2 * levels
        index = torch.arange(1 << bits) ^ (self.offset % (1 << bits))
        rows, columns = torch.zeros_like(index), torch.zeros_like(index)
        direction = 1 << bits >> 1  # of the polynomial x + 1: column k of Pascal's triangle mod 2
        for bit in range(bits):
            digit = index >> bit & 1
            rows |= digit << (bits - 1 - bit)
            columns ^= digit * direction
            direction ^= direction >> 1
        rows, columns = rows >> levels, columns >> levels
        inside = (rows < height) & (columns < width)
        return (rows * width + columns)[inside]


def _mirrored(index: Tensor, base: int, side: int) -> Tensor:
    """floor(side r_base(index)), in whole numbers: no rounding moves a point into the next cell."""
    digits, value = 1, torch.zeros_like(index)
    while bool((index > 0).any()):
        value = value * base + index % base
        index, digits = index // base, digits * base
    return value * side // digits


def _first(cells: Tensor) -> Tensor:
    """The distinct cells in the order in which they come first."""
    distinct, number = torch.unique(cells, return_inverse=True)
    first = torch.full_like(distinct, cells.numel())
    first.scatter_reduce_(0, number, torch.arange(cells.numel()), "amin")
    return cells[first.sort().values]


def _power(base: int, least: int) -> int:
    """The smallest power of the base that is at least so much."""
    power = 1
    while power < least:
        power *= base
    return power
