"""dimoo: multimodal masked discrete diffusion. See README.md for a map.

Importing this costs nothing: every name below is imported, with torch where it needs it, when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from dimoo.version import __version__

if TYPE_CHECKING:  # for type checkers and editors; at run time `__getattr__` does the same
    from dimoo.core.errors import (
        BackendError,
        CheckpointError,
        ConfigError,
        DataError,
        DimooError,
        RequestError,
        TrainingError,
    )
    from dimoo.core.requests import (
        AskRequest,
        Box,
        ChatRequest,
        GenerateRequest,
        InpaintRequest,
        InterleavedRequest,
        Masked,
        Message,
        OutpaintRequest,
        PictureAnswer,
        Polygon,
        Request,
        RetouchRequest,
        TaskRequest,
        TextAnswer,
    )
    from dimoo.denoise.predictor import MaskPredictor
    from dimoo.diffusion.canvas import Plan
    from dimoo.diffusion.confidence import Confidence
    from dimoo.diffusion.draw import Draw
    from dimoo.diffusion.guidance import Guidance
    from dimoo.diffusion.orders import Order
    from dimoo.diffusion.sampler import Denoiser, State
    from dimoo.diffusion.schedules import Schedule
    from dimoo.diffusion.stopping import Stopping
    from dimoo.diffusion.trajectory import Trajectory
    from dimoo.presets.config import ImageSettings, ModelConfig, TextSettings
    from dimoo.presets.tasks import TaskText
    from dimoo.tasks.assemble import load, load_backbone
    from dimoo.tasks.choose import Choice
    from dimoo.tasks.grow import grow
    from dimoo.tasks.job import Job
    from dimoo.tasks.likelihood import Likelihood
    from dimoo.tasks.model import Dimoo
    from dimoo.tasks.records.picture_files import read_record, save_picture
    from dimoo.tasks.records.provenance import record_of
    from dimoo.tasks.records.record import Record, request_of
    from dimoo.tasks.retouching import Retouching
    from dimoo.tokenizers.base import Tokenizer
    from dimoo.tokenizers.text import TextTokenizer
    from dimoo.tokenizers.vocabulary import Vocabulary
    from dimoo.weights.image import load_image_tokenizer

_HOMES = {
    "AskRequest": "dimoo.core.requests",
    "BackendError": "dimoo.core.errors",
    "Box": "dimoo.core.requests",
    "ChatRequest": "dimoo.core.requests",
    "CheckpointError": "dimoo.core.errors",
    "Choice": "dimoo.tasks.choose",
    "Confidence": "dimoo.diffusion.confidence",
    "ConfigError": "dimoo.core.errors",
    "DataError": "dimoo.core.errors",
    "Denoiser": "dimoo.diffusion.sampler",
    "Dimoo": "dimoo.tasks.model",
    "DimooError": "dimoo.core.errors",
    "Draw": "dimoo.diffusion.draw",
    "GenerateRequest": "dimoo.core.requests",
    "Guidance": "dimoo.diffusion.guidance",
    "ImageSettings": "dimoo.presets.config",
    "InpaintRequest": "dimoo.core.requests",
    "InterleavedRequest": "dimoo.core.requests",
    "Job": "dimoo.tasks.job",
    "Likelihood": "dimoo.tasks.likelihood",
    "MaskPredictor": "dimoo.denoise.predictor",
    "Masked": "dimoo.core.requests",
    "Message": "dimoo.core.requests",
    "ModelConfig": "dimoo.presets.config",
    "Order": "dimoo.diffusion.orders",
    "OutpaintRequest": "dimoo.core.requests",
    "PictureAnswer": "dimoo.core.requests",
    "Plan": "dimoo.diffusion.canvas",
    "Polygon": "dimoo.core.requests",
    "Record": "dimoo.tasks.records.record",
    "Request": "dimoo.core.requests",
    "RequestError": "dimoo.core.errors",
    "RetouchRequest": "dimoo.core.requests",
    "Retouching": "dimoo.tasks.retouching",
    "Schedule": "dimoo.diffusion.schedules",
    "State": "dimoo.diffusion.sampler",
    "Stopping": "dimoo.diffusion.stopping",
    "TaskRequest": "dimoo.core.requests",
    "TaskText": "dimoo.presets.tasks",
    "TextAnswer": "dimoo.core.requests",
    "TextSettings": "dimoo.presets.config",
    "TextTokenizer": "dimoo.tokenizers.text",
    "Tokenizer": "dimoo.tokenizers.base",
    "TrainingError": "dimoo.core.errors",
    "Trajectory": "dimoo.diffusion.trajectory",
    "Vocabulary": "dimoo.tokenizers.vocabulary",
    "grow": "dimoo.tasks.grow",
    "load": "dimoo.tasks.assemble",
    "load_backbone": "dimoo.tasks.assemble",
    "load_image_tokenizer": "dimoo.weights.image",
    "read_record": "dimoo.tasks.records.picture_files",
    "record_of": "dimoo.tasks.records.provenance",
    "request_of": "dimoo.tasks.records.record",
    "save_picture": "dimoo.tasks.records.picture_files",
}

__all__ = [
    "AskRequest",
    "BackendError",
    "Box",
    "ChatRequest",
    "CheckpointError",
    "Choice",
    "Confidence",
    "ConfigError",
    "DataError",
    "Denoiser",
    "Dimoo",
    "DimooError",
    "Draw",
    "GenerateRequest",
    "Guidance",
    "ImageSettings",
    "InpaintRequest",
    "InterleavedRequest",
    "Job",
    "Likelihood",
    "MaskPredictor",
    "Masked",
    "Message",
    "ModelConfig",
    "Order",
    "OutpaintRequest",
    "PictureAnswer",
    "Plan",
    "Polygon",
    "Record",
    "Request",
    "RequestError",
    "RetouchRequest",
    "Retouching",
    "Schedule",
    "State",
    "Stopping",
    "TaskRequest",
    "TaskText",
    "TextAnswer",
    "TextSettings",
    "TextTokenizer",
    "Tokenizer",
    "TrainingError",
    "Trajectory",
    "Vocabulary",
    "__version__",
    "grow",
    "load",
    "load_backbone",
    "load_image_tokenizer",
    "read_record",
    "record_of",
    "request_of",
    "save_picture",
]


def __getattr__(name: str) -> Any:
    if name == "conditions":
        return import_module("dimoo.conditions")
    if name not in _HOMES:
        raise AttributeError(f"module 'dimoo' has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_HOMES[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
