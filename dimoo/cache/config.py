"""Configs of caches. Free of torch; `build.py` builds them."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from pydantic import Field

from dimoo.core.config import StrictConfig

Warmup: TypeAlias = Annotated[float, Field(ge=0, le=1)]
Refresh: TypeAlias = Annotated[int, Field(ge=1)]
Share: TypeAlias = Annotated[float, Field(gt=0, le=1)]
Bytes: TypeAlias = Annotated[int, Field(ge=0)]


class NoCacheConfig(StrictConfig):
    """Compute everything at every step."""

    kind: Literal["none"] = "none"


class PaperMaxLogitConfig(StrictConfig):
    """ML-Cache as published: compute the positions of lowest largest logit, prompt and row ends among them."""

    kind: Literal["ml_cache"] = "ml_cache"
    share: Share = 0.1
    """Part of all positions that a step computes; the release says it as cache_ratio, 1 - share."""
    warmup: Warmup = 0.3
    """Share of the steps, from the first on, that compute everything."""
    refresh: Refresh = 5
    """Then every so many steps compute everything; 1 caches nothing."""
    max_bytes: Bytes | None = None
    """Refuse to sample where the store of a run would take more; null: no bound."""


class MaxLogitConfig(StrictConfig):
    """Compute what was just committed and, of what is still masked, the least certain."""

    kind: Literal["max_logit"] = "max_logit"
    share: Share = 0.1
    """Part of the masked positions that a step computes."""
    warmup: Warmup = 0.3
    """Share of the steps, from the first on, that compute everything."""
    refresh: Refresh = 5
    """Then every so many steps compute everything; 1 caches nothing."""
    fixed: bool = False
    """Compute the same number at each of the others, that part of the whole canvas: shapes then stay the same."""
    max_bytes: Bytes | None = None
    """Refuse to sample where the store of a run would take more; null: no bound."""


class BlockCacheConfig(StrictConfig):
    """Compute everything at a block's first step, then the block alone. A picture is one block."""

    kind: Literal["block"] = "block"
    scope: Literal["suffix", "block", "masked"] = "block"
    """Of the block: it and all that follows, it alone, or what is masked in it or was just committed."""
    refresh: Refresh | None = None
    """Compute everything again after so many steps; null: at the next block."""
    max_bytes: Bytes | None = None
    """Refuse to sample where the store of a run would take more; null: no bound."""


class FrozenContextConfig(StrictConfig):
    """Compute the canvas at every step, prompt and given pictures now and then."""

    kind: Literal["frozen_context"] = "frozen_context"
    refresh: Refresh = 8
    """Every so many steps compute everything; 1 caches nothing."""
    max_bytes: Bytes | None = None
    """Refuse to sample where the store of a run would take more; null: no bound."""


class SimilarityConfig(StrictConfig):
    """Compute, layer by layer, the part of the canvas whose values changed most (dLLM-Cache)."""

    kind: Literal["similarity"] = "similarity"
    share: Share = 0.25
    """Part of the canvas that a layer computes."""
    prompt_refresh: Refresh = 25
    """Prompt and given pictures are computed every so many steps ..."""
    answer_refresh: Refresh = 7
    """... and the whole canvas every so many."""
    max_bytes: Bytes | None = None
    """Refuse to sample where the store of a run would take more; null: no bound."""


CacheConfig: TypeAlias = Annotated[
    NoCacheConfig | PaperMaxLogitConfig | MaxLogitConfig | BlockCacheConfig | FrozenContextConfig | SimilarityConfig,
    Field(discriminator="kind"),
]
