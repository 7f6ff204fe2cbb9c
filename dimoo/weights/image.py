"""Image tokenizers on their own: in our format, or diffusers' (aMUSEd's and Lumina-DiMOO's `vqvae`)."""

from __future__ import annotations

from pathlib import Path

from dimoo.core.errors import CheckpointError
from dimoo.core.files import read_object
from dimoo.tokenizers.image.files import load_image_tokenizer as load_ours
from dimoo.tokenizers.image.tokenizer import ImageTokenizer
from dimoo.weights.diffusers_vq import read_diffusers_vq
from dimoo.weights.hub import resolve
from dimoo.weights.lumina import VQ
from dimoo.weights.ours import IMAGE

WANTED = ("config.json", "diffusion_pytorch_model.safetensors", f"{VQ}/*", f"{IMAGE}/*")
"""What is downloaded of a repository, be it an image tokenizer's or a whole model's."""


def load_image_tokenizer(path: str | Path, *, revision: str | None = None) -> ImageTokenizer:
    """An image tokenizer from its own folder, or the one in a model's folder; in float32.

    Args:
        path: a folder, "mini", or `owner/name` on the Hugging Face hub, as "amused/amused-512".
        revision: a branch, tag or commit on the hub.

    Raises:
        CheckpointError: there is none, or a file is missing, corrupt or does not fit.
    """
    folder = resolve(path, revision=revision, patterns=WANTED)
    for part in (folder / VQ, folder / IMAGE, folder):
        config = part / "config.json"
        if not config.is_file():
            continue
        settings = read_object(config)
        if settings.get("_class_name") == "VQModel":
            return read_diffusers_vq(part)
        if "quantizer" in settings:
            # Ours alone in a repository keeps its weights under the name that a model's have.
            return load_ours(resolve(path, revision=revision) if part == folder else part)
    raise CheckpointError(f"no image tokenizer in {folder}: neither it nor {VQ}/ or {IMAGE}/ in it holds one")
