import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dimoo.diffusion import rowwise as module
from dimoo.diffusion.rowwise import rowwise


@settings(deadline=None)
@given(st.integers(0, 40), st.integers(0, 9), st.integers(1, 50))
def test_blocks_cover_the_rows_in_order_and_are_small(rows, columns, room):
    seen = []

    def both(values, weights):
        assert len(values) == len(weights)
        seen.append(len(values))
        return values.sum(-1) * weights

    values = torch.arange(rows * columns).view(rows, columns)
    weights = torch.arange(rows)
    before, module.CACHED = module.CACHED, room
    try:
        found = rowwise(both, values, weights)
    finally:
        module.CACHED = before
    assert torch.equal(found, values.sum(-1) * weights)
    assert sum(seen) == rows
    assert all(size == 1 or size * columns <= room for size in seen)
    # No more blocks than that needs.
    assert len(seen) == max(1, -(-rows // max(1, room // max(1, columns))))


def test_blocks_are_larger_where_launches_cost():
    rows, seen = module.LAUNCHED // 512, {"cpu": [], "meta": []}
    for device, sizes in seen.items():
        rowwise(
            lambda part, sizes=sizes: (sizes.append(len(part)), part[:, 0])[1], torch.empty(rows, 512, device=device)
        )
    assert seen["meta"] == [rows]
    assert set(seen["cpu"]) == {module.CACHED // 512}
