"""From configs to caches: the only place in this folder that knows both."""

from __future__ import annotations

from typing_extensions import assert_never

from dimoo.cache import config as cfg
from dimoo.cache.blocks import BlockCache
from dimoo.cache.frozen import FrozenContext
from dimoo.cache.max_logit import MaxLogit, PaperMaxLogit, Timetable
from dimoo.cache.similarity import SimilarityCache
from dimoo.cache.stored import StoredCache
from dimoo.denoise import Cache, NoCache


def build_cache(config: cfg.CacheConfig) -> Cache:
    """What need not be computed again."""
    match config:
        case cfg.NoCacheConfig():
            return NoCache()
        case cfg.PaperMaxLogitConfig():
            timetable = Timetable(warmup=config.warmup, refresh=config.refresh)
            return StoredCache(
                policy=PaperMaxLogit(share=config.share, timetable=timetable), max_bytes=config.max_bytes
            )
        case cfg.MaxLogitConfig():
            timetable = Timetable(warmup=config.warmup, refresh=config.refresh)
            return StoredCache(
                policy=MaxLogit(share=config.share, timetable=timetable, fixed=config.fixed), max_bytes=config.max_bytes
            )
        case cfg.BlockCacheConfig():
            policy = BlockCache(scope=config.scope, refresh=config.refresh)
            return StoredCache(policy=policy, max_bytes=config.max_bytes)
        case cfg.FrozenContextConfig():
            return StoredCache(policy=FrozenContext(refresh=config.refresh), max_bytes=config.max_bytes)
        case cfg.SimilarityConfig():
            return SimilarityCache(
                share=config.share,
                prompt_refresh=config.prompt_refresh,
                answer_refresh=config.answer_refresh,
                max_bytes=config.max_bytes,
            )
        case _:
            assert_never(config)
