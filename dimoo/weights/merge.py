"""Several checkpoints of one model -> their mean: the last ones of a run, or runs that went on from one start."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from dimoo.core.errors import CheckpointError
from dimoo.weights.card import HERE, model_card
from dimoo.weights.checkpoint import Checkpoint, write_checkpoint
from dimoo.weights.layout import Parts
from dimoo.weights.shards import Progress, silent


@torch.no_grad()
def merge(
    sources: Sequence[Path],
    target: Path,
    *,
    shares: Sequence[float] | None = None,
    dtype: torch.dtype | None = None,
    shard_size: int | str = "5GB",
    progress: Progress = silent,
) -> Path:
    """Write the weighted mean of checkpoints, w = sum_i share_i w_i; returns its folder.

    As LLaDA2.0 does with the best checkpoints of a run. The sum is made in float32, which one backbone needs memory
    for; the sources are read one tensor at a time. Everything but the weights and the model card is the first one's.

    Args:
        sources: two checkpoint folders or more, in any layout, of one shape, vocabulary and tokenizers.
        target: where to; an older checkpoint in it is replaced at the end, as a whole.
        shares: how much each counts, 1 in all; None: all the same. One below 0 leads away from a checkpoint.
        dtype: in which the weights are stored; None: as the first one's are.
        shard_size: how large one file of weights may become, in bytes or as "5GB".
        progress: told the bytes read of a checkpoint, and their sum.

    Raises:
        CheckpointError: there are fewer than two, the shares are not as many or do not sum to 1, a source is missing or
            corrupt, they do not fit each other, or the target is one of them or cannot be written.
    """
    if len(sources) < 2:
        raise CheckpointError(f"cannot merge {len(sources)} checkpoint; give two or more")
    weights = [1 / len(sources)] * len(sources) if shares is None else list(shares)
    if len(weights) != len(sources) or not abs(sum(weights) - 1) < 1e-6:
        raise CheckpointError(f"the shares {weights} of {len(sources)} checkpoints must be one each, and 1 in all")
    if target.resolve() in [source.resolve() for source in sources]:
        raise CheckpointError(f"cannot merge into {target}, which is one of the checkpoints; choose another folder")
    opened = [Checkpoint.open(source) for source in sources]
    parts = [checkpoint.parts() for checkpoint in opened]
    identities = [_identity(part) for part in parts]
    for source, identity in zip(sources, identities, strict=True):
        if other := [what for what, value in identity.items() if value != identities[0][what]]:
            raise CheckpointError(f"{source} has another {other[0]} than {sources[0]}; they must agree")
    total = opened[0].skeleton("sdpa").float().to_empty(device="cpu")
    own = total.state_dict()
    for tensor in own.values():
        tensor.zero_()
    for checkpoint, weight in zip(opened, weights, strict=True):
        for name, values in checkpoint.filling(total).values(progress):
            own[name].add_(values.float(), alpha=weight)
    stored = opened[0].filling(total).shards.dtypes[0] if dtype is None else dtype
    count = sum(tensor.numel() for tensor in own.values())
    precision = str(stored).removeprefix("torch.")
    write_checkpoint(
        target,
        parts[0],
        total,
        layout=opened[0].layout,
        dtype=stored,
        shard_size=shard_size,
        card=model_card(parts[0], parameters=count, dtype=precision, layout=opened[0].layout.name, where=HERE),
        progress=silent,
    )
    return target


def _identity(parts: Parts) -> dict[str, object]:
    """What says which number of the weights means what."""
    image = None if parts.image is None else parts.image.fingerprint
    return {"vocabulary": parts.config.vocabulary, "text tokenizer": parts.text.fingerprint, "image tokenizer": image}
