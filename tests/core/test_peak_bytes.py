from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from dimoo.core.peak import held, peak_bytes


@given(st.lists(st.tuples(st.sampled_from(["make", "view", "write", "drop"]), st.integers(0, 9)), max_size=20))
@settings(deadline=None, max_examples=40)
def test_the_peak_is_that_of_a_ledger(program: list[tuple[str, int]]) -> None:
    """Tensors come and go; the ledger knows for each which piece of memory it lies on."""
    tensors: list[Tensor] = []
    pieces: list[int] = []
    bytes_of: dict[int, int] = {}
    most = 0
    outside = torch.ones(1000)

    def call() -> None:
        nonlocal most
        for number, (what, choice) in enumerate(program):
            if what == "make":
                tensors.append(torch.empty(choice + 1, dtype=torch.float64))
                pieces.append(number)
                bytes_of[number] = 8 * (choice + 1)
            elif tensors:
                index = choice % len(tensors)
                if what == "view":
                    tensors.append(tensors[index].view(-1, 1)[:1])
                    pieces.append(pieces[index])
                elif what == "write":
                    tensors[index].fill_(1.0)
                    outside[:5].fill_(2.0)
                else:
                    del tensors[index], pieces[index]
            most = max(most, sum(bytes_of[piece] for piece in set(pieces)))

    assert peak_bytes(call) == most


def test_what_autograd_keeps_counts() -> None:
    weight = torch.ones(100, requires_grad=True)

    def chain() -> None:
        x = weight
        for _ in range(10):
            x = x.sin()  # its backward pass wants its input

    assert peak_bytes(chain) == 10 * 400
    with torch.no_grad():
        assert peak_bytes(chain) == 2 * 400


def test_numbers_are_not_needed() -> None:
    def call(device: str) -> int:
        x = torch.empty(10, 7, device=device)
        return peak_bytes(lambda: (x @ x.T).softmax(dim=-1) @ x)

    assert call("meta") == call("cpu") > 0


def test_parameters_and_buffers_are_held() -> None:
    assert held(nn.BatchNorm1d(5)) == 4 * 4 * 5 + 8  # two parameters, two averages, one count
