"""`import dimoo` costs nothing, and every name it promises is there."""

from __future__ import annotations

import ast
import resource
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import dimoo


def test_import_loads_nothing() -> None:
    script = (
        "import sys, dimoo\n"
        "print([name for name in ('torch', 'numpy', 'pydantic', 'PIL', 'tokenizers') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_import_takes_less_than_half_a_second() -> None:
    def cost() -> float:
        """Processor seconds, which a busy machine does not stretch as it does the wall clock."""
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-c", "import dimoo"], check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    assert min(cost() for _ in range(3)) < 0.5


@pytest.mark.parametrize("name", [name for name in dimoo.__all__ if name != "__version__"])
def test_every_name_is_the_one_of_its_home(name: str) -> None:
    assert getattr(dimoo, name) is getattr(import_module(dimoo._HOMES[name]), name)


def test_type_checkers_see_the_same_names() -> None:
    """The imports under TYPE_CHECKING and the table that serves at run time are the same list."""
    tree = ast.parse(Path(dimoo.__file__).read_text(encoding="utf-8"))
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    seen = {alias.name: node.module for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert seen == dimoo._HOMES
    assert set(dimoo.__all__) == {*seen, "__version__"}
    assert set(dimoo.__all__) <= set(dir(dimoo))


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'dimoo' has no attribute 'lode'"):
        dimoo.lode  # noqa: B018


def test_types_are_shipped() -> None:
    assert (Path(dimoo.__file__).parent / "py.typed").is_file()
