"""The one look of every HTML page that dimoo writes: plain, inline CSS, nothing fetched."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from html import escape

from PIL import Image

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #222; background: #fafafa; margin: 2rem auto; max-width: 1040px;
  padding: 0 1rem; }
h1 { font-size: 1.6rem; margin-bottom: .2rem; } h2 { font-size: 1.15rem; margin: 2rem 0 .6rem; }
p.note { color: #666; margin-top: 0; }
.cards { display: flex; flex-wrap: wrap; gap: 12px; }
.strip { display: flex; gap: 10px; align-items: start; flex-wrap: wrap; padding: 10px; background: #fff;
  border-radius: 8px; box-shadow: 0 0 0 1px #e8e8e8; }
figure { margin: 0; max-width: 100%; } figure.words { width: 200px; }
figure img { max-width: 100%; image-rendering: pixelated; border-radius: 6px; box-shadow: 0 0 0 1px #ddd;
  display: block; }
small { color: #666; }
img.wide, svg { max-width: 100%; height: auto; }
figcaption { font-size: 13px; margin-top: 4px; overflow-wrap: anywhere; }
.right { color: #15803d; font-weight: 600; } .wrong { color: #b91c1c; font-weight: 600; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; } th, td { padding: .25rem .9rem .25rem 0; text-align: right; vertical-align: top;
  border-bottom: 1px solid #e5e5e5; font-variant-numeric: tabular-nums; max-width: 28rem; overflow-wrap: break-word; }
th:first-child, td:first-child { text-align: left; white-space: nowrap; } td.long { min-width: 16rem; }
@media (max-width: 700px) { body { margin: 1rem auto; padding: 0 .7rem; } th, td { text-align: left; } }
"""


LONG = 40
"""Characters of a cell from which on it is kept wide enough to be read, however narrow the window is."""


def page(title: str, note: str, sections: Sequence[tuple[str, str]]) -> str:
    """A whole HTML page.

    Args:
        title: shown and in the tab, plain text.
        note: a line below it, plain text.
        sections: (heading in plain text, body in HTML).
    """
    body = "\n".join(f"<h2>{escape(heading)}</h2>\n{content}" for heading, content in sections)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head>\n"
        f'<body><h1>{escape(title)}</h1><p class="note">{escape(note)}</p>\n{body}\n</body></html>\n'
    )


def figure(source: str, *lines: str, width: int) -> str:
    """A picture of a width, in CSS pixels, above lines of HTML that may be a little wider."""
    image = f'<img src="{escape(source)}" alt="" style="width: {width}px">'
    return f'<figure style="width: {max(width, 64)}px">{image}<figcaption>{"<br>".join(lines)}</figcaption></figure>'


def words(*lines: str) -> str:
    """Lines of HTML where others have a picture."""
    return f'<figure class="words"><figcaption>{"<br>".join(lines)}</figcaption></figure>'


def mark(right: bool | None) -> str:
    """A tick or a cross; nothing where the truth is not known."""
    if right is None:
        return ""
    return '<span class="right">&#10003;</span>' if right else '<span class="wrong">&#10007;</span>'


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of plain text, which scrolls by itself where a window is narrower; cells that a row lacks are empty."""
    width = max(map(len, (head, *rows)))
    filled = [(*row, *[""] * (width - len(row))) for row in (head, *rows)]
    top = "".join(f"<th>{escape(cell)}</th>" for cell in filled[0])
    body = "\n".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in filled[1:])
    return f'<div class="scroll"><table><tr>{top}</tr>\n{body}</table></div>'


def _cell(text: str) -> str:
    kind = ' class="long"' if len(text) > LONG else ""
    return f"<td{kind}>{escape(text)}</td>"


def inline(picture: Image.Image) -> str:
    """A picture as a data URI, so that a page needs no other file."""
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
