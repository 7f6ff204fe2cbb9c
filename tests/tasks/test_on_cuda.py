"""The same calls on a GPU: every task, in both dtypes; the same draws as on a CPU."""

import pytest
import torch
from released import write_released
from task_cases import mixture

from dimoo.backbone.layout import PackedLayout
from dimoo.presets.config import ImageSettings
from dimoo.tasks.assemble import load

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_task_runs(model, tmp_path, dtype):
    model.save(tmp_path / "model", dtype=torch.float32)
    loaded = load(tmp_path / "model", dtype=dtype, device="cuda")
    assert loaded.backbone.device.type == "cuda"
    results, wanted = loaded.run(mixture()), model.run(mixture())
    assert [type(one) for one in results] == [type(one) for one in wanted]
    for one, other in zip(results, wanted, strict=True):
        if not isinstance(one, str):
            assert one.size == other.size


def test_a_released_folder_runs(tmp_path):
    folder = write_released(tmp_path / "released")
    loaded = load(folder, dtype="bfloat16", device="cuda")
    assert {parameter.device.type for parameter in loaded.backbone.parameters()} == {"cuda"}
    assert {parameter.dtype for parameter in loaded.backbone.parameters()} == {torch.bfloat16}
    (made,) = loaded.generate("a cat", size=(32, 48), settings=ImageSettings(steps=2, guidance=4.0))
    assert made.size == (48, 32)
    exact, here = load(folder, device="cuda"), load(folder)
    with torch.no_grad():
        ids, layout = torch.arange(40), PackedLayout.of([16, 24])
        wanted = here.backbone.head(here.backbone(ids, layout))
        given = exact.backbone.head(exact.backbone(ids.cuda(), PackedLayout.of([16, 24], exact.backbone.device)))
    torch.testing.assert_close(given.cpu(), wanted, atol=1e-4, rtol=0)


def test_one_seed_gives_the_same_tokens_on_both_devices(model, tmp_path):
    model.save(tmp_path / "model", dtype=torch.float32)
    loaded = load(tmp_path / "model", device="cuda")
    for request in mixture():
        *_, here = model.stream([request])
        *_, there = loaded.stream([request])
        assert here.canvas.ids.tolist() == there.canvas.ids.cpu().tolist()
