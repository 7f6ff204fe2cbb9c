"""Batched equals single, with guidance on: prompts, sizes and tasks of all kinds next to each other."""

import pytest
import torch
from task_cases import all_equal, equal, mixture

from dimoo.denoise import RoutedDenoiser
from dimoo.presets.config import ImageSettings
from dimoo.tasks import engine
from dimoo.tasks.engine import RoutedDenoiser as Used


@pytest.fixture
def first_logits(monkeypatch):
    """The logits of the first step of every run, by row and columns."""
    runs = []

    class Recorded(RoutedDenoiser):
        fresh = True

        def __call__(self, canvas, queries):
            logits = super().__call__(canvas, queries)
            if self.fresh:
                runs.append([(query.row, query.columns, rows) for query, rows in zip(queries, logits, strict=True)])
            self.fresh = False
            return logits

    assert Used is RoutedDenoiser
    monkeypatch.setattr(engine, "RoutedDenoiser", Recorded)
    return runs


def test_logits_of_the_first_step(model, first_logits):
    requests = mixture()
    model.run(requests)
    for request in requests:
        model.run([request])
    together, *alone = first_logits
    assert [row for row, _, _ in together] == [0, 1, 2, 3, 4, 5]
    for (_, columns, logits), ((_, own_columns, own),) in zip(together, alone, strict=True):
        assert columns == own_columns
        torch.testing.assert_close(logits, own, atol=1e-5, rtol=0)
        assert float(own.std()) > 0.1  # far above the tolerance
    assert [logits.shape[0] for _, _, logits in together] == [2, 2, 1, 2, 1, 2]  # guided pictures have two branches


@pytest.mark.parametrize("shift", [0, 100, 200])
@pytest.mark.parametrize("guidance", [0.0, 3.0])
def test_results_are_the_same_to_the_last_bit(model, shift, guidance):
    settings = ImageSettings(steps=5, guidance=guidance)
    requests = [type(each)(**{**vars(each), "seed": each.seed + shift}) for each in mixture()]
    together = model.run(requests, image=settings)
    alone = [model.run([request], image=settings)[0] for request in requests]
    assert all_equal(together, alone)
    assert all_equal(model.run(requests[::-1], image=settings), alone[::-1])


def test_tokens_are_the_same(model):
    requests = mixture()
    *_, last = model.stream(requests)
    for index, request in enumerate(requests):
        *_, own = model.stream([request])
        assert own.canvas.ids.tolist() == last.canvas.row(index).tolist()


def test_requests_differ_from_each_other(model):
    """What the tests above compare is not one and the same picture."""
    first, *_, last = model.run(mixture())
    assert first.size == last.size
    assert not equal(first, last)  # the same seed and size, another prompt


def test_the_model_is_as_it_was(model):
    before = {name: tensor.clone() for name, tensor in model.backbone.state_dict().items()}
    state = torch.random.get_rng_state()
    model.run(mixture())
    assert all(torch.equal(before[name], tensor) for name, tensor in model.backbone.state_dict().items())
    assert torch.equal(torch.random.get_rng_state(), state)  # nothing draws from the global generator
    assert not model.backbone.training
