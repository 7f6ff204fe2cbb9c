"""From configs to objects: the only place in this folder that knows both."""

from __future__ import annotations

from collections.abc import Callable, Collection

import torch
from typing_extensions import assert_never

from dimoo.core.errors import RequestError
from dimoo.diffusion import config as cfg
from dimoo.diffusion import order_config as order_cfg
from dimoo.diffusion.confidence import Confidence, GumbelConfidence, Margin, NegativeEntropy, Probability
from dimoo.diffusion.corruption import Bernoulli, Corruption, ExactCount
from dimoo.diffusion.draw import Categorical, Draw, Greedy
from dimoo.diffusion.guidance import ClassifierFree, Guidance, MultiCondition, NoGuidance
from dimoo.diffusion.guidance_steps import ConstantRamp, CosineRamp, LinearRamp, Ramp
from dimoo.diffusion.loss import AnswerMean, InverseShare, LossWeight, MeanOverMasked, ScheduleWeight
from dimoo.diffusion.orders import BlockOrder, MaskGITOrder, Order, RandomOrder
from dimoo.diffusion.parallel import KLASS, AdaptiveOrder, EntropyBounded, Factor, Rule, Threshold
from dimoo.diffusion.remasking import NoRemasking, Refinement, Remasking, ReMDM
from dimoo.diffusion.schedules import Arccos, Cosine, Linear, Power, Schedule
from dimoo.diffusion.settled import SettledOrder
from dimoo.diffusion.spread import HaltonOrder, StratifiedOrder
from dimoo.diffusion.stopping import AnyStop, NoStop, StopAtToken, Stopping
from dimoo.diffusion.times import AntitheticTimes, ClippedTimes, LogitNormalTimes, Times, UniformTimes


def build_schedule(config: cfg.ScheduleConfig) -> Schedule:
    """The masked share over progress."""
    match config:
        case cfg.CosineConfig():
            return Cosine()
        case cfg.LinearConfig():
            return Linear()
        case cfg.PowerConfig():
            return Power(exponent=config.exponent)
        case cfg.ArccosConfig():
            return Arccos()
        case _:
            assert_never(config)


def build_times(config: cfg.TimesConfig) -> Times:
    """The draw of training times."""
    match config:
        case cfg.UniformTimesConfig():
            return UniformTimes()
        case cfg.AntitheticTimesConfig():
            return AntitheticTimes()
        case cfg.LogitNormalTimesConfig():
            return LogitNormalTimes(mean=config.mean, std=config.std)
        case cfg.ClippedTimesConfig():
            return ClippedTimes(times=build_times(config.times), low=config.low, high=config.high)
        case _:
            assert_never(config)


def build_corruption(config: cfg.CorruptionConfig) -> Corruption:
    """The choice of masked tokens in training."""
    match config:
        case cfg.ExactCountConfig():
            return ExactCount()
        case cfg.BernoulliConfig():
            return Bernoulli(at_least_one=config.at_least_one)
        case _:
            assert_never(config)


def build_loss_weight(config: cfg.LossWeightConfig, schedule: Schedule) -> LossWeight:
    """The weights of the training loss under the schedule that masks."""
    match config:
        case cfg.MeanOverMaskedConfig():
            return MeanOverMasked()
        case cfg.InverseShareConfig():
            return InverseShare(least_share=config.least_share)
        case cfg.ScheduleWeightConfig():
            return ScheduleWeight(schedule=schedule, least_share=config.least_share)
        case cfg.AnswerMeanConfig():
            return AnswerMean(weight=build_loss_weight(config.weight, schedule))
        case _:
            assert_never(config)


def build_draw(config: cfg.DrawConfig) -> Draw:
    """The choice of token ids from logits."""
    match config:
        case cfg.GreedyConfig():
            return Greedy()
        case cfg.CategoricalConfig():
            return Categorical(
                temperature=config.temperature,
                top_k=config.top_k,
                top_p=config.top_p,
                noise=_dtype(config.noise),
            )
        case _:
            assert_never(config)


def build_confidence(config: cfg.ConfidenceConfig) -> Confidence:
    """The score by which tokens are committed."""
    match config:
        case cfg.ProbabilityConfig():
            return Probability(dtype=_dtype(config.dtype))
        case cfg.MarginConfig():
            return Margin()
        case cfg.NegativeEntropyConfig():
            return NegativeEntropy()
        case cfg.GumbelConfidenceConfig():
            return GumbelConfidence(temperature=config.temperature, noise=_dtype(config.noise))
        case _:
            assert_never(config)


