"""The image tokenizer: a network and a quantizer behind the interface that every modality has.

Axes: B = batch, H W = pixels, h w = code grid, C = latent channels.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dimoo.core.errors import RequestError
from dimoo.tokenizers.image.base import Network, Quantized, Quantizer
from dimoo.tokenizers.image.config import ImageTokenizerConfig


@dataclass(frozen=True, kw_only=True)
class Reconstruction:
    """One training pass.

    pixels: what the decoder made [B, 3, H, W], not clamped.
    latents: what the encoder made, before quantization [B, C, h, w].
    quantized: codes, their vectors and the quantizer's losses.
    """

    pixels: Tensor
    latents: Tensor
    quantized: Quantized


class ImageTokenizer(nn.Module):
    """Pictures <-> grids of codes; implements `dimoo.tokenizers.base.Tokenizer`.

    `encode` and `decode` are for use and carry no gradient; calling the tokenizer is for training.
    """

    def __init__(self, *, config: ImageTokenizerConfig, network: Network, quantizer: Quantizer) -> None:
        super().__init__()
        self.config = config
        self.network = network
        self.quantizer = quantizer

    @property
    def modality(self) -> str:
        """The name of the id range that the codes take."""
        return "image"

    @property
    def codebook_size(self) -> int:
        """How many values a code may take."""
        return self.quantizer.codebook_size

    @property
    def codebooks(self) -> int:
        """One code at each grid position."""
        return 1

    @property
    def downsampling(self) -> tuple[int, int]:
        """Pixels per code, down and across."""
        return (self.network.downsampling, self.network.downsampling)

    @property
    def fingerprint(self) -> str:
        """A digest of config and weights, the same on every device; computed anew at each call."""
        digest = hashlib.blake2b(self.config.model_dump_json().encode(), digest_size=16)
        for name, tensor in sorted(self.weights().items()):
            digest.update(f"{name}:{tensor.dtype}:{tuple(tensor.shape)}".encode())
            digest.update(tensor.cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()

    def weights(self) -> dict[str, Tensor]:
        """What `encode` and `decode` need: the state without the statistics that training keeps."""
        left_out = {f"quantizer.{name}" for name in self.quantizer.statistics}
        return {name: tensor for name, tensor in self.state_dict().items() if name not in left_out}

    def grid_for(self, size: tuple[int, ...]) -> tuple[int, int]:
        """The code grid (h, w) of a picture of size (H, W).

        Raises:
            RequestError: the size is not a positive multiple of `downsampling`; names the nearest that is.
        """
        factor = self.network.downsampling
        if len(size) != 2:
            raise RequestError(f"image size {size} must be (height, width)")
        height, width = size
        if any(side < 1 or side % factor for side in size):
            near = tuple(max(1, int(side / factor + 0.5)) * factor for side in size)
            raise RequestError(f"image size {size} is not a multiple of {factor}; the nearest that is: {near}")
        return (height // factor, width // factor)

    @torch.no_grad()
    def encode(self, media: Tensor) -> Tensor:
        """Pictures [B, 3, H, W], floats in [0, 1] on any device -> codes int64 [B, h, w] on the tokenizer's device.

        Raises:
            RequestError: not a float batch of RGB pictures, or a size that `grid_for` refuses.
        """
        if media.ndim != 4 or media.shape[1] != 3 or not media.is_floating_point():
            raise RequestError(
                f"pictures must be floats [B, 3, H, W] in [0, 1], not {media.dtype} {tuple(media.shape)}"
            )
        self.grid_for(tuple(media.shape[2:]))
        weight = self.network.last_weight
        latents = self.network.encode(media.to(weight.device, weight.dtype))
        return self.quantizer(latents).codes

    @torch.no_grad()
    def decode(self, codes: Tensor) -> Tensor:
        """Codes int64 [B, h, w] on any device -> pictures [B, 3, H, W] in [0, 1] on the tokenizer's device.

        Raises:
            RequestError: not a batch of grids, or a code outside the codebook.
        """
        if codes.ndim != 3 or codes.is_floating_point() or not codes.numel():
            raise RequestError(f"codes must be integers [B, h, w], not {codes.dtype} {tuple(codes.shape)}")
        low, high = (int(bound) for bound in torch.aminmax(codes))
        if low < 0 or high >= self.codebook_size:
            raise RequestError(f"codes {low}..{high} are not all in 0..{self.codebook_size - 1}")
        weight = self.network.last_weight
        latents = self.quantizer.lookup(codes.to(weight.device)).to(weight.dtype)
        return self.network.decode(latents).clamp(0, 1)

    def forward(self, pixels: Tensor) -> Reconstruction:
        """Encode, quantize and decode pictures [B, 3, H, W] with gradients; changes no state."""
        latents = self.network.encode(pixels)
        quantized = self.quantizer(latents)
        return Reconstruction(pixels=self.network.decode(quantized.latents), latents=latents, quantized=quantized)
