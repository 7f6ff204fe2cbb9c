from __future__ import annotations

import subprocess
import sys

import pytest

from dimoo.backbone.config import BackboneConfig
from dimoo.core.config import parse
from dimoo.core.errors import ConfigError

GOOD = {"d_model": 32, "layers": 2, "heads": 4, "kv_heads": 2, "mlp_hidden": 48, "vocab_size": 64}


def test_defaults_and_round_trip() -> None:
    config = parse(BackboneConfig, GOOD)
    assert (config.rope_theta, config.norm_eps, config.rope_axes, config.attention) == (
        5e5,
        1e-5,
        (1,),
        "auto",
    )
    assert BackboneConfig.model_validate_json(config.model_dump_json()) == config


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"d_model": 30}, "use a multiple of 8"),
        ({"d_model": 12}, "no even head width"),
        ({"kv_heads": 3}, "does not divide heads 4"),
        ({"rope_axes": (2, 1)}, "divisor of the 4 rotary pairs"),
        ({"rope_axes": ()}, "rope_axes"),
        ({"rope_axes": (4, 0)}, "rope_axes.1"),
        ({"layers": 0}, "layers"),
        ({"attention": "flash"}, "attention"),
        ({"norm_eps": 0.0}, "norm_eps"),
        ({"rope_theta": 1.0}, "rope_theta"),
        ({"dropout": 0.1}, "dropout"),
    ],
)
def test_impossible_settings_are_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse(BackboneConfig, GOOD | change)


def test_the_config_is_free_of_torch() -> None:
    code = "import sys, dimoo.backbone.config; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
