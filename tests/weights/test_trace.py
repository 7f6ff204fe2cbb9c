from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import embedding, linear, rms_norm, silu

from dimoo.backbone.build import build_backbone
from dimoo.backbone.config import BackboneConfig
from dimoo.backbone.init import initialise
from dimoo.backbone.layout import PackedLayout
from dimoo.backbone.model import Backbone
from dimoo.core.errors import CheckpointError, ConfigError
from dimoo.core.rng import generator
from dimoo.weights.divergence import Trace
from dimoo.weights.llada import llada_rules
from dimoo.weights.rules import Rename, to_theirs
from dimoo.weights.trace import module_names, trace, trace_backbones

SMALL = BackboneConfig(d_model=16, layers=2, heads=2, kv_heads=1, mlp_hidden=24, vocab_size=32, rope_theta=1e4)
IDS = torch.tensor([3, 1, 4, 1, 5, 9, 2, 6])
BLOCK = (
    *("attention_norm", "attention.query", "attention.key", "attention.value", "attention.output", "attention"),
    *("mlp_norm", "mlp.gate", "mlp.up", "mlp.output", "mlp"),
)
IN_ORDER = [
    "embedding",
    *(f"blocks.{i}{part}" for i in range(2) for part in (*(f".{name}" for name in BLOCK), "")),
    "norm",
    "logits",
]


def small(config: BackboneConfig = SMALL) -> Backbone:
    """A model whose weights are large enough for rope, norms and mistakes to show."""
    model = initialise(build_backbone(config), generator(0))
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(1.0 if weight.ndim == 1 else 10.0)
    return model


def perturbed(model: Backbone, weight: str, by: float = 0.1) -> Backbone:
    other = copy.deepcopy(model)
    with torch.no_grad():
        other.get_parameter(weight).add_(by)
    return other


def hooks(model: nn.Module) -> int:
    kinds = [name for name in vars(nn.Module()) if "hooks" in name]
    assert len(kinds) >= 8
    return sum(len(vars(module)[kind]) for module in model.modules() for kind in kinds)


def row(report: Trace, name: str) -> dict[str, object]:
    (found,) = (vars(each) for each in report.rows if each.name == name)
    return found


def test_equal_models_do_not_diverge_and_every_module_is_seen_in_the_order_it_finishes() -> None:
    model = small()
    report = trace_backbones(model, copy.deepcopy(model), IDS)
    assert report.first_divergence is None
    assert [each.name for each in report.rows] == IN_ORDER
    assert all(each.difference == 0 and each.relative == 0 for each in report.rows)
    assert (report.only_first, report.only_second) == ((), ())
    assert str(report).startswith("no divergence in 27 outputs")


@pytest.mark.parametrize("weight", [name for name, _ in small().named_parameters()])
def test_one_changed_weight_is_named(weight: str) -> None:
    model = small()
    report = trace_backbones(model, perturbed(model, weight), IDS)
    head = weight == "unembedding.weight"
    assert report.first_divergence == ("logits" if head else weight.removesuffix(".weight"))
    assert ("all before it agrees: look at what is computed after norm" in report.verdict) == head
    assert (f"{report.first_divergence} differs while its inputs agree" in report.verdict) != head


@pytest.mark.parametrize(("by", "atol"), [(0.01, 1e-4), (0.1, 0.2), (1.0, 10.0)])
def test_differences_are_those_of_a_naive_forward(by: float, atol: float) -> None:
    first = small()
    second = perturbed(first, "embedding.weight", by)
    report = trace_backbones(first, second, IDS, atol=atol, rtol=0.0)
    outputs = []
    for model in (first, second):
        vectors = embedding(IDS, model.embedding.weight.detach())
        normed = rms_norm(vectors, (16,), eps=SMALL.norm_eps)
        outputs.append((vectors, normed, linear(normed, model.blocks[0].attention.query.weight.detach())))
    for name, a, b in zip(("embedding", "blocks.0.attention_norm", "blocks.0.attention.query"), *outputs, strict=True):
        want = (a.double() - b.double()).abs().max().item()
        assert row(report, name)["difference"] == pytest.approx(want, rel=1e-3, abs=1e-6)
        assert row(report, name)["relative"] == pytest.approx(want / a.abs().max().item(), rel=1e-3, abs=1e-6)
    assert all(each.close == (each.difference <= atol) for each in report.rows)
    diverging = [each.name for each in report.rows if each.difference > atol]
    assert report.first_divergence == (diverging[0] if diverging else None)


