"""Compiled blocks are the blocks, compiled once for all layers and lengths."""

from __future__ import annotations

import copy
import inspect
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch._dynamo.backends.registry import lookup_backend

from dimoo.backbone.block import EAGER, Block
from dimoo.backbone.compiled import Halved, Replayed, after, before, compiled, require_compiler
from dimoo.backbone.layout import PackedLayout
from dimoo.backbone.model import Backbone
from dimoo.cache.store import KeyValueStore
from dimoo.core.errors import BackendError

LENGTHS = ([5], [7], [3, 4], [9, 9], [2], [1, 1], [30, 2, 1], [4, 4, 4])
"""Two tokens and more, of one sequence or several, with and without joining them."""
HALVES = 2


@dataclass
class Counting:
    """A backend of `torch.compile` that counts the graphs that it is given."""

    name: str = "eager"
    graphs: int = 0
    modes: set[str | None] = field(default_factory=set)

    def __call__(self, graph: Any, inputs: list[Tensor], mode: str | None = None) -> Callable[..., Any]:
        self.graphs += 1
        self.modes.add(mode)
        return lookup_backend(self.name)(graph, inputs)


def run(model: Backbone, lengths: list[int]) -> Tensor:
    return model(torch.arange(sum(lengths)) % 64, PackedLayout.of(lengths))


@pytest.fixture(scope="module")
def three(make_model: Callable[..., Backbone]) -> Backbone:
    return make_model(layers=3)


def test_all_layers_and_lengths_share_one_compilation_of_each_half(three: Backbone) -> None:
    backend = Counting()
    fast = compiled(three, backend=backend)
    assert backend.graphs == 0, "nothing is compiled before the first pass"
    with torch.no_grad():
        for lengths in LENGTHS:
            assert torch.equal(run(fast, lengths), run(three, lengths))
            assert backend.graphs == HALVES
        for _ in range(2):  # torch holds no length 1 for dynamic: once more, and no oftener
            assert torch.equal(run(fast, [1]), run(three, [1]))
            assert backend.graphs == 2 * HALVES
    for lengths in LENGTHS:
        run(fast, lengths)
        assert backend.graphs == 3 * HALVES, "with gradients: once more"


@pytest.fixture(scope="module")
def fast(model: Backbone) -> Backbone:
    return compiled(model, backend="eager")


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=7))
def test_any_lengths_give_what_they_give_uncompiled(model: Backbone, fast: Backbone, lengths: list[int]) -> None:
    with torch.no_grad():
        assert torch.equal(run(fast, lengths), run(model, lengths))


@pytest.mark.parametrize("frozen", [False, True])
def test_gradients_are_those_of_eager(make_model: Callable[..., Backbone], frozen: bool) -> None:
    backend = Counting("aot_eager")
    plain = make_model()
    plain.embedding.requires_grad_(not frozen)
    fast = compiled(plain, backend=backend)
    weights = [weight for weight in plain.parameters() if weight.requires_grad]

    def gradients(which: Backbone, lengths: list[int]) -> list[Tensor]:
        logits = which.head(run(which, lengths))
        loss = nn.functional.cross_entropy(logits, torch.arange(len(logits)))
        return list(torch.autograd.grad(loss, weights))

    for lengths in LENGTHS:
        for got, wanted in zip(gradients(fast, lengths), gradients(plain, lengths), strict=True):
            torch.testing.assert_close(got, wanted, atol=1e-6, rtol=1e-5)
    # A stream that takes no gradients (the first block's, over a frozen embedding) is another input.
    assert backend.graphs == HALVES * (1 + frozen)


def test_weights_are_shared_under_the_same_names_and_the_given_model_stays_as_it_is(
    make_model: Callable[..., Backbone],
) -> None:
    plain = make_model().eval()
    fast = compiled(plain, backend="eager")
    assert not fast.training
    assert compiled(plain.train(), backend="eager").training
    assert {name: id(weight) for name, weight in fast.named_parameters()} == {
        name: id(weight) for name, weight in plain.named_parameters()
    }
    assert list(fast.state_dict()) == list(plain.state_dict())
    executions = [[block.execution for block in which.blocks if isinstance(block, Block)] for which in (plain, fast)]
    assert executions[0] == [EAGER, EAGER]
    assert isinstance(executions[1][0], Halved)
    assert executions[1][0] is executions[1][1]


def test_copies_compute_with_their_own_weights(make_model: Callable[..., Backbone]) -> None:
    plain = make_model()
    backend = Counting()
    fast = compiled(plain, backend=backend)
    with torch.no_grad():
        first = run(fast, [5, 3])
        other = copy.deepcopy(fast)
        for weight in other.parameters():
            weight.mul_(1.5)
        scaled = copy.deepcopy(plain)
        scaled.load_state_dict(other.state_dict())
        assert torch.equal(run(other, [5, 3]), run(scaled, [5, 3]))
        assert torch.equal(run(fast, [5, 3]), first)
        assert not torch.allclose(run(other, [5, 3]), first)
    assert backend.graphs == HALVES


@pytest.mark.skipif(
    "isolate_recompiles" not in inspect.signature(torch.compile).parameters, reason="this torch counts them together"
)
def test_models_do_not_use_up_each_others_compilations(make_model: Callable[..., Backbone]) -> None:
    with torch._dynamo.config.patch(recompile_limit=1), torch.no_grad():
        for width in (8, 16, 24):
            model = make_model(d_model=width, layers=1)
            assert torch.equal(run(compiled(model, backend="eager"), [3, 4]), run(model, [3, 4]))


