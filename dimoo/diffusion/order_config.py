"""Configs of what is committed when, what ends it early, what is taken back. Free of torch; `build.py` builds them."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from pydantic import Field

from dimoo.core.config import StrictConfig
from dimoo.diffusion.config import ArccosConfig, CosineConfig, ScheduleConfig


class MaskGITOrderConfig(StrictConfig):
    """Most confident first, anywhere, counts by schedule."""

    kind: Literal["maskgit"] = "maskgit"
    schedule: ScheduleConfig = CosineConfig()
    """How many tokens stay masked after each step."""


class RandomOrderConfig(StrictConfig):
    """Random tokens, counts by schedule."""

    kind: Literal["random"] = "random"
    schedule: ScheduleConfig = CosineConfig()
    """How many tokens stay masked after each step."""


class BlockOrderConfig(StrictConfig):
    """Blocks left to right, equal shares per step."""

    kind: Literal["block"] = "block"
    block: int = Field(ge=1)
    """Positions per block."""


class HaltonOrderConfig(StrictConfig):
    """Spread over the picture by a Halton sequence, counts by schedule; for pictures."""

    kind: Literal["halton"] = "halton"
    schedule: ScheduleConfig = ArccosConfig()
    """How many tokens stay masked after each step."""
    offset: int = Field(default=0, ge=0)
    """The cell of the sequence that comes first; those before it come last."""


class StratifiedOrderConfig(StrictConfig):
    """Spread over the picture so that all blocks of a size always have an equal share, counts by schedule."""

    kind: Literal["stratified"] = "stratified"
    schedule: ScheduleConfig = ArccosConfig()
    """How many tokens stay masked after each step."""
    offset: int = Field(default=0, ge=0)
    """The point of the sequence that comes first."""


class ThresholdOrderConfig(StrictConfig):
    """All that are sure enough. The steps are an upper bound; reads confidences of kind "probability" or "margin"."""

    kind: Literal["threshold"] = "threshold"
    threshold: float = Field(default=0.9, ge=0.0, le=1.0)
    """Least confidence that is committed, but for the surest token, which always is."""


class FactorOrderConfig(StrictConfig):
    """The n surest, n the largest with (n + 1) (1 - confidence of the n-th) < factor. The steps are an upper bound;
    reads confidences of kind "probability" or "margin"."""

    kind: Literal["factor"] = "factor"
    factor: float = Field(default=1.0, gt=0.0)
    """Higher commits more."""


class EntropyBoundedOrderConfig(StrictConfig):
    """The most of lowest entropy whose sum, without the largest, keeps to a bound. The steps are an upper bound; reads
    confidences of kind "negative_entropy"."""

    kind: Literal["entropy_bounded"] = "entropy_bounded"
    bound: float = Field(default=0.1, ge=0.0)
    """In nats; higher commits more."""


class KLASSOrderConfig(StrictConfig):
    """All that are sure enough and whose prediction no longer moves. The steps are an upper bound; reads confidences of
    kind "probability" or "margin"."""

    kind: Literal["klass"] = "klass"
    threshold: float = Field(default=0.9, ge=0.0, le=1.0)
    """A committed token's confidence is above this."""
    max_drift: float = Field(default=0.01, gt=0.0)
    """Nats that a prediction may move from one step to the next."""
    steps: int = Field(default=2, ge=1)
    """For how many steps it must not move more."""
    fallback: int = Field(default=1, ge=1)
    """How many of the surest are committed where none is ready."""


class EqualSharesConfig(StrictConfig):
    """Blocks left to right, equal shares of the surest per step."""

    kind: Literal["equal_shares"] = "equal_shares"


OrderConfig: TypeAlias = Annotated[
    MaskGITOrderConfig
    | RandomOrderConfig
    | BlockOrderConfig
    | HaltonOrderConfig
    | StratifiedOrderConfig
    | ThresholdOrderConfig
    | FactorOrderConfig
    | EntropyBoundedOrderConfig
    | KLASSOrderConfig,
    Field(discriminator="kind"),
]
"""Of pictures."""
TextOrderConfig: TypeAlias = Annotated[
    EqualSharesConfig | ThresholdOrderConfig | FactorOrderConfig | EntropyBoundedOrderConfig | KLASSOrderConfig,
    Field(discriminator="kind"),
]
"""Of words, in blocks from left to right: but for equal shares the next block begins as soon as one is done."""


class NoEarlyStopConfig(StrictConfig):
    """The order alone says what is committed."""

    kind: Literal["none"] = "none"


class SettledConfig(StrictConfig):
    """All that is predicted is committed once no prediction moves any more; for orders that predict all masked tokens,
    of the picture or the block."""

    kind: Literal["settled"] = "settled"
    max_drift: float = Field(default=0.01, gt=0.0)
    """Nats that a prediction may move from one step to the next."""
    steps: int = Field(default=2, ge=1)
    """For how many steps none may move more."""
    least_confidence: float | None = None
    """What each confidence must be besides, on the scale that is set; null: anything."""


EarlyStopConfig: TypeAlias = Annotated[NoEarlyStopConfig | SettledConfig, Field(discriminator="kind")]


class NoRemaskingConfig(StrictConfig):
    """What is committed stays."""

    kind: Literal["none"] = "none"


class ReMDMConfig(StrictConfig):
    """Some committed tokens are masked again in each step, and as many more committed; for orders by a schedule."""

    kind: Literal["remdm"] = "remdm"
    eta: float = Field(gt=0.0, le=1.0)
    """How likely a committed token is masked again in a step, or the share of the highest possible likelihood."""
    strategy: Literal["cap", "rescale"] = "rescale"
    """What eta means: the likelihood itself, or the share."""
    by_confidence: bool = False
    """The less likely a token was when it was drawn, the likelier it is masked again."""


class RefinementConfig(StrictConfig):
    """When all is committed, the least certain tokens are predicted again."""

    kind: Literal["refinement"] = "refinement"
    rounds: int = Field(default=1, ge=1)
    """How often; each takes a step more."""
    share: float = Field(default=0.1, gt=0.0, le=1.0)
    """Of the tokens, in each round."""


RemaskingConfig: TypeAlias = Annotated[NoRemaskingConfig | ReMDMConfig | RefinementConfig, Field(discriminator="kind")]
"""Of pictures."""
TextRemaskingConfig: TypeAlias = Annotated[NoRemaskingConfig | RefinementConfig, Field(discriminator="kind")]
"""Of words, whose orders have no schedule."""
