from __future__ import annotations

import pytest
from cached_rows import toy

from dimoo.backbone.model import Backbone


@pytest.fixture(scope="session")
def backbone() -> Backbone:
    """In float32."""
    return toy()


@pytest.fixture(scope="session")
def exact() -> Backbone:
    """In float64, so that rounding decides no draw and no choice of a policy."""
    return toy().double()
