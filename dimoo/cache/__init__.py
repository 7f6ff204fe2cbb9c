"""What need not be computed again while a canvas is denoised: policies over one store of keys, values and logits."""

from dimoo.cache.blocks import BlockCache
from dimoo.cache.frozen import FrozenContext
from dimoo.cache.max_logit import MaxLogit, PaperMaxLogit, Timetable
from dimoo.cache.policy import Look, Policy
from dimoo.cache.similarity import SimilarityCache
from dimoo.cache.stored import StoredCache

__all__ = [
    "BlockCache",
    "FrozenContext",
    "Look",
    "MaxLogit",
    "PaperMaxLogit",
    "Policy",
    "SimilarityCache",
    "StoredCache",
    "Timetable",
]
