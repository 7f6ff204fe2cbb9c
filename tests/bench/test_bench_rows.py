"""What the benchmark reports."""

import json
import logging
import sys
from dataclasses import replace
from importlib.util import find_spec

import pytest
import torch
from bench_cases import TINY, tiny
from PIL import Image
from rich.progress import Progress
from typer.testing import CliRunner

from dimoo.bench import run as bench_run
from dimoo.bench.drift import divergence
from dimoo.bench.frontier import draw_frontier, frontier
from dimoo.bench.methods import METHODS, REFERENCE, REFERENCE_CACHED, Method
from dimoo.bench.sampling import Extent, Row, _until_cached, measure, with_quality
from dimoo.bench.stands import RandomStand
from dimoo.cache.config import BlockCacheConfig, MaxLogitConfig, NoCacheConfig
from dimoo.cli.app import app
from dimoo.core.errors import BackendError, ConfigError, DataError
from dimoo.diffusion.order_config import RefinementConfig

ROW = Row(
    model="m",
    task="image",
    method="a",
    batch=1,
    answers=4,
    seconds=1.0,
    ratio=1.0,
    ratio_cached=None,
    quality=0.5,
    quality_model="m",
    quality_reference=0.5,
    divergence=None,
    steps=4.0,
    tokens_computed=10.0,
    peak_bytes=100,
    weight_bytes=50,
)
QUANTIZED = tuple(method for method in METHODS if method.quantize is not None)
RUN = METHODS if find_spec("torchao") else tuple(method for method in METHODS if method not in QUANTIZED)


@pytest.fixture(scope="module")
def rows():
    stand = RandomStand(model=tiny(), seed=0)
    return measure(stand, Extent(methods=RUN, batches=(1, 2), compared=2), lambda _: None)


def test_every_method_has_a_row_for_each_of_its_tasks(rows):
    found = {(row.task, row.method) for row in rows}
    for method in RUN:
        assert {(task, method.name) for task in method.tasks} <= found
    assert {(task, REFERENCE) for task in ("image", "edit", "text")} <= found
    assert ("image", REFERENCE_CACHED) in found
    assert ("text", REFERENCE_CACHED) not in found


def test_ratios_are_of_the_references_seconds(rows):
    for task in ("image", "edit", "text"):
        reference = next(row for row in rows if row.task == task and row.method == REFERENCE)
        assert reference.ratio == 1.0
        for row in rows:
            if row.task == task:
                assert row.ratio == pytest.approx(reference.seconds / row.seconds)


def test_without_a_cache_all_tokens_are_computed(rows):
    """Canvas of 4 x 7 + 4 tokens; contexts of 7 and 3, for edits 30 more in two of three branches."""
    tokens = {row.task: row.tokens_computed for row in rows if row.method == "uncached" and row.batch == 1}
    assert tokens["image"] == 8 * (2 * 32 + 7 + 3)
    assert tokens["edit"] == 8 * (3 * 32 + 7 + 3 + 7 + 2 * 30)
    assert tokens["text"] == 8 * (7 + 18)


def test_a_batch_computes_as_many_tokens_per_answer_in_as_many_steps(rows):
    one, two = (row for row in rows if row.method == "uncached" and row.task == "image")
    assert (one.batch, two.batch) == (1, 2)
    assert (one.tokens_computed, one.steps) == (two.tokens_computed, two.steps)


def test_caches_compute_less_and_drift(rows):
    uncached = {row.task: row for row in rows if row.method == "uncached" and row.batch == 1}
    others = {method.name for method in QUANTIZED}
    caches = [row for row in rows if row.divergence is not None and row.batch == 1 and row.method not in others]
    assert caches
    for row in caches:
        assert row.tokens_computed < uncached[row.task].tokens_computed
        assert row.divergence >= 0
    assert max(row.divergence for row in caches) > 1e-4
    assert all(uncached[task].divergence is None for task in uncached)


@pytest.mark.skipif(RUN != METHODS, reason="needs torchao")
def test_quantised_weights_take_less_and_drift(rows):
    uncached = {row.task: row for row in rows if row.method == "uncached" and row.batch == 1}
    small = [row for row in rows if row.method in ("int8", "fp8")]
    assert len(small) == 6
    for row in small:
        plain = uncached[row.task]
        assert row.weight_bytes < plain.weight_bytes
        assert (row.tokens_computed, row.steps) == (plain.tokens_computed, plain.steps)
        assert 0 < row.divergence < 0.3
    drifts = {(row.task, row.method): row.divergence for row in small}
    assert all(drifts[task, "int8"] < drifts[task, "fp8"] for task in uncached)


def test_a_method_that_cannot_run_is_left_out_unless_it_is_asked_for(monkeypatch, caplog):
    for name in [name for name in sys.modules if name.partition(".")[0] == "torchao"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "torchao", None)
    monkeypatch.setattr(bench_run, "SHAPES", {"small": TINY})
    asked = {"model": None, "tasks": ("text",)}
    monkeypatch.setattr(bench_run, "METHODS", [METHODS[0], *QUANTIZED])
    progress = Progress(disable=True)
    with caplog.at_level(logging.WARNING):
        report = bench_run.run(bench_run.Bench(**asked), progress)
    assert {row.method for row in report.rows} == {"reference", "uncached"}
    assert "int8 is left out" in caplog.text
    assert "pip install 'dimoo[quantize]'" in caplog.text
    with pytest.raises(BackendError, match="needs torchao"):
        bench_run.run(bench_run.Bench(**asked, methods=("fp8",)), progress)


