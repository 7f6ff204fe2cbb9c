"""The released loop as it spends its time: the oracle that ratios are taken against.

One answer at a time; every branch in a forward pass of its own; the head for every token and every id of the
vocabulary; noise and softmax as full-size tensors, in float64 for the confidence of text; ML-Cache with a store per
branch that keeps full-vocabulary logits. Written plainly: nothing here is meant to be fast. Greedy and without noise it
makes the tokens that `dimoo` makes with the same plan.

Axes: n = tokens of a branch, V = ids of the vocabulary, N = canvas tokens, m = masked positions, C = columns.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Generator, Tensor

from dimoo.backbone.layout import PackedLayout
from dimoo.backbone.model import Backbone
from dimoo.cache.max_logit import PaperMaxLogit
from dimoo.core.errors import ConfigError
from dimoo.core.rng import generator
from dimoo.diffusion.canvas import Plan
from dimoo.diffusion.confidence import GumbelConfidence
from dimoo.diffusion.draw import Categorical
from dimoo.diffusion.orders import BlockOrder, MaskGITOrder
from dimoo.diffusion.progress import Progress
from dimoo.diffusion.schedules import remaining
from dimoo.tasks.job import Job
from dimoo.tokenizers.document import GIVEN
from dimoo.tokenizers.vocabulary import Vocabulary


@torch.no_grad()
def run_as_released(
    network: Backbone,
    vocabulary: Vocabulary,
    jobs: Sequence[Job[Any]],
    policy: PaperMaxLogit | None = None,
    *,
    most: int | None = None,
) -> list[Any]:
    """The results of jobs, one after the other; nothing where it was stopped early.

    Args:
        network: the transformer.
        vocabulary: its ids.
        jobs: what is to be made: one picture by `MaskGITOrder` or one text by `BlockOrder` each.
        policy: of the released ML-Cache, for pictures; None: without.
        most: stop after so many steps, for a look at memory; None: at the end.

    Raises:
        ConfigError: the released loop cannot make such an answer.
    """
    results = []
    for job in jobs:
        answer = job.problem.answer
        targets = {target.modality for target in answer.targets}
        if len(targets) != 1:
            raise ConfigError(f"the released loop makes one picture or one text, not {len(targets)} modalities")
        plan = job.plans[targets.pop()]
        match plan.order:
            case MaskGITOrder():
                ids = _picture(network, vocabulary, job, plan, policy, most)
            case BlockOrder():
                ids = _text(network, vocabulary, job, plan, most)
            case _:
                raise ConfigError(f"the released loop has no order {plan.order}; use the maskgit or the block order")
        results.append(job.read(ids.cpu()) if most is None else None)
    return results


def _picture(
    network: Backbone, vocabulary: Vocabulary, job: Job[Any], plan: Plan, policy: PaperMaxLogit | None, most: int | None
) -> Tensor:
    """MaskGIT with guidance, as released."""
    answer, noise = job.problem.answer, generator(job.seed, "sample")
    start, stop = answer.targets[0].columns
    ids = answer.ids.to(network.device)
    positions = (answer.group != GIVEN).nonzero().squeeze(1).to(network.device)
    contexts = {name: job.problem.branches[name].ids.to(network.device) for name in plan.guidance.branches}
    passes: dict[str, Callable[[Tensor, int], Tensor]] = {
        name: _Cached(network=network, policy=policy, steps=plan.steps, columns=(start, stop))
        if policy
        else _Plain(network=network)
        for name in contexts
    }
    order = plan.order
    assert isinstance(order, MaskGITOrder)
    total = int((ids[positions] == vocabulary.mask).sum())
    for step in range(plan.steps):
        masked = positions[ids[positions] == vocabulary.mask]
        if not masked.numel() or step == most:
            break
        logits = [
            passes[name](torch.cat([context, ids]), step)[context.numel() :][masked][:, start:stop].float()
            for name, context in contexts.items()
        ]
        guided = plan.guidance(torch.stack(logits))
        codes = _gumbel_max(guided, plan, noise)
        confidence = guided.softmax(-1).gather(-1, codes[:, None])[:, 0]
        if isinstance(plan.confidence, GumbelConfidence) and plan.confidence.temperature:
            confidence = confidence.log() + plan.confidence.temperature * _gumbel(confidence, noise)
        ids = ids.clone()
        ids[masked] = codes + start
        if step + 1 < plan.steps:
            kept = min(max(1, remaining(order.schedule, total, step, plan.steps)), masked.numel() - 1)
            least = confidence.argsort(descending=True, stable=True)[masked.numel() - kept :]
            ids[masked[least]] = vocabulary.mask
    return ids


def _text(network: Backbone, vocabulary: Vocabulary, job: Job[Any], plan: Plan, most: int | None) -> Tensor:
    """LLaDA's blocks, as released: the whole sequence over the whole vocabulary at every step."""
    answer, order = job.problem.answer, plan.order
    assert isinstance(order, BlockOrder)
    context = job.problem.branches["condition"].ids.to(network.device)
    ids = torch.cat([context, answer.ids.to(network.device)])
    denoised = (answer.group != GIVEN).nonzero().squeeze(1).to(network.device) + context.numel()
    start, stop = answer.targets[0].columns
    initial = ids[denoised] == vocabulary.mask
    blocks = torch.split(denoised, order.block)
    per_block = plan.steps // len(blocks)
    for block in blocks:
        share, rest = divmod(int((ids[block] == vocabulary.mask).sum()), per_block)
        for step in range(per_block if most is None else min(per_block, most)):
            predicted = _Plain(network=network)(ids, step)
            predicted[:, vocabulary.mask] = -torch.inf
            predicted[:, :start], predicted[:, stop:] = -torch.inf, -torch.inf
            tokens = predicted.argmax(-1)
            confidence = predicted.to(torch.float64).softmax(-1).gather(-1, tokens[:, None])[:, 0]
            confidence[ids != vocabulary.mask] = -torch.inf
            confidence[int(block[-1]) + 1 :] = -torch.inf
            count = min(share + (step < rest), int((confidence > -torch.inf).sum()))
            best = confidence.argsort(descending=True, stable=True)[:count]
            ids[best] = tokens[best]
        now = ids[denoised]
        if plan.stopping(now, Progress.of(step=0, steps=plan.steps, initial=initial, masked=now == vocabulary.mask)):
            ids[denoised[now == vocabulary.mask]] = vocabulary.pad
            break
    return ids[context.numel() :]


