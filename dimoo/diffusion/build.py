"""From configs to objects: the only place in this folder that knows both."""

from __future__ import annotations

from collections.abc import Callable

import torch
from typing_extensions import assert_never

from dimoo.diffusion import config as cfg
from dimoo.diffusion.confidence import Confidence, GumbelConfidence, Margin, NegativeEntropy, Probability
from dimoo.diffusion.corruption import Bernoulli, Corruption, ExactCount
from dimoo.diffusion.draw import Categorical, Draw, Greedy
from dimoo.diffusion.guidance import ClassifierFree, Guidance, MultiCondition, NoGuidance
from dimoo.diffusion.guidance_steps import ConstantRamp, CosineRamp, LinearRamp, Ramp
from dimoo.diffusion.loss import InverseShare, LossWeight, MeanOverMasked, ScheduleWeight
from dimoo.diffusion.orders import BlockOrder, MaskGITOrder, Order, RandomOrder
from dimoo.diffusion.schedules import Arccos, Cosine, Linear, Power, Schedule
from dimoo.diffusion.stopping import AnyStop, NoStop, StopAtToken, Stopping
from dimoo.diffusion.times import AntitheticTimes, Times, UniformTimes


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


def build_order(config: cfg.OrderConfig) -> Order:
    """The choice of what to commit at each step."""
    match config:
        case cfg.MaskGITOrderConfig():
            return MaskGITOrder(schedule=build_schedule(config.schedule))
        case cfg.RandomOrderConfig():
            return RandomOrder(schedule=build_schedule(config.schedule))
        case cfg.BlockOrderConfig():
            return BlockOrder(block=config.block)
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
