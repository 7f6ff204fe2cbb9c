"""Steps that compute a part equal a naive loop over positions, in every logit of every step and in every token."""

from __future__ import annotations

from dataclasses import replace

import pytest
from cache_oracle import NaiveCached, Rule, aimed, blocks, frozen, paper
from cached_rows import (
    Row,
    assert_same,
    counted,
    edit,
    joint,
    partial_policies,
    picture,
    requests_of,
    start_of,
    text,
    traces,
)
from restless_rows import changed

from dimoo.backbone.model import Backbone
from dimoo.cache.policy import Policy
from dimoo.cache.stored import StoredCache
from dimoo.diffusion.orders import BlockOrder
from dimoo.diffusion.parallel import AdaptiveOrder, Threshold
from dimoo.diffusion.remasking import Refinement, Remasking, ReMDM
from dimoo.diffusion.settled import SettledOrder

RULES = [
    paper(0.23, 0.2, 4),
    aimed(0.3, 0.2, 4),
    aimed(0.3, 0.2, 4, fixed=True),
    blocks("suffix"),
    blocks("block"),
    blocks("masked", 3),
    frozen(3),
]
"""What the policies say, once more."""
LIKELY = Threshold(threshold=0.4)


def remasked(row: Row, remasking: Remasking) -> Row:
    """The row, whose last span takes tokens back."""
    *others, (positions, columns, plan) = row.parts
    return replace(row, parts=(*others, (positions, columns, replace(plan, remasking=remasking))))


ROWS = {
    "picture": picture(steps=9, seed=1),
    "kept": picture(steps=8, kept=5, during=(0.3, 0.8), seed=2),
    "edit": edit(steps=8, seed=3),
    "text": text(steps=15, length=15, block=5, seed=4),
    "guided text": text(steps=12, length=12, block=6, scale=1.0, seed=5),
    # 4 blocks of 2 in 4 steps each: of every four steps two idle.
    "idle text": text(steps=16, length=8, block=2, scale=1.0, seed=6),
    "joint": joint(steps=(12, 8), length=8, block=4, size=(3, 3), seed=7),
    "idle joint": joint(steps=(8, 12), length=4, block=2, size=(3, 4), seed=8),
    "picture first": joint(steps=(8, 15), length=8, block=4, size=(4, 4), picture_first=True, seed=9),
    "taken back": remasked(picture(steps=8, seed=10), ReMDM(eta=0.8)),
    "refined": remasked(text(steps=9, length=9, block=3, scale=1.0, seed=11), Refinement(rounds=3, share=0.3)),
    # The text idles at some steps, and the row keeps its timetable.
    "idle words": joint(steps=(10, 8), length=8, block=4, size=(3, 3), seed=12),
    "as they are sure": changed(text(steps=12, length=12, seed=13), order=AdaptiveOrder(rule=LIKELY, block=4)),
    "settled": changed(text(steps=12, length=12, seed=14), order=SettledOrder(order=BlockOrder(block=4), steps=1)),
}
CASES = [
    (kind, policy, rule)
    for kind in ROWS
    for policy, rule in zip(partial_policies(), RULES, strict=True)
    # What keeps logits is refused by an order that looks at how predictions change.
    if not (kind == "settled" and policy.keeps_logits)
]


@pytest.mark.parametrize(("kind", "policy", "rule"), CASES, ids=[f"{kind}-{policy}" for kind, policy, _ in CASES])
def test_parts_equal_the_naive_loop(exact: Backbone, kind: str, policy: Policy, rule: Rule) -> None:
    rows = [ROWS[kind]]
    start, requests = start_of(rows), requests_of(rows)
    naive = NaiveCached(exact, start, requests, rule, surveyed=rule is RULES[0])
    (theirs,) = traces(naive, start, rows)
    with counted(exact) as tokens:
        (ours,) = traces(StoredCache(policy=policy).denoiser(exact, start, requests), start, rows)
    assert_same(ours, theirs, atol=1e-5)
    assert min(float(logits.std()) for logits in ours.logits) > 0.1  # far above the tolerance
    assert tokens == naive.computed
    assert min(tokens) < max(tokens)
