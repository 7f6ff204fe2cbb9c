import math

import pytest
import torch

from dimoo.core.errors import ConfigError
from dimoo.core.rng import generator
from dimoo.diffusion.orders import BlockOrder, MaskGITOrder, RandomOrder
from dimoo.diffusion.progress import Progress
from dimoo.diffusion.schedules import Cosine


def released_image_order(confidences):
    """The released image loop over lists: which offsets are committed at each step."""
    steps, length = len(confidences), len(confidences[0])
    masked, log = set(range(length)), []
    for step, confidence in enumerate(confidences):
        if not masked:
            break
        ratio = torch.cos(0.5 * math.pi * torch.tensor([(step + 1) / steps]))
        keep = min(max(1, int((torch.tensor(float(length)) * ratio).floor())), len(masked) - 1)
        keep = 0 if step == steps - 1 else keep
        worst = sorted(masked, key=lambda i: confidence[i])[:keep]
        log.append(sorted(masked - set(worst)))
        masked = set(worst)
    return log


def released_text_order(confidences, stubborn, block, length):
    """The released text loop; `stubborn` (step, offset) pairs are commits of the mask id itself."""
    steps = len(confidences)
    blocks = length // block
    per_block = steps // blocks
    masked, log = set(range(length)), []
    for index in range(blocks):
        counts = [block // per_block + (k < block % per_block) for k in range(per_block)]
        for k, count in enumerate(counts):
            step = index * per_block + k
            allowed = [i for i in masked if i < (index + 1) * block]
            chosen = sorted(allowed, key=lambda i: -confidences[step][i])[:count]
            log.append(sorted(chosen))
            masked -= {i for i in chosen if (step, i) not in stubborn}
    return log


def simulate(order, confidences, stubborn=frozenset(), initial=None):
    """Run an order to the end as the sampler does."""
    steps, length = len(confidences), len(confidences[0])
    initial = torch.ones(length, dtype=torch.bool) if initial is None else initial
    masked, log = initial.clone(), []
    for step in range(steps):
        if not masked.any():
            break
        progress = Progress.of(step=step, steps=steps, initial=initial, masked=masked.clone())
        candidates = order.candidates(progress)
        chosen = order.commit(progress, candidates, confidences[step][candidates], generator(step))
        log.append(chosen.tolist())
        for offset in chosen.tolist():
            masked[offset] = (step, offset) in stubborn
    return log, masked


@pytest.mark.parametrize(("length", "steps"), [(48, 7), (25, 27), (64, 9), (1, 1), (5, 64), (30, 1)])
def test_maskgit_order_equals_the_released_loop(length, steps):
    confidences = torch.rand(steps, length, generator=generator(length, steps))
    log, masked = simulate(MaskGITOrder(schedule=Cosine()), confidences)
    assert log == released_image_order(confidences.tolist())
    assert not masked.any()


@pytest.mark.parametrize(("length", "block", "steps"), [(32, 8, 16), (24, 24, 10), (12, 4, 9), (8, 2, 16)])
def test_block_order_equals_the_released_loop(length, block, steps):
    rng = generator(length, block, steps)
    confidences = torch.rand(steps, length, generator=rng)
    log, masked = simulate(BlockOrder(block=block), confidences)
    expected = released_text_order(confidences.tolist(), set(), block, length)
    assert log == expected[: len(log)]
    assert not any(expected[len(log) :])  # ours stops once nothing is masked
    assert not masked.any()


def test_a_committed_mask_id_competes_again_also_in_later_blocks():
    length, block, steps = 16, 4, 8
    rng = generator(5)
    confidences = torch.rand(steps, length, generator=rng)
    confidences[:, 0] = 2.0  # always the surest, and the mask id until the second block is done
    stubborn = {(step, 0) for step in range(4)} | {
        (step, offset) for step in range(4) for offset in range(length) if (step + offset) % 3 == 0
    }
    log, masked = simulate(BlockOrder(block=block), confidences, stubborn)
    assert log == released_text_order(confidences.tolist(), stubborn, block, length)
    assert [chosen[0] for chosen in log[:4]] == [0, 0, 0, 0]
    assert masked.any()  # the counts are spent: as many masks stay as were committed


def test_block_order_shares_out_what_was_masked_and_skips_idle_steps():
    """Given positions take no part; a step of no share asks for no logits."""
    initial = torch.tensor([True, False, True, True, False, False, False, True])
    order = BlockOrder(block=4)
    log, masked = simulate(order, torch.rand(4, 8, generator=generator(0)), initial=initial)
    assert [len(chosen) for chosen in log] == [2, 1, 1]
    assert not masked.any()
    idle = Progress.of(step=3, steps=4, initial=initial, masked=initial)
    assert order.candidates(idle).tolist() == []
    first = Progress.of(step=0, steps=4, initial=initial, masked=initial)
    assert order.candidates(first).tolist() == [0, 2, 3]


def test_block_order_with_a_shorter_last_block():
    log, masked = simulate(BlockOrder(block=4), torch.rand(6, 10, generator=generator(0)))
    assert [len(chosen) for chosen in log] == [2, 2, 2, 2, 1, 1]
    assert not masked.any()


def test_block_order_commits_fewer_if_fewer_are_there():
    masked = torch.tensor([False, False, True, False])
    progress = Progress.of(step=0, steps=1, initial=torch.ones(4, dtype=torch.bool), masked=masked)
    order = BlockOrder(block=4)
    assert order.commit(progress, order.candidates(progress), torch.tensor([0.1]), generator(0)).tolist() == [2]


def test_block_order_names_step_counts_that_work():
    BlockOrder(block=8).validate(32, 16)
    with pytest.raises(ConfigError, match="use 12 or 16 steps"):
        BlockOrder(block=8).validate(32, 15)
    with pytest.raises(ConfigError, match="use 4 steps"):
        BlockOrder(block=8).validate(32, 3)
    with pytest.raises(ConfigError, match="block 0"):
        BlockOrder(block=0)


@pytest.mark.parametrize(
    "order", [MaskGITOrder(schedule=Cosine()), RandomOrder(schedule=Cosine()), BlockOrder(block=4)]
)
def test_no_steps_are_refused(order):
    with pytest.raises(ConfigError, match="steps 0"):
        order.validate(4, 0)


def test_random_order_ignores_confidence_and_is_uniform():
    order, rng, hits = RandomOrder(schedule=Cosine()), generator(0), torch.zeros(4)
    masked = torch.ones(4, dtype=torch.bool)
    progress = Progress.of(step=0, steps=2, initial=masked, masked=masked)
    for _ in range(2000):
        chosen = order.commit(progress, order.candidates(progress), torch.tensor([9.0, 0, 0, 0]), rng)
        assert len(chosen) == 2  # floor(4 cos(pi/4)) = 2 stay
        hits[chosen] += 1
    assert (hits - 1000).abs().max() < 120


def test_ties_go_to_the_lower_offset():
    masked = torch.ones(6, dtype=torch.bool)
    progress = Progress.of(step=0, steps=2, initial=masked, masked=masked)
    chosen = MaskGITOrder(schedule=Cosine()).commit(progress, torch.arange(6), torch.ones(6), generator(0))
    assert chosen.tolist() == [0, 1]
