"""The first layer at which two models diverge: the tool for "my converted model gives other numbers".

    print(trace_backbones(mine, reference, ids))
    print(trace(mine, theirs, run, names=module_names(llada_rules(layers))))

Both models see the same input; forward hooks copy what every sub-module is given and gives, and the outputs are
compared in the order in which the modules finish. A container finishes after the modules inside it, so the first
row that differs is the innermost module at fault; whether its input already differed tells wrong weights from wrong
code before them.

Axes: n = tokens, d = model width, V = vocabulary.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from dimoo.backbone.layout import PackedLayout
from dimoo.backbone.model import Backbone
from dimoo.core.errors import CheckpointError, ConfigError
from dimoo.weights.divergence import SHOWN_NAMES, Trace, TraceRow, abbreviated
from dimoo.weights.rules import Rename

ModuleT = TypeVar("ModuleT", bound=nn.Module)
CallKey = tuple[str, int]
"""A module's name and which of its calls this is, from 1."""

_PARAMETER_NAMES = (".weight", ".bias")


def trace(
    first: ModuleT,
    second: ModuleT,
    run: Callable[[ModuleT], object],
    *,
    names: Mapping[str, str] | None = None,
    atol: float = 1e-4,
    rtol: float = 1e-5,
    result: str = "result",
) -> Trace:
    """Run two models on the same input and compare the outputs of their sub-modules in float64.

    Of a module that is given or gives several tensors the first one counts. Outputs of different shape but equally
    many values ([1, n, d] and [n, d]) are compared flattened; dtypes and devices may differ. A copy of every
    input and output of both models is kept in host memory meanwhile, so let the input be some tens of tokens.
    Nothing remains on the models. Their mode is left as it is: call `eval()` on models with dropout.

    Args:
        first: the reference, whose scale `rtol` refers to.
        second: the other; it may be another implementation.
        run: calls a model with the input, once each, without gradients; a tensor that it returns is compared too.
        names: the first model's module names -> the second's, where they differ; modules not named are then not
            compared. See `module_names`.
        atol: absolute tolerance, in the units of the outputs.
        rtol: tolerance relative to the largest value of the first model's output; in 16 bits take about 2e-2.
        result: what to call the row of the tensor that `run` returns.

    Raises:
        CheckpointError: a model is on the meta device, or no module is called in both.
    """
    ours, theirs = (_record(model, run, result) for model in (first, second))
    table = None if names is None else {**names, result: result}
    pairs = {key: key if table is None else (table.get(key[0], ""), key[1]) for key in ours}
    common = {key: other for key, other in pairs.items() if other in theirs}
    if all(name == result for name, _ in common):
        raise CheckpointError(
            "no module is called in both models; give `names`, from the first's to the second's\n"
            f"  first: {abbreviated(map(_label, ours))}\n  second: {abbreviated(map(_label, theirs))}"
        )
    met = set(common.values())
    return Trace(
        rows=tuple(_row(key, ours[key], other, theirs[other], atol, rtol) for key, other in common.items()),
        only_first=tuple(_label(key) for key in ours if key not in common),
        only_second=tuple(_label(key) for key in theirs if key not in met),
    )


def trace_backbones(
    first: Backbone,
    second: Backbone,
    ids: Tensor | Sequence[Tensor] | Sequence[Sequence[int]],
    *,
    atol: float = 1e-4,
    rtol: float = 1e-5,
) -> Trace:
    """`trace` of two of our backbones; its last row is `logits`, [n, V], of all positions.

    Args:
        first: the reference.
        second: the other; any dtype and device.
        ids: token ids int64 [n], or several such sequences, which are packed.
        atol: as in `trace`.
        rtol: as in `trace`.

    Raises:
        ConfigError: the ids are not int64 sequences of at least one token, or not in both vocabularies.
    """
    rows = [ids] if isinstance(ids, Tensor) and ids.ndim < 2 else [torch.as_tensor(row) for row in ids]
    if not rows or any(row.dtype != torch.int64 or row.ndim != 1 or not len(row) for row in rows):
        raise ConfigError(f"ids must be one or several int64 [n] with n > 0, got {_shapes(rows)}")
    stream = torch.cat([row.cpu() for row in rows])
    vocabulary = min(first.vocab_size, second.vocab_size)
    low, high = (int(bound) for bound in torch.aminmax(stream))
    if low < 0 or high >= vocabulary:
        raise ConfigError(f"ids {low}..{high} are not all in 0..{vocabulary - 1}, which both models know")

    def run(model: Backbone) -> Tensor:
        layout = PackedLayout.of(map(len, rows), model.device)
        return model.head(model(stream.to(model.device), layout))

    return trace(first, second, run, atol=atol, rtol=rtol, result="logits")


