"""Configs of image tokenizers and of their training objective. Free of torch."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from dimoo.core.config import StrictConfig


class VectorQuantizerConfig(StrictConfig):
    """A learned codebook, nearest neighbour (van den Oord et al. 2017)."""

    kind: Literal["vq"] = "vq"
    size: int = Field(1024, ge=2)
    """Codes in the codebook."""
    dim: int = Field(16, ge=1, le=2**14)
    """Channels of a code; the network's latents have as many."""
    commitment: float = Field(0.25, ge=0)
    """Weight of the pull of latents towards their code."""
    ema_decay: float | None = Field(0.99, gt=0, lt=1)
    """Decay of the moving averages that the codebook follows; null: the codebook learns by gradient."""
    revive_after: int | None = Field(100, ge=1)
    """A code unused for this many updates is re-drawn from the batch; null: never."""


class FiniteScalarQuantizerConfig(StrictConfig):
    """Each latent channel rounded to a few levels (Mentzer et al. 2023); all levels 2: lookup-free."""

    kind: Literal["fsq"] = "fsq"
    levels: tuple[Annotated[int, Field(ge=2)], ...] = Field((8, 5, 5, 5), min_length=1)
    """Levels per channel; the codebook size is their product."""


class PatchNetworkConfig(StrictConfig):
    """The light network of the bundled model: every code sees its own patch alone."""

    kind: Literal["patch"] = "patch"
    patch: int = Field(8, ge=1)
    """Pixels per code along each side."""
    width: int = Field(128, ge=1)
    """Channels of both sides."""
    encoder_blocks: int = Field(2, ge=0)
    """Residual blocks of 1x1 convolutions."""
    encoder_context: int = Field(0, ge=0)
    """Residual blocks with 3x3 convolutions after them; above 0, codes also depend on nearby patches."""
    decoder_blocks: int = Field(2, ge=0)
    """Residual blocks with 3x3 convolutions at code resolution."""


class AmusedNetworkConfig(StrictConfig):
    """The convolutional network of aMUSEd's VQ-GAN, which Lumina-DiMOO uses."""

    kind: Literal["amused"] = "amused"
    channels: tuple[Annotated[int, Field(ge=1, le=2**14)], ...] = Field((128, 256, 256, 512, 768), min_length=1)
    """Width of each stage; every stage but the last halves the resolution."""
    blocks: int = Field(2, ge=1, le=64)
    """Residual blocks per encoder stage; decoder stages have one more."""
    latent_channels: int = Field(64, ge=1, le=2**14)
    """Channels between the network and the 1x1 convolutions around the codebook."""
    groups: int = Field(32, ge=1)
    """Groups of every group normalisation; divides each width."""

    @model_validator(mode="after")
    def _groups_divide(self) -> AmusedNetworkConfig:
        odd = [width for width in self.channels if width % self.groups]
        if odd:
            raise ValueError(f"channels {odd} are not multiples of groups={self.groups}; change either")
        return self


NetworkConfig = Annotated[PatchNetworkConfig | AmusedNetworkConfig, Field(discriminator="kind")]
QuantizerConfig = Annotated[VectorQuantizerConfig | FiniteScalarQuantizerConfig, Field(discriminator="kind")]


class ImageTokenizerConfig(StrictConfig):
    """A network and a quantizer; the quantizer's dimension sets the number of latent channels."""

    network: NetworkConfig = PatchNetworkConfig()
    quantizer: QuantizerConfig = FiniteScalarQuantizerConfig()


class NoAdversaryConfig(StrictConfig):
    """Train on reconstruction alone."""

    kind: Literal["none"] = "none"


class HingeAdversaryConfig(StrictConfig):
    """A patch discriminator with hinge losses (Esser et al. 2021)."""

    kind: Literal["hinge"] = "hinge"
    weight: float = Field(0.1, gt=0)
    """Weight of the adversarial part."""
    start_step: int = Field(0, ge=0)
    """First step at which the discriminator counts, for either side."""
    adaptive: bool = True
    """Scale by the ratio of gradient norms at the decoder's last layer."""
    width: int = Field(32, ge=1)
    """Channels of the discriminator's first layer."""
    depth: int = Field(2, ge=1)
    """Strided layers of the discriminator; each halves the resolution."""


AdversaryConfig = Annotated[NoAdversaryConfig | HingeAdversaryConfig, Field(discriminator="kind")]


class ObjectiveConfig(StrictConfig):
    """What an image tokenizer is trained to minimise; a weight of 0 leaves its part out."""

    l1: float = Field(1.0, ge=0)
    """Weight of absolute differences."""
    l2: float = Field(1.0, ge=0)
    """Weight of squared differences."""
    gradient: float = Field(0.5, ge=0)
    """Weight of absolute differences of horizontal and vertical image differences: edges."""
    multiscale: float = Field(0.0, ge=0)
    """Weight of absolute differences over an average-pooled pyramid."""
    scales: int = Field(3, ge=1)
    """Levels of that pyramid; level s pools 2^s x 2^s pixels."""
    adversary: AdversaryConfig = NoAdversaryConfig()

    @model_validator(mode="after")
    def _something_to_learn(self) -> ObjectiveConfig:
        if not (self.l1 or self.l2 or self.gradient or self.multiscale):
            raise ValueError("every reconstruction weight is 0; set one of l1, l2, gradient, multiscale")
        return self
