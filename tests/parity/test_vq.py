"""The image tokenizer against diffusers' `VQModel`, through the loader.

It is loaded out of the released checkpoint where it has as many codes as the backbone was made for. In the bundled
folder it has fewer (64 of 192), so the checkpoint has another one, and this one is loaded from its own folder.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from golden_folder import Golden
from golden_release import Released
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

import dimoo
from dimoo.core.errors import CheckpointError
from dimoo.core.rng import generator
from dimoo.tokenizers.image.build import build_image_tokenizer
from dimoo.tokenizers.image.config import ImageTokenizerConfig
from dimoo.tokenizers.image.resize import to_pixels
from dimoo.tokenizers.image.tokenizer import ImageTokenizer
from dimoo.weights.diffusers_vq import CONFIG_FILE, WEIGHTS_FILE, read_diffusers_vq, write_diffusers_vq

EFFECTIVE = {
    *("act_fn", "block_out_channels", "down_block_types", "up_block_types", "in_channels", "out_channels"),
    *("latent_channels", "layers_per_block", "mid_block_add_attention", "norm_num_groups", "num_vq_embeddings"),
}
"""Settings that shape the network; `vq_embed_dim` may be null or spelt out, which the tensors' shapes show."""


@pytest.fixture(scope="module")
def folder(golden: Golden) -> Path:
    if golden.vq is None:
        pytest.skip(f"{golden.path} has no vq/vqvae/ folder: nothing to compare the image tokenizer with")
    return golden.path / "vq"


@pytest.fixture(scope="module")
def expected(folder: Path) -> dict[str, Tensor]:
    return load_file(folder / "expected.safetensors")


@pytest.fixture(scope="module")
def tokenizer(folder: Path, released: Released) -> ImageTokenizer:
    return dimoo.load_image_tokenizer(released.folder if released.has_golden_vq else folder / "vqvae")


def test_preprocessing(folder: Path, expected: dict[str, Tensor]) -> None:
    pixels = to_pixels([Image.open(folder / "input.png")])
    torch.testing.assert_close(pixels, expected["pixels"], atol=1e-6, rtol=0)


def test_latents_and_codes(tokenizer: ImageTokenizer, expected: dict[str, Tensor]) -> None:
    with torch.no_grad():
        latents = tokenizer.network.encode(expected["pixels"])
    torch.testing.assert_close(latents, expected["latents"], atol=1e-4, rtol=0)
    assert torch.equal(tokenizer.encode(expected["pixels"]), expected["codes"])
    assert tokenizer.grid_for(tuple(expected["pixels"].shape[2:])) == tuple(expected["codes"].shape[1:])


def test_reconstruction(tokenizer: ImageTokenizer, expected: dict[str, Tensor]) -> None:
    with torch.no_grad():
        pixels = tokenizer.network.decode(tokenizer.quantizer.lookup(expected["codes"]))
    torch.testing.assert_close(pixels, expected["recon"], atol=1e-4, rtol=0)
    decoded = tokenizer.decode(expected["codes"])
    torch.testing.assert_close(decoded, expected["recon"].clamp(0, 1), atol=1e-4, rtol=0)


def test_written_folder_is_the_original(tokenizer: ImageTokenizer, folder: Path, tmp_path: Path) -> None:
    write_diffusers_vq(tokenizer, tmp_path)
    ours, theirs = load_file(tmp_path / WEIGHTS_FILE), load_file(folder / "vqvae" / WEIGHTS_FILE)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name].float()) for name in theirs)
    settings, original = (
        json.loads((place / CONFIG_FILE).read_text(encoding="utf-8")) for place in (tmp_path, folder / "vqvae")
    )
    assert {key: original[key] for key in EFFECTIVE & original.keys()}.items() <= settings.items()
    assert read_diffusers_vq(tmp_path).fingerprint == tokenizer.fingerprint


def _copy(folder: Path, target: Path, **changes: object) -> Path:
    settings = json.loads((folder / "vqvae" / CONFIG_FILE).read_text(encoding="utf-8"))
    (target / CONFIG_FILE).write_text(json.dumps({**settings, **changes}), encoding="utf-8")
    return target


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("mid_block_add_attention", True),
        ("act_fn", "gelu"),
        ("norm_type", "spatial"),
        ("in_channels", 4),
        ("up_block_types", ["AttnUpDecoderBlock2D"]),
        ("layers_per_blok", 2),
        ("norm_num_groups", 1009),
        ("_class_name", "AutoencoderKL"),
    ],
)
def test_settings_that_we_do_not_have_are_named(folder: Path, tmp_path: Path, key: str, value: object) -> None:
    wanted = {"norm_num_groups": "groups=1009", "_class_name": "AutoencoderKL"}.get(key, key)
    with pytest.raises(CheckpointError, match=wanted):
        read_diffusers_vq(_copy(folder, tmp_path, **{key: value}))


def test_unknown_missing_and_misshapen_tensors_are_named(folder: Path, tmp_path: Path) -> None:
    tensors = load_file(folder / "vqvae" / WEIGHTS_FILE)
    _copy(folder, tmp_path)
    without = {name: tensor for name, tensor in tensors.items() if name != "quant_conv.bias"}
    for broken, name in (
        (without, "quant_conv.bias"),
        ({**tensors, "encoder.conv_odd.weight": torch.zeros(1)}, "encoder.conv_odd.weight"),
        ({**tensors, "quantize.embedding.weight": torch.zeros(2, 2)}, "quantizer.codebook"),
    ):
        save_file(broken, tmp_path / WEIGHTS_FILE)
        with pytest.raises(CheckpointError, match=name):
            read_diffusers_vq(tmp_path)


def test_missing_and_corrupt_files(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=CONFIG_FILE):
        read_diffusers_vq(tmp_path)
    _copy(folder, tmp_path)
    with pytest.raises(CheckpointError, match=WEIGHTS_FILE):
        read_diffusers_vq(tmp_path)
    (tmp_path / WEIGHTS_FILE).write_bytes(b"not a tensor file")
    with pytest.raises(CheckpointError, match=WEIGHTS_FILE):
        read_diffusers_vq(tmp_path)


def test_only_an_amused_vq_can_be_written(tmp_path: Path) -> None:
    patch = build_image_tokenizer(ImageTokenizerConfig(), generator(0))
    with pytest.raises(CheckpointError, match="patch with fsq"):
        write_diffusers_vq(patch, tmp_path)
    assert list(tmp_path.iterdir()) == []