def module_names(rules: Iterable[Rename]) -> dict[str, str]:
    """Our module names -> theirs, for `trace(names=...)`, from a table of weights such as `llada_rules(n)`.

    `blocks.0.mlp.up.weight` belongs to the module `blocks.0.mlp.up`. Rules for anything but a weight or bias name no
    module and are left out.

    Raises:
        CheckpointError: a name has a placeholder; `expand` the rules first.
    """
    found: dict[str, str] = {}
    for rule in rules:
        if "{" in rule.ours:
            raise CheckpointError(f"rule {rule.ours!r} has a placeholder; expand(rules, i=...) names every module")
        if rule.ours.endswith(_PARAMETER_NAMES) and rule.theirs.endswith(_PARAMETER_NAMES):
            found[rule.ours.rpartition(".")[0]] = rule.theirs.rpartition(".")[0]
    return found


@dataclass(frozen=True, kw_only=True)
class _Call:
    """What a module was given, where that was a tensor, and what it gave: copies on the host."""

    given: Tensor | None
    output: Tensor


def _record(model: ModuleT, run: Callable[[ModuleT], object], result: str) -> dict[CallKey, _Call]:
    """Every call of a sub-module that gave a tensor, in the order in which they finish; then the run's result."""
    if any(tensor.is_meta for tensor in model.state_dict().values()):
        raise CheckpointError(f"{type(model).__name__} is on the meta device; load its weights before tracing")
    calls: dict[CallKey, _Call] = {}
    finished: Counter[str] = Counter()
    entered: defaultdict[str, list[Tensor | None]] = defaultdict(list)

    # The input is copied on entry: the module may change it in place.
    def enter(name: str, _module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        entered[name].append(_copy((args, kwargs)))

    def leave(name: str, _module: nn.Module, _args: tuple[Any, ...], _kwargs: dict[str, Any], output: Any) -> None:
        finish(name, entered[name].pop(), output)

    def finish(name: str, given: Tensor | None, output: object) -> None:
        finished[name] += 1
        copied = _copy(output)
        if copied is not None:
            calls[name, finished[name]] = _Call(given=given, output=copied)

    with ExitStack() as hooks, torch.no_grad():
        for name, module in model.named_modules():
            if name:  # the model itself gives the result
                before = module.register_forward_pre_hook(partial(enter, name), with_kwargs=True)
                hooks.callback(before.remove)
                after = module.register_forward_hook(partial(leave, name), with_kwargs=True)
                hooks.callback(after.remove)
        finish(result, None, run(model))
    return calls


def _copy(value: object) -> Tensor | None:
    """The first tensor in nested tuples, lists and mappings, copied to the host; None if there is none."""
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=True)
    parts = value.values() if isinstance(value, Mapping) else value if isinstance(value, tuple | list) else ()
    return next((copied for part in parts if (copied := _copy(part)) is not None), None)


def _row(key: CallKey, first: _Call, other: CallKey, second: _Call, atol: float, rtol: float) -> TraceRow:
    difference, scale = _distance(first.output, second.output)
    inputs_close = None
    if first.given is not None and second.given is not None:
        input_difference, input_scale = _distance(first.given, second.given)
        inputs_close = input_difference <= atol + rtol * input_scale
    return TraceRow(
        name=_label(key),
        second_name=_label(other),
        shape=tuple(first.output.shape),
        second_shape=tuple(second.output.shape),
        difference=difference,
        relative=difference / scale if scale else math.inf if difference else 0.0,
        close=difference <= atol + rtol * scale,
        inputs_close=inputs_close,
    )


def _distance(first: Tensor, second: Tensor) -> tuple[float, float]:
    """max |a - b|, equal infinities and NaN counting as 0 and any other as infinite, and max |a| of finite a."""
    kind = torch.complex128 if first.is_complex() or second.is_complex() else torch.float64
    a, b = (tensor.flatten().to(kind) for tensor in (first, second))
    scale = torch.where(a.isfinite(), a, 0).abs()
    size = float(scale.max()) if len(a) else 0.0
    if len(a) != len(b):
        return math.inf, size
    same = (a == b) | (a.isnan() & b.isnan())
    gap = torch.where(same, 0, (a - b).abs()).nan_to_num(nan=math.inf, posinf=math.inf)
    return (float(gap.max()) if len(a) else 0.0), size


def _label(key: CallKey) -> str:
    name, call = key
    return name if call == 1 else f"{name}#{call}"


def _shapes(rows: Sequence[Tensor]) -> str:
    return ", ".join(f"{row.dtype} {list(row.shape)}" for row in rows[:SHOWN_NAMES]) or "none"
