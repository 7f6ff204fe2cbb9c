"""Configs of schedules, corruption, loss and sampling strategies. Free of torch; `build.py` builds them.

Those of orders are in `order_config`.
"""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from pydantic import Field, model_validator
from typing_extensions import Self

from dimoo.core.config import StrictConfig

NoiseDtype: TypeAlias = Literal["bfloat16", "float32", "float64"]


class CosineConfig(StrictConfig):
    """Few tokens first, many at the end."""

    kind: Literal["cosine"] = "cosine"


class LinearConfig(StrictConfig):
    """The same number of tokens at every step."""

    kind: Literal["linear"] = "linear"


class PowerConfig(StrictConfig):
    """Masked share 1 - u^exponent."""

    kind: Literal["power"] = "power"
    exponent: float = Field(gt=0.0, allow_inf_nan=False)
    """2 is the square schedule, 0.5 the square root."""


class ArccosConfig(StrictConfig):
    """The schedule of Halton-MaskGIT."""

    kind: Literal["arccos"] = "arccos"


ScheduleConfig: TypeAlias = Annotated[
    CosineConfig | LinearConfig | PowerConfig | ArccosConfig, Field(discriminator="kind")
]


class UniformTimesConfig(StrictConfig):
    """Independent times."""

    kind: Literal["uniform"] = "uniform"


class AntitheticTimesConfig(StrictConfig):
    """Times that cover [0, 1) evenly in every batch."""

    kind: Literal["antithetic"] = "antithetic"


class LogitNormalTimesConfig(StrictConfig):
    """Independent times, mostly in the middle."""

    kind: Literal["logit_normal"] = "logit_normal"
    mean: float = Field(default=0.0, allow_inf_nan=False)
    """Of the logit of the time; above 0 more is masked late in the schedule."""
    std: float = Field(default=1.0, gt=0.0, allow_inf_nan=False)
    """Of the logit."""


class ClippedTimesConfig(StrictConfig):
    """Times of another kind, moved into an interval."""

    kind: Literal["clipped"] = "clipped"
    times: Annotated[
        UniformTimesConfig | AntitheticTimesConfig | LogitNormalTimesConfig, Field(discriminator="kind")
    ] = AntitheticTimesConfig()
    low: float = Field(default=0.05, ge=0.0, lt=1.0)
    """Where the interval begins ..."""
    high: float = Field(default=1.0, gt=0.0, le=1.0)
    """... and ends."""

    @model_validator(mode="after")
    def _interval(self) -> Self:
        if self.low >= self.high:
            raise ValueError(f"low {self.low} must be below high {self.high}")
        return self


TimesConfig: TypeAlias = Annotated[
    UniformTimesConfig | AntitheticTimesConfig | LogitNormalTimesConfig | ClippedTimesConfig,
    Field(discriminator="kind"),
]


class ExactCountConfig(StrictConfig):
    """Mask an exact number of each group's tokens."""

    kind: Literal["exact_count"] = "exact_count"


class BernoulliConfig(StrictConfig):
    """Mask each token on its own."""

    kind: Literal["bernoulli"] = "bernoulli"
    at_least_one: bool = True
    """Mask one random token of a group where none was; a likelihood bound wants false."""


CorruptionConfig: TypeAlias = Annotated[ExactCountConfig | BernoulliConfig, Field(discriminator="kind")]


class MeanOverMaskedConfig(StrictConfig):
    """Plain mean over masked tokens."""

    kind: Literal["mean_over_masked"] = "mean_over_masked"


class InverseShareConfig(StrictConfig):
    """Likelihood bound for the linear schedule."""

    kind: Literal["inverse_share"] = "inverse_share"
    least_share: float = Field(default=1e-3, gt=0.0, le=1.0)
    """Shares below this weigh as this."""


class ScheduleWeightConfig(StrictConfig):
    """Likelihood bound for any schedule: the one that training uses."""

    kind: Literal["schedule_weight"] = "schedule_weight"
    least_share: float = Field(default=1e-3, gt=0.0, le=1.0)
    """Shares below this weigh as this."""


TokenWeightConfig: TypeAlias = Annotated[
    MeanOverMaskedConfig | InverseShareConfig | ScheduleWeightConfig, Field(discriminator="kind")
]


class AnswerMeanConfig(StrictConfig):
    """Every answer counts the same, however long it is."""

    kind: Literal["answer_mean"] = "answer_mean"
    weight: TokenWeightConfig = ScheduleWeightConfig()
    """Of the tokens of an answer."""


LossWeightConfig: TypeAlias = Annotated[
    MeanOverMaskedConfig | InverseShareConfig | ScheduleWeightConfig | AnswerMeanConfig, Field(discriminator="kind")
]


