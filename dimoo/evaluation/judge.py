"""An exact judge of pictures of the built-in world: explain a picture by drawing it again.

No network: since the world's sprites are known, "what is in the picture" is the question which sprites, drawn on
which background, leave the least squared error.

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
from dimoo.data.world.scene import Background, Entity, Scene

REACH = 0.02
"""Squared colour distance, of three channels in 0..1, from which on a pixel says nothing about the background."""
EDGE_PRICE = 0.04
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
    are taken greedily, the largest gain first.
    """

    world: WorldConfig
    accept: float = 0.5
    """Lowest score of an object that counts as seen."""

    def see(self, pictures: NDArray[np.uint8]) -> list[Seen]:
        """Judge pictures of one size, uint8 [B, H, W, 3].

        Raises:
            RequestError: they are not RGB pictures of 8 bits.
        """
        if pictures.ndim != 4 or pictures.shape[3] != 3 or pictures.dtype != np.uint8:
            raise RequestError(
                f"the judge takes uint8 [B, H, W, 3], not {pictures.dtype} {list(pictures.shape)}; convert to RGB"
            )
        height, width = pictures.shape[1:3]
        image = pictures.astype(np.float32) / 255
        empty = [
            Scene(height=height, width=width, background=self._background(cost), entities=())
            for cost in self._misfit(image)
        ]
        ground = np.stack([_paint(scene) for scene in empty])
        gains, scores, entities = self._candidates(image, ground)
        return [
            self._choose(scene, gain, score, entities)
            for scene, gain, score in zip(empty, gains, scores, strict=True)
        ]

    def _misfit(self, image: NDArray[np.float32]) -> NDArray[np.float32]:
        """How badly each background colour fits each pixel: [B, H, W, 3] -> [B, K, H, W] in 0..REACH."""
        palette = np.array([PALETTE[color] for color in self.world.colors], np.float32) / 255
        distance = np.square(image[:, None] - palette[:, None, None, :]).sum(-1)
        return np.minimum(distance, REACH)

    def _background(self, misfit: NDArray[np.float32]) -> Background:
        """The one or two colours that leave the least misfit [K, H, W], objects being outliers."""
        colors, total = self.world.colors, misfit.sum((1, 2))
        best, cost = Background(colors=(colors[int(total.argmin())],)), float(total.min())
        cost -= EDGE_PRICE * REACH * misfit[0].size
        for axis, lines in (("x", misfit.sum(1)), ("y", misfit.sum(2))):
            edges = np.arange(self.world.align, lines.shape[1], self.world.align)
            before = lines.cumsum(1)[:, edges - 1]
            after = total[:, None] - before
            split = before.min(0) + after.min(0)
            at = int(split.argmin())
            first, second = int(before[:, at].argmin()), int(after[:, at].argmin())
            if split[at] < cost and first != second:
                side: Literal["x", "y"] = "x" if axis == "x" else "y"
                best = Background(colors=(colors[first], colors[second]), axis=side, edge=int(edges[at]))
                cost = float(split[at])
        return best

    def _candidates(
        self, image: NDArray[np.float32], ground: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32], list[Entity]]:
        """Gain and score [B, P] of all candidates, for pictures and bare backgrounds [B, H, W, 3]."""
        below = torch.from_numpy(ground).permute(0, 3, 1, 2)
        rest = torch.from_numpy(image).permute(0, 3, 1, 2) - below
        gains, scores, entities = [], [], []
        for name, side in self.world.sizes.items():
            gain, score = _match(rest, below, _sprites(self.world.words, side), stride=self.world.align)
            gains.append(gain.flatten(1).numpy())
            scores.append(score.flatten(1).numpy())
            entities += [
                Entity(noun=noun, size_name=name, size_px=side, x=x * self.world.align, y=y * self.world.align)
                for noun in self.world.words
                for y in range(gain.shape[2])
                for x in range(gain.shape[3])
            ]
        return np.concatenate(gains, 1), np.concatenate(scores, 1), entities

    def _choose(
        self, empty: Scene, gain: NDArray[np.float32], score: NDArray[np.float32], entities: Sequence[Entity]
    ) -> Seen:
        """The best candidates that do not overlap."""
        good = np.flatnonzero((score >= self.accept) & (gain > 0))
        chosen: list[int] = []
        for index in good[np.argsort(-gain[good], kind="stable")]:
            if not any(entities[index].overlaps(entities[other]) for other in chosen):
                chosen.append(int(index))
        scene = replace(empty, entities=tuple(entities[index] for index in chosen))
        return Seen(scene=scene, scores=tuple(float(score[index]) for index in chosen))


def _match(rest: Tensor, below: Tensor, sprites: Tensor, *, stride: int) -> tuple[Tensor, Tensor]:
    """Gain and score of every sprite at every place.

    Args:
        rest: pictures minus their backgrounds, X [B, 3, H, W].
        below: the backgrounds, B [B, 3, H, W].
        sprites: premultiplied colours p and opacity a [N, 4, s, s].
        stride: pixels between places.

    Returns:
        [B, N, rows, columns] each.
    """
    p, a = sprites[:, :3], sprites[:, 3:]

    def correlate(pixels: Tensor, weights: Tensor) -> Tensor:
        return conv2d(pixels, weights, stride=stride)

    # <X, D> = <X, p> - <X.B, a> and |D|^2 = |p|^2 - 2 <B, ap> + <B.B, a^2>: exact for any background.
    overlap = correlate(torch.cat([rest, (rest * below).sum(1, keepdim=True)], 1), torch.cat([p, -a], 1))
    change = p.square().sum((1, 2, 3))[:, None, None] + correlate(
        torch.cat([below, below.square().sum(1, keepdim=True)], 1), torch.cat([-2 * a * p, a.square()], 1)
    )
    shown = correlate(rest.square().sum(1, keepdim=True), torch.ones_like(a[:1]))
    gain = 2 * overlap - change
    return gain, 1 - (shown - gain) / torch.maximum(shown, change).clamp_min(1e-6)


def _sprites(nouns: Sequence[str], side: int) -> Tensor:
    """float32 [N, 4, side, side]."""
    return torch.from_numpy(np.stack([sprite(noun, side) for noun in nouns])).permute(0, 3, 1, 2).contiguous()


def _paint(scene: Scene) -> NDArray[np.float32]:
    """The background alone, float32 [H, W, 3] in 0..1."""
    from dimoo.data.world.render import render
    return render(replace(scene, entities=())).astype(np.float32) / 255
