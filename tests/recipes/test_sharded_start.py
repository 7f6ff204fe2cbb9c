"""The processes of a sharded run begin with the weights of one, and none of them ever has the whole network."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from llada_like import llada_like
from tiny_recipes import Beginnings, Tiny, of_text
from torch import Tensor, distributed, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.testing._internal.distributed.fake_pg import FakeStore

from dimoo.backbone.model import Backbone
from dimoo.core.errors import ConfigError
from dimoo.core.peak import held, peak_bytes
from dimoo.core.sharded import fill
from recipes.config import DiffusionRecipe
from recipes.learning import diffusion, start
from recipes.learning.assemble import diffusion_module
from recipes.learning.diffusion import DiffusionModule
from recipes.learning.growth import StandIns
from recipes.running.estimate import estimate

WORLD = 3
STARTS = ("scratch", "equal", "adapters", "text", "codes")


@contextmanager
def process(rank: int) -> Iterator[None]:
    """One of `WORLD` processes, without the others: as nothing is exchanged, none is missed."""
    distributed.init_process_group("fake", store=FakeStore(), rank=rank, world_size=WORLD)
    try:
        yield
    finally:
        distributed.destroy_process_group()


def shard(module: DiffusionModule) -> DiffusionModule:
    """What Lightning does with the module in each process before training begins."""
    module._device_mesh = init_device_mesh("cpu", (WORLD, 1), mesh_dim_names=("data_parallel", "tensor_parallel"))
    module.configure_model()
    return module


def part(weight: Tensor) -> Tensor:
    assert isinstance(weight, DTensor)
    return weight.to_local().detach()


@pytest.fixture
def recipe(request: pytest.FixtureRequest, tiny: Tiny, beginnings: Beginnings, tmp_path: Path) -> DiffusionRecipe:
    """One that starts from nothing, from an equal model, with adapters on it, or from one with fewer ids."""
    (first,) = beginnings["sft"]
    match request.param:
        case "scratch":
            made = tiny("world_base")
        case "equal":
            made = tiny("world_base", first)
        case "adapters":
            made = tiny("lora", 'lora={"rank":5,"modules_to_save":["embedding"]}')
        case "text":
            made = tiny("pretrain", *of_text(llada_like().save(tmp_path / "talker")))
        case _:
            made = tiny("world_all")
    assert isinstance(made, DiffusionRecipe)
    return made


@pytest.mark.parametrize("recipe", STARTS, indirect=True)
def test_parts_are_those_of_one_process_bit_for_bit(recipe: DiffusionRecipe) -> None:
    wanted = dict(diffusion_module(recipe).backbone.named_parameters())
    parts: dict[str, list[Tensor]] = {name: [] for name in wanted}
    for rank in range(WORLD):
        with process(rank):
            for name, weight in shard(diffusion_module(recipe, filled=False)).backbone.named_parameters():
                assert weight.requires_grad == wanted[name].requires_grad
                parts[name].append(part(weight))
    for name, weight in wanted.items():
        assert torch.equal(torch.cat(parts[name]), weight), name


@pytest.mark.parametrize(
    ("recipe", "most"), [(name, 1 + (name in ("text", "codes"))) for name in STARTS], indirect=["recipe"]
)
def test_a_process_holds_its_parts_and_one_tensor_or_two_of_a_table_that_grows(
    recipe: DiffusionRecipe, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = diffusion_module(recipe).backbone
    largest = max(weight.nbytes for weight in whole.parameters())
    # Looking at pictures takes memory too, however large the network is.
    seen = StandIns(old=torch.ones(16, 32), asked=torch.ones(16, 2))
    monkeypatch.setattr(start, "stand_ins", lambda *_, **__: seen)
    divided = []

    def on_meta(module: nn.Module, **settings: Any) -> None:
        assert all(weight.is_meta for weight in module.parameters())
        divided.append(module)
        fully_shard(module, **settings)

    def measured(backbone: Backbone) -> None:
        assert held(backbone) < 1.05 * held(whole) / WORLD
        peaks.append(peak_bytes(lambda: original(backbone)))

    peaks: list[int] = []
    monkeypatch.setattr(diffusion, "fully_shard", on_meta)
    with process(1):
        module = diffusion_module(recipe, filled=False)
        original, module._fill = module._fill, measured
        shard(module)
    assert 0 < peaks[0] < 1.05 * most * largest < held(whole)
    assert len(divided) == recipe.backbone.layers + 1
    shared = recipe.run.model_copy(update={"devices": WORLD, "parallel": "fsdp"})
    foretold = estimate(recipe.model_copy(update={"accumulate": 1, "run": shared})).memory
    assert held(whole) / WORLD + peaks[0] < foretold["weights"] + foretold["gathered"]


@pytest.mark.parametrize(("rows", "start", "count"), [(7, 0, 7), (7, 2, 3), (2, 0, 2), (2, 1, 1), (9, 8, 1)])
@pytest.mark.parametrize("width", [(), (4,)])
def test_rows_are_filled_wherever_they_are(rows: int, start: int, count: int, width: tuple[int, ...]) -> None:
    """More processes than rows among them."""
    values = torch.arange(1.0, 1 + count * (width or (1,))[0]).view(count, *width)
    wanted = torch.zeros(rows, *width)
    fill(wanted, values, start)
    assert torch.equal(wanted[start : start + count], values)
    assert not wanted[:start].any()
    assert not wanted[start + count :].any()
    parts = []
    for rank in range(WORLD):
        with process(rank):
            holder = nn.Linear(1, 1, bias=False)
            holder.weight = nn.Parameter(torch.zeros(rows, *width))
            fully_shard(holder, mesh=init_device_mesh("cpu", (WORLD,)))
            fill(holder.weight, values, start)
            parts.append(part(holder.weight))
    assert torch.equal(torch.cat(parts), wanted)


@pytest.mark.parametrize("start", [1, 3])
def test_rows_that_there_are_not_cannot_be_filled(start: int) -> None:
    with pytest.raises(ConfigError, match=rf"rows {start}\.\.{start + 2} do not fit in a weight of 3 rows"):
        fill(torch.zeros(3, 2), torch.ones(3, 2), start)