@dataclass(frozen=True, kw_only=True)
class _Plain:
    """A forward pass of one branch: logits [n, V]."""

    network: Backbone

    def __call__(self, ids: Tensor, step: int) -> Tensor:
        del step
        return self.network.head(self.network(ids, PackedLayout.of([ids.numel()], ids.device)))


@dataclass(kw_only=True, eq=False)
class _Cached:
    """The same through ML-Cache: keys, values and logits [n, V] of the branch's last passes."""

    network: Backbone
    policy: PaperMaxLogit
    steps: int
    columns: tuple[int, int]
    keys: dict[int, Tensor] = field(default_factory=dict)
    values: dict[int, Tensor] = field(default_factory=dict)
    logits: Tensor | None = None
    anew: Tensor | None = None

    def __call__(self, ids: Tensor, step: int) -> Tensor:
        if self.logits is None or self.policy.timetable.whole(step, self.steps):
            self.keys, self.values, self.anew = {}, {}, None
            self.logits = self.network.head(self.network(ids, PackedLayout.of([ids.numel()], ids.device), self))
        else:
            peaks = self.logits[:, slice(*self.columns)].max(-1).values.float()
            self.anew = (peaks <= peaks.quantile(self.policy.share)).nonzero()[:, 0]
            lengths = (self.anew.numel(),), (ids.numel(),)
            layout = PackedLayout(positions=self.anew, query_lengths=lengths[0], key_lengths=lengths[1])
            self.logits[self.anew] = self.network.head(self.network(ids[self.anew], layout, self))
        return self.logits

    def extend(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """See `dimoo.backbone.kv.KV`."""
        if self.anew is None:
            self.keys[layer], self.values[layer] = key, value
        else:
            self.keys[layer][self.anew], self.values[layer][self.anew] = key, value
        return self.keys[layer], self.values[layer]


def _gumbel_max(logits: Tensor, plan: Plan, noise: Generator) -> Tensor:
    """A code for each row of logits [m, C]: the argmax after full-size noise."""
    if not isinstance(plan.draw, Categorical):
        return plan.draw(logits, noise)
    return (logits / plan.draw.temperature + _gumbel(logits, noise)).argmax(-1)


def _gumbel(like: Tensor, noise: Generator) -> Tensor:
    uniform = torch.rand(like.shape, generator=noise, device=noise.device).to(like.device)
    return -(-uniform.clamp(min=1e-20).log()).clamp(min=1e-20).log()
