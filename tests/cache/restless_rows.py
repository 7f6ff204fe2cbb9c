"""Rows none of whose counts are known beforehand, and what makes them so."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from cached_rows import Row, edit, joint, picture, text

from dimoo.cache.stored import StoredCache
from dimoo.denoise import Cache
from dimoo.diffusion.canvas import Canvas
from dimoo.diffusion.confidence import Probability
from dimoo.diffusion.orders import MaskGITOrder, Order
from dimoo.diffusion.parallel import KLASS, AdaptiveOrder, Threshold
from dimoo.diffusion.remasking import Refinement
from dimoo.diffusion.schedules import Cosine
from dimoo.diffusion.settled import SettledOrder
from dimoo.diffusion.stopping import AnyStop, StopAtToken

COSINE = Cosine()


def with_order(order: Order) -> Row:
    """Six codes of a picture in an order, whose last steps idle."""
    row = picture(steps=4, size=(2, 3))
    (positions, columns, own) = row.parts[0]
    return replace(row, parts=((positions, columns, replace(own, order=order, confidence=Probability())),))


def restless(*, looks_back: bool) -> list[Row]:
    """Rows none of whose counts are known beforehand, next to some whose are; they end at different steps."""
    surely: dict[str, Any] = {"confidence": Probability()}
    threshold = AdaptiveOrder(rule=Threshold(threshold=0.4))
    stops = AnyStop(rules=tuple(StopAtToken(token=token) for token in range(12, 20)))
    rows = [
        changed(text(steps=9, seed=1), order=AdaptiveOrder(rule=Threshold(threshold=0.3), block=3)),
        changed(text(steps=9, scale=1.0, seed=2), stopping=stops),
        changed(text(steps=8, length=8, block=4, seed=3), order=threshold, stopping=stops),
        changed(picture(steps=5, seed=4), order=threshold, remasking=Refinement(rounds=2, share=0.4), **surely),
        changed(picture(steps=3, seed=5), remasking=Refinement(rounds=3)),
        changed(joint(steps=(6, 8), seed=6), order=threshold, **surely),
        edit(steps=4, seed=7),
        text(steps=12, length=6, scale=1.0, seed=8),
    ]
    if looks_back:
        settling = SettledOrder(order=MaskGITOrder(schedule=COSINE), max_drift=5.0, steps=1)
        rows += [
            changed(picture(steps=6, seed=9), order=settling, **surely),
            changed(text(steps=9, seed=10), order=AdaptiveOrder(rule=KLASS(threshold=0.2, max_drift=2.0, steps=1))),
        ]
    return rows


def changed(row: Row, **changes: Any) -> Row:
    return replace(row, parts=tuple((places, columns, replace(own, **changes)) for places, columns, own in row.parts))


def looks_back(cache: Cache) -> bool:
    return not (isinstance(cache, StoredCache) and cache.policy.keeps_logits)


def drawing_masks(start: Canvas) -> Canvas:
    """Nothing is forbidden: how many masks were drawn among the committed, the device alone knows."""
    return replace(start, spans=tuple(replace(span, forbidden=()) for span in start.spans))
