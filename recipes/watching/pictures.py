"""Pictures while a recipe trains: reconstructions of a tokenizer, samples and answers of a diffusion model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import lightning as L
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from PIL import Image
from torchmetrics.functional.image import peak_signal_noise_ratio

from dimoo.core.requests import AskRequest, GenerateRequest, Request
from dimoo.data.build import held_out
from dimoo.data.encoded import converted, decoded
from dimoo.data.example import Example, Source, pictures_of, pixels_of
from dimoo.evaluation.grids import captioned_grid
from dimoo.evaluation.requests import request_of
from dimoo.tokenizers.image.resize import to_images
from recipes.config import Recipe
from recipes.learning.assemble import model_of
from recipes.learning.averaging import averaged
from recipes.learning.diffusion import DiffusionModule
from recipes.learning.steps import log
from recipes.learning.tokenizer import TokenizerModule
from recipes.watching.every import EverySteps
from recipes.watching.validation import Validation

SHOWN = 12


def callbacks(recipe: Recipe, source: Source, folder: Path, *, dry: bool) -> Sequence[L.Callback]:
    """The callbacks of a kind of recipe besides the trainer's own; `source` is the one that it trains on."""
    if dry:
        return []
    first = recipe.run.steps * recipe.run.batch_size
    unseen = held_out(source, examples=first)
    if unseen is None:
        examples = (source, range(first, first + SHOWN))
    else:
        examples = (unseen, range(SHOWN if unseen.size is None else min(SHOWN, unseen.size)))
    parts: list[L.Callback] = [Pictures(*examples, folder / "pictures", every=recipe.run.sample_every)]
    if recipe.run.validate_every is not None:
        assert unseen is not None, "such a config is refused"
        size = recipe.run.validate_examples if unseen.size is None else min(recipe.run.validate_examples, unseen.size)
        parts.append(Validation(unseen, range(size), every=recipe.run.validate_every))
    return parts


class Pictures(EverySteps):
    """Every so many steps: a PNG grid in the run folder and in TensorBoard.

    Of examples that are held out; where there are none, of those just after the run's last one, which begin a further
    pass, so they are pictures that it learns from.
    """

    def __init__(self, source: Source, numbers: Sequence[int], folder: Path, *, every: int) -> None:
        super().__init__(source, numbers, every=every)
        self._folder = folder

    def look(self, trainer: L.Trainer, module: TokenizerModule | DiffusionModule, step: int) -> None:
        """Make and keep the pictures."""
        examples = [self._source.example(index) for index in self._numbers]
        if isinstance(module, TokenizerModule):
            grid, psnr = reconstructions(module, [converted(example, pixels_of) for example in examples])
            module.log("psnr", psnr, logger=False)  # for the progress line
            log(trainer.loggers, {"psnr": psnr}, step)
        else:
            with averaged(module, trainer.optimizers):
                tokenizer = module.builder.image_tokenizer
                grid = samples(module, [decoded(example, tokenizer) for example in examples])
        if not trainer.is_global_zero:  # all compute them, as each may hold but a part of the model
            return
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
    for picture in (picture for example in examples for picture in pictures_of(example)[-1:]):
        pixels = torch.from_numpy(picture).permute(2, 0, 1).float()[None].to(module.device) / 255
        made = module.tokenizer.decode(module.tokenizer.encode(pixels))
        values.append(peak_signal_noise_ratio(made, pixels, data_range=1.0))
        pairs += to_images(torch.cat([pixels, made], dim=2))
        notes.append(f"{float(values[-1]):.1f} dB")
    return captioned_grid(pairs, notes, columns=6), float(torch.stack(values).mean())


def samples(module: DiffusionModule, examples: Sequence[Example]) -> Image.Image:
    """What the present weights make of captions, questions and tasks; given pictures stand beside the answer."""
    asked: list[tuple[Request, str]] = []
    for index, example in enumerate(examples):
        if example.image is not None:
            height, width, _ = example.image.shape
            caption = example.caption or ""
            asked.append((GenerateRequest(prompt=caption, height=height, width=width, seed=index), caption))
        if example.qa and example.image is not None:
            picture, question = Image.fromarray(example.image), example.qa[0][0]
            tokens = module.recipe.mixture.question_tokens
            asked.append((AskRequest(images=(picture,), question=question, tokens=tokens, seed=index), question))
        asked += [(request_of(one, index), f"{one.task} {one.option} {one.words}") for one in example.tasks]
    try:
        results = model_of(module).run([request for request, _ in asked])  # in evaluation mode
    finally:
        module.train()
    tiles, notes = [], []
    for (request, said), result in zip(asked, results, strict=True):
        parts = result if isinstance(result, tuple) else (result,)
        words = [part for part in parts if isinstance(part, str)]
        tiles.append(_beside([*_given(request), *(part for part in parts if isinstance(part, Image.Image))]))
        notes.append(": ".join([said, *words]))
    return captioned_grid(tiles, notes, columns=6)


def _given(request: Request) -> Sequence[Image.Image]:
    single = getattr(request, "image", None)
    return getattr(request, "images", ()) if single is None else (single,)


def _beside(pictures: Sequence[Image.Image]) -> Image.Image:
    """Pictures in a row, each on white where it is lower than the others; a white one where there is none."""
    height = max((picture.height for picture in pictures), default=32)
    row = Image.new("RGB", (sum(picture.width for picture in pictures) or 32, height), "white")
    left = 0
    for picture in pictures:
        row.paste(picture, (left, 0))
        left += picture.width
    return row
