"""What the parity tests share: the golden folder, its cases by kind, and the backbone loaded from it.

A test that takes `case` runs once for every case whose kind is in its mark: `@pytest.mark.cases("t2i",
"inpaint")`. A test that takes `logits_case` runs once for every stored full forward. With no such case it is
skipped.
"""

from __future__ import annotations

import re

import pytest
from golden_folder import Golden
from safetensors.torch import load_file

from dimoo.backbone.build import build_backbone
from dimoo.backbone.model import Backbone
from dimoo.core.tensors import load_exact
from dimoo.weights.llada import config_from_llada, llada_rules
from dimoo.weights.rules import to_ours


def pytest_configure(config: pytest.Config) -> None:
    folder = config.getoption("--golden")
    if not (folder / "cases.json").is_file():
        raise pytest.UsageError(f"--golden {folder}: there is no cases.json; give the folder that holds it")
    config.addinivalue_line("markers", "cases(*kinds): the kinds of golden cases that a parity test runs on")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    golden = Golden(metafunc.config.getoption("--golden"))
    if "case" in metafunc.fixturenames:
        kinds = {kind for mark in metafunc.definition.iter_markers("cases") for kind in mark.args}
        names = [name for name in golden.info["cases"] if name.split("_")[0] in kinds]
        metafunc.parametrize("case", [golden.case(name) for name in names], ids=names)
    if "logits_case" in metafunc.fixturenames:
        found = (re.fullmatch(r"(logits\.\d+)\.ids", key) for key in golden.tensors)
        metafunc.parametrize("logits_case", [match[1] for match in found if match])


@pytest.fixture(scope="session")
def golden(request: pytest.FixtureRequest) -> Golden:
    return Golden(request.config.getoption("--golden"))


@pytest.fixture(scope="session")
def backbone(golden: Golden) -> Backbone:
    """The released weights through the published rules."""
    config = config_from_llada(golden.json("config.json"))
    model = build_backbone(config)
    load_exact(model, to_ours(llada_rules(config.layers), load_file(golden.path / "backbone.safetensors")))
    return model.eval()
