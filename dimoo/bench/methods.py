"""The methods that are compared: names for changes of the settings, or of the weights.

A method says what it changes of a model's own, so that one name means the same on every model.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from dimoo.backbone.config import QuantizeKind
from dimoo.backbone.model import Backbone
from dimoo.backbone.quantized import quantized
from dimoo.cache.config import (
    BlockCacheConfig,
    FrozenContextConfig,
    MaxLogitConfig,
    PaperMaxLogitConfig,
    SimilarityConfig,
)
from dimoo.diffusion.config import NegativeEntropyConfig
from dimoo.diffusion.order_config import (
    EntropyBoundedOrderConfig,
    FactorOrderConfig,
    HaltonOrderConfig,
    KLASSOrderConfig,
    ThresholdOrderConfig,
)
from dimoo.presets.config import ImageSettings, TextSettings

Task = Literal["image", "edit", "text"]
PICTURES: tuple[Task, ...] = ("image", "edit")
REFERENCE, REFERENCE_CACHED = "reference", "reference_ml_cache"
"""The released loop, without and with its own cache."""


@dataclass(frozen=True, kw_only=True)
class Method:
    """One way to sample."""

    name: str
    tasks: tuple[Task, ...]
    said: str
    """What it is, in a few words."""
    changes: Mapping[str, Any] = field(default_factory=dict)
    """Fields of the settings that it sets."""
    fewer: float = 1.0
    """Factor on the number of steps."""
    static: bool = True
    """Whether the number of steps is the same for every model: only then do random weights say what it costs."""
    quick: bool = False
    """Whether a short run has it."""
    quantize: QuantizeKind | None = None
    """How the weights of the blocks are kept; None: as they are."""

    def network(self, network: Backbone) -> Backbone:
        """A model's network, quantised where the method says so.

        Raises:
            BackendError: it cannot be.
        """
        return network if self.quantize is None else quantized(network, self.quantize)

    def image(self, settings: ImageSettings) -> ImageSettings:
        """A model's settings for pictures, changed."""
        if set(self.tasks) == {"text"}:
            return settings
        steps = max(1, round(settings.steps * self.fewer))
        return settings.model_copy(update={"steps": steps, **self.changes})

    def text(self, settings: TextSettings) -> TextSettings:
        """A model's settings for words, changed."""
        if "text" not in self.tasks:
            return settings
        return settings.model_copy(update={"steps_per_token": settings.steps_per_token * self.fewer, **self.changes})


ALL: tuple[Task, ...] = ("image", "edit", "text")
METHODS: tuple[Method, ...] = (
    Method(name="uncached", tasks=ALL, said="every branch in one packed pass, sliced head", quick=True),
    Method(name="int8", tasks=ALL, said="the same with int8 weights in the blocks", quantize="int8"),
    Method(name="fp8", tasks=ALL, said="the same with fp8 weights in the blocks", quantize="fp8"),
    Method(
        name="ml_cache",
        tasks=PICTURES,
        said="the published cache",
        changes={"cache": PaperMaxLogitConfig()},
        quick=True,
    ),
    Method(
        name="max_logit",
        tasks=PICTURES,
        said="what was committed and the least certain tenth",
        changes={"cache": MaxLogitConfig()},
        quick=True,
    ),
    Method(
        name="max_logit_fast",
        tasks=PICTURES,
        said="the same with fewer whole steps",
        changes={"cache": MaxLogitConfig(share=0.1, warmup=0.0, refresh=8)},
        quick=True,
    ),
    Method(
        name="masked",
        tasks=PICTURES,
        said="what is masked or was just committed, all at every fourth step",
        changes={"cache": BlockCacheConfig(scope="masked", refresh=4)},
    ),
    Method(
        name="frozen_context",
        tasks=("edit",),
        said="the canvas alone, all at every eighth step",
        changes={"cache": FrozenContextConfig()},
        quick=True,
    ),
    Method(
        name="similarity",
        tasks=ALL,
        said="per layer the quarter of the canvas that changed most",
        changes={"cache": SimilarityConfig(share=0.25, answer_refresh=4)},
    ),
    Method(
        name="halton",
        tasks=("image",),
        said="half as many steps in Halton order",
        fewer=0.5,
        changes={"order": HaltonOrderConfig()},
        quick=True,
    ),
    Method(
        name="interval",
        tasks=PICTURES,
        said="guidance in the middle of the steps only",
        changes={"guidance_interval": (0.1, 0.7)},
    ),
    Method(name="half_steps", tasks=ALL, said="half as many steps", fewer=0.5),
    Method(
        name="half_steps_max_logit",
        tasks=PICTURES,
        said="half as many steps, the least certain tenth",
        fewer=0.5,
        changes={"cache": MaxLogitConfig(share=0.1, warmup=0.0, refresh=4)},
        quick=True,
    ),
    Method(
        name="quarter_steps_max_logit",
        tasks=PICTURES,
        said="a quarter of the steps, the least certain tenth",
        fewer=0.25,
        changes={"cache": MaxLogitConfig(share=0.1, warmup=0.0, refresh=4)},
    ),
    Method(
        name="prefix",
        tasks=("text",),
        said="the block and what follows",
        changes={"cache": BlockCacheConfig(scope="suffix")},
    ),
    Method(
        name="dual",
        tasks=("text",),
        said="the block alone",
        changes={"cache": BlockCacheConfig(scope="block")},
        quick=True,
    ),
    Method(
        name="masked_block",
        tasks=("text",),
        said="what is masked in the block or was just committed",
        changes={"cache": BlockCacheConfig(scope="masked")},
        quick=True,
    ),
    Method(
        name="threshold",
        tasks=("text",),
        said="all whose probability reaches .9, what is masked in the block or was just committed",
        changes={"order": ThresholdOrderConfig(threshold=0.9), "cache": BlockCacheConfig(scope="masked")},
        static=False,
        quick=True,
    ),
    Method(
        name="factor",
        tasks=("text",),
        said="as many as Fast-dLLM's factor allows",
        changes={"order": FactorOrderConfig(), "cache": BlockCacheConfig(scope="masked")},
        static=False,
    ),
    Method(
        name="entropy_bounded",
        tasks=("text",),
        said="as many as a bound on their entropy allows",
        changes={
            "order": EntropyBoundedOrderConfig(),
            "confidence": NegativeEntropyConfig(),
            "cache": BlockCacheConfig(scope="masked"),
        },
        static=False,
    ),
    Method(
        name="klass",
        tasks=("text",),
        said="what is confident and has stopped to move",
        changes={"order": KLASSOrderConfig(), "cache": BlockCacheConfig(scope="masked")},
        static=False,
    ),
    Method(
        name="half_steps_masked_block",
        tasks=("text",),
        said="the same in half as many steps",
        fewer=0.5,
        changes={"cache": BlockCacheConfig(scope="masked")},
        quick=True,
    ),
)
"""In the order of the table."""