def test_tolerance_is_relative_to_the_largest_value_of_the_first() -> None:
    first, second = nn.Sequential(nn.Identity()), nn.Sequential(nn.Hardtanh(-100.0, 99.0))
    x = torch.tensor([100.0, 0.5])
    (changed, _) = trace(first, second, lambda model: model(x), rtol=0.0101).rows
    assert (changed.difference, changed.relative, changed.close) == (1.0, 0.01, True)
    assert trace(first, second, lambda model: model(x), rtol=0.0099).first_divergence == "0"
    assert trace(first, second, lambda model: model(x), rtol=0.0, atol=1.0).first_divergence is None


def test_inputs_agree_within_the_same_tolerance() -> None:
    tops = ((100.0, 90.0), (99.0, 50.0))
    first, second = (nn.Sequential(*(nn.Hardtanh(0.0, top) for top in pair)) for pair in tops)
    report = trace(first, second, lambda model: model(torch.tensor([200.0])), rtol=0.011)
    assert report.verdict == "1 differs while its inputs agree: look at its weights and settings"


def test_several_sequences_are_packed_each_with_its_own_positions() -> None:
    first, second = small(), small(SMALL.model_copy(update={"rope_theta": 1e2}))
    # Sequences of one token are rotated alike everywhere; a stream that ignored the boundaries would diverge.
    assert trace_backbones(first, second, [[3], [1], [4]]).first_divergence is None
    assert trace_backbones(first, second, IDS.view(2, 4)).first_divergence == "blocks.0.attention.output"
    packed = trace_backbones(first, second, [IDS[:3], IDS[3:]])
    assert row(packed, "embedding")["shape"] == (8, 16)
    assert row(packed, "logits")["shape"] == (8, 32)


def test_dtypes_may_differ() -> None:
    model = small()
    half = copy.deepcopy(model).to(torch.bfloat16)
    assert trace_backbones(model, half, IDS).first_divergence == "embedding"
    assert trace_backbones(model, half, IDS, rtol=0.05).first_divergence is None
    assert trace_backbones(model, copy.deepcopy(model).double(), IDS).first_divergence is None


@pytest.mark.parametrize("ids", [[], [[]], IDS.float(), IDS.int(), torch.tensor(3), IDS.view(2, 2, 2), [1, 2]])
def test_ids_that_are_no_sequences_are_refused(ids: list[list[int]]) -> None:
    with pytest.raises(ConfigError, match=r"int64 \[n\]"):
        trace_backbones(small(), small(), ids)


@pytest.mark.parametrize(("ids", "span"), [([[0, 32]], r"0\.\.32"), ([[5], [-1]], r"-1\.\.5")])
def test_ids_outside_a_vocabulary_are_refused(ids: list[list[int]], span: str) -> None:
    larger = small(SMALL.model_copy(update={"vocab_size": 40}))
    with pytest.raises(ConfigError, match=rf"ids {span} are not all in 0\.\.31"):
        trace_backbones(small(), larger, ids)


# A foreign implementation: rectangular [1, n, d], published names, tuples as outputs, and mistakes to choose from.


class Norm(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(16))

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-5)


class Absent(Norm):
    """Has the weight, forgets to call."""

    def forward(self, x: Tensor) -> Tensor:
        return x


class ForeignBlock(nn.Module):
    def __init__(self, bug: str) -> None:
        super().__init__()
        self.bug = bug
        self.attn_norm, self.ff_norm = Norm(), Norm()
        self.q_proj, self.attn_out = (nn.Linear(16, 16, bias=False) for _ in range(2))
        self.k_proj, self.v_proj = (nn.Linear(16, 8, bias=False) for _ in range(2))
        self.ff_proj, self.up_proj = (nn.Linear(16, 24, bias=False) for _ in range(2))
        self.ff_out = nn.Linear(24, 16, bias=False)

    def forward(self, *, hidden: Tensor) -> tuple[Tensor, None]:
        normed = hidden if self.bug == "norm skipped" else self.attn_norm(hidden)
        value, key, query = (project(normed) for project in (self.v_proj, self.k_proj, self.q_proj))
        heads = [self.rotate(query[..., :8]), self.rotate(query[..., 8:])]
        shares = [(head @ self.rotate(key).mT * 8**-0.5).softmax(-1) for head in heads]
        hidden = hidden + self.attn_out(torch.cat([share @ value for share in shares], -1))
        x = self.ff_norm(hidden)
        gate, up = self.ff_proj(x), self.up_proj(x)
        if self.bug == "wrong one activated":
            gate, up = up, gate
        update = self.ff_out(silu(gate) * up)
        return (update if self.bug == "no residual" else hidden + update), None

    def rotate(self, x: Tensor) -> Tensor:
        theta = 1e2 if self.bug == "theta" else 1e4
        angle = torch.arange(x.shape[1]).unsqueeze(-1) * theta ** (-torch.arange(4) / 4)
        a, b = x[..., :4], x[..., 4:]
        return torch.cat([a * angle.cos() - b * angle.sin(), b * angle.cos() + a * angle.sin()], -1)


