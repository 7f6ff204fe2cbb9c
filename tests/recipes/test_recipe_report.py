"""The page of a run: whole, plain and true, whatever has become of the run."""

from __future__ import annotations

import json
import math
import re
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_recipes import Tiny, before_step

from recipes.learning.diffusion import DiffusionModule
from recipes.learning.steps import StepModule
from recipes.report import main, write_report
from recipes.run import run
from recipes.watching import logs
from recipes.watching.curves import POINTS, TOP, WIDTH, plot

VOID = {"meta", "img", "br"}


class Page(HTMLParser):
    """Sees that tags are closed in their order, and keeps the text and what is loaded."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text: list[str] = []
        self.sources: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.open.append(tag)
        self.sources += [value or "" for name, value in attrs if name in ("src", "href")]

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def test_a_finished_run_has_every_curve_with_its_last_value(tiny: Tiny) -> None:
    name = "<b>&amp;"
    changes = ("run.sample_every=3", "run.validate_every=3", "run.validate_examples=8", "optimizer.spike=50")
    folder = run(tiny("world_base", *changes, "run.peak_tflops=0.001", f"run.name={name}"))
    made = (folder / "report.html").read_text()
    page = Page(made)
    text = "\n".join(page.text)
    assert name in page.text
    assert "diffusion recipe; step 7 of 7" in page.text
    assert len(page.sources) == 1
    assert page.sources[0].startswith("data:image/png;base64,")
    assert "Pictures: step0000006" in text
    last = {}
    for part in (logs.LEARNT, logs.SPEED):
        for row in logs.read_rows(folder / part / logs.FILE):
            last |= {name: value for name, value in row.items() if name != "step"}
    assert {"loss", "nll/image", "bound/image", "grad_norm", "lr", "tokens/s", "mfu", "skipped"} <= last.keys()
    for name, value in last.items():
        assert f"{value:.6g}" in page.text
        # Some are in the table alone: accuracy is drawn by masked share, the nll is not.
        if not re.fullmatch(r"tokens|memory_gb|nll/\w+/\w+|accuracy/\w+", name):
            assert f"{name} {value:.4g}" in page.text, name
    assert "Accuracy of image by masked share, to per cent" in text
    assert "Settings that differ from world_base" in text
    assert page.text[page.text.index("optimizer.spike") + 1 :][:2] == ["50.0", "null"]
    assert json.loads((folder / "environment.json").read_text())[0]["torch"] in page.text
    assert write_report(folder).read_text() == made


def test_a_run_that_goes_on_or_was_broken_off_has_one(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shown: list[str] = []

    def stop(module: StepModule) -> None:
        if module.steps_done in (0, 2):
            shown.append(write_report(Path(recipe.run.folder) / "world_base").read_text())
        if module.steps_done == 3:
            raise ConnectionError("out")

    recipe = tiny("world_base")
    before_step(monkeypatch, DiffusionModule, None, stop)
    with pytest.raises(ConnectionError):
        run(recipe)
    assert ["step 0 of 7" in shown[0], "step 2 of 7" in shown[1]] == [True, True]
    assert [Page(text).sources for text in shown] == [[], []]
    folder = Path(recipe.run.folder) / "world_base"
    capsys.readouterr()
    assert main([str(folder)]) == 0
    assert capsys.readouterr().out == f"{folder / 'report.html'}\n"
    assert "step 3 of 7" in (folder / "report.html").read_text()
    assert main([str(folder / "csv")]) == 1
    assert "it has no recipe.json" in " ".join(capsys.readouterr().err.split())


def test_a_damaged_config_is_named(tiny: Tiny, capsys: pytest.CaptureFixture[str]) -> None:
    folder = run(tiny("world_base", "run.steps=2"))
    (folder / "recipe.json").write_text('{"kind": ')
    assert main([str(folder)]) == 1
    assert "recipe.json is damaged, or no recipe" in " ".join(capsys.readouterr().err.split())


def test_a_tokenizers_run_has_its_losses(tiny: Tiny) -> None:
    folder = run(tiny("world_tokenizer", "run.sample_every=7"))
    text = Page((folder / "report.html").read_text()).text
    row = logs.read_rows(folder / "csv/metrics.csv")[0]
    assert {"Losses", "PSNR, in dB", "Speed", "Gradient norm"} <= set(text)
    assert any(re.fullmatch(r"l1 [\d.]+", part) for part in text)
    assert "l1" in row


@given(
    st.dictionaries(
        st.text(alphabet=st.characters(categories=("L", "P", "S")), min_size=1),
        st.lists(st.tuples(st.integers(0, 10**6), st.floats(width=32)), max_size=20),
        max_size=9,
    )
)
def test_any_values_make_a_drawing_that_stays_in_its_frame(curves: dict[str, list[tuple[float, float]]]) -> None:
    drawing = ET.fromstring(plot("a < b & c", curves))
    width, height = float(drawing.attrib["width"]), float(drawing.attrib["height"])
    space = "{http://www.w3.org/2000/svg}"
    finite = {name: [y for _, y in points if math.isfinite(y)] for name, points in curves.items()}
    texts = [element.text for element in drawing.iter(f"{space}text")]
    assert texts[0] == "a < b & c"
    for name, values in finite.items():
        assert (f"{name} {values[-1]:.4g}" in texts) if values else True
    lines = list(drawing.iter(f"{space}polyline"))
    assert len(lines) == sum(bool(values) for values in finite.values())
    for line in lines:
        for point in line.attrib["points"].split():
            x, y = map(float, point.split(","))
            assert 0 <= x <= width
            assert 0 <= y <= height


def test_long_curves_are_thinned_and_keep_their_end() -> None:
    points = [(step, float(step)) for step in range(12_345)]
    drawing = plot("long", {"value": points})
    drawn = drawing.split('points="')[1].split('"')[0].split()
    assert POINTS / 2 < len(drawn) <= POINTS
    assert drawn[-1] == f"{WIDTH - 10:.1f},{TOP:.1f}"
