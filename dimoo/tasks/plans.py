"""Settings -> plans: how each modality's span is denoised."""

from __future__ import annotations

from dimoo.diffusion import build
from dimoo.diffusion.canvas import Plan
from dimoo.diffusion.guidance import ClassifierFree, NoGuidance
from dimoo.diffusion.orders import BlockOrder
from dimoo.diffusion.stopping import NoStop, StopAtToken
from dimoo.tasks.config import ImageSettings, TextSettings
from dimoo.tokenizers.vocabulary import Vocabulary


def image_plan(settings: ImageSettings) -> Plan:
    """Masked image modelling with classifier-free guidance."""
    return Plan(
        steps=settings.steps,
        order=build.build_order(settings.order),
        draw=build.build_draw(settings.draw),
        confidence=build.build_confidence(settings.confidence),
        guidance=ClassifierFree(scale=settings.guidance) if settings.guidance else NoGuidance(),
        stopping=NoStop(),
    )


def text_plan(settings: TextSettings, vocabulary: Vocabulary, *, tokens: int) -> Plan:
    """Block-wise text of `tokens` tokens that ends early once `</answer>` stands."""
    block = min(settings.block or tokens, tokens)
    blocks = -(-tokens // block)
    per_block = max(1, round(tokens * settings.steps_per_token / blocks))
    return Plan(
        steps=per_block * blocks,
        order=BlockOrder(block=block),
        draw=build.build_draw(settings.draw),
        confidence=build.build_confidence(settings.confidence),
        guidance=NoGuidance(),
        stopping=StopAtToken(token=vocabulary.answer_end),
    )
