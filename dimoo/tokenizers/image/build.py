"""Image tokenizer and objective configs -> objects."""

from __future__ import annotations

import torch
from torch import nn
from typing_extensions import assert_never

from dimoo.tokenizers.image.amused import AmusedAutoencoder
from dimoo.tokenizers.image.config import (
    AdversaryConfig,
    AmusedNetworkConfig,
    FiniteScalarQuantizerConfig,
    HingeAdversaryConfig,
    ImageTokenizerConfig,
    NetworkConfig,
    NoAdversaryConfig,
    ObjectiveConfig,
    PatchNetworkConfig,
    QuantizerConfig,
    VectorQuantizerConfig,
)
from dimoo.tokenizers.image.discriminator import PatchDiscriminator
from dimoo.tokenizers.image.finite_scalar import FiniteScalarQuantizer
from dimoo.tokenizers.image.initialise import initialise
from dimoo.tokenizers.image.objective import (
    Adversary,
    HingeAdversary,
    NoAdversary,
    ReconstructionLoss,
    TokenizerObjective,
)
from dimoo.tokenizers.image.patch import PatchAutoencoder
from dimoo.tokenizers.image.tokenizer import ImageTokenizer
from dimoo.tokenizers.image.vector_quantizer import VectorQuantizer


def build_image_tokenizer(config: ImageTokenizerConfig, generator: torch.Generator) -> ImageTokenizer:
    """Make a tokenizer with fresh weights, drawn from `generator` alone."""
    with torch.random.fork_rng(devices=[]):  # layers draw from the global state when made; leave it as it was
        quantizer = build_quantizer(config.quantizer)
        network = build_network(config.network, quantizer.dim)
        tokenizer = ImageTokenizer(config=config, network=network, quantizer=quantizer)
    initialise(tokenizer, generator)
    return tokenizer


def empty_image_tokenizer(config: ImageTokenizerConfig) -> ImageTokenizer:
    """Make a tokenizer whose weights are not set, at no cost: fill them with `load_exact`."""
    with torch.random.fork_rng(devices=[]):
        quantizer = build_quantizer(config.quantizer)
    with torch.device("meta"):
        network = build_network(config.network, quantizer.dim)
    return ImageTokenizer(config=config, network=network.to_empty(device="cpu"), quantizer=quantizer)


def build_quantizer(config: QuantizerConfig) -> VectorQuantizer | FiniteScalarQuantizer:
    """Make a quantizer."""
    match config:
        case VectorQuantizerConfig():
            return VectorQuantizer(
                size=config.size,
                dim=config.dim,
                commitment=config.commitment,
                ema_decay=config.ema_decay,
                revive_after=config.revive_after,
            )
        case FiniteScalarQuantizerConfig():
            return FiniteScalarQuantizer(levels=config.levels)
        case _:
            assert_never(config)


def build_network(config: NetworkConfig, latent_dim: int) -> PatchAutoencoder | AmusedAutoencoder:
    """Make a network with the quantizer's number of latent channels."""
    match config:
        case PatchNetworkConfig():
            return PatchAutoencoder(
                patch=config.patch,
                width=config.width,
                latent_dim=latent_dim,
                encoder_blocks=config.encoder_blocks,
                encoder_context=config.encoder_context,
                decoder_blocks=config.decoder_blocks,
            )
        case AmusedNetworkConfig():
            return AmusedAutoencoder(
                channels=config.channels,
                blocks=config.blocks,
                latent_channels=config.latent_channels,
                latent_dim=latent_dim,
                groups=config.groups,
            )
        case _:
            assert_never(config)


def build_objective(config: ObjectiveConfig, generator: torch.Generator) -> TokenizerObjective:
    """Make the training objective; a discriminator's fresh weights are drawn from `generator` alone."""
    return TokenizerObjective(
        reconstruction=ReconstructionLoss(
            l1=config.l1,
            l2=config.l2,
            gradient=config.gradient,
            multiscale=config.multiscale,
            scales=config.scales,
        ),
        adversary=build_adversary(config.adversary, generator),
    )


def build_adversary(config: AdversaryConfig, generator: torch.Generator) -> Adversary:
    """Make the adversarial half of the objective."""
    match config:
        case NoAdversaryConfig():
            return NoAdversary()
        case HingeAdversaryConfig():
            with torch.random.fork_rng(devices=[]):
                discriminator: nn.Module = PatchDiscriminator(width=config.width, depth=config.depth)
            initialise(discriminator, generator)
            return HingeAdversary(
                discriminator=discriminator,
                weight=config.weight,
                start_step=config.start_step,
                adaptive=config.adaptive,
            )
        case _:
            assert_never(config)
