"""The smallest method of the task, which ``new paper`` copies: a linear autoencoder whose codes are kept normal."""

from torch import Tensor, nn

from replications.layers.generation.model import Generator, Sampler
from replications.training.stage import Batch


class Linear(Generator):
    """Images of normal codes; the first two moments of the encoder's codes are pulled to those of the noise."""

    def __init__(self, pixels: int, codes: int):
        super().__init__(codes)
        self.encoder, self.decoder = nn.Linear(pixels, codes), nn.Linear(codes, pixels)

    def forward(self, batch: Batch, turn: str = "") -> dict[str, Tensor]:
        code = self.encoder(batch["image"])
        error = (self.decoder(code) - batch["image"]).square().mean()
        moments = code.mean(0).square().mean() + (code.square().mean(0) - 1).square().mean()
        return {"loss": error + moments, "error": error}

    def samplers(self) -> dict[str, Sampler]:
        return {"once": self.decode}

    def decode(self, noise: Tensor) -> Tensor:
        self.passes += 1
        return self.decoder(noise).clamp(-1, 1)


def build(shape: tuple[int, int]) -> Linear:
    """Return the method for images of so many rows and columns."""
    return Linear(shape[0] * shape[1], 4)
