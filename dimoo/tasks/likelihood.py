"""How likely a model finds a picture or an answer: a Monte-Carlo bound on its negative log-likelihood.

Axes: S = draws, B = draws in one forward pass, L = target tokens, n = tokens of context and answer together.

A masked diffusion model has no likelihood in closed form. Averaged over all orders in which the L tokens x of a target
can be uncovered (LLaDA, arXiv 2502.09992, eq. 6; c is the context),

    -log p(x | c) <= E_k E_M [ (L / k) * sum_{i in M} -log p(x_i | x outside M, c) ],

with k uniform on 1..L and M uniform among the sets of k of the L tokens. A target of so few tokens that it has no more
such sets than draws were asked for is not estimated: all of its 2^L - 1 sets are computed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import torch
from PIL.Image import Image
from torch import Generator, Tensor

from dimoo.backbone.layout import PackedLayout
from dimoo.core.errors import RequestError
from dimoo.core.pictures import as_rgb
from dimoo.core.requests import ChatRequest
from dimoo.core.rng import generator
from dimoo.denoise import MaskPredictor
from dimoo.diffusion.guidance import CONDITION
from dimoo.diffusion.loss import chunked_nll
from dimoo.presets.config import ImageSettings, TextSettings
from dimoo.tasks.chat import as_messages, chat
from dimoo.tasks.compose import Settings
from dimoo.tasks.inputs import pictures, whole, words
from dimoo.tasks.job import Kit
from dimoo.tasks.problem import Problem
from dimoo.tasks.problems import text_to_image, understanding
from dimoo.tokenizers.document import GIVEN, Document

CHUNK = 1024
"""Rows of logits that exist at a time: half a gigabyte at the 126,356 text columns of an 8B model."""


@dataclass(frozen=True, kw_only=True)
class Likelihood:
    """An upper bound on -log p(target | context), estimated, and how far the estimate may be off."""

    nats: float
    """The estimate of the bound, summed over the tokens; smaller is likelier."""
    error: float
    """Its standard error in nats, over the draws of masks; 0 where all of them were computed."""
    tokens: int
    """L: how many tokens the target has."""

    @property
    def per_token(self) -> float:
        """Nats per token."""
        return self.nats / self.tokens

    @property
    def bits_per_token(self) -> float:
        """nats / (L log 2)."""
        return self.per_token / math.log(2)

    @property
    def perplexity(self) -> float:
        """exp(nats / L): as many equally likely ids would be as hard to guess; infinite beyond a float's range."""
        return math.exp(self.per_token) if self.per_token < math.log(1e308) else math.inf

    def __str__(self) -> str:
        return (
            f"{self.nats:.4g} +- {self.error:.2g} nats for {self.tokens} tokens"
            f" ({self.bits_per_token:.4g} bits per token, perplexity {self.perplexity:.4g})"
        )


def known_problem(
    kit: Kit, target: Image | str, prompt: str, images: Image | Sequence[Image], tokens: int | None
) -> Problem:
    """The problem whose answer is known: a picture drawn from `prompt`, or the answer to `prompt` about `images`.

    Without images a model that has a chat template reads `prompt` as the user's message, and none as plain text.

    Args:
        kit: the model's prompts and tokenizers.
        target: the answer.
        prompt: what is drawn or asked.
        images: what is asked about; none where the target is a picture.
        tokens: planned for a text answer and its end; those behind the end stay masked, as nothing is known of them.
            None: exactly as many as the answer takes.

    Raises:
        RequestError: the target is neither picture nor string, a picture comes with `images` or `tokens`, a text takes
            more than `tokens`, a size is off the grid, the prompt is too long, or a value is of a wrong type.
    """
    seen, asked = pictures(images), words(prompt, "prompt")
    if isinstance(target, Image):
        if seen or tokens is not None:
            what = f"{len(seen)} `images`" if seen else f"tokens={tokens}"
            raise RequestError(
                f"the target is a picture and comes with {what}; a picture's likelihood is that of its codes given the"
                " prompt alone: leave `images` and `tokens` out"
            )
        return text_to_image(kit.prompts, asked, kit.grid(as_rgb(target)))
    if not isinstance(target, str):
        raise RequestError(f"the target must be a Pillow image or a string, not {type(target).__name__} {target!r:.60}")
    prompts, talk = kit.prompts, None if seen else kit.chat
    end = [prompts.vocabulary.special("answer_end")] if talk is None else list(talk.stops[:1])
    ids = [*prompts.text.encode(prompts.text.defuse(target)), *end]
    planned = len(ids) if tokens is None else kit.planned(tokens)
    if len(ids) > planned:
        raise RequestError(f"the answer takes {len(ids)} tokens, more than the {planned} that are planned for it")
    if talk is None:
        grids = [kit.grid(image) for image in kit.fitted([as_rgb(image) for image in seen], asked=True)]
        return _written(understanding(prompts, asked, grids, None, length=planned), ids)
    if not asked:  # a text that answers nobody, as language models are compared on
        return _written(Problem(branches={CONDITION: Document.given([])}, answer=talk.answer(planned)), ids)
    request = ChatRequest(messages=as_messages(asked), tokens=planned)
    return _written(chat(kit, request, Settings(image=ImageSettings(), text=TextSettings())).problem, ids)


def _written(problem: Problem, ids: Sequence[int]) -> Problem:
    """The problem with its first targets known; the others are no targets any more and stay masked."""
    answer = problem.answer
    places = (answer.group != GIVEN).nonzero().squeeze(1)
    known, behind = places[: len(ids)], places[len(ids) :]
    written = Document(
        ids=answer.ids.index_copy(0, known, torch.tensor(ids, dtype=torch.int64)),
        group=answer.group.index_fill(0, behind, GIVEN),
        targets=answer.targets,
    )
    return replace(problem, answer=written)


