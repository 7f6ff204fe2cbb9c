"""Settings -> plans: how each modality's span is denoised. A plan of your own, with any strategies, passes as it is."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from dimoo.core.errors import RequestError
from dimoo.diffusion import build
from dimoo.diffusion.canvas import Plan
from dimoo.diffusion.config import ConstantRampConfig
from dimoo.diffusion.guidance import (
    CONDITION,
    UNCONDITIONAL,
    ClassifierFree,
    Guidance,
    MultiCondition,
    NoGuidance,
    Renormalised,
)
from dimoo.diffusion.guidance_steps import Interval, Scheduled
from dimoo.diffusion.stopping import AnyStop, NoStop, StopAtToken
from dimoo.presets.config import ImageSettings, TextSettings


def image_plan(
    settings: ImageSettings | Plan,
    branches: Collection[str] = (CONDITION, UNCONDITIONAL),
    grids: Collection[tuple[int, ...]] = (),
) -> Plan:
    """Masked image modelling, guided by the branches that the problem has.

    Args:
        settings: how to sample, or a plan.
        branches: the names of the problem's branches. With no more than "unconditional" besides the condition it is a
            prompt of words alone and takes `guidance`; else it has pictures and takes `conditions`.
        grids: the shapes of the code grids that are to be made; only orders that walk over a picture need them.

    Raises:
        RequestError: the settings are neither `ImageSettings` nor a `Plan`, their guidance takes a branch that the
            problem does not have, or guides in no step, or their order walks over a picture and the grids are not of
            one.
        ConfigError: parts of the settings do not go together: an order and the confidence that it reads, or what ends
            it early, or what takes tokens back.
    """
    if isinstance(settings, Plan):
        plan = settings
    else:
        _check(settings, ImageSettings)
        plan = Plan(
            steps=settings.steps,
            order=build.build_early_stop(settings.early_stop, build.build_order(settings.order, grids)),
            draw=build.build_draw(settings.draw),
            confidence=build.build_confidence(settings.confidence),
            guidance=_when_and_how(settings, _fold(settings, branches)),
            stopping=NoStop(),
            remasking=build.build_remasking(settings.remasking),
        )
    return _guided(plan, branches)


def text_plan(
    settings: TextSettings | Plan, *, tokens: int, stops: Sequence[int], branches: Collection[str] = (CONDITION,)
) -> Plan:
    """Block-wise text of `tokens` tokens that ends early once one of the ids `stops` stands with no mask before it.

    Args:
        settings: how to sample, or a plan.
        tokens: planned for the answer.
        stops: ids.
        branches: the names of the problem's branches.

    Raises:
        RequestError: the settings are neither `TextSettings` nor a `Plan`, or their guidance takes a branch that the
            problem does not have, or guides in no step.
        ConfigError: the order cannot read the confidence.
    """
    if isinstance(settings, Plan):
        return _guided(settings, branches)
    _check(settings, TextSettings)
    block = min(settings.block or tokens, tokens)
    blocks = -(-tokens // block)
    per_block = max(1, round(tokens * settings.steps_per_token / blocks))
    return Plan(
        steps=per_block * blocks,
        order=build.build_early_stop(settings.early_stop, build.build_text_order(settings.order, block)),
        draw=build.build_draw(settings.draw),
        confidence=build.build_confidence(settings.confidence),
        guidance=NoGuidance(),
        stopping=AnyStop(rules=tuple(StopAtToken(token=stop) for stop in stops)),
        remasking=build.build_remasking(settings.remasking),
    )


def _guided(plan: Plan, branches: Collection[str]) -> Plan:
    """The plan, if the problem has what its guidance takes, and there is a step in which it does something."""
    guidance, steps = plan.guidance, plan.steps
    if missing := [name for name in guidance.branches if name not in branches]:
        raise RequestError(
            f"guidance takes the branch {', '.join(map(repr, missing))}, but the request's branches are"
            f" {', '.join(map(repr, branches))}; set its scale to 0, or give the request what that branch leaves out"
        )
    alone = (CONDITION,)
    if guidance.branches != alone and all(guidance.at(step, steps).branches == alone for step in range(steps)):
        raise RequestError(
            f"the guidance does nothing in any of the {steps} steps: its interval holds none of them, or its schedule"
            " is 0 there; widen the interval, take more steps, or set the scales to 0"
        )
    return plan


def _fold(settings: ImageSettings, branches: Collection[str]) -> Guidance:
    """The fold of a problem's branches at its full scales."""
    others = set(branches) - {CONDITION}
    if not others:
        return NoGuidance()
    if others == {UNCONDITIONAL}:
        return ClassifierFree(scale=settings.guidance) if settings.guidance else NoGuidance()
    scales = tuple((name, scale) for name, scale in settings.conditions.items() if scale)
    return MultiCondition(scales=scales) if scales else NoGuidance()


def _when_and_how(settings: ImageSettings, guidance: Guidance) -> Guidance:
    """A guidance wrapped in what the settings ask for beyond it, and in nothing else."""
    if isinstance(guidance, NoGuidance):
        return guidance
    if not isinstance(settings.guidance_schedule, ConstantRampConfig):
        guidance = Scheduled(guidance=guidance, ramp=build.build_ramp(settings.guidance_schedule))
    if settings.guidance_renormalisation:
        guidance = Renormalised(guidance=guidance, strength=settings.guidance_renormalisation)
    start, stop = settings.guidance_interval
    return guidance if (start, stop) == (0.0, 1.0) else Interval(guidance=guidance, start=start, stop=stop)


def _check(settings: object, kind: type) -> None:
    if not isinstance(settings, kind):
        raise RequestError(
            f"settings must be {kind.__name__} or a Plan, not {type(settings).__name__} {settings!r:.60}"
        )
