"""Options of the whole suite. They must be known wherever pytest is pointed, so they live at the root."""

from __future__ import annotations

from pathlib import Path

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--golden",
        metavar="DIR",
        type=Path,
        default=Path(__file__).parent / "parity" / "golden" / "lumina_tiny",
        help="folder with cases.json that the parity tests read (default: the copy in the project)",
    )
    parser.addoption(
        "--model",
        metavar="FOLDER",
        default="mini",
        help="checkpoint that the tests of every task ask (default: the bundled one)",
    )
