"""The Lightning trainer of every recipe: run folder, loggers, precision, processes, and how a run starts and stops."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Literal

import lightning as L
import torch
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning.pytorch.loggers import Logger, TensorBoardLogger
from lightning.pytorch.strategies import DDPStrategy, ModelParallelStrategy, Strategy
from typing_extensions import assert_never

from dimoo.core.errors import TrainingError
from recipes.config import RunConfig
from recipes.learning.feeding import lost_workers
from recipes.learning.operations import peak_operations
from recipes.learning.steps import StepModule
from recipes.running.saving import Beside, Saving, check, checkpoint_path
from recipes.running.together import failing_together
from recipes.watching.logs import csv_loggers
from recipes.watching.progress import RunProgress

UNFOUNDED = (
    # Inside Lightning, for those who maintain it.
    r"`isinstance\(treespec, LeafSpec\)` is deprecated",
    # Steps carry no data state: recipes.learning.steps.
    r"You're resuming from a checkpoint that ended before the epoch ended",
    # `csv_loggers` puts the rows back.
    r"Experiment logs directory .* exists and is not empty",
)
"""Warnings of other libraries that do not apply here."""


def run_folder(run: RunConfig) -> Path:
    """Where a run keeps everything: config, logs, checkpoints, pictures, export."""
    return Path(run.folder) / run.name


def precision(choice: Literal["auto", "fp32", "bf16"]) -> Literal["32-true", "bf16-mixed"]:
    """Lightning's name of the precision; `auto` is bf16 autocast where matrix products in bf16 are fast.

    On a CPU that means AMX tiles: without them a bf16 product is emulated, and a hundred times slower than fp32. GPUs
    that emulate it take fp32 too.
    """
    if choice == "auto":
        fast = torch.cuda.is_bf16_supported(including_emulation=False) if torch.cuda.is_available() else _has_amx()
        choice = "bf16" if fast else "fp32"
    return "bf16-mixed" if choice == "bf16" else "32-true"


def sharded(run: RunConfig) -> bool:
    """Whether a process holds but a part of the weights."""
    return run.parallel == "fsdp" and run.devices * run.nodes > 1


def strategy(run: RunConfig) -> Strategy | Literal["auto"]:
    """How the processes of a run share the model; "auto" for one."""
    if run.devices * run.nodes == 1:
        return "auto"
    match run.parallel:
        case "ddp":
            return DDPStrategy(gradient_as_bucket_view=True)
        case "fsdp":
            return ModelParallelStrategy(
                data_parallel_size=run.devices * run.nodes,
                tensor_parallel_size=1,
                save_distributed_checkpoint=run.checkpoints == "parts",
            )
        case _:
            assert_never(run.parallel)


@contextmanager
def _calm() -> Iterator[None]:
    """Without what Lightning says that does not apply here; its logger is given back as it was."""
    logger = logging.getLogger("lightning.pytorch")
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            for message in UNFOUNDED:
                warnings.filterwarnings("ignore", message=message)
            yield
    finally:
        logger.setLevel(level)


@_calm()
def make_trainer(
    run: RunConfig, *, callbacks: Sequence[L.Callback] = (), done: int = 0, dry: bool = False
) -> L.Trainer:
    """A trainer for `run.steps` optimiser steps, of which `done` were taken before.

    It takes accelerators where there are some. `dry` takes two steps and writes nothing.
    """
    folder = run_folder(run)
    steps = min(2, run.steps) if dry else run.steps
    loggers: list[Logger] = []
    progress = RunProgress(steps=steps, every=1 if dry else run.log_every, peak=partial(_peak, run))
    parts: list[L.Callback] = [*callbacks, progress]
    if not dry:
        # What was logged after the checkpoint that the run resumes from will be logged again.
        loggers = [
            *csv_loggers(folder, done),
            TensorBoardLogger(folder, name="", version="tensorboard", purge_step=done + 1 if done else None),
        ]
        parts.append(Saving(checkpoint_path(folder), steps=steps, every=run.save_every))
    return L.Trainer(
        max_steps=-1,
        max_epochs=1,
        limit_train_batches=steps,
        accelerator="auto",
        devices=run.devices,
        num_nodes=run.nodes,
        strategy=strategy(run),
        plugins=[Beside(), *_launcher()],
        default_root_dir=folder,  # else under SLURM what lies in the working directory may be loaded
        precision=precision(run.precision),
        logger=loggers,
        callbacks=parts,
        log_every_n_steps=1,  # how often values are logged is RunProgress's affair
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=not dry,
        num_sanity_val_steps=0,
    )


@_calm()
def fit(trainer: L.Trainer, module: StepModule, *, checkpoint: Path | None = None) -> None:
    """Train, from a checkpoint on where one is given.

    Raises:
        CheckpointError: the checkpoint lacks weights that are trained.
        TrainingError: the loss is not finite, or the run was stopped from outside.
    """
    if checkpoint is not None:
        check(module, checkpoint)
    folder = Path(trainer.default_root_dir) if trainer.loggers else None
    try:
        with failing_together(folder), stopped(module), lost_workers():
            trainer.fit(module, ckpt_path=None if checkpoint is None else str(checkpoint), weights_only=True)
    finally:
        module.close()


@contextmanager
def stopped(module: StepModule) -> Iterator[None]:
    """Where a run may be stopped from outside.

    Raises:
        TrainingError: it was.
    """
    try:
        yield
    except SystemExit as error:  # what Lightning makes of a Ctrl-C that `Saving` does not take
        raise TrainingError(
            f"stopped in the middle of step {module.steps_done + 1}; --resume goes on from the last checkpoint"
        ) from error


def _launcher() -> list[SLURMEnvironment]:
    """SLURM, where Lightning would find it, but without its own checkpoints: requeueing is for the job script to do."""
    by_slurm = SLURMEnvironment.detect() and not TorchElasticEnvironment.detect()
    return [SLURMEnvironment(auto_requeue=False)] if by_slurm else []


def _peak(run: RunConfig, device: torch.device) -> float | None:
    """Operations per second that the devices of a run can do together."""
    kind = torch.bfloat16 if precision(run.precision) == "bf16-mixed" else torch.float32
    peak = peak_operations(device, kind, run.peak_tflops)
    return None if peak is None else peak * run.devices * run.nodes


def _has_amx() -> bool:
    supported = getattr(torch.cpu, "_is_amx_tile_supported", None)
    return bool(supported and supported())