class GreedyConfig(StrictConfig):
    """The most likely token."""

    kind: Literal["greedy"] = "greedy"


class CategoricalConfig(StrictConfig):
    """A random token."""

    kind: Literal["categorical"] = "categorical"
    temperature: float = Field(default=1.0, gt=0.0, allow_inf_nan=False)
    """Below 1 favours likely tokens; for 0 use kind 'greedy'."""
    top_k: int | None = Field(default=None, ge=1)
    """Keep exactly this many of the most likely tokens."""
    top_p: float | None = Field(default=None, gt=0.0, lt=1.0)
    """Keep the fewest most likely tokens that together are this probable."""
    noise: NoiseDtype = "float32"
    """float32 draws from the distribution itself; others by Gumbel noise of that dtype, bfloat16 as the release does,
    which cuts the tail."""


DrawConfig: TypeAlias = Annotated[GreedyConfig | CategoricalConfig, Field(discriminator="kind")]


class ProbabilityConfig(StrictConfig):
    """Probability of the drawn token."""

    kind: Literal["probability"] = "probability"
    dtype: Literal["float32", "float64"] = "float32"
    """Dtype of the softmax."""


class MarginConfig(StrictConfig):
    """Lead of the best token over the second."""

    kind: Literal["margin"] = "margin"


class NegativeEntropyConfig(StrictConfig):
    """Negative entropy of the prediction."""

    kind: Literal["negative_entropy"] = "negative_entropy"


class GumbelConfidenceConfig(StrictConfig):
    """Log-probability of the drawn token plus noise."""

    kind: Literal["gumbel"] = "gumbel"
    temperature: float = Field(default=1.0, ge=0.0, allow_inf_nan=False)
    """Factor of the noise; 0 draws none."""
    noise: NoiseDtype = "float32"
    """Dtype of softmax, logarithm and noise; see the categorical draw."""


ConfidenceConfig: TypeAlias = Annotated[
    ProbabilityConfig | MarginConfig | NegativeEntropyConfig | GumbelConfidenceConfig,
    Field(discriminator="kind"),
]


class NoGuidanceConfig(StrictConfig):
    """The condition alone."""

    kind: Literal["none"] = "none"


class ClassifierFreeConfig(StrictConfig):
    """(1 + scale) cond - scale uncond."""

    kind: Literal["classifier_free"] = "classifier_free"
    scale: float = Field(ge=0.0, allow_inf_nan=False)
    """0 is no guidance; the convention with 1 as no guidance has one more."""


class MultiConditionConfig(StrictConfig):
    """cond + sum of scale (cond - branch)."""

    kind: Literal["multi_condition"] = "multi_condition"
    scales: dict[str, Annotated[float, Field(ge=0.0, allow_inf_nan=False)]] = Field(min_length=1)
    """The scale of each branch that leaves something out, as {"no_text": 2.5, "no_image": 4.0}."""


GuidanceConfig: TypeAlias = Annotated[
    NoGuidanceConfig | ClassifierFreeConfig | MultiConditionConfig, Field(discriminator="kind")
]


class ConstantRampConfig(StrictConfig):
    """The same scales at every step."""

    kind: Literal["constant"] = "constant"


class LinearRampConfig(StrictConfig):
    """Scales times a factor that goes evenly from `start` to `stop`."""

    kind: Literal["linear"] = "linear"
    start: float = Field(default=0.0, ge=0.0)
    """Factor of the first step; 0 leaves the other branches out of it."""
    stop: float = Field(default=1.0, ge=0.0)
    """What the factor tends to; it would be that of the step after the last."""


class CosineRampConfig(StrictConfig):
    """Scales times a factor that goes smoothly from `start` to `stop`, fastest halfway."""

    kind: Literal["cosine"] = "cosine"
    start: float = Field(default=0.0, ge=0.0)
    """Factor of the first step; 0 leaves the other branches out of it."""
    stop: float = Field(default=1.0, ge=0.0)
    """What the factor tends to; it would be that of the step after the last."""


RampConfig: TypeAlias = Annotated[ConstantRampConfig | LinearRampConfig | CosineRampConfig, Field(discriminator="kind")]


class NoStopConfig(StrictConfig):
    """Run all steps."""

    kind: Literal["none"] = "none"


class TokenStopConfig(StrictConfig):
    """Stop once any of the tokens was committed with no mask before it."""

    kind: Literal["token"] = "token"
    tokens: tuple[str, ...] = Field(min_length=1)
    """Names in the vocabulary, as "</answer>"; ids are looked up when the rule is built."""


StoppingConfig: TypeAlias = Annotated[NoStopConfig | TokenStopConfig, Field(discriminator="kind")]
