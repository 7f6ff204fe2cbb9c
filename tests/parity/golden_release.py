"""The golden weights as a checkpoint in the released layout, so that parity goes through the loader that users call."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from golden_folder import Golden
from released import write_shards, write_tokenizer, write_vqvae

import dimoo
from dimoo.backbone.model import Backbone

SPELLINGS = {
    "newline": "<end_of_line>",
    "eot": "<|endoftext|>",
    "mask": "<|mdm_mask|>",
    "pad": "<|pad|>",
    "boi": "<IMAGE>",
    "eoi": "</IMAGE>",
    "uncond": "<uncondition>",
    "boa": "<answer>",
    "eoa": "</answer>",
}
"""A special token's name in cases.json -> in the tokenizer."""
TAGS = ("<system>", "</system>", "<user>", "</user>")


def special_ids(golden: Golden) -> dict[str, int]:
    """The special tokens by spelling. Those that no case needs, the tags of prompts among them, take free ids."""
    given = golden.info["special_tokens"]
    known = {spelling: given[name] for name, spelling in SPELLINGS.items() if name in given}
    taken = set(known.values())
    free = (index for index in range(golden.codes[0]) if index not in taken)
    others = [spelling for spelling in (*SPELLINGS.values(), *TAGS) if spelling not in known]
    return {**known, **dict(zip(others, free, strict=False))}


def has_released_ids(golden: Golden) -> bool:
    """Whether its ids are those of a model with a tokenizer: special tokens distinct and in the text, then the codes.

    A golden folder has no tokenizer, so its ids need not be so; then the weights alone go through the loader.
    """
    ids, (first, stop) = set(special_ids(golden).values()), golden.codes
    rows = len(golden.weights["model.transformer.wte.weight"])
    return rows == stop and len(ids) == len(SPELLINGS) + len(TAGS) and ids <= set(range(first))


def write_release(golden: Golden, folder: Path) -> Path:
    """Write the folder; returns it. The image tokenizer is the golden one where it has as many codes, else random."""
    shutil.copy(golden.path / "config.json", folder)
    write_shards(folder, golden.weights)
    if has_released_ids(golden):
        write_tokenizer(folder / "tokenizer.json", golden.codes[0], special_ids(golden))
        if golden.vq is not None and golden.vq_fits:
            shutil.copytree(golden.vq, folder / "vqvae")
        else:
            write_vqvae(folder / "vqvae", golden.info["codebook_size"])
    return folder


@dataclass(frozen=True, kw_only=True)
class Released:
    """What the loader makes of the golden weights."""

    folder: Path
    """In the released layout."""
    backbone: Backbone
    mask: int
    codes: tuple[int, int]
    """The ids (start, stop) of image codes."""
    has_golden_vq: bool
    """Whether its image tokenizer is the golden one."""


def load_released(golden: Golden, folder: Path) -> Released:
    """Write the golden weights into an empty folder as a released checkpoint, and load it as users do."""
    write_release(golden, folder)
    if not has_released_ids(golden):
        backbone, mask, codes = dimoo.load_backbone(folder), golden.mask, golden.codes
    else:
        model = dimoo.load(folder)
        assert isinstance(model.backbone, Backbone)
        vocabulary = model.config.vocabulary
        backbone, mask, codes = model.backbone, vocabulary.mask, vocabulary.columns("image")
    own = (folder / "vqvae").is_dir() and golden.vq_fits
    return Released(folder=folder, backbone=backbone, mask=mask, codes=codes, has_golden_vq=own)
