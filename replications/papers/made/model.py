"""MADE: an autoencoder whose masks make output i depend on the inputs before i alone (Germain et al., ICML 2015).

Orders and connectivities are drawn once, from the seed of the weights; training takes them in turn, a step each, and
the density is the mean of their probabilities (section 4.2).
"""

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from replications.layers.density.masked import MaskedLinear
from replications.layers.density.model import Autoregressive, Measures, log_bernoulli, log_mean_exp


class MADE(Autoregressive):
    """Masked layers and, where `direct`, masked connections from inputs to outputs (section 4.1).

    ``degree_0`` [orders, pixels] is m of the inputs, their place in the order, from 1 to D; ``degree_l`` that of a
    hidden layer. A weight is there where the lower unit's m is at most (into the outputs: below) the upper's.
    The first order is row by row where `natural`. With `classes` the label comes before all pixels: p(y) p(x|y).
    """

    def __init__(self, pixels: int, widths: list[int], orders: int, direct: bool, natural: bool, classes: int):
        super().__init__(pixels)
        self.orders, self.current = orders, 0
        places = torch.stack([torch.randperm(pixels) + 1 for _ in range(orders)])
        if natural:
            places[0] = torch.arange(1, pixels + 1)
        self.register_buffer("degree_0", places)
        for layer, width in enumerate(widths, 1):
            lowest = getattr(self, f"degree_{layer - 1}").min(1).values
            drawn = [torch.randint(min(int(low), max(1, pixels - 1)), max(2, pixels), (width,)) for low in lowest]
            self.register_buffer(f"degree_{layer}", torch.stack(drawn))
        sizes = [pixels, *widths]
        self.hidden = nn.ModuleList(MaskedLinear(*pair) for pair in pairwise(sizes))
        self.output = MaskedLinear(sizes[-1], pixels)
        self.direct = MaskedLinear(pixels, pixels, bias=False) if direct else None
        self.label_logit = nn.Parameter(torch.zeros(classes)) if classes else None
        self.label_to = nn.ModuleList(nn.Linear(classes, size, bias=False) for size in [*widths, pixels] if classes)

    def on_step(self, step: int, total_steps: int) -> None:
        """Take the next order (Algorithm 1 with a list of masks)."""
        self.current = step % self.orders

    def _mask(self, lower: int, upper: int, order: int) -> Tensor:
        """Return the mask from degrees `lower` to `upper`: 0 are inputs and outputs (eqs. 8 and 9)."""
        below = getattr(self, f"degree_{lower}")[order][None]
        above = getattr(self, f"degree_{upper}")[order][:, None]
        return above > below if upper == 0 else above >= below

    def logits(self, image: Tensor, order: int = 0, label: Tensor | None = None) -> Tensor:
        """Return the logit of each pixel given those before it in an order, and the label (one-hot)."""
        self.passes += 1
        x = image
        for layer, hidden in enumerate(self.hidden, 1):
            x = hidden(x, self._mask(layer - 1, layer, order))
            x = F.relu(x if label is None else x + self.label_to[layer - 1](label))
        logits = self.output(x, self._mask(len(self.hidden), 0, order))
        if self.direct is not None:
            logits = logits + self.direct(image, self._mask(0, 0, order))
        return logits if label is None else logits + self.label_to[-1](label)

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the NLL at this step's order, with `classes` that of image and label."""
        image = batch["image"]
        if self.label_logit is None:
            return {"loss": -log_bernoulli(self.logits(image, self.current), image).mean()}
        label = image.new_zeros(len(image), len(self.label_logit)).scatter_(1, batch["label"][:, None].long(), 1.0)
        pixels = log_bernoulli(self.logits(image, self.current, label), image)
        return {"loss": F.cross_entropy(self.label_logit.expand_as(label), batch["label"]) - pixels.mean()}

    def log_prob(self, image: Tensor) -> Tensor:
        """Return the log of the mean probability over the orders (and of the sum over labels)."""
        if self.label_logit is not None:
            return self.label_log_prob(image).logsumexp(1)
        each = [log_bernoulli(self.logits(image, order), image) for order in range(self.orders)]
        return log_mean_exp(torch.stack(each), 0)

    def pseudo_log_prob(self, image: Tensor) -> Tensor | None:
        """Average the orders' logits, as some public code does: a pixel then sees itself through other orders."""
        if self.orders == 1 or self.label_logit is not None:
            return None
        logits = torch.stack([self.logits(image, order) for order in range(self.orders)]).mean(0)
        return log_bernoulli(logits, image)

    def label_log_prob(self, image: Tensor) -> Tensor | None:
        if self.label_logit is None:
            return None
        each = []
        for label in torch.eye(len(self.label_logit), device=image.device, dtype=image.dtype):
            one = label.expand(len(image), -1)
            found = [log_bernoulli(self.logits(image, order, one), image) for order in range(self.orders)]
            each.append(log_mean_exp(torch.stack(found), 0))
        return torch.stack(each, 1) + self.label_logit.log_softmax(0)

    @torch.no_grad()
    def sample(self, count: int) -> Tensor:
        """Draw images, all in one order, itself drawn; each with a label drawn for it."""
        image, label = self.output.bias.new_zeros(count, self.pixels), None
        if self.label_logit is not None:
            drawn = torch.multinomial(self.label_logit.softmax(0).expand(count, -1), 1)[:, 0]
            label = F.one_hot(drawn, len(self.label_logit)).to(image.dtype)
        order = torch.randint(self.orders, (1,)).item()
        for pixel in self.degree_0[order].argsort().tolist():
            image[:, pixel] = torch.bernoulli(self.logits(image, order, label)[:, pixel].sigmoid())
        return image

    @torch.no_grad()
    def measure(self, image: Tensor) -> Measures:
        """Keep the masks of the first order and, of several, the log-probabilities at that order alone."""
        layers = [*range(len(self.hidden) + 1), 0]
        arrays = {f"mask_{n}": self._mask(*pair, 0).cpu().numpy() for n, pair in enumerate(pairwise(layers))}
        if self.orders > 1 and self.label_logit is None:
            first = log_bernoulli(self.logits(image, 0), image)
            arrays["log_prob_one_order"] = first.double().cpu().numpy()
        return Measures(arrays=arrays)


def build(
    shape: tuple[int, int],
    classes: int,
    *,
    hidden: int,
    layers: int = 1,
    orders: int = 1,
    direct: bool = False,
    natural: bool = True,
    joint: bool = False,
) -> MADE:
    """Return a network of `layers` hidden layers of `hidden` units; `joint` models the label too."""
    pixels = shape[0] * shape[1]
    return MADE(pixels, [hidden] * layers, orders, direct, natural, classes if joint else 0)
