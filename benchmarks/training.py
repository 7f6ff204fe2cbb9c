"""Our trainer against one written plainly: python -m benchmarks.training [--json FILE] [--processes N] [--shape 1b].

Both train the transformer of `world_all` with the released number of ids, 134,548, on the world's mixture of lengths:
the same weights, documents, masks, optimiser and precision, each in a process of its own, one after the other. The
naive trainer (`benchmarks.naive_trainer`) computes a padded rectangle and all its logits; ours is the recipe's own
step. Documents and masks are made beforehand for both; what is timed is forward, backward, clipping and AdamW, and only
real tokens count. tokens_per_s is the median of the steps after the first. peak_bytes is the peak of anonymous memory
above what the process had before the weights were made, on a GPU that of the device's allocator.

--processes N also measures ours with one and with N processes (DDP) of one thread each. --shape 1b measures ours at 1.2
billion parameters in packs of at most 4,096 tokens, as a share of what the GPU could compute (MFU).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.utilities.throughput import get_available_flops
from rich.console import Console
from rich.table import Table

from benchmarks.released import peak_of_rss
from benchmarks.spine import machine
from benchmarks.trainers import PARTS, WARM_UP, train_naively, train_ours
from dimoo.core.config import override
from dimoo.core.errors import BackendError, ConfigError, TrainingError
from recipes import registry
from recipes.config import DiffusionRecipe
from recipes.processes import first_process
from recipes.running.estimate import estimate
from recipes.running.trainer import precision

VOCABULARY = 134_548
CHUNK = 128
"""Masked rows whose logits exist at one time: 69 MB of them with that vocabulary, in fp32."""
SHAPES = {"1b": {"d_model": 2048, "layers": 12, "heads": 16, "kv_heads": 16, "mlp_hidden": 5632}}
PACK, DOCUMENTS = 4096, 336
"""With --shape: tokens of a pack, and documents of a step, which are about eight packs."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """What one process measures."""

    trainer: str
    """What it is called in the report."""
    naive: bool = False
    slice_loss: bool = False
    devices: int = 1
    threads: int | None = None
    """Of each process; None: as many as torch takes."""


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    options = _parser().parse_args(given)
    wanted = {job.trainer: job for job in jobs(options)}
    if options.child:
        row = measure(options, wanted[options.child])
        if first_process():
            print(json.dumps(row))
        return
    if options.json is not None and not options.json.absolute().parent.is_dir():
        raise ConfigError(f"--json {options.json}: there is no folder {options.json.parent}; make it first")
    recipe = recipe_of(options)
    report: dict[str, Any] = {
        "machine": machine(),
        "precision": precision(recipe.run.precision),
        "shape": recipe.backbone.model_dump(),
        "documents": recipe.run.batch_size,
        "rows": [launched(given, job) for job in wanted.values()],
    }
    report |= compared({row["trainer"]: row for row in report["rows"]})
    Console().print(table(report))
    if options.json is not None:
        beside = options.json.with_name(options.json.name + ".part")
        beside.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
        beside.replace(options.json)


def jobs(options: argparse.Namespace) -> list[Job]:
    """What is to be measured, in order.

    Raises:
        BackendError: --shape without a GPU.
    """
    if options.shape is not None:
        if not torch.cuda.is_available():
            raise BackendError(
                f"--shape {options.shape} measures the share of what a GPU could compute, and there is no CUDA device;"
                " leave it out, or run it where there is one"
            )
        return [Job(trainer="ours")]
    found = [
        Job(trainer="naive", naive=True),
        Job(trainer="ours"),
        Job(trainer="ours, softmax over the slice", slice_loss=True),
    ]
    counts = (1, options.processes) if options.processes > 1 else ()
    return found + [Job(trainer=_several(count), devices=count, threads=1) for count in counts]


def recipe_of(options: argparse.Namespace, job: Job = Job(trainer="ours")) -> DiffusionRecipe:
    """The last phase of `world_all` at the shape asked for, from fresh weights, at a constant rate, without averages.

    Raises:
        ConfigError: the shape is none, or a setting is wrong.
    """
    width = options.width
    shape = {"d_model": width, "layers": options.layers, "mlp_hidden": width * 8 // 3}
    shape |= dict.fromkeys(("heads", "kv_heads"), max(1, width // 32))
    batch, pack = options.batch, None
    if options.shape is not None:
        shape, batch, pack = SHAPES[options.shape], DOCUMENTS, PACK
    recipe = registry.get("world_all")
    assert isinstance(recipe, DiffusionRecipe)
    last = recipe.source.model_dump(mode="json")["phases"][-1] | {"share": 1.0}
    return override(
        recipe,
        [
            *(f"backbone.{name}={value}" for name, value in shape.items()),
            f"backbone.vocab_size={options.vocabulary}",
            f"source.phases={json.dumps([last])}",
            f"run.batch_size={batch}",
            f"run.steps={WARM_UP + options.steps}",
            f"run.devices={job.devices}",
            f"pack_tokens={json.dumps(pack)}",
            f"slice_loss={json.dumps(job.slice_loss)}",
            f"loss_chunk={CHUNK}",
            "optimizer.warmup_steps=0",
            "optimizer.decay_share=0",
            "ema=0",
            *options.set,
        ],
    )


def launched(given: Sequence[str], job: Job) -> dict[str, Any]:
    """Measure in a process of its own.

    Raises:
        TrainingError: it failed.
    """
    threads = {} if job.threads is None else {"OMP_NUM_THREADS": str(job.threads)}
    command = [sys.executable, "-m", "benchmarks.training", *given, "--child", job.trainer]
    child = subprocess.run(command, check=False, stdout=subprocess.PIPE, text=True, env={**os.environ, **threads})
    if child.returncode:
        raise TrainingError(f"the trainer {job.trainer!r} ended with status {child.returncode}; its error is above")
    row: dict[str, Any] = json.loads(child.stdout.splitlines()[-1])
    return row


def measure(options: argparse.Namespace, job: Job) -> dict[str, Any]:
    """The row of a job, measured in this process."""
    recipe = recipe_of(options, job)
    with peak(cuda=torch.cuda.is_available()) as found:
        meter = train_naively(recipe) if job.naive else train_ours(recipe)
    row = {
        "trainer": job.trainer,
        "processes": job.devices,
        "threads": torch.get_num_threads(),
        "peak_bytes": found["peak"],
        **meter.report(),
    }
    if options.shape is not None:
        row |= efficiency(recipe, row["tokens_per_s"], options.peak_flops)
    return row


@contextmanager
def peak(*, cuda: bool) -> Iterator[dict[str, int]]:
    """The peak of memory while this lasts, in bytes, under "peak" when it ends: the GPU's, or this process's own."""
    if not cuda:
        with peak_of_rss() as found:
            yield found
        return
    torch.cuda.reset_peak_memory_stats()
    seen = {"peak": 0}
    yield seen
    seen["peak"] = torch.cuda.max_memory_allocated()


def efficiency(recipe: DiffusionRecipe, tokens_per_s: float, peak_flops: float | None) -> dict[str, float]:
    """MFU = operations per token (`recipes.running.estimate`) x tokens per second / what the device could do.

    Args:
        recipe: what was measured, in one process.
        tokens_per_s: how fast it was.
        peak_flops: dense operations per second of the device; None: as lightning knows them.

    Raises:
        BackendError: it does not know the device.
    """
    kind = torch.bfloat16 if precision(recipe.run.precision) == "bf16-mixed" else torch.float32
    best = peak_flops or get_available_flops(torch.device("cuda"), kind)
    if best is None:
        raise BackendError(
            f"lightning does not know how much {torch.cuda.get_device_name()} can compute; say it with --peak-flops, as"
            " 9.89e14"
        )
    need = estimate(recipe)
    operations = need.total_operations / need.tokens * tokens_per_s
    return {
        "parameters": float(sum(need.parameters.values())),
        "operations_per_s": operations,
        "peak_operations_per_s": float(best),
        "mfu": operations / best,
    }


def compared(rows: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """What follows from several rows: ours over naive, and many processes over one."""
    found: dict[str, Any] = {}
    if "naive" in rows:
        ours, naive = rows["ours"], rows["naive"]
        found["ratios"] = {key: ours[key] / naive[key] for key in ("tokens_per_s", "peak_bytes")}
        found["loss_difference"] = abs(ours["all_losses"][0] / naive["all_losses"][0] - 1)
    many = [row for row in rows.values() if row["trainer"] == _several(row["processes"])]
    if many:
        one, most = many
        found["scaling"] = {"processes": most["processes"], "tokens_per_s": most["tokens_per_s"] / one["tokens_per_s"]}
    return found


SHOWN: Mapping[str, Callable[[dict[str, Any]], str]] = {
    "threads": lambda row: str(row["threads"] * row["processes"]),
    "tokens/s": lambda row: f"{row['tokens_per_s']:,.0f}",
    "s/step": lambda row: f"{row['step_seconds']:.3f}",
    "CPU s/step": lambda row: f"{row['step_cpu_seconds']:.3f}",
    "peak, GB": lambda row: f"{row['peak_bytes'] / 1e9:.2f}",
    "head rows": lambda row: f"{row['head_rows']:,.0f}",
    "loss": lambda row: f"{row['loss']:.4f}",
}
"""What is shown of a row, by its name."""


def table(report: dict[str, Any]) -> Table:
    """One column per trainer, and what follows from them below."""
    title = "{device}, torch {torch}, ".format(**report["machine"]) + f"{report['precision']}, "
    title += f"{report['documents']} documents a step, {report['shape']['vocab_size']:,} ids"
    made = Table(title=title, title_justify="left", caption="\n".join(_said(report)), caption_justify="left")
    made.add_column("")
    rows = report["rows"]
    for row in rows:
        made.add_column(row["trainer"], justify="right")
    for name, told in SHOWN.items():
        made.add_row(name, *(told(row) for row in rows))
    for part in PARTS:
        made.add_row(part, *(f"{row['parts'][part] / sum(row['parts'].values()):.0%}" for row in rows))
    return made


def _said(report: dict[str, Any]) -> Iterator[str]:
    if "ratios" in report:
        yield "ours over naive: {tokens_per_s:.2f} x tokens/s, {peak_bytes:.2f} x peak memory".format(
            **report["ratios"]
        )
        yield f"their losses of the first step differ by {report['loss_difference']:.1e} of their value"
    if "scaling" in report:
        yield "{processes} processes over one: {tokens_per_s:.2f} x tokens/s".format(**report["scaling"])
    for row in report["rows"]:
        if "mfu" in row:
            yield f"MFU {row['mfu']:.3f} with {row['parameters'] / 1e9:.2f} billion parameters"


def _several(count: int) -> str:
    return f"ours, {count} process{'es' * (count > 1)} of one thread"


def _count(text: str) -> int:
    """A number of the command line that counts something.

    Raises:
        argparse.ArgumentTypeError: it is none, or less than 1.
    """
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number of at least 1")
    return int(text)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.training", description=__doc__)
    parser.add_argument("--json", type=Path, help="also write everything to this file")
    parser.add_argument("--steps", type=_count, default=3, help=f"that count, after {WARM_UP} that does not")
    parser.add_argument("--batch", type=_count, default=16, help="documents of a step")
    parser.add_argument("--width", type=_count, default=192, help="of the transformer; 192 is that of mini")
    parser.add_argument("--layers", type=_count, default=6)
    parser.add_argument("--vocabulary", type=_count, default=VOCABULARY, help="ids of the model")
    parser.add_argument("--processes", type=_count, default=1, help="also measure ours with one and with so many")
    parser.add_argument("--shape", choices=tuple(SHAPES), help="measure ours alone at this shape, on a GPU")
    parser.add_argument("--peak-flops", type=float, help="operations per second of the GPU, if lightning knows it not")
    parser.add_argument(
        "--set", action="append", default=[], metavar="k=v", help="override a setting of the recipe, as compile=true"
    )
    parser.add_argument("--child", help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    main()
