"""What a denoiser around another one passes on."""

from __future__ import annotations

from collections.abc import Sequence

from dimoo.core.device import Count
from dimoo.diffusion.sampler import Denoiser, Inquiring


class Forwarding:
    """Passes on what the inner one asks, and what it is told."""

    denoiser: Denoiser

    @property
    def open_counts(self) -> Sequence[Count]:
        return self.denoiser.open_counts if isinstance(self.denoiser, Inquiring) else ()

    def told(self, numbers: Sequence[int]) -> None:
        if isinstance(self.denoiser, Inquiring):
            self.denoiser.told(numbers)