def test_the_same_weights_do_not_drift():
    model = tiny()
    jobs = [model.job("image", model.settings(METHODS[0]), 0)]
    other = tiny(seed=1).network
    assert divergence(model.network, model.vocabulary, jobs, tiny().network) == 0
    assert divergence(model.network, model.vocabulary, jobs, other) > 0.01


def test_rounds_are_guided_as_the_last_step_is():
    model = tiny()
    changes = {"guidance_interval": (0.5, 1.0), "remasking": RefinementConfig(rounds=4, share=0.2)}
    method = Method(name="x", tasks=("image",), said="", changes=changes)
    assert divergence(model.network, model.vocabulary, [model.job("image", model.settings(method), 0)]) == 0


@pytest.mark.parametrize(
    ("cache", "steps"),
    [
        (NoCacheConfig(), 2),
        (BlockCacheConfig(), 2),
        (MaxLogitConfig(warmup=0.0, refresh=3), 3),
        (MaxLogitConfig(warmup=0.5), 7),  # steps 0 to 4 of eight are whole
    ],
)
def test_a_warm_up_goes_on_until_something_was_computed_in_part(cache, steps):
    model = tiny()
    job = model.job("image", model.settings(Method(name="x", tasks=("image",), said="", changes={"cache": cache})), 0)
    policy = getattr(job.cache, "policy", None)
    assert _until_cached([job], policy) == steps


def test_a_cache_that_computes_everything_does_not_drift():
    model = tiny()
    for cache, some in ((MaxLogitConfig(refresh=1), False), (BlockCacheConfig(scope="block"), True)):
        method = Method(name="x", tasks=("image", "text"), said="", changes={"cache": cache})
        jobs = [model.job("text" if some else "image", model.settings(method), seed) for seed in range(2)]
        assert (divergence(model.network, model.vocabulary, jobs) > 0) == some


def test_random_rows_take_their_quality_from_the_checkpoint():
    judged = [replace(ROW, quality=0.75, quality_reference=0.7, divergence=0.1)]
    timed = replace(ROW, model="random", quality=None, quality_model=None)
    same, other = with_quality([timed, replace(ROW, method="b")], judged)
    assert same.quality_model == "m"
    assert (same.model, same.quality, same.quality_reference, same.divergence) == ("random", 0.75, 0.7, 0.1)
    assert other == replace(ROW, method="b")


def test_the_frontier_holds_what_nothing_beats():
    slow, fast = replace(ROW, seconds=2.0, quality=0.9), replace(ROW, seconds=0.5, quality=0.6)
    beaten = replace(ROW, seconds=1.0, quality=0.6)
    assert frontier([beaten, slow, fast, replace(ROW, quality=None)]) == [slow, fast]


def test_the_frontier_is_drawn(tmp_path):
    path = draw_frontier(
        [ROW, replace(ROW, method="b", ratio=2.0, seconds=0.5, quality=0.4)], tmp_path / "new" / "f.png"
    )
    assert Image.open(path).size[0] > 300
    with pytest.raises(DataError, match="no row has a quality"):
        draw_frontier([replace(ROW, quality=None)], tmp_path / "g.png")


def test_names_are_checked_before_anything_is_measured():
    progress = None
    for wrong, said in (
        ({"methods": ("warp",)}, "no method 'warp'"),
        ({"shape": "huge"}, "no shape 'huge'"),
        ({"shape": "llada_8b", "tasks": ("image", "edit")}, "'llada_8b' knows text alone, not image, edit"),
    ):
        with pytest.raises(ConfigError, match=said):
            bench_run.run(bench_run.Bench(**wrong), progress)


def test_a_shape_without_codes_is_timed_on_text(monkeypatch):
    words = replace(TINY, codes=0)
    monkeypatch.setattr(bench_run, "SHAPES", {"words": words})
    bench = bench_run.Bench(model=None, shape="words", methods=("uncached", "max_logit", "dual"))
    rows = bench_run.run(bench, Progress(disable=True)).rows
    assert {row.task for row in rows} == {"text"}
    assert [row.method for row in rows] == ["reference", "uncached", "uncached", "dual"]


def test_the_command_writes_rows(tmp_path, monkeypatch):
    monkeypatch.setattr(bench_run, "SHAPES", {"small": TINY})
    file = tmp_path / "new" / "rows.json"
    threads = torch.get_num_threads()
    wanted = ["--quick", "--task", "text", "--task", "image", "--count", "4", "--method", "uncached"]
    result = CliRunner().invoke(
        app, ["bench", "sampling", *wanted, "--json", str(file), "--plot", str(tmp_path / "f.png")]
    )
    assert result.exit_code == 0, result.output
    assert torch.get_num_threads() == threads
    rows = json.loads(file.read_text())["rows"]
    assert [(row["model"], row["task"], row["method"]) for row in rows] == [
        *[("mini", "text", name) for name in ("reference", "uncached")],
        *[("mini", "image", name) for name in ("reference", "reference_ml_cache", "uncached")],
        *[("random", "text", name) for name in ("reference", "uncached")],
        *[("random", "image", name) for name in ("reference", "reference_ml_cache", "uncached")],
    ]
    for row in rows:
        assert 0 <= row["quality"] <= 1
        assert row["peak_bytes"] > 0
    assert (tmp_path / "f.png").is_file()


def test_wrong_use_is_said(tmp_path):
    nothing = CliRunner().invoke(app, ["bench", "sampling", "--model", "none", "--shape", "none"])
    assert (nothing.exit_code, "nothing to measure" in nothing.output) == (1, True)
    folder = CliRunner().invoke(app, ["bench", "sampling", "--json", str(tmp_path)])
    assert (folder.exit_code, "is a folder" in folder.output) == (1, True)
