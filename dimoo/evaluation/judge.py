"""An exact judge of pictures of the built-in world: explain a picture by drawing it again.

No network: since the world's sprites are known, "what is in the picture" is the question which sprites, drawn on
which background, leave the least error.

Axes: B = batch, H W = pixels, K = background colours, N = nouns, s = a sprite's side, P = candidates (a noun of a
size at a place).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import conv2d

from dimoo.core.errors import RequestError
from dimoo.data.world.atlas import sprite
from dimoo.data.world.config import WorldConfig
from dimoo.data.world.palette import PALETTE
from dimoo.data.world.render import render
from dimoo.data.world.scene import Background, Entity, Scene

Floats = NDArray[np.float32]

REACH = 0.02
"""Squared colour distance, of three channels in 0..1, from which on a pixel is as wrong as can be: an outlier."""
EDGE_PRICE = 0.03
"""Share of the pixels that a second background colour must explain before it is believed."""


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What a judge makes of a picture."""

    scene: Scene
    scores: tuple[float, ...]
    """How well each entity of the scene explains its square: 1 is a perfect copy."""


@dataclass(frozen=True, kw_only=True)
class Judge:
    """Names the objects, their places and sizes, and the background of pictures of a world.

    A sprite with premultiplied colour p and opacity a, drawn over a background B, changes it by D = p - aB. With
    X = I - B for a picture I, drawing it lowers the squared error by

        gain = |X|^2 - |X - D|^2 = 2 <X, D> - |D|^2,

    and its score is 1 - |X - D|^2 / max(|X|^2, |D|^2), both over the sprite's square: low where the picture lacks what
    the sprite has, and where it has much that the sprite lacks. Objects do not overlap, so their gains add up; they
    are taken greedily, the largest gain first. Places are those of the world, multiples of `world.align`. This is done
    for the best background of one colour and for the best of two, and the better explanation wins.
    """

    world: WorldConfig
    accept: float = 0.5
    """Lowest score of an object that counts as seen."""

    def see(self, pictures: NDArray[np.uint8]) -> list[Seen]:
        """Judge pictures of one size, uint8 [B, H, W, 3].

        Raises:
            RequestError: they are not RGB pictures of 8 bits, or are smaller than a big object.
        """
        if pictures.ndim != 4 or pictures.shape[3] != 3 or pictures.dtype != np.uint8:
            raise RequestError(
                f"the judge takes uint8 [B, H, W, 3], not {pictures.dtype} {list(pictures.shape)}; convert to RGB"
            )
        height, width = pictures.shape[1:3]
        if min(height, width) < self.world.big:
            raise RequestError(
                f"pictures of {height}x{width} are smaller than a big object; use {self.world.big} px or more a side"
            )
        image = pictures.astype(np.float32) / np.float32(255)
        misfit = self._misfit(image)
        plain = self._explain(image, [self._one_color(cost) for cost in misfit])
        split = self._explain(image, [self._two_colors(cost) for cost in misfit])
        return [
            min(pair, key=lambda seen: _error(one, seen.scene)) for one, *pair in zip(image, plain, split, strict=True)
        ]

    def _misfit(self, image: Floats) -> Floats:
        """How badly each background colour fits each pixel: [B, H, W, 3] -> [B, K, H, W] in 0..REACH."""
        palette = np.array([PALETTE[color] for color in self.world.colors], np.float32) / np.float32(255)
        distance: Floats = np.square(image[:, None] - palette[:, None, None, :]).sum(-1)
        return np.minimum(distance, np.float32(REACH))

    def _one_color(self, misfit: Floats) -> Background:
        """The colour of least misfit [K, H, W]; objects are outliers."""
        return Background(colors=(self.world.colors[int(misfit.sum((1, 2)).argmin())],))

    def _two_colors(self, misfit: Floats) -> Background:
        """The colours and the edge of least misfit [K, H, W]; one colour, if no two different ones are better."""
        best, least = self._one_color(misfit), np.inf
        axes: tuple[tuple[Literal["x", "y"], Floats], ...] = (("x", misfit.sum(1)), ("y", misfit.sum(2)))
        for axis, lines in axes:
            edges = np.arange(self.world.align, lines.shape[1], self.world.align)
            before = lines.cumsum(1)[:, edges - 1]
            after = lines.sum(1, keepdims=True) - before
            total = np.where(before.argmin(0) == after.argmin(0), np.inf, before.min(0) + after.min(0))
            if total.size and total.min() < least:
                at, least = int(total.argmin()), total.min()
                colors = (self.world.colors[int(side[:, at].argmin())] for side in (before, after))
                best = Background(colors=tuple(colors), axis=axis, edge=int(edges[at]))
        return best

    def _explain(self, image: Floats, backgrounds: Sequence[Background]) -> list[Seen]:
        """The best objects for pictures [B, H, W, 3] on given backgrounds."""
        height, width = image.shape[1:3]
        empty = [Scene(height=height, width=width, background=ground, entities=()) for ground in backgrounds]
        below = torch.from_numpy(np.stack([_drawn(scene) for scene in empty])).permute(0, 3, 1, 2)
        rest = torch.from_numpy(image).permute(0, 3, 1, 2) - below
        gains, scores, entities = [], [], []
        step = self.world.align
        for name, side in self.world.sizes.items():
            gain, score = match(rest, below, _sprites(self.world.words, side), stride=step)
            gains.append(gain.flatten(1).numpy())
            scores.append(score.flatten(1).numpy())
            entities += [
                Entity(noun=noun, size_name=name, size_px=side, x=x * step, y=y * step)
                for noun in self.world.words
                for y in range(gain.shape[2])
                for x in range(gain.shape[3])
            ]
        return [
            self._choose(scene, gain, score, entities)
            for scene, gain, score in zip(empty, np.concatenate(gains, 1), np.concatenate(scores, 1), strict=True)
        ]

    def _choose(self, empty: Scene, gain: Floats, score: Floats, entities: Sequence[Entity]) -> Seen:
        """The best of P candidates that do not overlap."""
        good = np.flatnonzero((score >= self.accept) & (gain > 0))
        chosen: list[int] = []
        for index in good[np.argsort(-gain[good], kind="stable")]:
            if not any(entities[index].overlaps(entities[other]) for other in chosen):
                chosen.append(int(index))
        scene = replace(empty, entities=tuple(entities[index] for index in chosen))
        return Seen(scene=scene, scores=tuple(float(score[index]) for index in chosen))


