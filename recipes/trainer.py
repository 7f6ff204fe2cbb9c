"""The Lightning trainer of every recipe: run folder, loggers, checkpoints, precision."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import lightning as L
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger

from dimoo.core.errors import CheckpointError
from recipes.callbacks import RunProgress
from recipes.config import RunConfig

LAST = "last.ckpt"


def run_folder(run: RunConfig) -> Path:
    """Where a run keeps everything: config, logs, checkpoints, pictures, export."""
    return Path(run.folder) / run.name


def precision(choice: Literal["auto", "fp32", "bf16"]) -> Literal["32-true", "bf16-mixed"]:
    """Lightning's name of the precision; `auto` is bf16 autocast where matrix products in bf16 are fast.

    On a CPU that means AMX tiles: without them a bf16 product is emulated, and a hundred times slower than fp32.
    """
    if choice == "auto":
        fast = torch.cuda.is_bf16_supported() if torch.cuda.is_available() else _has_amx()
        choice = "bf16" if fast else "fp32"
    return "bf16-mixed" if choice == "bf16" else "32-true"


def make_trainer(run: RunConfig, *, callbacks: Sequence[L.Callback] = (), dry: bool = False) -> L.Trainer:
    """A trainer for `run.steps` optimiser steps; `dry` takes two steps and writes nothing."""
    folder = run_folder(run)
    steps = min(2, run.steps) if dry else run.steps
    loggers: list[Logger] = []
    parts: list[L.Callback] = [RunProgress(steps=steps, every=1 if dry else run.log_every), *callbacks]
    if not dry:
        loggers = [CSVLogger(folder, name="", version="csv"), TensorBoardLogger(folder, name="", version="tensorboard")]
        parts.append(
            ModelCheckpoint(
                dirpath=folder / "checkpoints",
                save_last=True,
                save_top_k=0,
                every_n_train_steps=run.save_every,
                enable_version_counter=False,
            )
        )
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    return L.Trainer(
        max_steps=-1,
        max_epochs=1,
        limit_train_batches=steps,
        accelerator="auto",
        devices=1,
        precision=precision(run.precision),
        logger=loggers,
        callbacks=parts,
        log_every_n_steps=run.log_every,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=not dry,
        num_sanity_val_steps=0,
    )


def resume_path(folder: Path) -> Path:
    """The newest checkpoint of a run.

    Raises:
        CheckpointError: the folder has none.
    """
    path = folder / "checkpoints" / LAST
    if not path.is_file():
        raise CheckpointError(f"no checkpoint to resume from at {path}; start the run without --resume")
    return path


def _has_amx() -> bool:
    supported = getattr(torch.cpu, "_is_amx_tile_supported", None)
    return bool(supported and supported())
