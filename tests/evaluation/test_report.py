from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest
from PIL import Image

from dimoo.data.world import WorldConfig
from dimoo.evaluation.cases import Case
from dimoo.evaluation.demo import make_demo
from dimoo.evaluation.page import LONG, STYLE, table
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


def test_what_is_left_out_is_said(tmp_path: Path) -> None:
    path = write_report(scores(), cases(), tmp_path, {"edit_add": "no <task>"})
    assert "<td>edit_add</td><td>no &lt;task&gt;</td>" in path.read_text()
    assert "Left out" not in write_report(scores(), cases(), tmp_path).read_text()


def sections(path: Path) -> dict[str, str]:
    return dict(part.split("</h2>", 1) for part in path.read_text().split("<h2>")[1:])


@pytest.fixture(scope="module")
def gallery(willing_model: Dimoo, world: WorldConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_demo(willing_model, world, tmp_path_factory.mktemp("gallery"), 0)


def test_the_gallery_is_whole_and_repeatable(
    gallery: Path, willing_model: Dimoo, world: WorldConfig, tmp_path: Path
) -> None:
    links = Links(gallery.read_text())
    assert links.open == []
    shown = links.sources
    assert sorted(shown) == sorted({file.name for file in gallery.parent.iterdir()} - {"index.html"})
    sizes = {Image.open(gallery.parent / name).size for name in shown}
    assert sizes == {(64, 64), (64, 48), (96, 64), (128, 64)}
    again = make_demo(willing_model, world, tmp_path, 0)
    for file in gallery.parent.iterdir():
        assert file.read_bytes() == (again.parent / file.name).read_bytes(), file.name


def test_the_gallery_has_every_task(gallery: Path) -> None:
    found = sections(gallery)
    assert len(found) == 16
    for title, body in found.items():
        assert "<figure" in body, title
        assert "Left out" not in body, title
    assert found["Editing"].count('class="strip"') == 10
    assert found["Control by a map"].count(">truth</figcaption>") == 4
    assert found["Words alone"].count("<img") == 0
    assert found["How a picture comes about"].count("<img") == 2  # the steps of this model


def test_marks_follow_the_truth(gallery: Path) -> None:
    """A model of noise gets no tick for a picture, but keeps what it must."""
    found = sections(gallery)
    for title, ticks, crosses in (
        ("Pictures from prompts", 0, 13),
        ("Editing", 0, 10),
        ("Style in words", 0, 5),
        ("Dense prediction", 0, 4),
        ("Retouching", 1, 2),  # what is undone is as before
    ):
        assert (found[title].count('class="right"'), found[title].count('class="wrong"')) == (ticks, crosses), title


def test_what_a_model_was_not_taught_is_left_out(random_model: Dimoo, world: WorldConfig, tmp_path: Path) -> None:
    found = sections(make_demo(random_model, world, tmp_path, 0))
    left_out = {title for title, body in found.items() if "Left out: this model has no task" in body}
    assert "<figure" in found["Pictures from prompts"]
    assert "<figure" in found["Questions"]
    assert "takes 1 pictures, not 2" in found["Questions about two pictures"]
    assert left_out == set(found) - {
        "Pictures from prompts",
        "How a picture comes about",
        "Questions",
        "Questions about two pictures",
    }
    assert all("<figure" not in found[title] for title in left_out)


def test_nothing_is_shown_that_must_stay_and_did_not(gallery: Path) -> None:
    """The middle of a continued picture is the given one, in the files themselves."""
    for row in range(2):
        small, larger, largest = (
            Image.open(gallery.parent / f"larger_canvases_{row:02}_{column}.png") for column in range(3)
        )
        for inner, outer in ((small, larger), (larger, largest)):
            assert outer.width == inner.width + 32
            middle = outer.crop((16, 0, outer.width - 16, outer.height))
            assert middle.tobytes() == inner.tobytes()


def test_a_tables_rows_are_as_wide_as_its_widest_and_it_scrolls_by_itself() -> None:
    made = ElementTree.fromstring(table(("a", "b"), [("1",), ("2", "<3>", "x" * (LONG + 1)), ()]))
    assert made.attrib["class"] == "scroll"
    (found,) = made
    cells = [[(cell.tag, cell.text or "") for cell in row] for row in found]
    assert cells == [
        [("th", "a"), ("th", "b"), ("th", "")],
        [("td", "1"), ("td", ""), ("td", "")],
        [("td", "2"), ("td", "<3>"), ("td", "x" * (LONG + 1))],
        [("td", "")] * 3,
    ]
    assert [cell.text for cell in made.iter("td") if cell.get("class") == "long"] == ["x" * (LONG + 1)]
    assert ".scroll { overflow-x: auto; }" in STYLE
    assert "svg { max-width: 100%; height: auto; }" in STYLE
