"""The interface of packed attention.

Axes: Nq = query tokens, Nk = key tokens, H = query heads, Hkv = key/value heads, D = head width, S =
sequences.
"""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from dimoo.backbone.layout import PackedLayout
from dimoo.core.errors import BackendError


class AttentionBackend(Protocol):
    """Full attention within each sequence of a packed stream, none between sequences.

    out_i = sum_j softmax_j(q_i . k_j / sqrt(D)) v_j over the keys j of the sequence of i. Query head h uses
    the key/value head h * Hkv // H.
    """

    def attend(self, query: Tensor, key: Tensor, value: Tensor, layout: PackedLayout) -> Tensor:
        """Attend with query [Nq, H, D] to key and value [Nk, Hkv, D], giving [Nq, H, D].

        Raises:
            BackendError: the kernel is not installed or does not run on this device or dtype.
        """


def require_cuda(name: str, query: Tensor) -> None:
    """Refuse a GPU kernel elsewhere.

    Raises:
        BackendError: the tensors are not on a CUDA device.
    """
    if query.device.type != "cuda":
        raise BackendError(
            f"attention={name!r} runs on CUDA only, the tensors are on {query.device.type!r}; "
            "use attention='auto' or 'sdpa'"
        )


def not_installed(name: str, module: str, fix: str) -> BackendError:
    """The error for a kernel whose module cannot be imported."""
    return BackendError(f"attention={name!r} needs {module}, which is not here; {fix}, or use attention='auto'")