class Foreign(nn.Module):
    """Weights of `like`; the second block has the mistake, or the final norm."""

    def __init__(self, like: Backbone, bug: str = "") -> None:
        super().__init__()
        self.model = nn.Module()
        self.model.transformer = nn.ModuleDict(
            {
                "wte": nn.Embedding(32, 16),
                "blocks": nn.ModuleList([ForeignBlock(""), ForeignBlock(bug)]),
                "ln_f": Absent() if bug == "no final norm" else Norm(),
                "ff_out": nn.Linear(16, 32, bias=False),
            }
        )
        weights = to_theirs(llada_rules(2), like.state_dict())
        if bug == "gate and up swapped":
            gate, up = (f"model.transformer.blocks.1.{name}.weight" for name in ("ff_proj", "up_proj"))
            weights[gate], weights[up] = weights[up], weights[gate]
        self.load_state_dict(weights)

    def forward(self, ids: Tensor) -> dict[str, Tensor | None]:
        parts = self.model.transformer
        hidden = parts["wte"](ids)
        for block in parts["blocks"]:
            hidden, _ = block(hidden=hidden)
        return {"loss": None, "logits": parts["ff_out"](parts["ln_f"](hidden))}


def compare(bug: str = "", **more: str) -> Trace:
    def run(model: nn.Module) -> object:
        if isinstance(model, Backbone):
            return model.head(model(IDS, PackedLayout.of([len(IDS)])))
        return model(IDS.unsqueeze(0))

    ours = small()
    names = module_names(llada_rules(2)) | more
    return trace(ours, Foreign(ours, bug), run, names=names, atol=1e-5, result="logits")


def test_a_foreign_model_is_compared_through_the_table_of_weights() -> None:
    report = compare()
    assert report.first_divergence is None
    assert [each.name for each in report.rows] == [
        name for name in IN_ORDER if not name.endswith(("attention", "mlp", ".0", ".1"))
    ]
    query = row(report, "blocks.1.attention.query")
    assert query["second_name"] == "model.transformer.blocks.1.q_proj"
    assert (query["shape"], query["second_shape"]) == ((8, 16), (1, 8, 16))
    assert report.only_first == tuple(f"blocks.{i}{part}" for i in range(2) for part in (".attention", ".mlp", ""))
    assert report.only_second == (*(f"model.transformer.blocks.{i}" for i in range(2)), "model.transformer.ff_out")


@pytest.mark.parametrize(
    ("bug", "name", "where"),
    [
        ("gate and up swapped", "blocks.1.mlp.gate", "while its inputs agree"),
        (
            "wrong one activated",
            "blocks.1.mlp.output",
            "so does its input: look at what is computed after blocks.1.mlp.up",
        ),
        ("theta", "blocks.1.attention.output", "its input: look at what is computed after blocks.1.attention.value"),
        (
            "norm skipped",
            "blocks.1.attention.query",
            "so does its input: look at what is computed after blocks.0.mlp.output",
        ),
        ("no final norm", "norm", "while its inputs agree"),
        ("no residual", "norm", "so does its input: look at what is computed after blocks.1.mlp.output"),
    ],
)
def test_a_mistake_in_a_foreign_model_is_found(bug: str, name: str, where: str) -> None:
    report = compare(bug)
    assert report.first_divergence == name
    assert where in report.verdict


def test_a_skipped_module_is_listed() -> None:
    assert "blocks.1.attention_norm" in compare("norm skipped").only_first


def test_a_container_whose_modules_agree_is_to_blame_itself() -> None:
    report = compare("no residual", **{"blocks.1": "model.transformer.blocks.1"})
    assert report.verdict == (
        "blocks.1 (model.transformer.blocks.1 in the second) differs while its inputs and the modules inside agree: "
        "look at its own code"
    )


# Modules in general.


class Twice(nn.Module):
    def __init__(self, offset: float = 0.0) -> None:
        super().__init__()
        self.offset = offset
        self.layer = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(self.layer(x) + self.offset)


