"""MoCo (He et al., CVPR 2020), section 3: a queue of keys as negatives, from a slowly moving encoder."""

import copy
import functools

import torch
from torch import Tensor

from replications.errors import UserError
from replications.layers.images.contrastive import ContrastiveClassifier, ContrastivePretrainer, info_nce
from replications.layers.images.views import make_views
from replications.training.stage import Batch


class MoCo(ContrastivePretrainer):
    """Algorithm 1 on batches ``image`` ``[n, 3, H, W]``.

    The queue holds the last `queue` keys. At the first step it is filled with copies of that batch's keys. It is in
    the module's state, and the next key's place with it. Raises UserError for a momentum that is not in [0, 1), an
    empty queue, and a batch that the queue does not hold a whole number of times.
    """

    def __init__(self, *arguments, momentum: float, queue: int):
        super().__init__(*arguments)
        if not 0 <= momentum < 1:
            raise UserError(f"option momentum must be at least 0 and below 1, not {momentum:g}")
        if queue < 1:
            raise UserError(f"option queue must hold at least one key, not {queue}")
        self.momentum = momentum
        self.keys = copy.deepcopy(self.projected).requires_grad_(False)
        self.register_buffer("queue", torch.zeros(queue, self.projected.head[-1].out_features))
        self.register_buffer("place", torch.zeros((), dtype=torch.int64))
        self.register_buffer("filled", torch.zeros((), dtype=torch.bool))

    @torch.no_grad()
    def on_step(self, step: int, total_steps: int) -> None:
        """Move the key encoder by equation 2, ``k <- m k + (1 - m) q``."""
        torch._foreach_lerp_(list(self.keys.parameters()), list(self.projected.parameters()), 1 - self.momentum)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        image = batch["image"]
        check_queue(len(self.queue), len(image))
        query = self.projected(self.views(image))
        with torch.no_grad():
            key = self.keys(self.views(image))
            first = key[torch.arange(len(self.queue), device=key.device) % len(key)]
            negatives = torch.where(self.filled, self.queue, first)
        found = info_nce(query, key, negatives, self.temperature)
        if self.training and torch.is_grad_enabled():
            self.enqueue(key, negatives)
        return found

    @torch.no_grad()
    def enqueue(self, key: Tensor, negatives: Tensor) -> None:
        """Put keys ``[n, dim]`` in the places of the oldest ones."""
        places = (self.place + torch.arange(len(key), device=key.device)) % len(self.queue)
        self.queue.copy_(negatives.index_copy(0, places, key))
        self.place.add_(len(key)).remainder_(len(self.queue))
        self.filled.fill_(True)


def check_queue(queue: int, batch: int) -> None:
    """Raise UserError where a queue does not hold a batch a whole number of times."""
    if queue < batch:
        raise UserError(f"a queue of {queue} keys is smaller than a batch of {batch}: raise option queue")
    if queue % batch:
        raise UserError(f"a queue of {queue} keys is no multiple of a batch of {batch}: change option queue")


def build(
    num_classes: int,
    image_size: int,
    *,
    encoder: dict,
    views: dict,
    momentum: float = 0.999,
    queue: int = 65536,
    temperature: float = 0.07,
    dim: int = 128,
) -> ContrastiveClassifier:
    """The classifier, which brings its MoCo. `views` are those of SimCLR, also for training on labels."""
    seen = make_views(views)
    make = functools.partial(MoCo, image_size, encoder, dim, temperature, seen, momentum=momentum, queue=queue)
    return ContrastiveClassifier(num_classes, encoder, seen, make)
