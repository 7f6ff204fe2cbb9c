"""Every kind builds, every field of every kind changes what the built object does."""

import typing

import pytest
import torch
from pydantic import TypeAdapter, ValidationError

from dimoo.core.errors import ConfigError
from dimoo.core.rng import generator
from dimoo.diffusion import build
from dimoo.diffusion import config as cfg
from dimoo.diffusion import order_config as order_cfg
from dimoo.diffusion.loss import MaskedGroups
from dimoo.diffusion.orders import MaskGITOrder
from dimoo.diffusion.progress import Progress
from dimoo.diffusion.schedules import Cosine

LOGITS = 2 * torch.randn(300, 40, generator=generator(0, "logits"))
IDS = torch.randint(40, (300,), generator=generator(0, "ids"))
U = torch.linspace(0.05, 0.95, 7)
VOCABULARY = {"</answer>": 3, "<end>": 5}


def probe_schedule(config):
    schedule = build.build_schedule(config)
    return [schedule.share(U), schedule.derivative(U)]


def probe_times(config):
    return [build.build_times(config).sample(9, generator(0))]


def probe_corruption(config):
    group = torch.arange(100) // 10
    return [build.build_corruption(config)(group, group, torch.full((10,), 0.1), 99, generator(0)).masked]


def probe_loss(config):
    share = torch.tensor([1e-4, 0.5])
    groups = MaskedGroups(
        group=torch.tensor([0, 1]),
        progress=torch.tensor([0.99, 0.4]),
        share=share,
        sizes=torch.tensor([9, 9]),
    )
    weights = build.build_loss_weight(config, Cosine())(groups)
    return [weights.token, weights.count]


def probe_draw(config):
    return [build.build_draw(config)(LOGITS, generator(0))]


def probe_confidence(config):
    return [build.build_confidence(config)(LOGITS, IDS, generator(0)).double()]


def commits(order):
    """What an order commits by confidences from 0.5 to 1, or below 0, where predictions stood still or not."""
    masked, outcome = torch.ones(24, dtype=torch.bool), []
    drifts = [torch.full((3, 24), torch.inf), torch.linspace(0, 0.03, 24).repeat(3, 1), torch.zeros(3, 24)]
    drifts[1][2] = drifts[2][2] = torch.inf
    for drift in drifts:
        for confidence in (torch.linspace(0.5, 1.0, 24), torch.linspace(-0.05, 0, 24)):
            progress = Progress.of(step=2, steps=12, initial=masked, masked=masked, drift=drift)
            candidates = order.candidates(progress)
            outcome += [candidates, order.commit(progress, candidates, confidence[candidates], generator(0))]
    return outcome


def probe_order(config):
    return commits(build.build_order(config, [(4, 6)]))


def probe_text_order(config):
    return commits(build.build_text_order(config, 24))


def probe_early_stop(config):
    return commits(build.build_early_stop(config, MaskGITOrder(schedule=Cosine())))


def probe_remasking(config):
    remasking, order = build.build_remasking(config), MaskGITOrder(schedule=Cosine())
    initial = torch.ones(60, dtype=torch.bool)
    masked = initial & (torch.arange(60) < 20)
    certainty = torch.linspace(0, 1, 60)
    progress = Progress.of(step=6, steps=12, initial=initial, masked=masked)
    again = [remasking.again(order, progress, certainty, generator(seed)) for seed in range(4)]
    return [*again, remasking.anew(certainty, 60), torch.tensor(remasking.rounds)]


def probe_guidance(config):
    guidance = build.build_guidance(config)
    logits = torch.arange(12.0).reshape(3, 2, 2).sin()[: len(guidance.branches)]
    return [torch.tensor([hash(guidance.branches)]), guidance(logits)]


def probe_ramp(config):
    ramp = build.build_ramp(config)
    return [torch.tensor([ramp(step / 7) for step in range(7)])]