@torch.no_grad()
def likelihood(
    network: MaskPredictor, problem: Problem, *, mask: int, samples: int, seed: int, batch: int
) -> Likelihood:
    """Estimate the bound for every target token of a problem, those of all its groups together.

    p is the softmax over the token's columns: the ids of its modality, or of its codebook. The draws come from the seed
    alone and are taken on the CPU: neither `batch` nor the device changes them.

    Args:
        network: the model.
        problem: a known answer behind its "condition" context.
        mask: the id of the mask.
        samples: S, at least 2; the error falls with its root, and is 0 from 2^L - 1 on.
        seed: names the draws.
        batch: draws in one forward pass, at least 1; memory grows with it.

    Raises:
        RequestError: `samples` or `batch` is too small or no whole number, or the answer has no target, or a target
            that is not known.
    """
    samples, batch = _at_least(2, samples, "samples"), _at_least(1, batch, "batch")
    document = problem.document()
    places = _targets(document, mask)
    draws = generator(whole(seed, "seed"), "likelihood")
    tokens, every = len(places), 2 ** len(places) - 1 <= samples
    masks, strata = every_mask(tokens) if every else draw_masks(tokens, samples, draws)
    bounds = torch.cat([_bounds(network, document, places, part, mask) for part in torch.split(masks, batch)])
    mean, error = stratified_mean(bounds, strata)
    return Likelihood(nats=mean, error=0.0 if every else error, tokens=tokens)


def every_mask(tokens: int) -> tuple[Tensor, Tensor]:
    """Every set of tokens to mask but the empty one, bool [2^L - 1, L], and its stratum k - 1, int64 [2^L - 1]."""
    masks = torch.tensor(list(product([False, True], repeat=tokens)))[1:]
    return masks, masks.sum(1) - 1


def draw_masks(tokens: int, samples: int, generator: Generator) -> tuple[Tensor, Tensor]:
    """Sets of tokens to mask, bool [S, L], and the stratum of each, int64 [S] in 0 .. H - 1 with H = S // 2.

    Stratum h draws k = 1 + floor(L t) with t uniform on [h / H, (h + 1) / H), so that all k get their share. It draws
    twice (stratum 0 three times where S is odd): the fewest that show the variance within a stratum.
    """
    count = samples // 2
    strata = torch.arange(samples) % count
    share = (strata + torch.rand(samples, generator=generator, dtype=torch.float64)) / count
    masked = 1 + (share * tokens).long().clamp(max=tokens - 1)
    ranks = torch.rand(samples, tokens, generator=generator, dtype=torch.float64).argsort(1).argsort(1)
    return ranks < masked[:, None], strata


def stratified_mean(values: Tensor, strata: Tensor) -> tuple[float, float]:
    """Mean of strata of equal weight, and its standard error: sum_h mean_h / H and sqrt(sum_h var_h / n_h) / H.

    The square of the error is unbiased: what the strata differ in is no matter of chance and is left out.

    Args:
        values: float64 [S].
        strata: int64 [S] in 0 .. H - 1; two draws n_h in each, or the error is not defined.
    """
    sizes = strata.bincount()
    means = torch.zeros_like(sizes, dtype=torch.float64).index_add(0, strata, values) / sizes
    squares = torch.zeros_like(means).index_add(0, strata, (values - means[strata]).square())
    return float(means.mean()), float((squares / (sizes - 1) / sizes).sum().sqrt() / len(sizes))


def _bounds(network: MaskPredictor, document: Document, places: Tensor, masks: Tensor, mask: int) -> Tensor:
    """(L / k) * sum of the masked tokens' -log p of each draw: masks bool [B, L] -> float64 [B] on the CPU."""
    device, (draws, length) = network.device, (len(masks), len(document))
    ids = document.ids.repeat(draws, 1)
    ids[:, places] = ids[:, places].masked_fill(masks, mask)
    hidden = network(ids.flatten().to(device), PackedLayout.of([length] * draws, device))
    draw, token = masks.nonzero(as_tuple=True)
    place = places[token]
    total = torch.zeros(draws, dtype=torch.float64)
    for index, target in enumerate(document.targets):
        own = document.group[place] == index
        rows = hidden[(draw * length + place)[own].to(device)]
        nll = _nll(network, rows, document.ids[place[own]].to(device), target.columns)
        total.index_add_(0, draw[own], nll.cpu().double())
    # In this order, so that draws which find every token equally likely come out equal to the last bit.
    return total * len(places) / masks.sum(1)


def _nll(network: MaskPredictor, hidden: Tensor, ids: Tensor, columns: tuple[int, int]) -> Tensor:
    """-log p of ids [M] at hidden rows [M, d] under the softmax over their columns: float32 [M]."""
    return chunked_nll(hidden, ids - columns[0], lambda rows: network.head(rows, slice(*columns)), CHUNK)


def _targets(document: Document, mask: int) -> Tensor:
    """Where the target tokens stand, int64 [L]."""
    places = (document.group != GIVEN).nonzero().squeeze(1)
    if not len(places):
        raise RequestError("the answer has no target token; what is only given has no likelihood")
    columns = torch.tensor([target.columns for target in document.targets])[document.group[places]]
    ids = document.ids[places]
    unknown = (ids == mask) | (ids < columns[:, 0]) | (ids >= columns[:, 1])
    if unknown.any():
        raise RequestError(
            f"{int(unknown.sum())} of {len(places)} target tokens are masked or no id of their kind; the likelihood is"
            " that of a whole answer: build the problem with its codes and words"
        )
    return places


def _at_least(least: int, value: Any, what: str) -> int:
    number = whole(value, what)
    if number < least:
        raise RequestError(f"{what}={number} must be at least {least}")
    return number
