"""Masked words: which words of a text are asked for, and what stands there (Devlin et al. 2019, section 3.1)."""

import math
from collections.abc import Iterator

import numpy as np
import torch
from torch import Generator, Tensor

from replications.datasets.text.words import MASK, SPECIAL
from replications.layers.text.classifier import TextModel
from replications.layers.text.model import IGNORED
from replications.training.augment import Draws
from replications.training.determinism import generator_for
from replications.training.stage import Batch


class Masking:
    """Ask for a share of each text's known words, at least one, by `draw` and `apply` (`Augment`).

    ``round(fraction * words)`` of them, as in the authors' code: padding and unknown words are never asked for.
    `shares` says what stands in an asked word's place: the mask, a random word, the word itself.
    """

    def __init__(self, vocabulary: int, length: int, fraction: float, shares: tuple[float, float, float]):
        self.words, self.length, self.fraction, self.shares = vocabulary - SPECIAL, length, fraction, shares
        self.most = max(1, math.ceil(length * fraction))

    def draw(self, n: int, generator: Generator) -> Draws:
        return {
            "choice": torch.rand(n, self.length, generator=generator),
            "fate": torch.rand(n, self.most, generator=generator),
            "other": torch.randint(self.words, (n, self.most), generator=generator),
        }

    def apply(self, batch: Batch, draws: Draws) -> Batch:
        """Return ``tokens`` with words replaced, ``places`` and ``target`` ``[n, most]``."""
        tokens = batch["tokens"].long()
        known = tokens >= SPECIAL
        places = draws["choice"].masked_fill(~known, 2.0).argsort(dim=1)[:, : self.most]  # known words come first
        count = (known.sum(1, keepdim=True) * self.fraction).round().clamp_min(1)
        number = torch.arange(places.shape[1], device=tokens.device)
        asked = (number < count) & known.gather(1, places)
        word = tokens.gather(1, places)
        masked, random, _ = self.shares
        kept_or_random = torch.where(draws["fate"] < masked + random, SPECIAL + draws["other"], word)
        shown = torch.where(draws["fate"] < masked, MASK, kept_or_random)
        tokens = tokens.scatter(1, places, torch.where(asked, shown, word))
        return {"tokens": tokens, "places": places, "target": torch.where(asked, word, IGNORED)}


def each_word_once(tokens: Tensor, fraction: float, generator: Generator) -> Iterator[Batch]:
    """Yield batches as `Masking.apply` does, of mask tokens alone, in which every known word is asked for exactly once.

    Each asks for about `fraction` of a text's words: there are ``round(1 / fraction)``.
    """
    rounds = max(1, round(1 / fraction))
    known = tokens >= SPECIAL
    order = torch.rand(tokens.shape, generator=generator).to(tokens.device).masked_fill(~known, 2.0).argsort(dim=1)
    for first in range(min(rounds, tokens.shape[1])):
        places = order[:, first::rounds]
        asked, word = known.gather(1, places), tokens.gather(1, places)
        shown = tokens.scatter(1, places, torch.where(asked, MASK, word))
        yield {"tokens": shown, "places": places, "target": torch.where(asked, word, IGNORED)}


@torch.no_grad()
def word_costs(model: TextModel, tokens: Tensor, fraction: float, batch: int) -> dict[str, np.ndarray]:
    """Mask every known word of ``[n, length]`` once. Return ``word_nats``, ``word_right`` and ``word``, one value each.

    Which words are masked together is the same for all models; texts are scored `batch` at a time.
    """
    found: dict[str, list[Tensor]] = {"word_nats": [], "word_right": [], "word": []}
    for place, part in enumerate(tokens.split(batch)):
        for masked in each_word_once(part, fraction, generator_for("test", "masks", place)):
            asked = masked["target"] != IGNORED
            log_p = model.word_logits(masked["tokens"], masked["places"])[asked].float().log_softmax(-1)
            word = masked["target"][asked]
            found["word_nats"].append(-log_p.gather(1, word[:, None])[:, 0])
            found["word_right"].append(log_p.argmax(1) == word)
            found["word"].append(word)
    return {name: torch.cat(parts).cpu().numpy() for name, parts in found.items()}
