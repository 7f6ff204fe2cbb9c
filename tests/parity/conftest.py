"""What the parity tests share: the golden folder, its cases by kind, and what the loader makes of its weights.

A test that takes `case` runs once for every case whose kind is in its mark: `@pytest.mark.cases("t2i",
"inpaint")`. A test that takes `logits_case` runs once for every stored full forward. With no such case it is
skipped.
"""

from __future__ import annotations

import re

import pytest
from golden_folder import Golden
from golden_release import Released, load_released

from dimoo.backbone.model import Backbone


def pytest_configure(config: pytest.Config) -> None:
    folder = config.getoption("--golden")
    if not (folder / "cases.json").is_file():
        raise pytest.UsageError(f"--golden {folder}: there is no cases.json; give the folder that holds it")
    config.addinivalue_line("markers", "cases(*kinds): the kinds of golden cases that a parity test runs on")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    golden = Golden(metafunc.config.getoption("--golden"))
    if "case" in metafunc.fixturenames:
        kinds = {kind for mark in metafunc.definition.iter_markers("cases") for kind in mark.args}
        cases = [golden.case(name) for name in golden.info["cases"]]
        chosen = [pytest.param(case, id=case.name) for case in cases if case.kind in kinds]
        metafunc.parametrize("case", chosen)
    if "logits_case" in metafunc.fixturenames:
        found = (re.fullmatch(r"(logits\.\d+)\.ids", key) for key in golden.tensors)
        metafunc.parametrize("logits_case", [match[1] for match in found if match])


@pytest.fixture(scope="session")
def golden(request: pytest.FixtureRequest) -> Golden:
    return Golden(request.config.getoption("--golden"))


@pytest.fixture(scope="session")
def released(golden: Golden, tmp_path_factory: pytest.TempPathFactory) -> Released:
    """The golden weights, written as a released checkpoint and loaded as users do."""
    return load_released(golden, tmp_path_factory.mktemp("released"))


@pytest.fixture(scope="session")
def backbone(released: Released) -> Backbone:
    return released.backbone
