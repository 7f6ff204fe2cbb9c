"""More codes for an image tokenizer, while those it has go on meaning what they mean."""

from __future__ import annotations

import torch

from dimoo.core.errors import ConfigError
from dimoo.tokenizers.image.build import build_network
from dimoo.tokenizers.image.tokenizer import ImageTokenizer
from dimoo.tokenizers.image.vector_quantizer import VectorQuantizer


@torch.no_grad()
def extended(tokenizer: ImageTokenizer, size: int) -> ImageTokenizer:
    """A tokenizer of `size` codes, ready to be trained further; the given one is left as it is.

    The encoder and the old codes are fixed, so that a picture whose patches the old codes serve keeps its codes, and a
    transformer that learnt them has only the new ones to learn. The new codes are empty until
    `quantizer.initialise` fits them to a sample; the decoder may be trained.

    Raises:
        ConfigError: the codebook is not learned from averages, or not smaller than `size`.
    """
    old = tokenizer.quantizer
    if not isinstance(old, VectorQuantizer):
        raise ConfigError(f"only a learned codebook can be extended, not a {type(old).__name__}")
    if old.ema_decay is None:  # an optimiser would move the old codes with the new ones
        raise ConfigError("a codebook that learns by gradient cannot be extended; train it with an ema_decay")
    if size <= old.codebook_size:
        raise ConfigError(f"{size} codes are no more than the {old.codebook_size} there are; ask for more")
    quantizer = VectorQuantizer(
        size=size,
        dim=old.dim,
        commitment=old.commitment,
        ema_decay=old.ema_decay,
        revive_after=None,  # a revived code is any latent of a batch, mostly one that the fixed codes serve already
        fixed=old.codebook_size,
    )
    quantizer.codebook[: old.codebook_size] = old.codebook
    quantizer.restart_statistics()
    network = build_network(tokenizer.config.network, old.dim)
    network.load_state_dict(tokenizer.network.state_dict())  # type: ignore[attr-defined]
    for part in network.encoding:
        part.requires_grad_(False)
    config = tokenizer.config.quantizer.model_copy(update={"size": size})
    return ImageTokenizer(
        config=tokenizer.config.model_copy(update={"quantizer": config}), network=network, quantizer=quantizer
    )
