"""A checkpoint in another layout or dtype, without the memory that its model would need."""

from __future__ import annotations

from pathlib import Path

import torch

from dimoo.core.errors import CheckpointError
from dimoo.weights.card import HERE, is_generated, model_card, read_card
from dimoo.weights.checkpoint import Checkpoint, layout_named, write_checkpoint
from dimoo.weights.layout import CARD
from dimoo.weights.shards import Progress, silent


def convert(
    source: Path,
    target: Path,
    *,
    layout: str,
    dtype: torch.dtype | None = None,
    shard_size: int | str = "5GB",
    progress: Progress = silent,
) -> Path:
    """Write a checkpoint in another layout; returns its folder.

    The weights are read where they are when they are written, so memory is needed for one file of the result at a
    time, and for the image tokenizer, which is stored in float32. A model card is kept, unless it is a generated one,
    which is made anew. An older checkpoint in the target is replaced at the end, as a whole.

    Args:
        source: a checkpoint folder in any layout.
        target: where to.
        layout: "dimoo" or "lumina".
        dtype: in which the backbone's weights are stored; None: each as it is.
        shard_size: how large one file of weights may become, in bytes or as "5GB".
        progress: told the bytes written and their sum.

    Raises:
        CheckpointError: the source is missing, corrupt or inconsistent, one folder lies in the other, there is no such
            layout or it has no place for something, or the target holds something other than a checkpoint.
    """
    arranged = layout_named(layout)
    here, there = source.resolve(), target.resolve()
    if here == there or here in there.parents or there in here.parents:
        raise CheckpointError(f"cannot convert {source} into {target}: one lies in the other; choose another folder")
    checkpoint = Checkpoint.open(source)
    parts = checkpoint.parts()
    model = checkpoint.skeleton("sdpa")  # it will never compute, and the checkpoint's own may not be installed here
    filling = checkpoint.filling(model)
    # Views of the files take the place of the parameters: nothing is read yet, and each keeps its dtype.
    views = {filling.matches[name].name: filling.matches[name].values(view) for name, view in filling.shards.read()}
    model.load_state_dict(views, assign=True)
    stored = filling.shards.dtypes[0] if dtype is None else dtype
    card = read_card(source / CARD)
    if not card or is_generated(card):
        count, precision = filling.shards.numel, str(stored).removeprefix("torch.")
        card = model_card(parts, parameters=count, dtype=precision, layout=layout, where=HERE)
    write_checkpoint(
        target,
        parts,
        model,
        layout=arranged,
        dtype=dtype,
        shard_size=shard_size,
        card=card,
        like=source if checkpoint.layout.name == layout else None,
        progress=progress,
    )
    return target