def test_every_call_has_a_row() -> None:
    report = trace(Twice(), Twice(1.0), lambda model: model(torch.zeros(3)))
    assert [(each.name, each.difference) for each in report.rows] == [("layer", 0), ("layer#2", 1), ("result", 1)]
    assert report.first_divergence == "layer#2"
    assert "so does its input: look at what is computed after layer" in report.verdict


def test_a_call_too_many_is_not_compared() -> None:
    once = nn.ModuleDict({"layer": nn.Identity()})

    def run(model: nn.Module) -> object:
        return model(torch.zeros(3)) if isinstance(model, Twice) else model["layer"](torch.zeros(3))

    report = trace(Twice(), once, run)
    assert [each.name for each in report.rows] == ["layer", "result"]
    assert (report.only_first, report.only_second) == (("layer#2",), ())
    report = trace(once, Twice(), run)
    assert (report.only_first, report.only_second) == ((), ("layer#2",))


def fixed(first: Tensor, second: Tensor, **tolerances: float) -> Trace:
    """Trace two one-layer models that give these tensors."""

    class Gives(nn.Module):
        def __init__(self, value: Tensor) -> None:
            super().__init__()
            self.value = value

        def forward(self) -> Tensor:
            return self.value

    def run(model: nn.ModuleDict) -> None:
        model["layer"]()

    pair = (nn.ModuleDict({"layer": Gives(value)}) for value in (first, second))
    return trace(*pair, run, **tolerances)


@pytest.mark.parametrize(
    ("second", "difference"),
    [
        ([1.0, math.nan, math.inf], 0.0),
        ([3.0, math.nan, math.inf], 2.0),
        ([math.nan, math.nan, math.inf], math.inf),
        ([1.0, 0.0, math.inf], math.inf),
        ([1.0, math.nan, -math.inf], math.inf),
        ([1.0, math.nan, 1e30], math.inf),
    ],
)
def test_nan_and_infinity_must_stand_at_the_same_places(second: list[float], difference: float) -> None:
    first = torch.tensor([1.0, math.nan, math.inf])
    (only,) = fixed(first, torch.tensor(second)).rows
    assert (only.difference, only.relative, only.close) == (difference, difference, difference == 0)
    assert only.remark == ("NaN or infinity at other places" if math.isinf(difference) else "")


def test_other_shapes_are_flattened_or_diverge() -> None:
    assert fixed(torch.ones(2, 3), torch.ones(1, 6)).first_divergence is None
    report = fixed(torch.ones(2, 3), torch.ones(2, 4))
    assert report.verdict == "layer has another shape: look at the sizes in the two configurations"
    assert report.rows[0].remark == "the shape is [2, 4] in the second"
    assert fixed(torch.ones(0, 3), torch.ones(0, 3)).rows[0].difference == 0


def test_any_kind_of_number_is_compared() -> None:
    assert fixed(torch.tensor([1, 2]), torch.tensor([1, 5]), atol=2.9).rows[0].difference == 3
    assert fixed(torch.tensor([True]), torch.tensor([1.0])).first_divergence is None
    assert fixed(torch.tensor([3 + 4j]), torch.tensor([0j]), atol=4.9).rows[0].difference == 5
    assert fixed(torch.zeros(2), torch.ones(2)).rows[0].relative == math.inf


def test_what_is_changed_in_place_is_compared_as_it_was() -> None:
    class Shifts(nn.Module):
        def __init__(self, by: float) -> None:
            super().__init__()
            self.by = by

        def forward(self, x: Tensor) -> Tensor:
            return x.add_(self.by)

    first, second = (nn.Sequential(nn.Identity(), Shifts(by)) for by in (1.0, 2.0))
    report = trace(first, second, lambda model: model(torch.zeros(2)))
    assert [(each.name, each.difference) for each in report.rows] == [("0", 0), ("1", 1), ("result", 1)]
    assert "1 differs while its inputs agree" in report.verdict


def test_nothing_remains_on_the_models() -> None:
    first, second = small(), small().eval()
    kept: list[object] = []
    handle = first.norm.register_forward_hook(lambda *_: kept.append(1))
    before = {name: tensor.clone() for name, tensor in first.state_dict().items()}
    trace_backbones(first, second, IDS)
    assert (hooks(first), hooks(second), len(kept)) == (1, 0, 1)
    assert (first.training, second.training) == (True, False)
    assert all(weight.grad is None and weight.requires_grad for weight in first.parameters())
    assert all(torch.equal(tensor, before[name]) for name, tensor in first.state_dict().items())
    handle.remove()
    assert hooks(first) == 0


