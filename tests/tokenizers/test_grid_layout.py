import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dimoo.core.errors import DataError
from dimoo.tokenizers.layout import GridLayout

LINE, START, SIZE = 3, 100, 16


def layout(*grid, codebooks=1):
    return GridLayout(grid=grid, start=START, codebook_size=SIZE, end_of_line=LINE, codebooks=codebooks)


GRIDS = st.lists(st.integers(1, 5), min_size=1, max_size=3).map(tuple)


@settings(deadline=None)
@given(GRIDS, st.integers(1, 3), st.integers(0, 99))
def test_there_and_back(grid, codebooks, seed):
    own = layout(*grid, codebooks=codebooks)
    shape = grid if codebooks == 1 else (*grid, codebooks)
    codes = torch.randint(SIZE, shape, generator=torch.Generator().manual_seed(seed))
    ids = own.to_sequence(codes)
    assert ids.shape == (own.length,)
    assert torch.equal(own.to_codes(ids), codes)
    is_code = own.is_code()
    assert bool((ids[~is_code] == LINE).all())
    assert int(is_code.sum()) == codes.numel()
    assert bool(((ids[is_code] >= START) & (ids[is_code] < START + SIZE * codebooks)).all())


def test_an_image_by_hand():
    ids = layout(2, 3).to_sequence(torch.tensor([[0, 1, 2], [13, 14, 15]]))
    assert ids.tolist() == [100, 101, 102, LINE, 113, 114, 115, LINE]


def test_sound_has_no_lines():
    assert layout(4).to_sequence(torch.tensor([3, 2, 1, 0])).tolist() == [103, 102, 101, 100]


def test_video_by_hand():
    codes = torch.arange(8).view(2, 2, 2)
    assert layout(2, 2, 2).to_sequence(codes).tolist() == [
        *(100, 101, LINE, 102, 103, LINE),
        *(104, 105, LINE, 106, 107, LINE),
    ]


def test_codebooks_stand_side_by_side_in_ranges_of_their_own():
    codes = torch.tensor([[0, 1], [2, 3]])  # two positions, two codebooks
    assert layout(2, codebooks=2).to_sequence(codes).tolist() == [100, 117, 102, 119]


def test_1024_pixels_square_as_released():
    own = layout(64, 64)
    assert own.length == 64 * 64 + 64


@pytest.mark.parametrize("grid", [(), (0,), (2, 0), (2, 2, 2, 2)])
def test_impossible_grids(grid):
    with pytest.raises(DataError, match="1 to 3 axes"):
        layout(*grid)


@pytest.mark.parametrize(
    ("codes", "message"),
    [
        (torch.zeros(3, 2, dtype=torch.int64), r"shape \(3, 2\) do not fit the grid \(2, 3\)"),
        (torch.full((2, 3), 16), r"0\.\.15, found 16\.\.16"),
        (torch.tensor([[0, 0, 0], [0, 0, -1]]), r"found -1\.\.0"),
    ],
)
def test_codes_that_do_not_fit(codes, message):
    with pytest.raises(DataError, match=message):
        layout(2, 3).to_sequence(codes)


def test_sequences_that_are_no_grid():
    ids = layout(2, 2).to_sequence(torch.zeros(2, 2, dtype=torch.int64))
    with pytest.raises(DataError, match=r"takes 6 tokens, not \(5,\)"):
        layout(2, 2).to_codes(ids[:-1])
    for wrong in (START - 1, START + SIZE):
        broken = ids.clone()
        broken[1] = wrong
        with pytest.raises(DataError, match="still holds tokens that are no codes"):
            layout(2, 2).to_codes(broken)
    # With two codebooks, a code of the first in the place of the second is no code either.
    with pytest.raises(DataError, match="no codes"):
        layout(1, codebooks=2).to_codes(torch.tensor([START, START]))
