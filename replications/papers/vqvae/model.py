"""VQ-VAE: discrete codes of images, then an autoregressive prior over codes (van den Oord et al., NeurIPS 2017)."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from replications.errors import UserError
from replications.layers.generation.autoencoder import decoder, encoder
from replications.layers.generation.codes import Codebook, Learning, Relaxation, usage
from replications.layers.generation.model import Generator, Sampler
from replications.layers.generation.sequence import SymbolModel
from replications.training.stage import Batch

CODE_WIDTH = 16
LEVELS = 17  # grey levels of pixels that are predicted one by one: those of the digits


class VQVAE(Generator):
    """Images of (rows, columns) become (rows / 4) x (columns / 4) codes. Noise is a quantile for each code.

    Encoder and decoder have no part in the prior's loss, and the prior none in theirs: its codes carry no gradient.
    """

    def __init__(self, shape: tuple[int, int], channels: int, prior_width: int, quantiser: nn.Module, outputs: int):
        if any(side % 4 for side in shape):
            raise UserError(f"images of {shape[0]} x {shape[1]} pixels: two halvings need multiples of 4")
        self.shape, self.grid = shape, (shape[0] // 4, shape[1] // 4)
        super().__init__(self.grid[0] * self.grid[1])
        self.encoder, self.decoder = encoder(channels, outputs), decoder(channels, CODE_WIDTH)
        self.quantiser = quantiser
        self.size = len(quantiser.table())
        self.prior = SymbolModel(self.noise_size, self.size, prior_width)

    def forward(self, batch: Batch, turn: str = "") -> dict[str, Tensor]:
        image = batch["image"]
        coded = self.quantiser(self.encode(image))
        rebuilt = F.mse_loss(self.decode(coded.vectors), image)
        prior = -self.prior.log_prob(coded.codes).mean()
        return {"loss": rebuilt + coded.loss + prior, "reconstruction": rebuilt, "prior": prior}

    def encode(self, image: Tensor) -> Tensor:
        """Return vectors, or logits of a relaxation, ``[batch, codes, outputs]``."""
        return self.encoder(image.unflatten(1, (1, *self.shape))).flatten(2).transpose(1, 2)

    def decode(self, vectors: Tensor) -> Tensor:
        """Return images ``[batch, pixels]`` of vectors ``[batch, codes, CODE_WIDTH]``."""
        return self.decoder(vectors.transpose(1, 2).unflatten(2, self.grid)).flatten(1)

    def of_codes(self, codes: Tensor) -> Tensor:
        """Return images of codes int64 ``[batch, codes]``."""
        return self.decode(F.embedding(codes, self.quantiser.table()))

    def rebuild(self, image: Tensor) -> Tensor:
        return self.of_codes(self.quantiser.nearest(self.encode(image)))

    def vocabulary(self) -> Tensor:
        each = torch.arange(self.size, device=self.quantiser.table().device)
        return self.of_codes(each[:, None].expand(-1, self.noise_size))

    def samplers(self) -> dict[str, Sampler]:
        """Return codes drawn by the prior, and evenly."""
        return {"prior": self._by_prior, "uniform": self._evenly}

    def _by_prior(self, noise: Tensor) -> Tensor:
        self.passes += self.noise_size + 1
        return self.of_codes(self.prior.draw(noise))

    def _evenly(self, noise: Tensor) -> Tensor:
        self.passes += 1
        return self.of_codes((torch.special.ndtr(noise) * self.size).long().clamp_max(self.size - 1))

    def measure(self, image: Tensor) -> dict[str, float]:
        """Measure reconstructions, relaxed and with hard codes, the codes in use, and the prior's bits a code."""
        encoded = self.encode(image)
        codes = self.quantiser.nearest(encoded)
        relaxed = self.quantiser(encoded).vectors
        return {
            "reconstruction_mse": F.mse_loss(self.of_codes(codes), image).item(),
            "relaxed_mse": F.mse_loss(self.decode(relaxed), image).item(),
            "code_bits": -self.prior.log_prob(codes).double().mean().item() / math.log(2),
        } | usage(codes, self.size)


class Pixels(Generator):
    """The baseline: the same autoregressive model over pixels of 17 grey levels, without codes."""

    def __init__(self, pixels: int, prior_width: int):
        super().__init__(pixels)
        self.prior = SymbolModel(pixels, LEVELS, prior_width)

    def forward(self, batch: Batch, turn: str = "") -> dict[str, Tensor]:
        return {"loss": -self.prior.log_prob(levels(batch["image"])).mean()}

    def samplers(self) -> dict[str, Sampler]:
        return {"pixels": self._draw}

    def _draw(self, noise: Tensor) -> Tensor:
        self.passes += self.noise_size
        return self.prior.draw(noise) * (2 / (LEVELS - 1)) - 1

    def measure(self, image: Tensor) -> dict[str, float]:
        return {"code_bits": -self.prior.log_prob(levels(image)).double().mean().item() / math.log(2)}


def levels(image: Tensor) -> Tensor:
    """Return the nearest grey level of each pixel in [-1, 1], int64."""
    return ((image + 1) * ((LEVELS - 1) / 2)).round().long()


def build(
    shape: tuple[int, int],
    prior_width: int,
    channels: int,
    *,
    codes: int = 64,
    learning: Learning = "average",
    commitment: float = 0.25,
) -> VQVAE:
    """Return images as so many ``codes``, whose codebook learns by ``average`` or by ``loss``."""
    quantiser = Codebook(codes, CODE_WIDTH, learning, commitment)
    return VQVAE(shape, channels, prior_width, quantiser, CODE_WIDTH)


def relaxed(
    shape: tuple[int, int], prior_width: int, channels: int, *, codes: int = 64, temperature: float = 1.0
) -> VQVAE:
    """Return the same with codes relaxed by Gumbel-softmax at a fixed temperature."""
    return VQVAE(shape, channels, prior_width, Relaxation(codes, CODE_WIDTH, temperature), codes)


def pixels(shape: tuple[int, int], prior_width: int) -> Pixels:
    """Return the autoregressive model of pixels."""
    return Pixels(shape[0] * shape[1], prior_width)