def probe_stopping(config):
    stopping = build.build_stopping(config, VOCABULARY.__getitem__)
    all_committed = Progress.of(
        step=1, steps=2, initial=torch.ones(2, dtype=torch.bool), masked=torch.zeros(2, dtype=torch.bool)
    )
    return [torch.tensor([stopping(torch.tensor([token, 0]), all_committed) for token in VOCABULARY.values()])]


COSINE, LINEAR = cfg.CosineConfig(), cfg.LinearConfig()
# union, probe, for each kind: a base and another value for each field
TABLE = [
    (cfg.ScheduleConfig, probe_schedule, {
        cfg.CosineConfig: ({}, {}),
        cfg.LinearConfig: ({}, {}),
        cfg.PowerConfig: ({"exponent": 2.0}, {"exponent": 3.0}),
        cfg.ArccosConfig: ({}, {}),
    }),
    (cfg.TimesConfig, probe_times, {cfg.UniformTimesConfig: ({}, {}), cfg.AntitheticTimesConfig: ({}, {}),
        cfg.LogitNormalTimesConfig: ({}, {"mean": 0.7, "std": 0.4}),
        cfg.ClippedTimesConfig: ({}, {"times": {"kind": "uniform"}, "low": 0.2, "high": 0.9}),
    }),
    (cfg.CorruptionConfig, probe_corruption, {
        cfg.ExactCountConfig: ({}, {}),
        cfg.BernoulliConfig: ({}, {"at_least_one": False}),
    }),
    (cfg.LossWeightConfig, probe_loss, {
        cfg.MeanOverMaskedConfig: ({}, {}),
        cfg.InverseShareConfig: ({}, {"least_share": 0.01}),
        cfg.ScheduleWeightConfig: ({}, {"least_share": 0.01}),
        cfg.AnswerMeanConfig: ({}, {"weight": {"kind": "mean_over_masked"}}),
    }),
    (cfg.DrawConfig, probe_draw, {
        cfg.GreedyConfig: ({}, {}),
        cfg.CategoricalConfig: ({}, {"temperature": 0.5, "top_k": 2, "top_p": 0.3, "noise": "bfloat16"}),
    }),
    (cfg.ConfidenceConfig, probe_confidence, {
        cfg.ProbabilityConfig: ({}, {"dtype": "float64"}),
        cfg.MarginConfig: ({}, {}),
        cfg.NegativeEntropyConfig: ({}, {}),
        cfg.GumbelConfidenceConfig: ({}, {"temperature": 0.5, "noise": "float64"}),
    }),
    (order_cfg.OrderConfig, probe_order, {
        order_cfg.MaskGITOrderConfig: ({}, {"schedule": LINEAR}),
        order_cfg.RandomOrderConfig: ({"schedule": cfg.ArccosConfig()}, {"schedule": LINEAR}),
        order_cfg.BlockOrderConfig: ({"block": 6}, {"block": 8}),
        order_cfg.HaltonOrderConfig: ({}, {"schedule": LINEAR, "offset": 3}),
        order_cfg.StratifiedOrderConfig: ({}, {"schedule": LINEAR, "offset": 5}),
        **(RULES := {
            order_cfg.ThresholdOrderConfig: ({}, {"threshold": 0.6}),
            order_cfg.FactorOrderConfig: ({}, {"factor": 2.0}),
            order_cfg.EntropyBoundedOrderConfig: ({"bound": 0.01}, {"bound": 0.05}),
            order_cfg.KLASSOrderConfig: (
                {"threshold": 0.7}, {"threshold": 0.8, "max_drift": 0.02, "steps": 3, "fallback": 6},
            ),
        }),
    }),
    (order_cfg.TextOrderConfig, probe_text_order, {order_cfg.EqualSharesConfig: ({}, {}), **RULES}),
    (order_cfg.EarlyStopConfig, probe_early_stop, {
        order_cfg.NoEarlyStopConfig: ({}, {}),
        order_cfg.SettledConfig: ({}, {"max_drift": 0.05, "steps": 3, "least_confidence": 0.4}),
    }),
    (order_cfg.RemaskingConfig, probe_remasking, {
        order_cfg.NoRemaskingConfig: ({}, {}),
        order_cfg.ReMDMConfig: ({"eta": 0.5}, {"eta": 0.3, "strategy": "cap", "by_confidence": True}),
        order_cfg.RefinementConfig: ({}, {"rounds": 2, "share": 0.3}),
    }),
    (order_cfg.TextRemaskingConfig, probe_remasking, {
        order_cfg.NoRemaskingConfig: ({}, {}),
        order_cfg.RefinementConfig: ({}, {"rounds": 2, "share": 0.3}),
    }),
    (cfg.GuidanceConfig, probe_guidance, {
        cfg.NoGuidanceConfig: ({}, {}),
        cfg.ClassifierFreeConfig: ({"scale": 1.0}, {"scale": 2.0}),
        cfg.MultiConditionConfig: ({"scales": {"a": 1.0}}, {"scales": {"a": 1.0, "b": 2.0}}),
    }),
    (cfg.RampConfig, probe_ramp, {
        cfg.ConstantRampConfig: ({}, {}),
        cfg.LinearRampConfig: ({}, {"start": 0.5, "stop": 2.0}),
        cfg.CosineRampConfig: ({}, {"start": 0.5, "stop": 2.0}),
    }),
    (cfg.StoppingConfig, probe_stopping, {
        cfg.NoStopConfig: ({}, {}),
        cfg.TokenStopConfig: ({"tokens": ("</answer>",)}, {"tokens": ("</answer>", "<end>")}),
    }),
]  # fmt: skip
KINDS = [(probe, kind, *values) for _, probe, kinds in TABLE for kind, values in kinds.items()]


