from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from dimoo.core.errors import RequestError
from dimoo.core.rng import generator
from dimoo.tokenizers.image.base import Quantized
from dimoo.tokenizers.image.build import build_objective
from dimoo.tokenizers.image.config import HingeAdversaryConfig, ObjectiveConfig
from dimoo.tokenizers.image.discriminator import PatchDiscriminator
from dimoo.tokenizers.image.objective import (
    HingeAdversary,
    NoAdversary,
    ReconstructionLoss,
    TokenizerObjective,
)
from dimoo.tokenizers.image.tokenizer import Reconstruction

ONLY = {"l1": 0.0, "l2": 0.0, "gradient": 0.0, "multiscale": 0.0}


def _random(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=generator(seed, "objective"))


def _made(pixels: Tensor, **losses: Tensor) -> Reconstruction:
    nothing = torch.zeros(1, 1, 1, 1)
    quantized = Quantized(latents=nothing, codes=nothing[0].long(), losses=losses)
    return Reconstruction(pixels=pixels, latents=nothing, quantized=quantized)


def test_parts_by_hand() -> None:
    wanted = torch.zeros(1, 3, 2, 2)
    made = torch.tensor([[1.0, 3.0], [0.0, -2.0]]).expand(1, 3, 2, 2)
    parts = ReconstructionLoss(l1=1, l2=10, gradient=100, multiscale=1000, scales=1)(made, wanted)
    assert {name: part.item() for name, part in parts.items()} == {
        "l1": pytest.approx((1 + 3 + 0 + 2) / 4),
        "l2": pytest.approx(10 * (1 + 9 + 0 + 4) / 4),
        "gradient": pytest.approx(100 * ((2 + 2) / 2 + (1 + 5) / 2)),
        "multiscale": pytest.approx(1000 * 0.5),
    }


def test_weighted_parts_by_hand() -> None:
    wanted = torch.zeros(1, 3, 2, 2)
    made = torch.tensor([[1.0, 3.0], [0.0, -2.0]]).expand(1, 3, 2, 2)
    weights = torch.tensor([[2.0, 0.0], [1.0, 1.0]]).view(1, 1, 2, 2)
    parts = ReconstructionLoss(l1=1, l2=1, gradient=1, multiscale=1, scales=1)(made, wanted, weights)
    assert parts["l1"].item() == pytest.approx((2 * 1 + 0 + 0 + 2) / 4)
    assert parts["l2"].item() == pytest.approx((2 * 1 + 0 + 0 + 4) / 4)
    across = (1 * 2 + 1 * 2) / 2  # pairs weigh (2+0)/2 and (1+1)/2
    down = (1.5 * 1 + 0.5 * 5) / 2  # pairs weigh (2+1)/2 and (0+1)/2
    assert parts["gradient"].item() == pytest.approx(across + down)
    assert parts["multiscale"].item() == pytest.approx(0.5)


def test_equal_weights_are_no_weights() -> None:
    made, wanted = _random(2, 3, 16, 16), _random(2, 3, 16, 16, seed=1)
    loss = ReconstructionLoss(multiscale=1)
    plain, weighted = loss(made, wanted), loss(made, wanted, torch.full((2, 1, 16, 16), 7.0))
    assert plain.keys() == weighted.keys() == {"l1", "l2", "gradient", "multiscale"}
    for name, part in plain.items():
        torch.testing.assert_close(weighted[name], part)


def test_pixels_of_weight_zero_do_not_count() -> None:
    wanted, weights = _random(1, 3, 8, 8), torch.zeros(1, 1, 8, 8)
    weights[..., :4] = 1
    made = wanted.clone()
    made[..., 5:] += 1
    parts = ReconstructionLoss(l1=1, l2=1, gradient=1, multiscale=1, scales=2)(made, wanted, weights)
    assert all(part.item() == 0 for part in parts.values())


def test_pyramid_sees_colour_shifts_and_forgives_checks() -> None:
    loss = ReconstructionLoss(**{**ONLY, "multiscale": 1.0}, scales=3)
    check = torch.tensor([[1.0, -1.0], [-1.0, 1.0]]).repeat(8, 8).expand(1, 3, 16, 16)
    flat = torch.zeros(1, 3, 16, 16)
    assert loss(flat + check, flat)["multiscale"].item() == 0
    assert loss(flat + 0.25, flat)["multiscale"].item() == pytest.approx(0.25)
    with pytest.raises(RequestError, match="scales=3"):
        loss(flat[..., :7], flat[..., :7])


