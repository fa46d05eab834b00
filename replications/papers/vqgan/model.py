"""VQGAN: codes of images learned with a perceptual and an adversarial loss, then a prior (Esser et al., CVPR 2021)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from replications.errors import UserError
from replications.layers.generation.autoencoder import decoder, encoder
from replications.layers.generation.codes import Codebook, usage
from replications.layers.generation.model import Generator, Sampler
from replications.layers.generation.sequence import SymbolModel
from replications.papers.vqgan.networks import Judge, patch_critic
from replications.training.stage import Batch, Turn

CODE_WIDTH = 16
CRITIC_WEIGHT = 0.8  # of the adversarial loss, beside its adaptive weight (the authors' configurations)
LARGEST_WEIGHT = 1e4
KEPT = 1000  # training images that are rebuilt for a distance of their own


class Stages(nn.Module):
    """What the first turn moves: encoder, codebook, decoder, and the prior, which has no part in their loss."""

    def __init__(self, shape: tuple[int, int], channels: int, prior_width: int, codes: int):
        super().__init__()
        self.grid = (shape[0] // 4, shape[1] // 4)
        self.encoder, self.decoder = encoder(channels, CODE_WIDTH), decoder(channels, CODE_WIDTH)
        self.codebook = Codebook(codes, CODE_WIDTH, "average", commitment=0.25)
        self.prior = SymbolModel(self.grid[0] * self.grid[1], codes, prior_width)

    def encode(self, image: Tensor) -> Tensor:
        """Return vectors ``[batch, codes, CODE_WIDTH]`` of images ``[batch, 1, rows, columns]``."""
        return self.encoder(image).flatten(2).transpose(1, 2)

    def decode(self, vectors: Tensor) -> Tensor:
        """Return images ``[batch, 1, rows, columns]`` of vectors ``[batch, codes, CODE_WIDTH]``."""
        return self.decoder(vectors.transpose(1, 2).unflatten(2, self.grid))

    def of_codes(self, codes: Tensor) -> Tensor:
        """Return images ``[batch, pixels]`` of codes int64 ``[batch, codes]``."""
        return self.decode(F.embedding(codes, self.codebook.table())).flatten(1)


class VQGAN(Generator):
    """Autoencoder against a critic of patches, in turns; a judge of labels gives features for the perceptual loss.

    The reconstruction loss is the mean absolute error of pixels and, where ``perceptual``, a distance of the judge's
    features. The critic's part has the adaptive weight of eq. 7: the ratio of both losses' gradients at the last layer.
    The adversarial loss comes in after ``start`` steps. Raises UserError for sides that are no multiples of 4,
    and for a perceptual loss on a set without labels.
    """

    def __init__(
        self,
        shape: tuple[int, int],
        classes: int,
        channels: int,
        prior_width: int,
        codes: int,
        perceptual: float,
        adversarial: bool,
        start: int,
    ):
        if any(side % 4 for side in shape):
            raise UserError(f"images of {shape[0]} x {shape[1]} pixels: two halvings need multiples of 4")
        if perceptual and not classes:
            raise UserError("a perceptual loss needs a set with labels: its features are those of a classifier")
        super().__init__(shape[0] * shape[1] // 16)
        self.shape, self.perceptual, self.start = shape, perceptual, start
        self.stages = Stages(shape, channels, prior_width, codes)
        self.judge = Judge(channels, classes) if perceptual else None
        self.critic = patch_critic(channels) if adversarial else None
        # Whole numbers: averaged weights copy them, where they would blend images.
        self.register_buffer("kept", torch.zeros(KEPT, shape[0] * shape[1], dtype=torch.uint8))
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    @property
    def turns(self) -> tuple[Turn, ...]:
        """The turns of a step: the judge learns labels, the stages learn against the critic, and the critic."""
        found = [Turn("judge", part="judge")] if self.perceptual else []
        found.append(Turn("stages", part="stages"))
        return (*found, Turn("critic", part="critic")) if self.critic is not None else tuple(found)

    def forward(self, batch: Batch, turn: str = "") -> dict[str, Tensor]:
        image = batch["image"].unflatten(1, (1, *self.shape))
        if turn == "judge":
            return {"loss": F.cross_entropy(self.judge(image), batch["label"])}
        if turn == "critic":
            with torch.no_grad():
                rebuilt = self.stages.decode(self.stages.codebook(self.stages.encode(image)).vectors)
            real, fake = self.critic(torch.cat([image, rebuilt])).chunk(2)
            return {"loss": ((1 - real).relu().mean() + (1 + fake).relu().mean()) / 2}
        return self._stages(image)

    def _stages(self, image: Tensor) -> dict[str, Tensor]:
        if self.training:
            self._keep(image)
        coded = self.stages.codebook(self.stages.encode(image))
        rebuilt = self.stages.decode(coded.vectors)
        error = (rebuilt - image).abs().mean()
        if self.perceptual:
            error = error + self.perceptual * self.judge.distance(rebuilt, image.detach())
        prior = -self.stages.prior.log_prob(coded.codes).mean()
        loss = error + coded.loss + prior
        logged = {"reconstruction": error, "prior": prior}
        if self.critic is not None:
            fooled = -self.critic(rebuilt).mean()
            weight = self.adaptive_weight(error, fooled)
            loss = loss + self.begun() * weight * CRITIC_WEIGHT * fooled
            logged["adaptive_weight"] = weight
        return {"loss": loss} | logged

    def adaptive_weight(self, error: Tensor, fooled: Tensor) -> Tensor:
        """Return ``|grad error| / (|grad fooled| + 1e-4)`` at the decoder's last weights, at most LARGEST_WEIGHT."""
        if not torch.is_grad_enabled():
            return error.new_ones(())
        last = self.stages.decoder[-1].weight
        sizes = [torch.autograd.grad(of, last, retain_graph=True)[0].norm() for of in (error, fooled)]
        return (sizes[0] / (sizes[1] + 1e-4)).clamp(max=LARGEST_WEIGHT).detach()

    def begun(self) -> Tensor:
        """Return 1 where the adversarial loss has come in, else 0."""
        return (self.steps > self.start).float()

    @torch.no_grad()
    def _keep(self, image: Tensor) -> None:
        self.steps += 1
        grey = ((image.flatten(1) + 1) * 127.5).round().to(torch.uint8)
        self.kept = torch.cat([grey, self.kept])[:KEPT]

    def samplers(self) -> dict[str, Sampler]:
        """Return codes drawn by the prior; and training images of late steps, rebuilt (noise says which)."""
        return {"prior": self.draw, "rebuilt": self._rebuilt}

    def draw(self, noise: Tensor) -> Tensor:
        self.passes += self.noise_size + 1
        return self.stages.of_codes(self.stages.prior.draw(noise))

    def _rebuilt(self, noise: Tensor) -> Tensor:
        self.passes += 1
        which = (torch.special.ndtr(noise[:, 0]) * KEPT).long().clamp_max(KEPT - 1)
        return self.rebuild(self.kept[which].float() / 127.5 - 1)

    def rebuild(self, image: Tensor) -> Tensor:
        """Return images ``[batch, pixels]`` of the codes of images."""
        return self.stages.of_codes(self._codes(image))

    def vocabulary(self) -> Tensor:
        table = self.stages.codebook.table()
        return self.stages.of_codes(torch.arange(len(table), device=table.device)[:, None].expand(-1, self.noise_size))

    def _codes(self, image: Tensor) -> Tensor:
        return self.stages.codebook.nearest(self.stages.encode(image.unflatten(1, (1, *self.shape))))

    def measure(self, image: Tensor) -> dict[str, float]:
        """Measure reconstructions and the codes in use on test images."""
        codes = self._codes(image)
        rebuilt = F.mse_loss(self.stages.of_codes(codes), image).item()
        return {"reconstruction_mse": rebuilt} | usage(codes, len(self.stages.codebook.table()))


def build(
    shape: tuple[int, int],
    classes: int,
    channels: int,
    prior_width: int,
    *,
    codes: int = 64,
    perceptual: float = 1.0,
    adversarial: bool = True,
    start: int = 0,
) -> VQGAN:
    """Return the autoencoder, with its ``perceptual`` loss and an ``adversarial`` one from ``start`` on, or without."""
    return VQGAN(shape, classes, channels, prior_width, codes, perceptual, adversarial, start)
