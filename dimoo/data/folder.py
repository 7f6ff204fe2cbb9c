"""A folder of pictures with captions beside them."""

from __future__ import annotations

import hashlib
from pathlib import Path

from dimoo.core.errors import DataError
from dimoo.data.checking import Progress, sorted_out, unseen
from dimoo.data.example import (
    LATE,
    Check,
    Example,
    OnBad,
    Verify,
    anything,
    at,
    file_size,
    read_header,
    read_image,
    settle,
)

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif")


class FolderSource:
    """Every picture in a folder and the folders below it, sorted by path.

    The caption of `red_bike.jpg` is the text of `red_bike.txt` beside it; without such a file it is the name
    itself, with `_` and `-` read as spaces: "red bike". White space in captions is joined to single spaces.

    All pictures are looked at on opening, so that a bad one shows up before training, not within.
    """

    def __init__(
        self,
        path: Path | str,
        *,
        on_bad: OnBad = "raise",
        check: Check = anything,
        verify: Verify = "pixels",
        progress: Progress = unseen,
    ) -> None:
        """Open a folder.

        Args:
            path: the folder.
            on_bad: "raise" one error that lists all bad pictures and captions, or "report": log them, keep
                them in `bad`, and go on without them.
            check: what pictures with their captions must pass besides; called by several threads.
            verify: "pixels": decode every picture; "headers": only open it, which is fast and finds no damage within.
            progress: is told how many files are looked at.

        Raises:
            DataError: the folder is missing, there are bad rows, or no good ones.
        """
        self.path = Path(path)
        if not self.path.is_dir():
            raise DataError(f"{self.path} is not a folder; give a folder of pictures")
        pictures = sorted(p for p in self.path.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
        if not pictures:
            raise DataError(f"{self.path} has no pictures, whose names end in {', '.join(SUFFIXES)}")
        read = read_image if verify == "pixels" else read_header

        def look(picture: Path) -> str:
            image, caption = read(picture), _caption(picture)
            check(Example(image=image, caption=caption))
            return caption

        self._rows, self.bad = sorted_out(pictures, look, lambda one: str(one.relative_to(self.path)), progress)
        settle(self.bad, source=self.path, good=len(self._rows), on_bad=on_bad)

    @property
    def size(self) -> int:
        """How many good pictures there are."""
        return len(self._rows)

    def digest(self) -> str:
        """Changes with the names of the good pictures and with their captions; a picture may be mended in its place."""
        found = hashlib.blake2b(digest_size=16)
        for picture, caption in self._rows:
            name = picture.relative_to(self.path).as_posix()
            found.update(f"{[name, caption]}\n".encode())
        return found.hexdigest()

    def file_sizes(self, index: int) -> list[int]:
        """See `FileSource`."""
        return [file_size(self._rows[at(index, self.size)][0])]

    def example(self, index: int) -> Example:
        """Picture and caption number `index`.

        Raises:
            IndexError: the index is out of range.
            DataError: the picture cannot be read: it has changed, or headers alone were looked at.
        """
        picture, caption = self._rows[at(index, self.size)]
        try:
            return Example(image=read_image(picture), caption=caption)
        except DataError as error:
            raise DataError(f"{picture}: {error}; {LATE}") from error


def _caption(picture: Path) -> str:
    text_file = picture.with_suffix(".txt")
    if not text_file.exists():
        return " ".join(picture.stem.replace("_", " ").replace("-", " ").split())
    try:
        caption = " ".join(text_file.read_text(encoding="utf-8").split())
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{text_file.name} cannot be read as UTF-8 text: {error}") from error
    if not caption:
        raise DataError(f"{text_file.name} is empty; write a caption, or remove it to use the file name")
    return caption
