from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image

from dimoo.data.world import WorldConfig
from dimoo.evaluation.cases import Case
from dimoo.evaluation.demo import make_demo
from dimoo.evaluation.report import score_rows, write_report
from dimoo.evaluation.score import Score, proportion
from dimoo.tasks.model import Dimoo


class Links(HTMLParser):
    """Collects what a page refers to, and how its tags nest."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.sources: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.sources += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def scores() -> dict[str, Score]:
    return {
        "count": proportion([True, False, True]),
        "floor_count": proportion([False] * 3),
        "ceiling_count": proportion([True] * 3),
        "questions": proportion([True]),
    }


def cases() -> list[Case]:
    picture = Image.new("RGB", (16, 16), "red")
    return [
        Case(name="count", right=right, picture=picture, words="two <b>apples</b>", combination="apple on red")
        for right in (True, False)
    ]


def test_scores_are_written_as_promised(tmp_path: Path) -> None:
    write_report(scores(), cases(), tmp_path / "new" / "folder")
    written = json.loads((tmp_path / "new" / "folder" / "scores.json").read_text())
    assert list(written) == ["count", "floor_count", "ceiling_count", "questions"]
    assert all(list(value) == ["score", "n", "low", "high"] for value in written.values())
    assert written["count"]["n"] == 3
    assert written["count"]["score"] == pytest.approx(2 / 3)
    assert written["count"]["low"] == pytest.approx(scores()["count"].low)


def test_the_page_needs_nothing_else(tmp_path: Path) -> None:
    path = write_report(scores(), cases(), tmp_path)
    links = Links(path.read_text())
    assert links.open == []
    assert len(links.sources) == 2
    assert all(source.startswith("data:image/png;base64,") for source in links.sources)
    assert {file.name for file in tmp_path.iterdir()} == {"scores.json", "index.html", "right.png", "wrong.png"}


def test_floor_and_ceiling_stand_beside_the_score() -> None:
    rows = score_rows(scores(), cases())
    assert [row[0] for row in rows] == ["count", "questions"]
    assert rows[0][1] == "0.667"
    assert rows[0][3:] == ("3", "1", "1", "0.000", "1.000")
    assert rows[1][3:] == ("1", "", "", "", "")


def test_no_grid_where_there_is_no_case(tmp_path: Path) -> None:
    write_report(scores(), [case for case in cases() if case.right], tmp_path)
    assert (tmp_path / "right.png").is_file()
    assert not (tmp_path / "wrong.png").exists()


def test_the_gallery_is_whole_and_repeatable(random_model: Dimoo, world: WorldConfig, tmp_path: Path) -> None:
    path = make_demo(random_model, world, tmp_path / "a", 0)
    assert path == tmp_path / "a" / "index.html"
    links = Links(path.read_text())
    assert links.open == []
    shown = set(links.sources)
    assert shown == {file.name for file in path.parent.iterdir()} - {"index.html"}
    sizes = {Image.open(path.parent / name).size for name in shown}
    assert sizes == {(64, 64), (64, 48)}
    make_demo(random_model, world, tmp_path / "b", 0)
    for file in path.parent.iterdir():
        assert file.read_bytes() == (tmp_path / "b" / file.name).read_bytes(), file.name
    other = make_demo(random_model, world, tmp_path / "c", 1)
    assert other.read_text() != path.read_text()


def test_inpainting_in_the_gallery_keeps_what_is_outside(
    random_model: Dimoo, world: WorldConfig, tmp_path: Path
) -> None:
    folder = make_demo(random_model, world, tmp_path, 0).parent
    for title in ("replace", "add", "remove"):
        before, mask, after = (
            Image.open(folder / f"inpaint_{title}_{part}.png") for part in ("before", "mask", "after")
        )
        outside = mask.point(lambda value: 255 - value)
        black = Image.new("RGB", before.size)
        kept = [Image.composite(picture, black, outside).tobytes() for picture in (before, after)]
        assert kept[0] == kept[1]
        assert before.tobytes() != after.tobytes()


def test_marks_follow_the_truth(random_model: Dimoo, world: WorldConfig, tmp_path: Path) -> None:
    """A model of noise gets no tick for a picture."""
    text = make_demo(random_model, world, tmp_path, 0).read_text()
    drawn = text.split("<h2>")[1]
    assert len(re.findall("<figure>", drawn)) == 13
    assert drawn.count('class="wrong"') == 13
