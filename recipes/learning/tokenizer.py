"""Training an image tokenizer with Lightning."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dimoo.core.errors import DataError, TrainingError
from dimoo.core.rng import generator
from dimoo.data.build import digest_of
from dimoo.data.example import Pixels, Source, pictures_of, pixels_of
from dimoo.tokenizers.image.objective import TokenizerObjective
from dimoo.tokenizers.image.tokenizer import ImageTokenizer
from recipes.config import TokenizerRecipe
from recipes.learning.feeding import Ahead
from recipes.learning.guard import SpikeGuard
from recipes.learning.optimizer import adamw, rate
from recipes.learning.steps import StepModule


@dataclass(frozen=True, kw_only=True)
class StepPictures:
    """The pictures of a step, in whichever process."""

    source: Source
    count: int
    """Examples of a step."""

    def __call__(self, step: int) -> list[Tensor]:
        """Those of a step; see `stacked`."""
        return stacked(self.source, step * self.count, self.count)


def stacked(source: Source, first: int, count: int) -> list[Tensor]:
    """All pictures of examples `first` .. `first + count - 1`, one batch uint8 [B, H, W, 3] per size.

    Raises:
        DataError: an example has none.
    """
    by_shape: dict[tuple[int, ...], list[Pixels]] = {}
    for index in range(first, first + count):
        images = [pixels_of(picture) for picture in pictures_of(source.example(index))]
        if not images:
            raise DataError(f"example {index} has no picture to train a tokenizer on")
        for image in images:
            by_shape.setdefault(image.shape, []).append(image)
    return [torch.from_numpy(np.stack(images)) for images in by_shape.values()]


class TokenizerModule(StepModule):
    """Per step: pictures of one size -> reconstruct -> losses -> update network, codebook and discriminator."""

    unit = "pictures"

    def __init__(
        self,
        recipe: TokenizerRecipe,
        *,
        tokenizer: ImageTokenizer,
        objective: TokenizerObjective,
        source: Source,
    ) -> None:
        super().__init__(data={"source": digest_of(source)})
        self.guard = SpikeGuard(recipe.optimizer.spike)
        self.recipe, self.tokenizer, self.source = recipe, tokenizer, source
        self.objective = objective
        self.adversary = torch.nn.ParameterList(objective.adversary.parameters())

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        """One for the tokenizer, one for the discriminator where there is one."""
        optimizers: list[torch.optim.Optimizer] = [adamw([self.tokenizer], self.recipe.optimizer)]
        if len(self.adversary):
            optimizers.append(torch.optim.AdamW(self.adversary, lr=self.recipe.discriminator_lr, betas=(0.5, 0.9)))
        return optimizers

    def made(self, step: int) -> list[Tensor]:
        """The pictures of a step; see `StepPictures`."""
        return self._maker(step)

    def pictures(self, first: int, count: int) -> list[Tensor]:
        """All pictures of examples `first` .. `first + count - 1`, one batch [B, 3, H, W] per size, in 0 .. 1."""
        return self._scaled(stacked(self.source, first, count))

    def _scaled(self, pixels: list[Tensor]) -> list[Tensor]:
        return [batch.permute(0, 3, 1, 2).float().to(self.device) / 255 for batch in pixels]

    @property
    def _maker(self) -> StepPictures:
        return StepPictures(source=self.source, count=self.recipe.run.batch_size)

    def on_train_start(self) -> None:
        """Fit the codebook to the untrained encoder's latents, in a fresh run; and let workers begin."""
        if self.recipe.run.workers:
            steps = range(self.steps_done, self.recipe.run.steps)
            self.fed_by(Ahead(self._maker, steps=steps, workers=self.recipe.run.workers))
        if self.steps_done == 0:
            batches = self.pictures(0, self.recipe.fit_pictures)
            with torch.no_grad():
                latents = [self.tokenizer.network.encode(batch).flatten(2) for batch in batches]
            rows = torch.cat([part.transpose(1, 2).reshape(-1, part.shape[1]) for part in latents])
            self.tokenizer.quantizer.initialise(rows.T[None, :, None, :].contiguous(), self._generator("fit"))

    def training_step(self, batch: int, batch_idx: int) -> None:
        """One step over the pictures of this step number.

        Raises:
            TrainingError: the loss is not finite.
        """
        del batch, batch_idx
        run, step = self.recipe.run, self.steps_done
        optimizers = self.optimizers()
        first, *others = optimizers if isinstance(optimizers, list) else [optimizers]
        for group in first.param_groups:
            group["lr"] = self.recipe.optimizer.lr * rate(self.recipe.optimizer, step, run.steps)
        batches = self._scaled(self.taken(step))
        latents, codes, measured = [], [], dict[str, Tensor]()
        count = sum(map(len, batches))
        for pixels in batches:
            share = len(pixels) / count
            made = self.tokenizer(pixels)
            losses = self.objective.generator_losses(
                made, pixels, step=step, last_weight=self.tokenizer.network.last_weight
            )
            self.manual_backward(losses.total * share)
            critic = self.objective.discriminator_losses(made, pixels, step=step)
            if critic.parts:
                self.manual_backward(critic.total * share)
            for name, part in {**losses.parts, **critic.parts}.items():
                measured[name] = measured.get(name, 0.0) + part.detach().float() * share
            latents.append(made.latents.detach().flatten(2).transpose(1, 2).flatten(0, 1))
            codes.append(made.quantized.codes.flatten())
        clip = self.recipe.optimizer.clip
        measured["grad_norm"] = torch.nn.utils.clip_grad_norm_(self.tokenizer.parameters(), clip)
        critics = [weight.grad for weight in self.adversary.parameters() if weight.grad is not None]
        if critics:
            measured["discriminator_grad_norm"] = torch.nn.utils.get_total_norm(critics)
        # All at once: on an accelerator every value that is read alone makes it wait.
        parts = dict(zip(measured, torch.stack(list(measured.values())).tolist(), strict=True))
        if not all(math.isfinite(value) for value in parts.values()):
            raise TrainingError(
                f"a loss or gradient is not finite at step {step + 1}: {parts}; start again under another run.name with"
                f" a lower optimizer.lr (now {self.recipe.optimizer.lr}) or discriminator_lr"
                f" ({self.recipe.discriminator_lr})"
            )
        rows, flat, revived = torch.cat(latents), torch.cat(codes), 0
        if not self.guard.skips(parts["grad_norm"]):
            first.step()
            for other in others:
                other.optimizer.step()  # past Lightning's wrapper, so that global_step counts one per step
            revived = self.tokenizer.quantizer.update(
                rows.T[None, :, None, :], flat[None, None, :], self._generator("revive", step)
            )
        for one in (first, *others):
            one.optimizer.zero_grad()
        self.steps_done += 1
        self.items = count
        if self.shown:
            used = float((torch.bincount(flat) > 0).sum())
            counts = {"codes_in_batch": used, "revived": float(revived), self.unit: float(self.items)}
            self.values = {**parts, **counts}
            self.details = {"lr": first.param_groups[0]["lr"], **self.guard.values()}

    def _generator(self, *names: str | int) -> torch.Generator:
        return generator(self.recipe.run.seed, "tokenizer", *names, device=self.device)
