"""What is foretold of a run is what the same run takes."""

from __future__ import annotations

import pytest
import torch
from tiny_recipes import Tiny
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from dimoo.core.errors import ConfigError
from dimoo.core.peak import peak_bytes
from recipes.learning.assemble import diffusion_module
from recipes.run import main
from recipes.running.estimate import estimate

ROOMY = ("run.batch_size=12", "backbone.layers=3", "backbone.d_model=64", "backbone.mlp_hidden=160")


@pytest.mark.parametrize("slice_loss", ["true", "false"])
def test_operations_are_those_that_torch_counts(tiny: Tiny, slice_loss: str) -> None:
    recipe = tiny("world_base", *ROOMY, "accumulate=2", f"slice_loss={slice_loss}")
    module = diffusion_module(recipe)
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        for entry in module.corrupted(0):
            module.objective.loss(module.backbone, entry).terms.total.backward()
    counts = counter.get_flop_counts()["Global"]
    found = estimate(recipe)
    products = counts[torch.ops.aten.mm] + counts.get(torch.ops.aten.addmm, 0)
    assert found.operations["blocks"] + found.operations["head"] == pytest.approx(products, rel=5e-3)  # norms aside
    assert found.operations["attention"] == counts[torch.ops.aten.bmm]


def test_parameters_and_tokens_are_the_networks(tiny: Tiny) -> None:
    recipe = tiny("world_base", *ROOMY, "accumulate=2")
    module, found = diffusion_module(recipe), estimate(recipe)
    assert sum(found.parameters.values()) == sum(value.numel() for value in module.backbone.parameters())
    noisy = module.corrupted(0)
    assert found.tokens == sum(entry.ids.numel() for entry in noisy)
    assert found.masked == sum(entry.rows.numel() for entry in noisy) > 0
    assert found.memory["weights"] == found.memory["gradients"] == 4 * sum(found.parameters.values())
    assert found.memory["AdamW"] == 2 * found.memory["weights"]


@pytest.mark.parametrize("chunk", [8, 4096])
def test_activations_are_what_the_step_holds(tiny: Tiny, chunk: int) -> None:
    """Attention is computed here group by group, which holds some copies that a fused kernel does not."""
    recipe = tiny("world_base", *ROOMY, "accumulate=1", f"loss_chunk={chunk}")
    module = diffusion_module(recipe)
    for parameter in module.backbone.parameters():
        parameter.grad = torch.zeros_like(parameter)
    (entry,) = module.corrupted(0)
    real = peak_bytes(lambda: module.objective.loss(module.backbone, entry).terms.total.backward())
    assert estimate(recipe).memory["activations"] == pytest.approx(real, rel=0.1)


def test_processes_share_what_they_share(tiny: Tiny) -> None:
    alone = estimate(tiny("world_base", *ROOMY, "accumulate=4", "ema=0"))
    copies = estimate(tiny("world_base", *ROOMY, "accumulate=1", "run.devices=4", "ema=0"))
    parts = estimate(tiny("world_base", *ROOMY, "accumulate=1", "run.devices=4", "ema=0", "run.parallel=fsdp"))
    assert (alone.tokens, alone.masked, alone.operations) == (copies.tokens, copies.masked, copies.operations)
    assert copies.memory == alone.memory
    for name in ("weights", "gradients", "AdamW"):
        assert parts.memory[name] == alone.memory[name] // 4
    assert parts.memory["gathered"] > 0
    assert (alone.processes, parts.processes) == (1, 4)


def test_the_command_prints_and_stops(tiny: Tiny, capsys: pytest.CaptureFixture[str], tmp_path: object) -> None:
    assert main(["world_base", "--estimate", "--set", f"run.folder={tmp_path}"]) == 0
    printed = capsys.readouterr().out
    for word in ("parameters", "activations", "TFLOP", "masked"):
        assert word in printed
    with pytest.raises(ConfigError, match="--estimate looks at recipes of kind 'diffusion', not 'tokenizer'"):
        estimate(tiny("world_tokenizer"))
