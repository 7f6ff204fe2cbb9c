"""Settings -> plans: how each modality's span is denoised. A plan of your own, with any strategies, passes as it is."""

from __future__ import annotations

from collections.abc import Sequence

from dimoo.core.errors import RequestError
from dimoo.diffusion import build
from dimoo.diffusion.canvas import Plan
from dimoo.diffusion.guidance import ClassifierFree, NoGuidance
from dimoo.diffusion.orders import BlockOrder
from dimoo.diffusion.stopping import AnyStop, NoStop, StopAtToken
from dimoo.presets.config import ImageSettings, TextSettings


def image_plan(settings: ImageSettings | Plan) -> Plan:
    """Masked image modelling with classifier-free guidance.

    Raises:
        RequestError: the settings are neither `ImageSettings` nor a `Plan`.
    """
    if isinstance(settings, Plan):
        return settings
    _check(settings, ImageSettings)
    return Plan(
        steps=settings.steps,
        order=build.build_order(settings.order),
        draw=build.build_draw(settings.draw),
        confidence=build.build_confidence(settings.confidence),
        guidance=ClassifierFree(scale=settings.guidance) if settings.guidance else NoGuidance(),
        stopping=NoStop(),
    )


def text_plan(settings: TextSettings | Plan, *, tokens: int, stops: Sequence[int]) -> Plan:
    """Block-wise text of `tokens` tokens that ends early once one of the ids `stops` stands with no mask before it.

    Raises:
        RequestError: the settings are neither `TextSettings` nor a `Plan`.
    """
    if isinstance(settings, Plan):
        return settings
    _check(settings, TextSettings)
    block = min(settings.block or tokens, tokens)
    blocks = -(-tokens // block)
    per_block = max(1, round(tokens * settings.steps_per_token / blocks))
    return Plan(
        steps=per_block * blocks,
        order=BlockOrder(block=block),
        draw=build.build_draw(settings.draw),
        confidence=build.build_confidence(settings.confidence),
        guidance=NoGuidance(),
        stopping=AnyStop(rules=tuple(StopAtToken(token=stop) for stop in stops)),
    )


def _check(settings: object, kind: type) -> None:
    if not isinstance(settings, kind):
        raise RequestError(
            f"settings must be {kind.__name__} or a Plan, not {type(settings).__name__} {settings!r:.60}"
        )
