"""What a store takes, from shapes alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from typing_extensions import Self

from dimoo.backbone.block import Attention
from dimoo.backbone.model import Backbone
from dimoo.cache.store import denoised
from dimoo.denoise.pack import Branches
from dimoo.diffusion.canvas import Canvas


@dataclass(frozen=True, kw_only=True)
class CacheSize:
    """Bytes of a store once all of its rows are in it."""

    keys_and_values: int
    logits: int
    read: int
    """On a CPU: memory that stored logits are read into, at most, which stays from step to step."""
    outputs: int

    @property
    def total(self) -> int:
        """All."""
        return self.keys_and_values + self.logits + self.read + self.outputs

    def __str__(self) -> str:
        parts = {
            "keys and values": self.keys_and_values,
            "logits": self.logits + self.read,
            "outputs of blocks": self.outputs,
        }
        return ", ".join(f"{name} {size:,}" for name, size in parts.items() if size)

    @classmethod
    def of(
        cls,
        network: Backbone,
        start: Canvas,
        requests: Mapping[int, Branches],
        *,
        logits: bool = False,
        outputs: bool = False,
    ) -> Self:
        """Of rows with all branches that their guidance takes, in the precision of the weights.

        2 (keys and values) x layers x key/value heads x head width x tokens; with `logits`, for every branch the
        denoised positions (and one) x their columns, and on a CPU as much again; with `outputs`, (layers - 1) x width
        x canvas tokens (and one).

        Args:
            network: the transformer; it may be on the meta device.
            start: the canvas before the first step.
            requests: the branches of the rows that are served.
            logits: whether logits are kept.
            outputs: whether the outputs of the blocks after the first are kept.
        """
        item = network.embedding.weight.element_size()
        per_token = sum(
            module.key.out_features + module.value.out_features
            for module in network.modules()
            if isinstance(module, Attention)
        )
        tokens = kept = read = canvases = 0
        for row, branches in requests.items():
            spans = [span for span in start.spans if span.row == row and bool(start.masked[span.positions].any())]
            used = {name for span in spans for name in span.plan.guidance.branches} & branches.keys()
            tokens += sum(branches[name].context.numel() + start.lengths[row] for name in used)
            canvases += len(used) * start.lengths[row]
            for columns in {span.columns for span in spans}:
                names = {name for span in spans if span.columns == columns for name in span.plan.guidance.branches}
                size = (columns[1] - columns[0]) * len(names & used)
                kept += size
                read += denoised(start, row, columns).numel() * size
        added = (len(network.blocks) - 1) * network.width * (canvases + 1)
        return cls(
            keys_and_values=per_token * tokens * item,
            logits=(kept + read) * item if logits else 0,
            read=read * item if logits and network.device.type == "cpu" else 0,
            outputs=added * item if outputs else 0,
        )
