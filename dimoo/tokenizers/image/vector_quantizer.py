"""Vector quantization with a learned codebook.

Axes: B = batch, h w = code grid, C = channels, K = codes, N = B*h*w.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dimoo.tokenizers.image.base import Quantized
from dimoo.tokenizers.image.nearest import embed, gather_sums, k_means, nearest_codes, random_rows, to_rows

_NO_MASS = 1e-5


class VectorQuantizer(nn.Module):
    """k(z) = argmin_k |z - e_k|^2; the gradient passes straight through to z.

    Loss "commitment" = commitment * mean |z - sg(e)|^2. The codebook learns in one of two ways:
    - `ema_decay` given: in `update`, from moving averages of how many latents chose a code and of their sum,
      n_k <- d n_k + (1-d) count_k,  m_k <- d m_k + (1-d) sum_k,  e_k = m_k / n_k;
    - `ema_decay=None`: by gradient, through the loss "codebook" = mean |sg(z) - e|^2.

    With `revive_after`, a code that no latent of the last so many updates chose is re-drawn from the batch. The first
    `fixed` codes never change, so that a tokenizer can be extended while what its codes mean stays.

    Sources: van den Oord et al. 2017 (arXiv 1711.00937), appendix A.1 for the averages; revival as in
    Dhariwal et al. 2020 (arXiv 2005.00341).
    """

    mass: Tensor
    sums: Tensor
    idle: Tensor

    def __init__(
        self,
        *,
        size: int,
        dim: int,
        commitment: float,
        ema_decay: float | None,
        revive_after: int | None,
        fixed: int = 0,
    ) -> None:
        super().__init__()
        self.commitment = commitment
        self.ema_decay = ema_decay
        self.revive_after = revive_after
        self.fixed = fixed
        self.codebook = nn.Parameter(torch.empty(size, dim), requires_grad=ema_decay is None)
        if ema_decay is not None:
            self.register_buffer("mass", torch.empty(size))
            self.register_buffer("sums", torch.empty(size, dim))
        if revive_after is not None:
            self.register_buffer("idle", torch.empty(size, dtype=torch.int64))
        nn.init.uniform_(self.codebook, -1 / size, 1 / size)
        self.restart_statistics()

    @property
    def codebook_size(self) -> int:
        """How many codes there are."""
        return self.codebook.shape[0]

    @property
    def dim(self) -> int:
        """Channels of the latents."""
        return self.codebook.shape[1]

    @property
    def statistics(self) -> frozenset[str]:
        """The moving averages, and for how many updates each code has not been chosen."""
        return frozenset(name for name, _ in self.named_buffers())

    @torch.no_grad()
    def restart_statistics(self) -> None:
        """Every code counts as chosen once, just now, by a latent equal to it."""
        if self.ema_decay is not None:
            self.mass.fill_(1)
            self.sums.copy_(self.codebook)
        if self.revive_after is not None:
            self.idle.zero_()

    def forward(self, latents: Tensor) -> Quantized:
        """Quantize latents [B, C, h, w]; changes no state."""
        batch, _, height, width = latents.shape
        codes = nearest_codes(to_rows(latents), self.codebook).view(batch, height, width)
        vectors, z = self.lookup(codes).float(), latents.float()
        losses = {"commitment": self.commitment * F.mse_loss(z, vectors.detach())}
        if self.ema_decay is None:
            losses["codebook"] = F.mse_loss(vectors, z.detach())
        straight_through = z + (vectors - z).detach()
        return Quantized(latents=straight_through.to(latents.dtype), codes=codes, losses=losses)

    def lookup(self, codes: Tensor) -> Tensor:
        """Codes int64 [B, h, w] -> their vectors [B, C, h, w]."""
        return embed(codes, self.codebook)

    @torch.no_grad()
    def reset(self, generator: torch.Generator) -> None:
        """Draw the codes that are not fixed from U(-1/K, 1/K) and forget the statistics."""
        bound = 1 / self.codebook_size
        self.codebook[self.fixed :].uniform_(-bound, bound, generator=generator)
        self.restart_statistics()

    @torch.no_grad()
    def initialise(self, latents: Tensor, generator: torch.Generator) -> None:
        """Set the codes that are not fixed to the k-means centres of the distinct latents in a sample [B, C, h, w].

        Distinct, since plain background repeats so often that it would take most of the codes. Of a codebook that is
        extended, the half of them that the fixed codes serve worst counts, so that the others keep their codes.
        """
        distinct = torch.unique(to_rows(latents), dim=0)
        if self.fixed:
            known = self.codebook[: self.fixed]
            error = (distinct - known[nearest_codes(distinct, known)]).square().sum(dim=1)
            distinct = distinct[error > error.median()]
        self.codebook[self.fixed :] = k_means(distinct, self.codebook_size - self.fixed, generator)
        self.restart_statistics()

    @torch.no_grad()
    def update(self, latents: Tensor, codes: Tensor, generator: torch.Generator) -> int:
        """Learn from one batch, latents [B, C, h, w] and codes [B, h, w]; returns how many were revived."""
        vectors = to_rows(latents).float()
        counts, sums = gather_sums(vectors, codes.flatten(), self.codebook_size)
        if self.ema_decay is not None:
            self.mass.lerp_(counts.to(self.mass.dtype), 1 - self.ema_decay)
            self.sums.lerp_(sums.to(self.sums.dtype), 1 - self.ema_decay)
            # A code that has not been chosen for long has no average left to follow: it stays where it is.
            alive = (self.mass > _NO_MASS)[:, None]
            alive[: self.fixed] = False
            means = self.sums / self.mass.clamp(min=_NO_MASS)[:, None]
            self.codebook.copy_(torch.where(alive, means, self.codebook))
        return 0 if self.revive_after is None else self._revive(vectors, counts, self.revive_after, generator)

    def _revive(self, vectors: Tensor, counts: Tensor, after: int, generator: torch.Generator) -> int:
        self.idle.add_(1).masked_fill_(counts > 0, 0)
        dead = (self.idle[self.fixed :] >= after).nonzero()[:, 0] + self.fixed
        if len(dead) == 0:
            return 0
        fresh = random_rows(vectors, len(dead), generator).to(self.codebook.dtype)
        self.codebook[dead] = fresh
        self.idle[dead] = 0
        if self.ema_decay is not None:
            self.mass[dead] = 1
            self.sums[dead] = fresh
        return len(dead)
