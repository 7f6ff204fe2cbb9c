"""ML-Cache: compute the least certain positions anew (Lumina-DiMOO, arXiv 2510.06308, section 4).

Axes: n = tokens of the segment, m = wanted positions.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from dimoo.cache.policy import Look
from dimoo.core.device import Count
from dimoo.core.errors import ConfigError
from dimoo.diffusion.progress import places


@dataclass(frozen=True, kw_only=True)
class Timetable:
    """When all is computed: in the steps s <= W = int(`warmup` T) of T, then in every `refresh`-th one from W on.

    Raises:
        ConfigError: a value is out of range.
    """

    warmup: float = 0.3
    refresh: int = 5

    def __post_init__(self) -> None:
        if not 0.0 <= self.warmup <= 1.0:
            raise ConfigError(f"warmup {self.warmup} must be a share of the steps in [0, 1]")
        if self.refresh < 1:
            raise ConfigError(f"refresh {self.refresh} must be at least 1, which computes all at every step")

    def whole(self, step: int, steps: int) -> bool:
        """Whether all is computed at a step."""
        warm = int(self.warmup * steps)
        return step <= warm or (step - warm) % self.refresh == 0


@dataclass(frozen=True, kw_only=True)
class PaperMaxLogit:
    """The published policy, exactly: positions whose largest logit is among the lowest `share` of all.

    With m_i the largest (unguided) logit of position i over the columns, prompt and row ends included, those with
    m_i <= quantile_share(m) are computed anew, each branch by itself. The released setting `cache_ratio` is 1 - share.
    Positions that nobody looked at are no part of the quantile and are computed.

    Raises:
        ConfigError: a value is out of range.
    """

    share: float = 0.1
    timetable: Timetable = Timetable()

    def __post_init__(self) -> None:
        _check_share(self.share)

    @property
    def keeps_logits(self) -> bool:
        """Yes: what is certain is not computed."""
        return True

    def surveys(self, step: int, steps: int) -> bool:
        """Before every step that computes a part: the quantile is over all positions."""
        return step + 1 < steps and not self.timetable.whole(step + 1, steps)

    def ahead(self, step: int, steps: int, peaks: Tensor) -> tuple[Count, ...]:
        """Before a step that computes a part: how many lie at or below the quantile, which depends on ties."""
        return (self._low(peaks).sum(),) if self.surveys(step, steps) else ()

    def anew(self, look: Look) -> Tensor | None:
        """Those at or below the quantile.

        Raises:
            ConfigError: it was not told what it asked for.
        """
        if self.timetable.whole(look.step, look.steps):
            return None
        if not look.told:
            raise ConfigError(f"{self} was not told what it asked for ahead; let a policy around it forward `ahead`")
        return places(self._low(look.peaks), *look.told)

    def _low(self, peaks: Tensor) -> Tensor:
        """Which positions lie at or below the quantile of those that somebody looked at: float [n] -> bool [n]."""
        seen = peaks.masked_fill(peaks == -torch.inf, torch.nan)
        return peaks <= seen.nanquantile(self.share)


@dataclass(frozen=True, kw_only=True)
class MaxLogit:
    """The same idea, aimed: what was just committed, and of what is still to be made the least certain `share`.

    Differs from `PaperMaxLogit` in three ways. Prompt, row ends and tokens committed long ago are no candidates: they
    are stored between two refreshes. Tokens committed since they were computed always are: their keys and values are
    those of a mask. And the number is exact, ceil(share m) of m, whatever the ties; where more of them were never
    looked at, as in a new block of a text, it is all of those.

    `fixed` computes the same number of positions at every such step, ceil(share c) of the c on the canvas (more only if
    more were committed), so that shapes stay the same: what was committed, then the least certain. Counts are known on
    the host, and nothing is read from the device.

    Raises:
        ConfigError: a value is out of range.
    """

    share: float = 0.1
    timetable: Timetable = Timetable()
    fixed: bool = False

    def __post_init__(self) -> None:
        _check_share(self.share)

    @property
    def keeps_logits(self) -> bool:
        """Yes: what is certain is not computed."""
        return True

    def surveys(self, step: int, steps: int) -> bool:
        """Never: what was predicted has been looked at."""
        del step, steps
        return False

    def anew(self, look: Look) -> Tensor | None:
        """The committed ones, then the least certain of the wanted."""
        if self.timetable.whole(look.step, look.steps):
            return None
        peaks = look.peaks[look.wanted]
        certain = torch.full_like(look.peaks, torch.inf).index_copy(0, look.wanted, peaks)
        first = certain.masked_fill(look.changed, -torch.inf).argsort(stable=True)
        return first[: self._count(look)].sort().values

    def _count(self, look: Look) -> int:
        if self.fixed:
            return max(math.ceil(self.share * (len(look.changed) - look.context)), look.written + look.unseen)
        return look.written + max(math.ceil(self.share * look.wanted.numel()), look.unseen)


def _check_share(share: float) -> None:
    if not 0.0 < share <= 1.0:
        raise ConfigError(f"share {share} must lie in (0, 1]: the part of the positions that is computed anew")
