"""The released checkpoint at scale: python -m benchmarks.released [--layers N] [--dtype D] [--device D] [--steps N].

Writes a checkpoint in the released layout, of the released width, ids and image tokenizer, with random weights and as
many layers as asked for (32 are the released 8B model, 16.2 GB in bfloat16), loads it with `dimoo.load` in a fresh
process, and prints the size of the files and the peak of anonymous host memory (RssAnon: the pages of mapped files do
not count) above what the process had before the call, against the weights in the dtype asked for.

With --convert it first converts the checkpoint to our layout and prints that peak. With --steps it also draws one
picture, and prints seconds per step, memory, and the share of what a large matrix product reaches in the same run.
--path measures a checkpoint that is there.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers

import dimoo
from benchmarks.spine import machine
from dimoo.backbone.build import build_backbone
from dimoo.backbone.config import BackboneConfig
from dimoo.core.device import PRECISIONS
from dimoo.core.rng import generator
from dimoo.presets import lumina_dimoo_8b as preset
from dimoo.tasks.model import Dimoo
from dimoo.tokenizers.image.build import build_image_tokenizer
from dimoo.tokenizers.image.config import AmusedNetworkConfig, ImageTokenizerConfig, VectorQuantizerConfig
from dimoo.tokenizers.text import PROMPT_TAGS
from dimoo.weights import shards
from dimoo.weights.convert import convert
from dimoo.weights.diffusers_vq import write_diffusers_vq
from dimoo.weights.llada import config_to_llada, llada_rules
from dimoo.weights.rules import to_theirs
from dimoo.weights.shards import Shards

VQ = ImageTokenizerConfig(
    network=AmusedNetworkConfig(channels=(128, 256, 256, 512, 768), blocks=2, latent_channels=64, groups=32),
    quantizer=VectorQuantizerConfig(size=8192, dim=64),
)
PROMPT = "a lighthouse at dusk"
SHARD = "500MB"
"""Of a conversion: one file of that size is in memory at a time where the dtype changes."""
BLOCK = 1 << 16
"""Random numbers of which every row is made: what is loaded does not matter here, how much does."""


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    options = _parser().parse_args(arguments)
    if options.child:
        given = options.path, options.dtype, options.device, options.steps, options.size, options.convert_to
        print(json.dumps(measure(*given)))
        return
    with tempfile.TemporaryDirectory(dir=options.scratch) as scratch:
        path = options.path
        if path is None:
            path = Path(scratch) / "released"
            write(path, options.width, options.layers, options.shard_size)
        command = [sys.executable, "-m", "benchmarks.released", "--child", "--path", str(path)]
        command += ["--dtype", options.dtype, "--device", options.device]
        command += ["--steps", str(options.steps), "--size", *map(str, options.size)]
        command += ["--convert-to", str(Path(scratch) / "converted")] if options.convert else []
        child = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    report = {"machine": machine(), **json.loads(child.stdout)}
    if options.json:
        print(json.dumps(report, indent=2))
    else:
        Console().print(table(report))


def shape(width: int, layers: int) -> BackboneConfig:
    """The released proportions at another width and depth."""
    scale = width / preset.BACKBONE.d_model
    return preset.BACKBONE.model_copy(
        update={
            "d_model": width,
            "layers": layers,
            "heads": max(1, round(preset.BACKBONE.heads * scale)),
            "kv_heads": max(1, round(preset.BACKBONE.kv_heads * scale)),
            "mlp_hidden": round(preset.BACKBONE.mlp_hidden * scale),
        }
    )


def write(folder: Path, width: int, layers: int, shard_size: str) -> None:
    """A checkpoint in the released layout, shard by shard, in bfloat16."""
    config = shape(width, layers)
    folder.mkdir(parents=True)
    with torch.device("meta"):
        tensors = build_backbone(config).state_dict()
    numbers = (torch.randn(BLOCK, generator=generator(0, "released")) * 0.02).bfloat16()
    # Every row is the same, and takes no memory before its file is written; each norm has its own copy to be saved.
    rows = {name: numbers[: tensor.shape[-1]].clone().expand(tensor.shape) for name, tensor in tensors.items()}
    shards.write(folder, to_theirs(llada_rules(layers), rows), shard_size=shard_size)
    (folder / "config.json").write_text(json.dumps(config_to_llada(config)), encoding="utf-8")
    tokenizer().save(str(folder / "tokenizer.json"))
    write_diffusers_vq(build_image_tokenizer(VQ, generator(0, "released", "vq")), folder / "vqvae")


def tokenizer() -> Tokenizer:
    """As many words as the released tokenizer has ids, and its special tokens where it has them."""
    specials = {index: names[0] for names, index in preset.TOKENS.values()}
    free = (index for index in range(preset.VOCABULARY.text_size - 1, 0, -1) if index not in specials)
    specials |= dict(zip(free, PROMPT_TAGS, strict=False))
    words = {specials.get(index, f"w{index}"): index for index in range(preset.VOCABULARY.text_size)}
    made = Tokenizer(models.WordLevel(words, unk_token="w0"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in specials.values()])
    return made


def measure(
    path: Path, dtype: str, device: str, steps: int, size: tuple[int, int], convert_to: Path | None = None
) -> dict[str, Any]:
    """Convert, load, draw, as far as asked for; everything as plain numbers."""
    cuda = torch.device(device).type == "cuda"
    if cuda:
        torch.zeros(1, device=device)  # the context's own memory is not the model's
    converted: dict[str, Any] = {}
    if convert_to is not None:
        with peak_of_rss() as rss:
            since = time.perf_counter()
            convert(path, convert_to, layout="dimoo", shard_size=SHARD)
            converted = {"convert_seconds": time.perf_counter() - since}
        converted["convert_peak_rss_anon_bytes"] = rss["peak"]
    with peak_of_rss() as rss:
        since = time.perf_counter()
        model = dimoo.load(path, dtype=dtype, device=device)
        seconds = time.perf_counter() - since
    image, backbone = model.kit.image_tokenizer, model.backbone
    assert isinstance(backbone, torch.nn.Module)
    assert isinstance(image, torch.nn.Module)
    weights = sum(tensor.nbytes for module in (backbone, image) for tensor in module.state_dict().values())
    report: dict[str, Any] = {
        "file_bytes": sum(file.stat().st_size for file in path.rglob("*.safetensors")),
        "shards": len(Shards.open(path).files),
        "parameters": sum(parameter.numel() for parameter in backbone.parameters()),
        "dtype": dtype,
        "device": device,
        "weight_bytes": weights,
        "peak_rss_anon_bytes": rss["peak"],
        "peak_over_weights": rss["peak"] / weights,
        "load_seconds": seconds,
        **converted,
    }
    if steps:
        report["picture"] = draw(model, dtype, steps, size)
    return report


def draw(model: Dimoo, dtype: str, steps: int, size: tuple[int, int]) -> dict[str, Any]:
    """One guided picture: seconds per step, memory, and the arithmetic that its forward passes must do."""
    device, cuda = model.backbone.device, model.backbone.device.type == "cuda"
    settings = model.config.image.model_copy(update={"steps": steps})
    model.generate(PROMPT, size=size, settings=settings.model_copy(update={"steps": 1}))  # warm up
    if cuda:
        torch.cuda.reset_peak_memory_stats(device)
    since = time.perf_counter()
    model.generate(PROMPT, size=size, settings=settings)
    if cuda:
        torch.cuda.synchronize(device)
    seconds = time.perf_counter() - since
    operations = flops(model, size)
    report = {"size": list(size), "steps": steps, "seconds_per_step": seconds / steps, "flops_per_step": operations}
    reached, best = operations * steps / seconds, product(device, PRECISIONS[dtype])
    report |= {"flops_per_second": reached, "product_flops_per_second": best, "share_of_product": reached / best}
    if cuda:
        report["peak_device_bytes"] = torch.cuda.max_memory_allocated(device)
    return report


def flops(model: Dimoo, size: tuple[int, int]) -> float:
    """2 per weight and token in the blocks, 4 N^2 d per layer and branch in attention; without the head (a few %)."""
    tokenizer, shape = model.kit.image_tokenizer, model.config.backbone
    assert tokenizer is not None
    rows, columns = tokenizer.grid_for(size)
    prompt = len(model.prompts.context("text_to_image", PROMPT).ids)
    unconditional = len(model.prompts.context("text_to_image", None).ids)
    answer = rows * (columns + 1) + 4
    lengths = [prompt + answer, unconditional + answer]
    per_layer = 2 * shape.d_model**2 + 2 * shape.d_model**2 * shape.kv_heads // shape.heads
    weights = shape.layers * (per_layer + 3 * shape.d_model * shape.mlp_hidden)
    attention = shape.layers * sum(4 * length**2 * shape.d_model for length in lengths)
    return float(2 * weights * sum(lengths) + attention)


def product(device: torch.device, dtype: torch.dtype) -> float:
    """Operations per second of a large matrix product: what this device can reach."""
    side = 8192 if device.type == "cuda" else 1024
    a = torch.randn(side, side, device=device, dtype=dtype)
    best = float("inf")
    for _ in range(5):
        since = time.perf_counter()
        a @ a
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        best = min(best, time.perf_counter() - since)
    return 2 * side**3 / best


@contextmanager
def peak_of_rss(every: float = 0.002) -> Iterator[dict[str, int]]:
    """The peak of this process's anonymous memory above what it is now, looked up every few milliseconds."""
    found, done = {"peak": 0}, threading.Event()
    base = rss_anon()

    def watch() -> None:
        while not done.wait(every):
            found["peak"] = max(found["peak"], rss_anon() - base)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield found
    finally:
        done.set()
        thread.join()
        found["peak"] = max(found["peak"], rss_anon() - base)