@pytest.mark.parametrize("fails", [0, 1])
def test_nothing_remains_after_an_exception(fails: int) -> None:
    class Fails(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise RuntimeError("no such kernel")

    pair = [nn.Sequential(nn.Identity()), nn.Sequential(nn.Identity())]
    pair[fails].append(Fails())
    seen: list[int] = []

    def run(model: nn.Module) -> object:
        assert not torch.is_grad_enabled()
        seen.append(hooks(model))
        return model(torch.zeros(2))

    with pytest.raises(RuntimeError, match="no such kernel"):
        trace(pair[0], pair[1], run)
    assert seen[-1] > 0
    assert len(seen) == fails + 1
    assert [hooks(model) for model in pair] == [0, 0]


def test_nothing_in_common_is_an_error() -> None:
    ours = small()

    def run(model: nn.Module) -> object:
        return model.embedding(IDS) if isinstance(model, Backbone) else model.model.transformer["wte"](IDS)

    with pytest.raises(CheckpointError) as caught:
        trace(ours, Foreign(ours), run)
    assert "first: embedding" in str(caught.value)
    assert "second: model.transformer.wte" in str(caught.value)


def test_many_names_are_abbreviated() -> None:
    first, second = (nn.ModuleDict({f"{kind}{i}": nn.Identity() for i in range(9)}) for kind in "ab")

    def run(model: nn.Module) -> None:
        for child in model.children():
            child(IDS)

    with pytest.raises(CheckpointError, match=r"first: a0, a1, a2, a3, a4, a5 \.\.\. and 3 more\n"):
        trace(first, second, run)


def test_a_model_without_weights_is_an_error() -> None:
    with torch.device("meta"):
        empty = build_backbone(SMALL)
    with pytest.raises(CheckpointError, match="Backbone is on the meta device"):
        trace_backbones(small(), empty, IDS)


def test_module_names_come_from_weights_and_biases_alone() -> None:
    rules = (
        Rename("a.weight", "x.y.weight"),
        Rename("a.bias", "x.y.bias"),
        Rename("codebook", "embedding.weight"),
        Rename("table.weight", "codes"),
    )
    assert module_names(rules) == {"a": "x.y"}
    assert module_names(llada_rules(1))["blocks.0.mlp.gate"] == "model.transformer.blocks.0.ff_proj"
    with pytest.raises(CheckpointError, match="expand"):
        module_names((Rename("a.{i}.weight", "x.{i}.weight"),))


def test_the_report_marks_the_first_divergence() -> None:
    model = small()
    lines = str(trace_backbones(model, perturbed(model, "blocks.1.attention.key.weight"), IDS)).splitlines()
    assert lines[0] == "blocks.1.attention.key differs while its inputs agree: look at its weights and settings"
    assert lines[2].split() == ["layer", "difference", "relative", "shape"]
    marks = {line[4:].split()[0]: line[:4].strip() for line in lines[3:]}
    assert [name for name, mark in marks.items() if mark == "-->"] == ["blocks.1.attention.key"]
    assert list(marks) == IN_ORDER
    assert {marks[name] for name in IN_ORDER[: IN_ORDER.index("blocks.1.attention.key")]} == {""}
    assert marks["blocks.1.attention.value"] == ""
    assert marks["logits"] == "x"
    assert lines[3].endswith("0.0e+00   0.0e+00  [8, 16]")


def test_a_long_report_shows_the_surroundings() -> None:
    long = small(SMALL.model_copy(update={"layers": 8}))
    report = trace_backbones(long, perturbed(long, "blocks.4.mlp.up.weight"), IDS)
    lines = str(report).splitlines()
    assert len(report.rows) == 99
    assert len(lines) == 45
    index = [each.name for each in report.rows].index("blocks.4.mlp.up")
    assert lines[3].strip() == f"... {index - 20} before"
    assert lines[24].startswith("--> blocks.4.mlp.up ")
    assert lines[-1].strip() == f"... {99 - index - 20} after"
    lines = str(trace_backbones(long, perturbed(long, "norm.weight"), IDS)).splitlines()
    assert lines[3].strip() == "... 59 before"
    assert [line.split()[:2] for line in lines[-2:]] == [["-->", "norm"], ["x", "logits"]]
    assert len(lines) == 44


def test_the_report_lists_what_was_not_compared() -> None:
    report = str(compare("norm skipped"))
    assert (
        "not compared, only in the first: blocks.0.attention, blocks.0.mlp, blocks.0, blocks.1.attention_norm" in report
    )
    assert "not compared, only in the second: model.transformer.blocks.0, " in report
    wider = str(fixed(torch.ones(2), torch.ones(3)))
    assert wider.splitlines()[-1].endswith("[2]  the shape is [3] in the second")
