"""Sequences of associative recall, drawn where they are needed: keys, then values, then the filler are the tokens."""

import torch
from torch import Tensor

from replications.layers.text.model import IGNORED
from replications.tasks.sequence_memory.options import RecallOptions
from replications.training.batches import part_of
from replications.training.determinism import generator_for
from replications.training.stage import Batch


def draw(options: RecallOptions, pairs: int, gap: int, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return tokens ``[count, 2 pairs + gap + 1]`` and the value asked for ``[count]``, both int64.

    Keys of a sequence differ from one another; its values may be equal, so telling any of the values that were seen
    is right in ``1 / pairs + (1 - 1 / pairs) / values`` of all cases.
    """
    key = torch.rand(count, options.keys, generator=generator).argsort(dim=1)[:, :pairs]
    value = options.keys + torch.randint(options.values, (count, pairs), generator=generator)
    asked = torch.randint(pairs, (count, 1), generator=generator)
    filler = torch.full((count, gap), options.keys + options.values)
    tokens = torch.cat([torch.stack([key, value], dim=2).flatten(1), filler, key.gather(1, asked)], dim=1)
    return tokens, value.gather(1, asked)[:, 0]


class RecallBatches:
    """Fresh sequences for every step, drawn from (seed, step) alone: the same for every method of a seed (`Batches`).

    Step s has the s-th number of pairs and gap, in turn. Only the last token is asked for its successor.
    """

    def __init__(self, options: RecallOptions, batch_size: int, seed: int, device: torch.device | str):
        self.options, self.batch_size, self.seed, self.device = options, batch_size, seed, device
        self.samples = batch_size * len(options.conditions)  # an epoch has each combination once

    def batch(self, step: int, part: int = 0, parts: int = 1) -> Batch:
        pairs, gap = self.options.conditions[step % len(self.options.conditions)]
        generator = generator_for(self.seed, "recall", step)
        tokens, value = draw(self.options, pairs, gap, self.batch_size, generator)
        own = part_of(self.batch_size, part, parts)
        tokens, value = tokens[own].to(self.device), value[own].to(self.device)
        target = torch.full_like(tokens, IGNORED)
        target[:, -1] = value
        return {"tokens": tokens, "target": target}


def recall_accuracy(model, options: RecallOptions, split: str, device: torch.device | str) -> dict[str, float]:
    """Return the share of values told, in %, by number of pairs and gap. The sequences are the same for every model."""
    found = {}
    for pairs, gap in options.conditions:
        generator = generator_for(split, pairs, gap)
        tokens, value = draw(options, pairs, gap, getattr(options, split), generator)
        with torch.no_grad():
            told = torch.cat([model.logits(part.to(device))[:, -1].argmax(dim=-1).cpu() for part in tokens.split(250)])
        found[f"recall_p{pairs}_g{gap}"] = 100.0 * (told == value).double().mean().item()
    return found