def rss_anon() -> int:
    """Anonymous memory of this process in bytes (Linux)."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("this system does not report RssAnon; the benchmark needs Linux")


def table(report: dict[str, Any]) -> Table:
    """What was measured, one line each."""
    made = Table(title="{device}, {threads} threads, torch {torch}".format(**report["machine"]), show_header=False)
    gigabytes = {"files": "file_bytes", "weights": "weight_bytes", "peak RssAnon": "peak_rss_anon_bytes"}
    made.add_row("parameters of the backbone", f"{report['parameters']:,}")
    for name, key in gigabytes.items():
        made.add_row(name, f"{report[key] / 1e9:.3f} GB")
    made.add_row("peak over weights", f"{report['peak_over_weights']:.3f}")
    made.add_row("loading", f"{report['load_seconds']:.1f} s from {report['shards']} shards")
    if "convert_seconds" in report:
        peak = report["convert_peak_rss_anon_bytes"] / 1e9
        made.add_row("converting", f"{report['convert_seconds']:.1f} s, peak RssAnon {peak:.3f} GB")
    for name, value in report.get("picture", {}).items():
        made.add_row(name, f"{value:.4g}" if isinstance(value, float) else str(value))
    return made


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.released", description=__doc__)
    parser.add_argument("--layers", type=int, default=4, help="of the released 32")
    parser.add_argument("--width", type=int, default=preset.BACKBONE.d_model, help="of the released 4096")
    parser.add_argument("--shard-size", default="1GB")
    parser.add_argument("--dtype", choices=tuple(PRECISIONS), default="bfloat16", help="to load in")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--steps", type=int, default=0, help="of a picture; 0: none")
    parser.add_argument("--size", type=int, nargs=2, default=(1024, 1024), metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--path", type=Path, help="a checkpoint to measure, in place of a synthetic one")
    parser.add_argument("--scratch", type=Path, help="where the synthetic one is written for a while")
    parser.add_argument("--convert", action="store_true", help="also measure a conversion to our layout")
    parser.add_argument("--convert-to", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    main()
