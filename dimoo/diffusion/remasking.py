"""Taking tokens back: what was committed is masked again and predicted anew, now that more is known around it.

Axes: L = positions of one span, r = positions masked again. A position's certainty is softmax(guided logits)[token]
when its token was drawn, and inf where there is no drawn one: of what is given, masked or filled. Given tokens are
never taken back.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Generator, Tensor
from typing_extensions import assert_never

from dimoo.core.errors import ConfigError
from dimoo.diffusion.draw import gumbel
from dimoo.diffusion.orders import Counted, Order
from dimoo.diffusion.progress import Progress, places


class Remasking(Protocol):
    """Decides which tokens are taken back, a span at a time. No state: what it needs is remembered for it."""

    @property
    def rounds(self) -> int:
        """Steps after the order's last one, in each of which `anew` is masked, predicted and committed."""

    @property
    def weighs(self) -> bool:
        """Whether it looks at the certainty; otherwise that is inf everywhere."""

    def validate(self, order: Order) -> None:
        """Check that it goes with the order.

        Raises:
            ConfigError: it does not.
        """

    def again(self, order: Order, progress: Progress, certainty: Tensor, generator: Generator) -> Tensor:
        """Committed offsets int64 [r] that are masked again at the end of a step of the order, before which the
        progress is asked for and the certainty is float [L]."""

    def anew(self, certainty: Tensor, drawn: int) -> Tensor:
        """Offsets int64 [r] to predict in a round, when nothing is masked; the certainty is float [L]. `drawn`
        positions, at least one, hold a token that was drawn; the others were given, or filled by an early stop."""


@dataclass(frozen=True, kw_only=True)
class NoRemasking:
    """What is committed stays."""

    @property
    def rounds(self) -> int:
        """None."""
        return 0

    @property
    def weighs(self) -> bool:
        """No."""
        return False

    def validate(self, order: Order) -> None:
        """Any order."""
        del order

    def again(self, order: Order, progress: Progress, certainty: Tensor, generator: Generator) -> Tensor:
        """Nothing; draws nothing."""
        del order, certainty, generator
        return _none(progress.masked)

    def anew(self, certainty: Tensor, drawn: int) -> Tensor:
        """Nothing."""
        del drawn
        return _none(certainty)


@dataclass(frozen=True, kw_only=True)
class ReMDM:
    """Masks some committed tokens again in each step of the order, which commits as many more (arXiv 2503.00307).

    With the share alpha_t of tokens unmasked before a step and alpha_s after it, each of those unmasked is taken back
    with probability sigma <= sigma_max = min(1, (1 - alpha_s) / alpha_t):

    - "cap": sigma = min(eta, sigma_max);
    - "rescale": sigma = eta sigma_max.

    The alphas are the order's own counts, so that the number masked after each step is what it would be without this;
    in the last step sigma_max is 0. Where the paper tosses a coin for each of u tokens, floor(sigma u + U) are taken
    back, U uniform on [0, 1), which has the same mean. Which ones is drawn evenly; `by_confidence` one after the other
    in proportion to exp(-p), p the probability of the token when it was drawn (psi in the paper, whose weights sum to 1
    over a sequence; ours leave the number as it is).

    Raises:
        ConfigError: eta is not in (0, 1].
    """

    eta: float
    strategy: Literal["cap", "rescale"] = "rescale"
    by_confidence: bool = False

    def __post_init__(self) -> None:
        if not 0.0 < self.eta <= 1.0:
            raise ConfigError(f"eta {self.eta} must lie in (0, 1]; to take nothing back use NoRemasking (kind 'none')")

    @property
    def rounds(self) -> int:
        """None: it happens within the order's steps."""
        return 0

    @property
    def weighs(self) -> bool:
        """Only by confidence."""
        return self.by_confidence

    def validate(self, order: Order) -> None:
        """The order's counts must be known beforehand, and must make up for what is taken back."""
        if not isinstance(order, Counted):
            raise ConfigError(
                f"ReMDM takes tokens back within an order's steps, which needs one that commits by a schedule, not"
                f" {order}; use the order 'maskgit', 'random', 'halton' or 'stratified', or Refinement, which goes with"
                " any"
            )

    def again(self, order: Order, progress: Progress, certainty: Tensor, generator: Generator) -> Tensor:
        """Drawn among those unmasked before this step."""
        assert isinstance(order, Counted)
        unmasked = places(progress.initial & ~progress.masked, len(progress.starts) - progress.left)
        left = order.left(progress)
        if left == 0 or unmasked.numel() == 0:
            return _none(unmasked)
        uniform = torch.rand(1, generator=generator, device=generator.device, dtype=torch.float64).item()
        count = math.floor(self._mean(unmasked.numel(), left) + uniform)
        # The r largest of log w + Gumbel noise are r draws without replacement in proportion to w.
        scores = gumbel(unmasked.shape, dtype=torch.float32, generator=generator, device=unmasked.device)
        if self.by_confidence:
            scores = scores - certainty[unmasked]
        return unmasked[scores.topk(count).indices.sort().values]

    def anew(self, certainty: Tensor, drawn: int) -> Tensor:
        """Nothing: there are no rounds."""
        del drawn
        return _none(certainty)

    def _mean(self, unmasked: int, left: int) -> float:
        """sigma u; sigma_max u is the smaller of what is unmasked and what is to be masked."""
        most = min(unmasked, left)
        match self.strategy:
            case "cap":
                return min(self.eta * unmasked, most)
            case "rescale":
                return self.eta * most
            case _:
                assert_never(self.strategy)


@dataclass(frozen=True, kw_only=True)
class Refinement:
    """When all is committed, the least certain are predicted again, for some rounds of a step each.

    A round takes back ceil(share N) of the N tokens that were drawn, those of the lowest probability when they were
    drawn last, and commits what it predicts in their place (LaViDa-O, arXiv 2509.19244, has such a refinement).
    Guidance is that of the order's last step, also where an order was done before. What an early stop filled is left
    alone.

    Raises:
        ConfigError: there is no round, or the share is not in (0, 1].
    """

    rounds: int = 1
    share: float = 0.1

    def __post_init__(self) -> None:
        if self.rounds < 1:
            raise ConfigError(f"rounds {self.rounds} must be at least 1; for none use NoRemasking (kind 'none')")
        if not 0.0 < self.share <= 1.0:
            raise ConfigError(f"share {self.share} must lie in (0, 1]: the part of the tokens that is predicted again")

    @property
    def weighs(self) -> bool:
        """Yes."""
        return True

    def validate(self, order: Order) -> None:
        """Any order: it is done before the first round."""
        del order

    def again(self, order: Order, progress: Progress, certainty: Tensor, generator: Generator) -> Tensor:
        """Nothing within the order's steps; draws nothing."""
        del order, certainty, generator
        return _none(progress.masked)

    def anew(self, certainty: Tensor, drawn: int) -> Tensor:
        """The least certain; the lower offset wins a tie."""
        return certainty.argsort(stable=True)[: math.ceil(self.share * drawn)].sort().values


def _none(like: Tensor) -> Tensor:
    return torch.empty(0, dtype=torch.int64, device=like.device)