def test_total_is_the_sum_and_includes_the_quantizer() -> None:
    objective = TokenizerObjective(reconstruction=ReconstructionLoss(), adversary=NoAdversary())
    made = _made(_random(1, 3, 8, 8), commitment=torch.tensor(2.5))
    losses = objective.generator_losses(made, _random(1, 3, 8, 8, seed=1), step=0, last_weight=torch.zeros(1))
    assert losses.parts.keys() == {"l1", "l2", "gradient", "commitment"}
    assert losses.total.item() == pytest.approx(sum(part.item() for part in losses.parts.values()))
    assert objective.discriminator_losses(made, made.pixels, step=0).parts == {}
    assert objective.adversary.parameters() == []


class _Mean(nn.Module):
    """Scores a picture by gain * its mean: the hinge losses can be done by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(2.0))

    def forward(self, pixels: Tensor) -> Tensor:
        return self.gain * pixels.mean(dim=(1, 2, 3), keepdim=True)


def test_hinge_by_hand() -> None:
    adversary = HingeAdversary(discriminator=_Mean(), weight=0.5, start_step=3, adaptive=False)
    made, wanted = torch.full((1, 3, 4, 4), 0.25), torch.full((1, 3, 4, 4), 0.75)
    base, last = torch.zeros(()), torch.zeros(1)
    assert adversary.generator_parts(made, base=base, step=2, last_weight=last) == {}
    assert adversary.discriminator_parts(made, wanted, step=2) == {}
    parts = adversary.generator_parts(made, base=base, step=3, last_weight=last)
    assert parts["adversary"].item() == pytest.approx(-0.5 * 2 * 0.25)
    parts = adversary.discriminator_parts(made, wanted, step=3)
    assert parts["real"].item() == pytest.approx(0)  # 1 - 1.5 < 0
    assert parts["made"].item() == pytest.approx((1 + 0.5) / 2)


def test_adaptive_weight_is_the_ratio_of_gradients() -> None:
    last = nn.Parameter(torch.tensor(0.5))
    made = last * torch.ones(1, 3, 4, 4)
    base = 3 * last  # gradient 3; the adversary's is -2
    adversary = HingeAdversary(discriminator=_Mean(), weight=0.5, adaptive=True)
    part = adversary.generator_parts(made, base=base, step=0, last_weight=last)["adversary"]
    assert part.item() == pytest.approx(0.5 * 3 / 2 * -1.0, rel=1e-3)
    part.backward()
    assert last.grad is not None
    assert last.grad.item() == pytest.approx(0.5 * 3 / 2 * -2.0, rel=1e-3)  # the ratio itself has no gradient


def test_gradients_reach_one_side_each() -> None:
    config = HingeAdversaryConfig(width=4, depth=2, adaptive=False)
    objective = build_objective(ObjectiveConfig(adversary=config), generator(0))
    pixels = _random(1, 3, 16, 16).requires_grad_()
    made, wanted = _made(pixels), _random(1, 3, 16, 16, seed=1)
    judges = objective.adversary.parameters()
    objective.generator_losses(made, wanted, step=0, last_weight=pixels).parts["adversary"].backward()
    assert pixels.grad is not None
    assert pixels.grad.abs().sum() > 0
    assert all(judge.grad is None for judge in judges)
    pixels.grad = None
    objective.discriminator_losses(made, wanted, step=0).total.backward()
    assert pixels.grad is None
    assert all(judge.grad is not None for judge in judges)


def test_a_discriminator_learns_to_tell() -> None:
    objective = build_objective(ObjectiveConfig(adversary=HingeAdversaryConfig(width=4)), generator(0))
    optimiser = torch.optim.Adam(objective.adversary.parameters(), lr=5e-3)
    wanted, blurred = _random(4, 3, 16, 16), torch.full((4, 3, 16, 16), 0.5)
    for step in range(40):
        losses = objective.discriminator_losses(_made(blurred), wanted, step=step)
        optimiser.zero_grad()
        losses.total.backward()
        optimiser.step()
    assert losses.total.item() < 0.1


@pytest.mark.parametrize(("depth", "side"), [(1, 8), (2, 4), (3, 2)])
def test_discriminator_judges_patches(depth: int, side: int) -> None:
    judge = PatchDiscriminator(width=4, depth=depth)
    assert judge(_random(2, 3, 16, 16)).shape == (2, 1, side, side)
    batch = _random(2, 3, 16, 16)
    torch.testing.assert_close(judge(batch)[:1], judge(batch[:1]), atol=1e-6, rtol=1e-5)