def match(rest: Tensor, below: Tensor, sprites: Tensor, *, stride: int) -> tuple[Tensor, Tensor]:
    """Gain and score (see `Judge`) of every sprite at every place, by three convolutions.

    Args:
        rest: pictures minus their backgrounds, X [B, 3, H, W].
        below: the backgrounds, B [B, 3, H, W].
        sprites: premultiplied colours p and opacity a [N, 4, s, s].
        stride: pixels between places.

    Returns:
        [B, N, rows, columns] each.
    """
    p, a = sprites[:, :3], sprites[:, 3:]
    # <X, D> = <X, p> - <X.B, a> and |D|^2 = |p|^2 - 2 <B, ap> + <B.B, a^2>: exact for any background.
    x_and_xb = torch.cat([rest, (rest * below).sum(1, keepdim=True)], 1)
    b_and_bb = torch.cat([below, below.square().sum(1, keepdim=True)], 1)
    overlap = conv2d(x_and_xb, torch.cat([p, -a], 1), stride=stride)
    change = conv2d(b_and_bb, torch.cat([-2 * a * p, a.square()], 1), p.square().sum((1, 2, 3)), stride=stride)
    shown = conv2d(rest.square().sum(1, keepdim=True), torch.ones_like(a[:1]), stride=stride)
    gain = 2 * overlap - change
    return gain, 1 - (shown - gain) / torch.maximum(shown, change).clamp_min(1e-6)


def _sprites(nouns: Sequence[str], side: int) -> Tensor:
    """float32 [N, 4, side, side]."""
    return torch.from_numpy(np.stack([sprite(noun, side) for noun in nouns])).permute(0, 3, 1, 2).contiguous()


def _drawn(scene: Scene) -> Floats:
    """A scene as float32 [H, W, 3] in 0..1."""
    return render(scene).astype(np.float32) / np.float32(255)


def _error(image: Floats, scene: Scene) -> float:
    """What a scene leaves unexplained of a picture [H, W, 3]: mean bounded error, and the price of an edge."""
    wrong = np.minimum(np.square(image - _drawn(scene)).sum(-1), REACH).mean()
    return float(wrong) + EDGE_PRICE * REACH * (len(scene.background.colors) - 1)
