"""The same calls on a GPU: every task, in both dtypes; the same draws as on a CPU."""

import pytest
import torch
from task_cases import mixture

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


def test_one_seed_gives_the_same_tokens_on_both_devices(model, tmp_path):
    model.save(tmp_path / "model", dtype=torch.float32)
    loaded = load(tmp_path / "model", device="cuda")
    for request in mixture():
        *_, here = model.stream([request])
        *_, there = loaded.stream([request])
        assert here.canvas.ids.tolist() == there.canvas.ids.cpu().tolist()
