"""What every cache with a store needs: a network that takes keys and values, and room."""

from __future__ import annotations

from collections.abc import Container

from dimoo.backbone.model import Backbone
from dimoo.cache.size import CacheSize
from dimoo.core.errors import ConfigError
from dimoo.denoise.predictor import MaskPredictor
from dimoo.diffusion.canvas import Canvas
from dimoo.diffusion.orders import Recalling


def check_bound(max_bytes: int | None) -> None:
    """Raises:
    ConfigError: a bound is negative.
    """
    if max_bytes is not None and max_bytes < 0:
        raise ConfigError(f"max_bytes {max_bytes} must be at least 0, or None for no bound")


def check_room(size: CacheSize, max_bytes: int | None) -> None:
    """Raises:
    ConfigError: a store would take more than its bound.
    """
    if max_bytes is not None and size.total > max_bytes:
        raise ConfigError(
            f"the cache would take {size.total:,} bytes ({size}), more than its bound of {max_bytes:,}; raise"
            " max_bytes, sample fewer requests together, or use no cache"
        )


def as_backbone(network: MaskPredictor) -> Backbone:
    """The network.

    Raises:
        ConfigError: it is no `Backbone`, which alone takes stored keys and values.
    """
    if not isinstance(network, Backbone):
        raise ConfigError(
            f"a cache needs a network that takes stored keys and values, as Backbone does; {type(network).__name__}"
            " does not: use NoCache"
        )
    return network


def check_no_look_back(policy: object, start: Canvas, rows: Container[int]) -> None:
    """Raises:
    ConfigError: an order of the rows asks how predictions change from step to step. Logits that are used again do not
        change, which it would take for a prediction that has settled.
    """
    for order in (span.plan.order for span in start.spans if span.row in rows):
        if isinstance(order, Recalling) and order.history:
            raise ConfigError(
                f"{order} looks at how predictions change, and {policy} uses logits again, which do not change; use a"
                " cache of kind 'block', 'frozen_context', 'similarity' or 'none', or an order that looks at one step"
            )
