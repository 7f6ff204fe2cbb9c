from __future__ import annotations

import json
import mmap
import time
from pathlib import Path

import pytest
import torch

import benchmarks.released as benchmark
import dimoo
from dimoo.presets import lumina_dimoo_8b
from dimoo.tokenizers.image.config import AmusedNetworkConfig, ImageTokenizerConfig, VectorQuantizerConfig

LINUX = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="anonymous memory is read from /proc")
SMALL_VQ = ImageTokenizerConfig(
    network=AmusedNetworkConfig(channels=(8, 8, 8, 8, 8), blocks=1, latent_channels=4, groups=4),
    quantizer=VectorQuantizerConfig(size=8192, dim=4),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("scale") / "released"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(benchmark, "VQ", SMALL_VQ)
        benchmark.write(path, width=128, layers=1, shard_size="20MB")
    return path


def test_what_is_written_is_the_release_in_small(folder: Path) -> None:
    assert len(list(folder.glob("model-*.safetensors"))) == 3  # two tables of 34 MB, and the rest
    model = dimoo.load(folder)
    assert model.config.vocabulary == lumina_dimoo_8b.VOCABULARY
    assert model.config.image == lumina_dimoo_8b.image_settings()
    assert model.config.backbone == benchmark.shape(128, 1)
    assert benchmark.shape(4096, 32) == lumina_dimoo_8b.BACKBONE


@LINUX
def test_the_report_counts_files_weights_and_peak(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    benchmark.main(["--child", "--path", str(folder), "--dtype", "float32", "--steps", "1", "--size", "32", "48"])
    report = json.loads(capsys.readouterr().out)
    files = [file for file in folder.rglob("*") if file.suffix == ".safetensors"]
    assert report["file_bytes"] == sum(file.stat().st_size for file in files)
    parameters = 2 * 134_548 * 128 + 4 * 128**2 + 3 * 128 * 384 + 3 * 128
    assert report["parameters"] == parameters
    stored = sum(file.stat().st_size for file in (folder / "vqvae").glob("*.safetensors"))
    assert report["weight_bytes"] == pytest.approx(4 * parameters + stored, rel=1e-3)
    # The test's own process holds freed memory that it may reuse, so that no lower bound is sure.
    assert report["peak_rss_anon_bytes"] < 1.5 * report["weight_bytes"]
    picture = report["picture"]
    assert picture["size"] == [32, 48]
    assert picture["flops_per_second"] == pytest.approx(picture["flops_per_step"] / picture["seconds_per_step"])


def test_operations_are_those_of_the_matrix_products(folder: Path) -> None:
    """Against the shapes written out: two branches, weights of one block, and attention's two products."""
    model = dimoo.load(folder)
    lengths = [
        len(model.prompts.context("text_to_image", words).ids) + 2 * (3 + 1) + 4 for words in (benchmark.PROMPT, None)
    ]
    products = 4 * 128 * 128 + 3 * 128 * 384
    expected = sum(2 * products * length + 2 * 2 * length * length * 128 for length in lengths)
    assert benchmark.flops(model, (32, 48)) == expected


@LINUX
def test_the_peak_of_memory_is_seen() -> None:
    # Pages of its own: an allocator may give out again what earlier tests freed and the process still holds.
    with (
        benchmark.peak_of_rss(every=0.001) as seen,
        mmap.mmap(-1, 160_000_000, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as block,
    ):
        torch.frombuffer(block, dtype=torch.uint8).fill_(1)
        time.sleep(0.1)
    assert 0.9 * 160e6 < seen["peak"] < 2 * 160e6