def same(first, second):
    return all(a.shape == b.shape and torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize(("union", "kinds"), [(union, kinds) for union, _, kinds in TABLE])
def test_the_table_lists_every_kind(union, kinds):
    members = typing.get_args(typing.get_args(union)[0])
    assert set(kinds) == set(members)


@pytest.mark.parametrize(("probe", "kind", "base", "others"), KINDS, ids=lambda v: getattr(v, "__name__", ""))
def test_every_field_changes_the_outcome(probe, kind, base, others):
    assert set(others) == set(kind.model_fields) - {"kind"}
    outcome = probe(kind(**base))
    assert same(outcome, probe(kind(**base)))
    for field, value in others.items():
        assert not same(outcome, probe(kind(**(base | {field: value})))), f"{kind.__name__}.{field} does nothing"


@pytest.mark.parametrize(("probe", "kinds"), [(probe, kinds) for _, probe, kinds in TABLE])
def test_kinds_of_a_union_differ(probe, kinds):
    outcomes = [probe(kind(**base)) for kind, (base, _) in kinds.items()]
    for index, first in enumerate(outcomes):
        assert not any(same(first, second) for second in outcomes[index + 1 :])


@pytest.mark.parametrize(("union", "kinds"), [(union, kinds) for union, _, kinds in TABLE])
def test_json_round_trip_by_tag(union, kinds):
    adapter = TypeAdapter(union)
    for kind, (base, others) in kinds.items():
        config = kind(**(base | others))
        assert adapter.validate_json(config.model_dump_json()) == config


@pytest.mark.parametrize(
    "text",
    [
        '{"kind": "cosin"}',
        '{"kind": "power"}',
        '{"kind": "power", "exponent": 0}',
        '{"kind": "cosine", "exponent": 2}',
    ],
)
def test_unknown_kinds_keys_and_values_are_errors(text):
    with pytest.raises(ValidationError):
        TypeAdapter(cfg.ScheduleConfig).validate_json(text)


@pytest.mark.parametrize("values", [{"temperature": 0.0}, {"top_k": 0}, {"top_p": 1.0}, {"noise": "float8"}])
def test_bad_draws_are_refused_early(values):
    with pytest.raises(ConfigError):
        cfg.CategoricalConfig(**values)
