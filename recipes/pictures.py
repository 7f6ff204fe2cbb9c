"""Pictures while a recipe trains: reconstructions of a tokenizer, samples and answers of a diffusion model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import EMAWeightAveraging
from lightning.pytorch.loggers import TensorBoardLogger
from PIL import Image
from torchmetrics.functional.image import peak_signal_noise_ratio

from dimoo.core.requests import AskRequest, GenerateRequest
from dimoo.data.build import build_source
from dimoo.data.example import Example, Source
from dimoo.evaluation.grids import captioned_grid
from dimoo.tokenizers.image.resize import to_images
from recipes.assemble import model_of
from recipes.config import DiffusionRecipe, Recipe
from recipes.diffusion import DiffusionModule
from recipes.steps import log
from recipes.tokenizer import TokenizerModule

SHOWN = 12
UNSEEN_SEED = 1_000_003
"""Added to the run's seed for the pictures that are shown."""


def callbacks(recipe: Recipe, folder: Path, *, dry: bool) -> Sequence[L.Callback]:
    """The callbacks of a kind of recipe besides the trainer's own."""
    ema = [EMAWeightAveraging(decay=recipe.ema)] if isinstance(recipe, DiffusionRecipe) else []
    if dry:
        return ema
    source = build_source(recipe.source, seed=recipe.run.seed + UNSEEN_SEED, examples=1)
    return [*ema, Pictures(source, folder / "pictures", every=recipe.run.sample_every)]


class Pictures(L.Callback):
    """Every so many steps: a PNG grid in the run folder and in TensorBoard."""

    def __init__(self, source: Source, folder: Path, *, every: int) -> None:
        super().__init__()
        self._source, self._folder, self._every = source, folder, every

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Make and keep the pictures."""
        del outputs, batch, batch_idx
        assert isinstance(pl_module, TokenizerModule | DiffusionModule)
        step = pl_module.steps_done
        if step % self._every or not trainer.is_global_zero:
            return
        examples = [self._source.example(index) for index in range(SHOWN)]
        if isinstance(pl_module, TokenizerModule):
            grid, psnr = reconstructions(pl_module, examples)
            pl_module.log("psnr", psnr, logger=False)  # for the progress line
            log(trainer.loggers, {"psnr": psnr}, step - 1)
        else:
            grid = samples(pl_module, examples)
        self._folder.mkdir(parents=True, exist_ok=True)
        grid.save(self._folder / f"step{step:07d}.png")
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                pixels = torch.frombuffer(bytearray(grid.tobytes()), dtype=torch.uint8)
                logger.experiment.add_image(
                    "pictures", pixels.view(grid.height, grid.width, 3), step, dataformats="HWC"
                )


@torch.no_grad()
def reconstructions(module: TokenizerModule, examples: Sequence[Example]) -> tuple[Image.Image, float]:
    """Each picture above what the tokenizer makes of it, with its PSNR in dB; and the mean PSNR."""
    pairs, notes, values = [], [], []
    for example in examples:
        assert example.image is not None
        pixels = torch.from_numpy(example.image).permute(2, 0, 1).float()[None].to(module.device) / 255
        made = module.tokenizer.decode(module.tokenizer.encode(pixels))
        values.append(peak_signal_noise_ratio(made, pixels, data_range=1.0))
        pairs += to_images(torch.cat([pixels, made], dim=2))
        notes.append(f"{float(values[-1]):.1f} dB")
    return captioned_grid(pairs, notes, columns=6), float(torch.stack(values).mean())


def samples(module: DiffusionModule, examples: Sequence[Example]) -> Image.Image:
    """Pictures made from captions, and answers about given pictures, by the weights as they are."""
    module.eval()
    model = model_of(module)
    requests: list[GenerateRequest | AskRequest] = []
    for index, example in enumerate(examples):
        assert example.image is not None
        height, width, _ = example.image.shape
        requests.append(GenerateRequest(prompt=example.caption or "", height=height, width=width, seed=index))
    for index, example in enumerate(examples):
        if example.qa and example.image is not None:
            picture, question = Image.fromarray(example.image), example.qa[0][0]
            tokens = model.config.answer_tokens
            requests.append(AskRequest(images=(picture,), question=question, tokens=tokens, seed=index))
    results = model.run(requests)
    module.train()
    tiles, notes = [], []
    for request, result in zip(requests, results, strict=True):
        if isinstance(request, GenerateRequest):
            tiles.append(result)
            notes.append(request.prompt)
        else:
            tiles.append(request.images[0])
            notes.append(f"{request.question}? {result}")
    return captioned_grid(tiles, notes, columns=6)