def build_order(config: order_cfg.OrderConfig, grids: Collection[tuple[int, ...]] = ()) -> Order:
    """The choice of what to commit at each step.

    Args:
        config: which.
        grids: the shapes of the code grids that are to be made by it; for an order over a picture they are one and the
            same (height, width).

    Raises:
        RequestError: they are not.
    """
    match config:
        case order_cfg.MaskGITOrderConfig():
            return MaskGITOrder(schedule=build_schedule(config.schedule))
        case order_cfg.RandomOrderConfig():
            return RandomOrder(schedule=build_schedule(config.schedule))
        case order_cfg.BlockOrderConfig():
            return BlockOrder(block=config.block)
        case order_cfg.HaltonOrderConfig():
            schedule = build_schedule(config.schedule)
            return HaltonOrder(schedule=schedule, grid=_grid(config.kind, grids), offset=config.offset)
        case order_cfg.StratifiedOrderConfig():
            schedule = build_schedule(config.schedule)
            return StratifiedOrder(schedule=schedule, grid=_grid(config.kind, grids), offset=config.offset)
        case _:
            return AdaptiveOrder(rule=_rule(config))


def build_text_order(config: order_cfg.TextOrderConfig, block: int) -> Order:
    """The same for words, in blocks of `block` positions."""
    match config:
        case order_cfg.EqualSharesConfig():
            return BlockOrder(block=block)
        case _:
            return AdaptiveOrder(rule=_rule(config), block=block)


def build_early_stop(config: order_cfg.EarlyStopConfig, order: Order) -> Order:
    """An order, ended early.

    Raises:
        ConfigError: the order does not allow that.
    """
    match config:
        case order_cfg.NoEarlyStopConfig():
            return order
        case order_cfg.SettledConfig():
            return SettledOrder(
                order=order,
                max_drift=config.max_drift,
                steps=config.steps,
                least_confidence=config.least_confidence,
            )
        case _:
            assert_never(config)


def build_remasking(config: order_cfg.RemaskingConfig) -> Remasking:
    """The choice of what is taken back."""
    match config:
        case order_cfg.NoRemaskingConfig():
            return NoRemasking()
        case order_cfg.ReMDMConfig():
            return ReMDM(eta=config.eta, strategy=config.strategy, by_confidence=config.by_confidence)
        case order_cfg.RefinementConfig():
            return Refinement(rounds=config.rounds, share=config.share)
        case _:
            assert_never(config)


def build_guidance(config: cfg.GuidanceConfig) -> Guidance:
    """The fold of several conditions' logits."""
    match config:
        case cfg.NoGuidanceConfig():
            return NoGuidance()
        case cfg.ClassifierFreeConfig():
            return ClassifierFree(scale=config.scale)
        case cfg.MultiConditionConfig():
            return MultiCondition(scales=tuple(config.scales.items()))
        case _:
            assert_never(config)


def build_ramp(config: cfg.RampConfig) -> Ramp:
    """The factor of the guidance scales over the steps."""
    match config:
        case cfg.ConstantRampConfig():
            return ConstantRamp()
        case cfg.LinearRampConfig():
            return LinearRamp(start=config.start, stop=config.stop)
        case cfg.CosineRampConfig():
            return CosineRamp(start=config.start, stop=config.stop)
        case _:
            assert_never(config)


def build_stopping(config: cfg.StoppingConfig, token_id: Callable[[str], int]) -> Stopping:
    """The early end of a row; `token_id` looks up a token's name in the vocabulary."""
    match config:
        case cfg.NoStopConfig():
            return NoStop()
        case cfg.TokenStopConfig():
            return AnyStop(rules=tuple(StopAtToken(token=token_id(name)) for name in config.tokens))
        case _:
            assert_never(config)


def _rule(
    config: order_cfg.ThresholdOrderConfig
    | order_cfg.FactorOrderConfig
    | order_cfg.EntropyBoundedOrderConfig
    | order_cfg.KLASSOrderConfig,
) -> Rule:
    match config:
        case order_cfg.ThresholdOrderConfig():
            return Threshold(threshold=config.threshold)
        case order_cfg.FactorOrderConfig():
            return Factor(factor=config.factor)
        case order_cfg.EntropyBoundedOrderConfig():
            return EntropyBounded(bound=config.bound)
        case order_cfg.KLASSOrderConfig():
            return KLASS(
                threshold=config.threshold,
                max_drift=config.max_drift,
                steps=config.steps,
                fallback=config.fallback,
            )
        case _:
            assert_never(config)


def _grid(kind: str, grids: Collection[tuple[int, ...]]) -> tuple[int, int]:
    shapes = sorted(set(grids))
    if len(shapes) != 1 or len(shapes[0]) != 2:
        found = ", ".join(" x ".join(map(str, shape)) for shape in shapes) or "none"
        raise RequestError(
            f"the order {kind!r} walks over one picture of rows and columns of codes, but what is to be made is"
            f" {found}; ask for pictures of one size, or take another order, as 'maskgit'"
        )
    height, width = shapes[0]
    return height, width


def _dtype(name: cfg.NoiseDtype) -> torch.dtype:
    match name:
        case "bfloat16":
            return torch.bfloat16
        case "float32":
            return torch.float32
        case "float64":
            return torch.float64
        case _:
            assert_never(name)
