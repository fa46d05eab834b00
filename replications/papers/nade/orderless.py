"""Order-agnostic NADE: one network for the conditionals of every order (Uria, Murray and Larochelle, ICML 2014)."""

import torch
from torch import Tensor, nn

from replications.layers.density.model import Density, Measures, log_bernoulli, log_mean_exp


class OrderlessNADE(Density):
    """A network of the pixels seen and the mask of what is seen gives each unseen pixel's logit (section 3).

    The density is the mean over `orders` fixed orders (section 4): D passes for each.
    """

    def __init__(self, pixels: int, hidden: int, orders: int):
        super().__init__()
        self.pixels = pixels
        self.register_buffer("order", torch.stack([torch.randperm(pixels) for _ in range(orders)]))
        self.network = nn.Sequential(nn.Linear(2 * pixels, hidden), nn.ReLU(), nn.Linear(hidden, pixels))

    def logits(self, image: Tensor, seen: Tensor) -> Tensor:
        """Return ``[batch, pixels]``; those of pixels that are `seen` (0 or 1, broadcast) mean nothing."""
        self.passes += 1
        return self.network(torch.cat([image * seen, seen.expand_as(image)], -1))

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return D / (D - d) times the unseen pixels' NLL, d of them seen: an unbiased NLL over orders (eq. 9)."""
        image = batch["image"]
        place = torch.rand_like(image).argsort(1)
        count = torch.randint(self.pixels, (len(image), 1), device=image.device)
        seen = (place < count).to(image.dtype)
        each = torch.nn.functional.binary_cross_entropy_with_logits(self.logits(image, seen), image, reduction="none")
        scale = self.pixels / (self.pixels - count[:, 0])
        return {"loss": (scale * (each * (1 - seen)).sum(1)).mean()}

    def log_prob(self, image: Tensor) -> Tensor:
        return log_mean_exp(torch.stack([self.log_prob_at(image, order) for order in self.order]), 0)

    def log_prob_at(self, image: Tensor, order: Tensor) -> Tensor:
        """Return log p(x) by the chain rule in one order, ``[batch]``."""
        total, seen = image.new_zeros(len(image)), image.new_zeros(self.pixels)
        for pixel in order.tolist():
            logits = self.logits(image, seen)
            total = total + log_bernoulli(logits[:, pixel, None], image[:, pixel, None])
            seen[pixel] = 1
        return total

    @torch.no_grad()
    def sample(self, count: int) -> Tensor:
        """Draw images, all in one order: itself drawn."""
        order = self.order[torch.randint(len(self.order), (1,)).item()]
        image, seen = self.network[0].weight.new_zeros(count, self.pixels), order.new_zeros(self.pixels).float()
        for pixel in order.tolist():
            image[:, pixel] = torch.bernoulli(self.logits(image, seen)[:, pixel].sigmoid())
            seen[pixel] = 1
        return image

    @torch.no_grad()
    def measure(self, image: Tensor) -> Measures:
        one = self.log_prob_at(image, self.order[0])
        return Measures(arrays={"log_prob_one_order": one.double().cpu().numpy()})


def build(shape: tuple[int, int], *, hidden: int, orders: int = 8) -> OrderlessNADE:
    """Return the network; its density is the mean over so many orders."""
    return OrderlessNADE(shape[0] * shape[1], hidden, orders)
