"""Writing a model: to a folder, with a generated card, or onto the hub."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from dimoo.backbone.lora import adapters
from dimoo.backbone.model import Backbone
from dimoo.backbone.quantized import quantization
from dimoo.core.device import precision
from dimoo.core.errors import CheckpointError
from dimoo.denoise import MaskPredictor
from dimoo.presets.config import ModelConfig
from dimoo.tasks.job import Kit
from dimoo.tokenizers.base import Tokenizer
from dimoo.tokenizers.image.tokenizer import ImageTokenizer
from dimoo.tokenizers.prompts import Prompts
from dimoo.tokenizers.text import TextTokenizer
from dimoo.weights.card import HERE, model_card
from dimoo.weights.checkpoint import layout_named, write_checkpoint
from dimoo.weights.hub import upload
from dimoo.weights.layout import Parts
from dimoo.weights.shards import Progress, silent


class Saves:
    """What a model of these parts can be asked to write."""

    config: ModelConfig
    backbone: MaskPredictor
    prompts: Prompts
    kit: Kit

    def save(
        self,
        path: str | Path,
        *,
        layout: str = "dimoo",
        dtype: torch.dtype | str | None = None,
        shard_size: int | str = "5GB",
        card: str | None = None,
        progress: Progress = silent,
    ) -> Path:
        """Write a checkpoint folder that `dimoo.load` reads; returns it.

        An older checkpoint in it is replaced at the end, as a whole; what else lies in it stays.

        Args:
            path: the folder.
            layout: "dimoo", our own, or "lumina", the layout of the released LLaDA and Lumina-DiMOO checkpoints.
            dtype: in which the backbone's weights are stored; None: as they are.
            shard_size: how large one file of weights may become, in bytes or as "5GB".
            card: the model card; None: one is generated.
            progress: told the bytes done and their sum.

        Raises:
            CheckpointError: the parts are of types that cannot be saved, are not those that the config names, or have
                no place in the layout (as quantised weights), or the folder holds something other than a checkpoint.
        """
        parts, backbone = savable(self.config, self.backbone, self.prompts.text, self.kit.image_tokenizer)
        write_checkpoint(
            Path(path),
            parts,
            backbone,
            layout=layout_named(layout),
            dtype=None if dtype is None else precision(dtype),
            shard_size=shard_size,
            card=self.card(HERE, layout=layout, dtype=dtype) if card is None else card,
            progress=progress,
        )
        return Path(path)

    def card(self, where: str, *, layout: str = "dimoo", dtype: torch.dtype | str | None = None) -> str:
        """The generated model card, a README.md with the hub's header; it says to load the model from `where`.

        Raises:
            CheckpointError: the parts are of types that cannot be saved.
        """
        parts, backbone = savable(self.config, self.backbone, self.prompts.text, self.kit.image_tokenizer)
        weights = list(backbone.parameters())
        kind = weights[0].dtype if dtype is None else precision(dtype)
        count, stored = sum(tensor.numel() for tensor in weights), str(kind).removeprefix("torch.")
        return model_card(parts, parameters=count, dtype=stored, layout=layout, where=where)

    def push(
        self,
        name: str,
        *,
        layout: str = "dimoo",
        dtype: torch.dtype | str | None = None,
        private: bool = True,
        card: str | None = None,
    ) -> str:
        """Put the model onto the Hugging Face hub as `owner/name`, with a generated card; returns its address.

        Raises:
            CheckpointError: as in `save`; or not logged in, no right to write there, or no way to the hub.
        """
        with TemporaryDirectory() as scratch:
            text = self.card(name, layout=layout, dtype=dtype) if card is None else card
            folder = self.save(Path(scratch) / "model", layout=layout, dtype=dtype, card=text)
            return upload(folder, name, private=private)


def savable(
    config: ModelConfig, backbone: MaskPredictor, text: TextTokenizer, image: Tokenizer | None
) -> tuple[Parts, Backbone]:
    """A model's parts and its backbone, if they are of our own types.

    Raises:
        CheckpointError: the backbone or the image tokenizer is a user's own, whose format is not known, or the backbone
            is quantised or has adapters: no layout has a place for its codes, or for them.
    """
    if not isinstance(image, ImageTokenizer | None):
        raise CheckpointError(f"do not know how to save an image tokenizer of type {type(image).__name__}")
    if not isinstance(backbone, Backbone):
        raise CheckpointError(f"do not know how to save a backbone of type {type(backbone).__name__}")
    if (kind := quantization(backbone)) is not None:
        raise CheckpointError(
            f"the weights are quantised to {kind}, for which no layout has a place; save the model as loaded without"
            " quantize, and quantise whenever it is loaded"
        )
    if adapters(backbone):
        raise CheckpointError(
            "the weights have adapters beside them; save the model with dimoo.backbone.lora.merged(backbone), and the"
            " adapters alone with dimoo.weights.adapters.write_adapter"
        )
    return Parts(config=config, text=text, image=image), backbone
