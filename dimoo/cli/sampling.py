"""How pictures are sampled, from what the command line says."""

from __future__ import annotations

import json
from enum import Enum
from typing import TYPE_CHECKING

from dimoo.core.errors import ConfigError

if TYPE_CHECKING:
    from dimoo.presets.config import ImageSettings


class NoiseDType(str, Enum):
    """Precision of the noise that sampling draws."""

    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"


def image_settings(
    defaults: ImageSettings,
    *,
    steps: int | None = None,
    guidance: float | None = None,
    guidance_text: float | None = None,
    guidance_image: float | None = None,
    temperature: float | None = None,
    noise: NoiseDType | None = None,
) -> ImageSettings:
    """The model's settings with those changed that are given.

    `guidance` is the scale for prompts of words alone, and in a prompt that has pictures of every condition that the
    model guides by: one that it has at 0, or not at all, stays so. `guidance_text` and `guidance_image` name one.
    Temperature 0 is the greedy draw. The noise is that of the draw and of the confidence, where they have any; with
    bfloat16 the draw is the released one: no top-k, and temperature 1 unless one is given.

    Raises:
        ConfigError: a value is out of range, or a noise is given where none is drawn.
    """
    from dimoo.core.config import override
    from dimoo.diffusion.config import CategoricalConfig, GreedyConfig

    scales = dict(defaults.conditions)
    if guidance is not None:
        scales = {name: guidance if scale else scale for name, scale in scales.items()}
    scales |= {"no_text": guidance_text} if guidance_text is not None else {}
    scales |= {"no_image": guidance_image} if guidance_image is not None else {}
    changes = {"steps": steps, "guidance": guidance}
    assignments = [f"{name}={value}" for name, value in changes.items() if value is not None]
    assignments.append(f"conditions={json.dumps(scales)}")
    if temperature == 0:
        assignments.append(f"draw={GreedyConfig().model_dump_json()}")
    elif temperature is not None and isinstance(defaults.draw, CategoricalConfig):
        assignments.append(f"draw.temperature={temperature}")
    elif temperature is not None:
        assignments.append(f"draw={CategoricalConfig(temperature=temperature).model_dump_json()}")
    settings = override(defaults, assignments)
    if noise is NoiseDType.BFLOAT16 and isinstance(settings.draw, CategoricalConfig):
        # What the model's own draw is was tuned for correct noise; here the noise itself cuts the tail.
        released = ["draw.top_k=null", *(["draw.temperature=1.0"] if temperature is None else [])]
        settings = override(settings, released)
    if noise is None:
        return settings
    parts = {"draw": settings.draw, "confidence": settings.confidence}
    noisy = [name for name, part in parts.items() if "noise" in type(part).model_fields]
    if not noisy:
        raise ConfigError(
            f"a {settings.draw.kind!r} draw and {settings.confidence.kind!r} confidence draw no noise; leave out"
            " --noise-dtype, or give a --temperature above 0"
        )
    return override(settings, [f"{name}.noise={noise.value}" for name in noisy])
