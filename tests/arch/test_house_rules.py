"""Rules of the house that no linter knows."""

from __future__ import annotations

import ast
import re
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = sorted([*(ROOT / "dimoo").rglob("*.py"), *(ROOT / "recipes").rglob("*.py")])
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
GLOBAL_DRAWS = re.compile(
    r"torch\.(manual_seed|seed|set_rng_state|cuda\.manual_seed(_all)?)|(np|numpy)\.random\.(?!default_rng|Generator)\w+"
    r"|random\.(seed|random|randint|choice|shuffle|sample)|(lightning|L)\.seed_everything"
)


def global_draws(code: str) -> list[str]:
    """Attribute accesses that read or write a global random state."""
    names = (ast.unparse(node) for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Attribute))
    return [name for name in names if GLOBAL_DRAWS.fullmatch(name)]


def test_no_global_randomness() -> None:
    found = {str(path.relative_to(ROOT)): global_draws(path.read_text(encoding="utf-8")) for path in SOURCES}
    assert {path: names for path, names in found.items() if names} == {}


def test_global_randomness_would_be_noticed() -> None:
    assert global_draws("torch.manual_seed(0)") == ["torch.manual_seed"]
    assert global_draws("import numpy as np; x = np.random.rand(3)") == ["np.random.rand"]
    assert global_draws("torch.Generator().manual_seed(0); np.random.default_rng(0)") == []


@pytest.mark.parametrize(
    "module",
    [
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for path in SOURCES
        if path.is_relative_to(ROOT / "dimoo")
    ],
)
def test_every_module_imports(module: str) -> None:
    assert import_module(module)


def test_no_file_outgrows_a_few_screens() -> None:
    sizes = {str(path.relative_to(ROOT)): len(path.read_text(encoding="utf-8").splitlines()) for path in SOURCES}
    assert {path: lines for path, lines in sizes.items() if lines > 300} == {}


def test_the_map_is_true() -> None:
    """README's map names every folder of the package, and nothing that is not there."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (tree,) = re.findall(r"^```\n(dimoo/\n.*?)^```$", readme, re.DOTALL | re.MULTILINE)
    inside = set(re.findall(r"^  (\w+)/ ", tree, re.MULTILINE))
    beside = set(re.findall(r"^(\w+)/ ", tree, re.MULTILINE))
    files = [path.relative_to(ROOT / "dimoo") for path in (ROOT / "dimoo").rglob("*.*") if path.suffix != ".pyc"]
    folders = {path.parts[0] for path in files if len(path.parts) > 1}
    assert inside == folders
    assert [name for name in beside if not (ROOT / name).is_dir()] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_between_documents_lead_somewhere(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    targets = re.findall(r"\]\(([^)#\s]+)[^)]*\)", text)
    missing = [t for t in targets if "://" not in t and not (document.parent / t).exists()]
    assert missing == []


def test_torch_is_pinned_for_development_only() -> None:
    tomllib = pytest.importorskip("tomllib", reason="part of Python from 3.11 on")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    pinned = {
        extra
        for extra, wants in project["optional-dependencies"].items()
        if any(want.startswith("torch==") for want in wants)
    }
    assert pinned == {"dev"}
    assert [want for want in project["dependencies"] if "==" in want or "<" in want] == []