def test_a_store_of_another_layout_is_refused_as_ever(fast: Backbone) -> None:
    partial = PackedLayout(positions=torch.arange(2), query_lengths=(2,), key_lengths=(5,))
    with torch.no_grad(), pytest.raises(BackendError, match=r"NoKV gave 2 keys and 2 values to block 0.*has 5"):
        fast(torch.arange(2), partial)


@dataclass
class Graphed:
    """A half as CUDA graphs make it: every call writes its outputs to the same memory."""

    half: Callable[..., Any]
    memory: dict[torch.Size, Any] = field(default_factory=dict)

    def __call__(self, *inputs: Any) -> Any:
        made = self.half(*inputs)
        parts = made if isinstance(made, tuple) else (made,)
        kept = self.memory.setdefault(parts[0].shape, tuple(map(torch.empty_like, parts)))
        for place, part in zip(kept, parts, strict=True):
            place.copy_(part)
        return kept if isinstance(made, tuple) else kept[0]


def test_what_a_graph_gives_outlives_its_next_replay(three: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[None] = []
    monkeypatch.setattr(torch.compiler, "cudagraph_mark_step_begin", lambda: begun.append(None))
    execution = Halved(before=Replayed(half=Graphed(before)), after=Replayed(half=Graphed(after)))
    fast = compiled(three, backend="eager")
    for block in fast.blocks:
        block.execution = execution  # type: ignore[assignment]

    def steps(model: Backbone) -> list[Tensor]:
        """Hidden states of a whole step and of one that computes two tokens anew against a store."""
        store, layout = KeyValueStore(3), PackedLayout.of([4, 3])
        whole = model(torch.arange(7), layout, store.writing(None))
        rows = torch.tensor([1, 6])
        some = PackedLayout(positions=layout.positions[rows], query_lengths=(1, 1), key_lengths=(4, 3))
        return [whole, model(torch.tensor([9, 8]), some, store.writing(rows))]

    with torch.no_grad():
        assert all(map(torch.equal, steps(fast), steps(three)))
    assert len(begun) == 2 * 3 * HALVES, "each half of each block is an iteration of its own"
    with pytest.raises(BackendError, match=r"for sampling; use torch\.no_grad\(\), or compile=True to train"):
        run(fast, [3])


def test_graphs_are_of_one_length_each(three: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dimoo.backbone.compiled._require_cuda", lambda device, graphs: None)
    backend = Counting()
    fast = compiled(three, graphs=True, backend=backend)
    with torch.no_grad():
        for lengths, known in (([5], 1), ([7], 2), ([3, 4], 2), ([4], 3), ([2, 2], 3), ([5], 3)):
            assert torch.equal(run(fast, lengths), run(three, lengths))
            assert backend.graphs == HALVES * known
    assert backend.modes == {"reduce-overhead"}, "torch's name for CUDA graphs"


def test_graphs_are_refused_off_cuda(model: Backbone) -> None:
    for refused in (lambda: compiled(model, graphs=True), lambda: require_compiler(torch.device("cpu"), graphs=True)):
        with pytest.raises(BackendError, match=r"CUDA graphs, and the device is 'cpu'; use compile=True there"):
            refused()


def test_a_compiler_that_does_not_work_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> Any:
        raise RuntimeError("no working compiler\nlong story")

    monkeypatch.setattr(torch, "compile", broken)
    with pytest.raises(BackendError, match=r"needs a C\+\+ compiler \(g\+\+.* failed: no working compiler; install it"):
        require_compiler(torch.device("cpu"))


@pytest.mark.slow
def test_without_a_compiler_it_says_so() -> None:
    code = "import torch; from dimoo.backbone.compiled import require_compiler; require_compiler(torch.device('cpu'))"
    missing = {**os.environ, "CXX": "no-such-compiler", "TORCHINDUCTOR_FORCE_DISABLE_CACHES": "1"}
    done = subprocess.run([sys.executable, "-c", code], env=missing, capture_output=True, text=True, check=False)
    assert "BackendError: compile=True needs a C++ compiler" in done.stderr


@pytest.mark.slow
def test_inductor_equals_eager(three: Backbone) -> None:
    require_compiler(torch.device("cpu"))
    fast = compiled(three)
    with torch.no_grad():
        for lengths in (*LENGTHS, [1]):
            torch.testing.assert_close(run(fast, lengths), run(three, lengths), atol=1e-5, rtol=1e-5)
    weights = list(three.parameters())[:-1]  # not the head's
    got, wanted = (torch.autograd.grad(run(which, [5, 3]).square().mean(), weights) for which in (fast, three))
    for one, other in zip(got, wanted, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)


@pytest.mark.gpu
@pytest.mark.parametrize("graphs", [False, True])
def test_inductor_equals_eager_on_a_gpu(make_model: Callable[..., Backbone], graphs: bool) -> None:
    plain = make_model(layers=3).cuda()
    fast = compiled(plain, graphs=graphs)
    with torch.no_grad():
        for _ in range(4):  # graphs are warmed up, recorded, replayed
            for lengths in LENGTHS[:3]:
                tokens, layout = torch.arange(sum(lengths), device="cuda") % 64, PackedLayout.of(lengths, "cuda")
                stores = KeyValueStore(3), KeyValueStore(3)
                got, wanted = (
                    which(tokens, layout, store.writing(None))
                    for which, store in zip((fast, plain), stores, strict=True)
                )
                torch.testing.assert_close(got, wanted, atol=1e-4, rtol=1e-4)
                rows = torch.arange(len(tokens), device="cuda")
                for layer in range(3):
                    one, other = (store.values(layer, rows) for store in stores)
                    torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)
