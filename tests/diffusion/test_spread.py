from fractions import Fraction

import pytest
import torch

from dimoo.core.errors import ConfigError
from dimoo.core.rng import generator
from dimoo.diffusion.progress import Progress
from dimoo.diffusion.schedules import Arccos, Linear
from dimoo.diffusion.spread import HaltonOrder, StratifiedOrder

GRIDS = [(1, 1), (1, 7), (7, 1), (2, 3), (4, 4), (8, 8), (5, 11), (16, 6), (9, 16)]


def mirrored(index, base):
    """The digits of a number mirrored at the point, exactly."""
    value, place = Fraction(0), Fraction(1, base)
    while index:
        index, digit = divmod(index, base)
        value, place = value + digit * place, place / base
    return value


def naive_halton(grid, offset):
    height, width = grid
    seen, index = {}, 0
    while len(seen) < height * width:
        seen[int(height * mirrored(index, 2)) * width + int(width * mirrored(index, 3))] = None
        index += 1
    cells = list(seen)
    return cells[offset % len(cells) :] + cells[: offset % len(cells)]


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("offset", [0, 5])
def test_halton_equals_exact_fractions(grid, offset):
    order = HaltonOrder(schedule=Arccos(), grid=grid, offset=offset)
    assert order.cells.tolist() == naive_halton(grid, offset)


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("offset", [0, 3, 1000])
def test_stratified_gives_all_blocks_an_equal_share(grid, offset):
    height, width = grid
    cells = StratifiedOrder(schedule=Arccos(), grid=grid, offset=offset).cells
    assert sorted(cells.tolist()) == list(range(height * width))
    times = torch.empty_like(cells)
    times[cells] = torch.arange(len(cells))
    times = times.view(grid)
    for side in (1, 2, 4, 8):
        down, across = height // side, width // side
        if not down * across:
            continue
        whole = times[: down * side, : across * side]
        blocks = whole.reshape(down, side, across, side).transpose(1, 2).reshape(-1, side * side)
        shares = torch.stack([(blocks < moment).sum(1) for moment in range(len(cells) + 1)])
        assert int((shares.amax(1) - shares.amin(1)).max()) <= 1


def test_each_round_of_a_square_halves_the_blocks():
    cells = StratifiedOrder(schedule=Arccos(), grid=(16, 16)).cells
    for level in range(5):
        side = 16 >> level
        first = cells[: 4**level]
        blocks = first // 16 // side * 16 + first % 16 // side
        assert len(set(blocks.tolist())) == 4**level
    assert cells[:4].tolist() != [0, 8, 128, 136]  # jittered, not the corners of the blocks


@pytest.mark.parametrize("kind", [HaltonOrder, StratifiedOrder])
def test_an_offset_starts_elsewhere(kind):
    firsts = {kind(schedule=Arccos(), grid=(8, 8), offset=offset).cells[0].item() for offset in range(10)}
    assert len(firsts) == 10


@pytest.mark.parametrize("kind", [HaltonOrder, StratifiedOrder])
def test_the_next_masked_cells_are_the_candidates_and_are_all_committed(kind):
    order = kind(schedule=Linear(), grid=(3, 5))
    initial = torch.rand(15, generator=generator(4)) < 0.8
    masked, total = initial.clone(), int(initial.sum())
    wanted = [cell for cell in order.cells.tolist() if initial[cell]]
    taken = []
    for step in range(4):
        progress = Progress.of(step=step, steps=4, initial=initial, masked=masked.clone())
        candidates = order.candidates(progress)
        share = len(wanted) - len(taken) - (total * (3 - step)) // 4
        assert candidates.tolist() == sorted(wanted[len(taken) : len(taken) + share])
        assert torch.equal(order.commit(progress, candidates, torch.zeros(share), generator(0)), candidates)
        taken += candidates.tolist()
        masked[candidates] = False
    assert sorted(taken) == sorted(wanted)


def test_what_does_not_fit():
    order = HaltonOrder(schedule=Arccos(), grid=(3, 4))
    order.validate(12, 1)
    with pytest.raises(ConfigError, match="grid of 3 x 4 cells, but 16 positions"):
        order.validate(16, 4)
    with pytest.raises(ConfigError, match="steps 0"):
        order.validate(12, 0)
    with pytest.raises(ConfigError, match="grid"):
        HaltonOrder(schedule=Arccos(), grid=(0, 4))
    with pytest.raises(ConfigError, match="offset -1"):
        StratifiedOrder(schedule=Arccos(), grid=(2, 4), offset=-1)
