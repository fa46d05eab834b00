"""Discrete codes: vectors are replaced by the nearest of a learned codebook (van den Oord et al., NeurIPS 2017)."""

from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from replications.errors import UserError

Learning = Literal["loss", "average"]


class Coded(NamedTuple):
    """`vectors` ``[..., width]`` with gradients for what encoded them, `codes` int64 ``[...]``, the `loss` of both."""

    vectors: Tensor
    codes: Tensor
    loss: Tensor


class Codebook(nn.Module):
    """`size` vectors of `width`. The loss is eq. 3 without its first term: codebook and commitment.

    * ``loss``: the codebook is moved by the loss.
    * ``average``: it follows moving averages of the vectors that chose each code (appendix A.1), by no gradient.

    Raises UserError for fewer than two codes and for an unknown `learning`.
    """

    def __init__(self, size: int, width: int, learning: Learning, commitment: float = 0.25, decay: float = 0.99):
        super().__init__()
        if size < 2:
            raise UserError(f"a codebook of {size}: give at least 2 codes")
        if learning not in ("loss", "average"):
            raise UserError(f"a codebook learned by '{learning}': give loss or average")
        self.learning, self.commitment, self.decay = learning, commitment, decay
        start = torch.rand(size, width) * (2 / size) - 1 / size  # as near to 0 as what an untrained encoder gives
        self.register_parameter("vectors", nn.Parameter(start) if learning == "loss" else None)
        if learning == "average":
            self.register_buffer("sums", start.clone())
            self.register_buffer("counts", torch.ones(size))

    def table(self) -> Tensor:
        """Return the codebook ``[size, width]``."""
        return self.vectors if self.learning == "loss" else self.sums / self.counts[:, None]

    def nearest(self, vectors: Tensor) -> Tensor:
        """Return the code of each vector ``[..., width]`` by Euclidean distance, int64 ``[...]``."""
        table = self.table()
        return (table.square().sum(1) - 2 * vectors @ table.T).argmin(-1)

    def forward(self, vectors: Tensor) -> Coded:
        """Quantise ``[..., width]``; gradients pass straight through. Averages move in training mode."""
        codes, table = self.nearest(vectors.detach()), self.table()
        chosen = F.embedding(codes, table)
        loss = self.commitment * F.mse_loss(vectors, chosen.detach())
        if self.learning == "loss":
            loss = loss + F.mse_loss(chosen, vectors.detach())
        elif self.training:
            self._follow(vectors.detach().flatten(0, -2), codes.flatten())
        return Coded(vectors + (chosen - vectors).detach(), codes, loss)

    @torch.no_grad()
    def _follow(self, vectors: Tensor, codes: Tensor) -> None:
        chosen = (codes[:, None] == torch.arange(len(self.counts), device=codes.device)).to(vectors)
        counts = self.decay * self.counts + (1 - self.decay) * chosen.sum(0)
        sums = self.decay * self.sums + (1 - self.decay) * chosen.T @ vectors
        # A code that nobody chooses keeps its vector: both averages shrink alike, and neither to 0.
        scale = (1e-5 / counts).clamp_min(1)
        self.counts, self.sums = counts * scale, sums * scale[:, None]


class Relaxation(nn.Module):
    """Codes drawn by Gumbel-softmax from logits ``[..., size]``: soft mixtures of the codebook in training."""

    def __init__(self, size: int, width: int, temperature: float):
        super().__init__()
        if not temperature > 0:
            raise UserError(f"a temperature of {temperature:g}: give one above 0")
        self.temperature = temperature
        self.vectors = nn.Parameter(torch.randn(size, width))

    def table(self) -> Tensor:
        return self.vectors

    def nearest(self, logits: Tensor) -> Tensor:
        """Return the most likely code of each position."""
        return logits.argmax(-1)

    def forward(self, logits: Tensor) -> Coded:
        """Mix the codebook by drawn weights; the loss is 0."""
        soft = F.gumbel_softmax(logits, self.temperature)
        return Coded(soft @ self.vectors, self.nearest(logits), logits.new_zeros(()))


def usage(codes: Tensor, size: int) -> dict[str, float]:
    """Return ``used_codes``, % of a codebook of `size`, and the ``perplexity`` of codes int64 of any shape."""
    share = torch.bincount(codes.flatten(), minlength=size).double() / codes.numel()
    used = share[share > 0]
    return {"used_codes": 100 * len(used) / size, "perplexity": (-(used * used.log()).sum()).exp().item()}
