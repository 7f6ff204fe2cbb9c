"""How well a recipe does on examples that it never learns from, by numbers that runs can be compared by."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import lightning as L
import torch
from torchmetrics.functional.image import peak_signal_noise_ratio

from dimoo.core.rng import generator
from dimoo.data.encoded import converted
from dimoo.data.example import Source, pictures_of, pixels_of
from dimoo.denoise.objective import MaskedObjective, Noisy
from dimoo.diffusion.corruption import Bernoulli
from dimoo.diffusion.loss import ScheduleWeight
from dimoo.diffusion.times import AntitheticTimes
from dimoo.tokenizers.packing import pack
from recipes.learning.averaging import averaged
from recipes.learning.diffusion import DiffusionModule
from recipes.learning.packing import divided
from recipes.learning.steps import log
from recipes.learning.tokenizer import TokenizerModule
from recipes.ranks import Ranks
from recipes.watching.every import EverySteps

TOGETHER = 8
"""Documents of a pack, whoever computes it."""


class Validation(EverySteps):
    """Every so many steps: the likelihood bound of a diffusion model, the PSNR of a tokenizer, on held-out examples.

    Examples, documents and masks are functions of the run's seed alone, so one step can be held against another, and
    one run against another. Measured of the averaged weights where there are some.
    """

    def look(self, trainer: L.Trainer, module: TokenizerModule | DiffusionModule, step: int) -> None:
        """Measure and log."""
        with averaged(module, trainer.optimizers):
            if isinstance(module, TokenizerModule):
                values = {"psnr/held_out": psnr(module, self._source, self._numbers)}
            else:
                ranks = Ranks(rank=trainer.global_rank, world=trainer.world_size)
                with trainer.precision_plugin.forward_context():
                    values = bounds(module, self._source, self._numbers, ranks)
        for name, value in values.items():
            module.log(name, value, logger=False)  # for the progress line
        log(trainer.loggers, values, step)


@torch.no_grad()
def psnr(module: TokenizerModule, source: Source, numbers: Sequence[int]) -> float:
    """The mean PSNR in dB of what the tokenizer makes of every picture of the examples."""
    values = []
    for number in numbers:
        for picture in pictures_of(converted(source.example(number), pixels_of)):
            pixels = torch.from_numpy(picture).permute(2, 0, 1).float()[None].to(module.device) / 255
            made = module.tokenizer.decode(module.tokenizer.encode(pixels))
            values.append(peak_signal_noise_ratio(made, pixels, data_range=1.0))
    return float(torch.stack(values).mean())


@torch.no_grad()
def bounds(module: DiffusionModule, source: Source, numbers: Sequence[int], ranks: Ranks) -> dict[str, float]:
    """`bound/KIND`: nats per target token of a kind, an upper bound of the negative log-likelihood in expectation.

    bound_k = sum_(i masked, of kind k) |m'(u_g(i))| / m(u_g(i)) nll_i / (target tokens of kind k), each token of a
    group masked on its own with probability m(u_g) (MDLM, arXiv 2406.07524); there is none of a kind of which nothing
    was masked. Conditions are whole. Groups have times of
    their own, as in training: the bound of a group is that given its condition and what is left of the other groups.
    """
    own, count = bound_objective(module.objective), math.ceil(len(numbers) / TOGETHER)
    sums = torch.zeros(len(module.kinds()), 3, dtype=torch.float64)
    was = module.training
    module.eval()
    try:
        # Those who share the weights compute together, so that each takes as many packs; some do one for nothing.
        for first in range(0, count, ranks.world):
            index = first + ranks.rank
            noisy = corrupted(module, own, source, numbers, min(index, count - 1))
            parts = [_sums(module, own, part) for part in divided(noisy, module.recipe.pack_tokens)]
            if index < count:
                sums += sum(parts)
    finally:
        module.train(was)
    flat = ranks.sums(sums.flatten().tolist(), module.device)
    found = zip(module.kinds(), flat[::3], flat[1::3], flat[2::3], strict=True)
    return {f"bound/{kind}": total / size for kind, total, size, masked in found if masked}


def _sums(module: DiffusionModule, objective: MaskedObjective, noisy: Noisy) -> torch.Tensor:
    """Weighed nll, target tokens and those that are masked by kind: float64 [kinds, 3]."""
    kinds, groups = module.kinds(), noisy.groups
    nll = objective.loss(module.backbone, noisy).nll.cpu().double()
    kind = torch.tensor([kinds.index(target.kind) for target in noisy.batch.targets])
    sums = torch.zeros(len(kinds), 3, dtype=torch.float64)
    sums[:, 0].index_add_(0, kind[groups.group], objective.weight(groups).token.double()[groups.group] * nll)
    sums[:, 1].index_add_(0, kind, groups.sizes.double())
    sums[:, 2].index_add_(0, kind, groups.masked().double())
    return sums


def bound_objective(objective: MaskedObjective) -> MaskedObjective:
    """The same predictions weighed for the bound: every target a matter of chance, every kind alike."""
    return replace(
        objective,
        times=AntitheticTimes(),
        corruption=Bernoulli(at_least_one=False),
        weight=ScheduleWeight(schedule=objective.schedule),
        full_up_to=0,
        kind_weights={},
    )


def corrupted(
    module: DiffusionModule, objective: MaskedObjective, source: Source, numbers: Sequence[int], index: int
) -> Noisy:
    """The pack of examples `TOGETHER` x index and those after it, with their whole conditions and answers."""
    places = range(len(numbers))[TOGETHER * index : TOGETHER * (index + 1)]
    whole = module.builder.mixture.model_copy(update={"dropout": 0.0, "text_block": None})
    builder = replace(module.builder, mixture=whole)
    with torch.autocast(module.device.type, enabled=False):  # codes as the tokenizer gives them to users
        documents = builder.build(
            [source.example(numbers[place]) for place in places],
            [_generator(module, "document", place) for place in places],
        )
    return objective.corrupt(pack(documents), _generator(module, "noise", index))


def _generator(module: DiffusionModule, *names: str | int) -> torch.Generator:
    return generator(module.recipe.run.seed, "validate", *names)
