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

    @property
    def total(self) -> int:
        """Both."""
        return self.keys_and_values + self.logits

    def __str__(self) -> str:
        return f"keys and values {self.keys_and_values:,}, logits {self.logits:,}"

    @classmethod
    def of(cls, network: Backbone, start: Canvas, requests: Mapping[int, Branches], *, logits: bool) -> Self:
        """Of rows with all branches that their guidance takes, in the precision of the weights.

        2 (keys and values) x layers x key/value heads x head width x tokens; and, with `logits`, for every branch the
        denoised positions (and one) x their columns.

        Args:
            network: the transformer; it may be on the meta device.
            start: the canvas before the first step.
            requests: the branches of the rows that are served.
            logits: whether logits are kept.
        """
        item = network.embedding.weight.element_size()
        per_token = sum(
            module.key.out_features + module.value.out_features
            for module in network.modules()
            if isinstance(module, Attention)
        )
        tokens = kept = 0
        for row, branches in requests.items():
            spans = [span for span in start.spans if span.row == row]
            used = {name for span in spans for name in span.plan.guidance.branches}
            tokens += sum(branches[name].context.numel() + start.lengths[row] for name in used)
            for columns in {span.columns for span in spans}:
                names = {name for span in spans if span.columns == columns for name in span.plan.guidance.branches}
                kept += (denoised(start, row, columns).numel() + 1) * (columns[1] - columns[0]) * len(names)
        return cls(keys_and_values=per_token * tokens * item, logits=kept * item if logits else 0)
