"""More codes for a tokenizer: what it knows stays, in training too."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from dimoo.core.errors import ConfigError
from dimoo.core.rng import generator
from dimoo.tokenizers.image.build import build_image_tokenizer
from dimoo.tokenizers.image.config import (
    AmusedNetworkConfig,
    FiniteScalarQuantizerConfig,
    ImageTokenizerConfig,
    NetworkConfig,
    PatchNetworkConfig,
    QuantizerConfig,
    VectorQuantizerConfig,
)
from dimoo.tokenizers.image.extend import extended
from dimoo.tokenizers.image.files import load_image_tokenizer, save_image_tokenizer
from dimoo.tokenizers.image.tokenizer import ImageTokenizer
from dimoo.tokenizers.image.vector_quantizer import VectorQuantizer

PATCH = PatchNetworkConfig(patch=4, width=16, encoder_blocks=1, decoder_blocks=1)
AMUSED = AmusedNetworkConfig(channels=(8, 16, 16), blocks=1, latent_channels=5, groups=4)
VQ = VectorQuantizerConfig(size=12, dim=5, revive_after=2)


def pixels(*, batch: int = 2, seed: int = 0) -> Tensor:
    return torch.rand(batch, 3, 8, 16, generator=generator(seed, "pixels"))


def make(network: NetworkConfig = PATCH, quantizer: QuantizerConfig = VQ) -> ImageTokenizer:
    """A tokenizer whose codes are what a few pictures of one colour have."""
    tokenizer = build_image_tokenizer(ImageTokenizerConfig(network=network, quantizer=quantizer), generator(0))
    if isinstance(tokenizer.quantizer, VectorQuantizer):
        with torch.no_grad():
            tokenizer.quantizer.initialise(latents(tokenizer, flat()), generator(1))
    return tokenizer


def flat() -> Tensor:
    """Twelve pictures of one colour each."""
    return torch.rand(12, 3, 1, 1, generator=generator(2)).expand(12, 3, 8, 16)


@torch.no_grad()
def latents(tokenizer: ImageTokenizer, images: Tensor) -> Tensor:
    """All latents of pictures as one grid [1, C, 1, N]."""
    made = tokenizer.network.encode(images)
    return made.permute(1, 0, 2, 3).flatten(1)[None, :, None, :].contiguous()


def train(tokenizer: ImageTokenizer, steps: int = 4) -> None:
    """A few steps on noise, as a recipe takes them: gradients, decay, averages, revival."""
    trained = [parameter for parameter in tokenizer.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=0.05, weight_decay=0.5)
    for step in range(steps):
        images = pixels(seed=step)
        made = tokenizer(images)
        loss = (made.pixels - images).square().mean() + sum(made.quantized.losses.values())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        found = made.latents.detach().permute(1, 0, 2, 3).flatten(1)[None, :, None, :]
        tokenizer.quantizer.update(found, made.quantized.codes.flatten()[None, None], generator(step))


@pytest.mark.parametrize("network", [PATCH, AMUSED])
def test_it_starts_as_the_old_one_with_room_for_more(network: NetworkConfig) -> None:
    old = make(network)
    before = {name: tensor.clone() for name, tensor in old.state_dict().items()}
    new = extended(old, 30)
    assert (new.codebook_size, old.codebook_size) == (30, 12)
    assert isinstance(new.config.quantizer, VectorQuantizerConfig)
    assert new.config.quantizer.size == 30
    assert new.config.network == old.config.network
    codes = old.encode(flat())
    assert torch.equal(new.decode(codes), old.decode(codes))
    assert torch.equal(latents(new, pixels()), latents(old, pixels()))
    train(new)
    assert all(torch.equal(tensor, before[name]) for name, tensor in old.state_dict().items())
    assert all(parameter.requires_grad for parameter in old.network.parameters())  # type: ignore[attr-defined]


@pytest.mark.parametrize("network", [PATCH, AMUSED])
def test_training_leaves_the_encoder_and_the_old_codes_and_moves_the_rest(network: NetworkConfig) -> None:
    old = make(network)
    new = extended(old, 30)
    new.quantizer.initialise(latents(new, torch.cat([flat(), pixels(batch=6, seed=9)])), generator(3))
    started = {name: tensor.clone() for name, tensor in new.state_dict().items()}
    train(new)
    assert isinstance(new.quantizer, VectorQuantizer)
    assert isinstance(old.quantizer, VectorQuantizer)
    assert torch.equal(new.quantizer.codebook[:12], old.quantizer.codebook)
    assert torch.equal(latents(new, pixels(seed=7)), latents(old, pixels(seed=7)))
    assert not torch.equal(new.quantizer.codebook[12:], started["quantizer.codebook"][12:])
    codes = old.encode(flat())
    assert not torch.equal(new.decode(codes), old.decode(codes))  # the decoder learns on


def test_pictures_that_the_old_codes_serve_keep_their_codes_and_others_get_new_ones() -> None:
    old = make()
    new = extended(old, 30)
    sample = torch.cat([flat(), pixels(batch=6, seed=9)])
    new.quantizer.initialise(latents(new, sample), generator(3))
    for trained in (False, True):
        if trained:
            train(new)
        assert torch.equal(new.encode(flat()), old.encode(flat()))
        noisy = new.encode(pixels(batch=6, seed=9))
        assert bool((noisy >= 12).float().mean() > 0.5)
        # A code changes to a new one alone, and only where that lies nearer.
        changed = noisy != old.encode(pixels(batch=6, seed=9))
        assert bool((noisy[changed] >= 12).all())


def test_new_codes_are_fitted_to_what_the_old_ones_serve_worst() -> None:
    """The centres are those of the worse half alone: none of them lies where a colour is."""
    new = extended(make(), 14)
    far = latents(new, pixels(batch=1, seed=9))
    new.quantizer.initialise(torch.cat([latents(new, flat()), far], dim=-1), generator(3))
    assert isinstance(new.quantizer, VectorQuantizer)
    known, added = new.quantizer.codebook[:12], new.quantizer.codebook[12:]
    rows = far[0, :, 0].T
    error = torch.cdist(rows, known).min(dim=1).values
    assert float(torch.cdist(rows, added).min(dim=1).values.mean()) < float(error.mean())
    assert float(torch.cdist(added, known).min()) > 1e-3


def test_it_is_saved_and_read_as_any_tokenizer(tmp_path: Path) -> None:
    new = extended(make(), 30)
    new.quantizer.initialise(latents(new, pixels(batch=6)), generator(3))
    save_image_tokenizer(new, tmp_path)
    loaded = load_image_tokenizer(tmp_path)
    assert loaded.fingerprint == new.fingerprint
    assert torch.equal(loaded.encode(pixels(seed=4)), new.encode(pixels(seed=4)))


@pytest.mark.parametrize(
    ("quantizer", "size", "message"),
    [
        (VQ, 12, "12 codes are no more than the 12 there are; ask for more"),
        (VQ, 3, "3 codes are no more than the 12"),
        (FiniteScalarQuantizerConfig(levels=(5, 4, 3)), 100, "only a learned codebook can be extended, not a Finite"),
        (VectorQuantizerConfig(size=12, dim=5, ema_decay=None), 30, "learns by gradient cannot be extended"),
    ],
)
def test_what_cannot_be_extended(quantizer: QuantizerConfig, size: int, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        extended(make(quantizer=quantizer), size)
