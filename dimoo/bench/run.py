"""One run of the benchmark: what is measured, on which models, and the table that comes out."""

from __future__ import annotations

import logging
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from rich.progress import Progress

from dimoo.backbone.quantized import check_quantize
from dimoo.bench.methods import METHODS, Method, Task
from dimoo.bench.sampling import Extent, Row, measure, with_quality
from dimoo.bench.shapes import SHAPES, RandomModel
from dimoo.bench.stands import CheckpointStand, RandomStand
from dimoo.core.device import precision, usable
from dimoo.core.errors import BackendError, ConfigError
from dimoo.evaluation.suites import world_of
from dimoo.tasks.assemble import load
from dimoo.version import __version__
from dimoo.weights.hub import resolve

COUNT, QUICK_COUNT = 100, 30
"""Requests that a quality is of."""
COMPARED, QUICK_COMPARED = 32, 4
"""Requests that a divergence is of."""
BATCH = 8
"""Answers that are made together on a checkpoint; on random weights one, and this many of some methods."""
_log = logging.getLogger(__name__)
HEAD = (
    "model",
    "task",
    "method",
    "batch",
    "answers",
    "seconds",
    "ratio",
    "right",
    "reference",
    "KL",
    "steps",
    "tokens",
    "MB",
    "weights",
)


@dataclass(frozen=True, kw_only=True)
class Bench:
    """What is measured. Names that are None or unset are all, or the usual."""

    model: str | None = "mini"
    """A checkpoint, for quality."""
    shape: str | None = "small"
    """A key of `SHAPES`, of random weights, for cost."""
    tasks: tuple[Task, ...] = ("image", "edit", "text")
    methods: tuple[str, ...] | None = None
    count: int | None = None
    """Requests that a quality is of."""
    quick: bool = False
    """The methods marked so, fewer requests, and edits on the checkpoint alone."""
    seed: int = 0
    device: str = "cpu"
    dtype: str = "float32"


@dataclass(frozen=True, kw_only=True)
class Report:
    """What came out."""

    settings: dict[str, Any]
    """The run's, and the machine's."""
    rows: list[Row]


def run(bench: Bench, progress: Progress) -> Report:
    """Measure.

    Raises:
        ConfigError: there is no such method or shape.
        CheckpointError: the checkpoint cannot be read, or has no world to be judged on.
        BackendError: the device is not there, or a method that was asked for cannot run on it.
    """
    methods = _methods(bench)
    tasks = _tasks(bench)
    dtype = precision(bench.dtype)
    device = usable(bench.device, dtype)
    methods = tuple(method for method in methods if _runs(method, dtype, device, asked=bench.methods is not None))
    bar = progress.add_task("bench", total=None)

    def advance(what: str) -> None:
        progress.update(bar, description=what)
        progress.refresh()

    judged: list[Row] = []
    if bench.model is not None:
        world = world_of(resolve(bench.model))
        model = load(bench.model, device=device, dtype=dtype)
        count = bench.count or (QUICK_COUNT if bench.quick else COUNT)
        stand = CheckpointStand(model=model, world=world, count=count, seed=bench.seed)
        compared = QUICK_COMPARED if bench.quick else COMPARED
        extent = Extent(tasks=bench.tasks, methods=methods, batches=(BATCH,), compared=compared)
        judged = measure(stand, extent, advance)
    costs: list[Row] = []
    if bench.shape is not None:
        random = RandomModel.of(SHAPES[bench.shape], dtype=dtype, device=device, seed=bench.seed)
        extent = Extent(
            tasks=tuple(task for task in tasks if task != "edit" or not bench.quick),
            methods=tuple(method for method in methods if method.static),
            batches=(1,) if bench.quick else (1, BATCH),
        )
        costs = measure(RandomStand(model=random, seed=bench.seed), extent, advance)
    settings = {**asdict(bench), "dimoo": __version__, "torch": torch.__version__, **_machine(device)}
    return Report(settings=settings, rows=[*judged, *with_quality(costs, judged)])


def cells(row: Row) -> Sequence[str]:
    """A row as it stands under `HEAD`."""
    return (
        row.model,
        row.task,
        row.method,
        str(row.batch),
        str(row.answers),
        f"{row.seconds:.3f}",
        f"{row.ratio:.2f}",
        *("" if value is None else f"{value:.3f}" for value in (row.quality, row.quality_reference)),
        "" if row.divergence is None else f"{row.divergence:.2g}",
        f"{row.steps:.1f}",
        f"{row.tokens_computed:.0f}",
        f"{row.peak_bytes / 1e6:.0f}",
        f"{row.weight_bytes / 1e6:.1f}",
    )


def _tasks(bench: Bench) -> tuple[Task, ...]:
    """Those that the random weights are timed on."""
    if bench.shape is None:
        return ()
    if bench.shape not in SHAPES:
        raise ConfigError(f"there is no shape {bench.shape!r}; use one of {', '.join(SHAPES)}")
    known = SHAPES[bench.shape].tasks
    tasks = tuple(task for task in bench.tasks if task in known)
    if not tasks:
        raise ConfigError(
            f"the shape {bench.shape!r} knows {' and '.join(known)} alone, not {', '.join(bench.tasks)}; use another"
            " shape"
        )
    return tasks


def _methods(bench: Bench) -> tuple[Method, ...]:
    known = {method.name: method for method in METHODS}
    if bench.methods is None:
        return tuple(method for method in METHODS if method.quick or not bench.quick)
    for name in bench.methods:
        if name not in known:
            raise ConfigError(f"there is no method {name!r}; use some of {', '.join(known)}")
    return tuple(known[name] for name in bench.methods)


def _runs(method: Method, dtype: torch.dtype, device: torch.device, *, asked: bool) -> bool:
    """Whether weights can be kept as a method wants; what was asked for by name must."""
    if method.quantize is None:
        return True
    try:
        check_quantize(method.quantize, dtype, device)
    except BackendError as error:
        if asked:
            raise
        _log.warning("%s is left out: %s", method.name, error)
        return False
    return True


def _machine(device: torch.device) -> dict[str, Any]:
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    return {"machine": name, "threads": torch.get_num_threads()}
