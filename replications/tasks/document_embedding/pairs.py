"""Pairs of a word and a context word, drawn on the training device (Mikolov et al., NIPS 2013, section 2.3).

Each epoch thins out frequent words anew. A pair is a kept word, drawn uniformly, and a word of its window: of all pairs
that a window of random size gives, each is equally likely, and no loop runs over the text.
"""

import numpy as np
import torch
from torch import Tensor

from replications.tasks.document_embedding.data import Documents
from replications.training.batches import part_of
from replications.training.determinism import derive_seed
from replications.training.stage import Batch


def kept_share(counts: np.ndarray, subsample: float) -> np.ndarray:
    """Return with what probability each word stays: ``sqrt(t / f) + t / f``, at most 1, as in the authors' code."""
    ratio = subsample * counts.sum() / np.maximum(counts, 1)
    return np.minimum(np.sqrt(ratio) + ratio, 1.0)


def noise_distribution(counts: np.ndarray) -> np.ndarray:
    """Return the probability of each word as noise: its count to the power 3/4."""
    powered = counts.astype(np.float64) ** 0.75
    return powered / powered.sum()


def offset_distribution(window: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the offsets of a window and their probabilities.

    The window's size is uniform in 1 ... `window`, so an offset o is in ``window + 1 - |o|`` of `window` windows.
    """
    offsets = np.concatenate([np.arange(-window, 0), np.arange(1, window + 1)])
    weights = window + 1.0 - np.abs(offsets)
    return offsets, weights / weights.sum()


class PairBatches:
    """Batches of `layers.embedding.model`, each drawn from (seed, step) alone (`Batches`).

    A sample is a pair; an epoch is as many pairs as the text has words. The device's own generator draws.
    """

    def __init__(
        self,
        documents: Documents,
        batch_size: int,
        seed: int,
        *,
        window: int,
        subsample: float | None,
        negatives: int,
        device: torch.device | str,
    ):
        self.samples, self.batch_size, self.seed = len(documents.words), batch_size, seed
        self.negatives, self.device = negatives, torch.device(device)
        counts = np.bincount(documents.words, minlength=documents.vocabulary)
        self._words = torch.from_numpy(documents.words.astype(np.int64)).to(device)
        self._documents = torch.from_numpy(documents.document.astype(np.int64)).to(device)
        kept = np.ones(len(counts)) if subsample is None else kept_share(counts, subsample)
        self._kept_share = torch.from_numpy(kept.astype(np.float32)).to(device)
        self._noise = _cumulative(noise_distribution(counts), device)
        offsets, shares = offset_distribution(window)
        self._offsets, self._offset_shares = torch.from_numpy(offsets).to(device), _cumulative(shares, device)
        self._generator = torch.Generator(device)
        self._epoch: int | None = None

    def batch(self, step: int, part: int = 0, parts: int = 1) -> Batch:
        words, document, count = self._thinned(step * self.batch_size // self.samples)
        self._generator.manual_seed(derive_seed(self.seed, "pairs", step))
        place = (self._uniform(self.batch_size).double() * count).long().clamp(max=self.samples - 1)
        other = place + self._offsets[_pick(self._offset_shares, self._uniform(self.batch_size))]
        inside = (other >= 0) & (other < count)
        other = torch.where(inside, other, place)
        batch = {
            "center": words[place],
            "context": words[other],
            "valid": (inside & (document[place] == document[other])).float(),
            "document": document[place],
            "noise": _pick(self._noise, self._uniform(self.batch_size, self.negatives)),
        }
        own = part_of(self.batch_size, part, parts)
        return {name: tensor[own] for name, tensor in batch.items()}

    def _thinned(self, epoch: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return words and documents, those kept in an epoch first and in order, and how many they are."""
        if epoch != self._epoch:
            self._generator.manual_seed(derive_seed(self.seed, "kept", epoch))
            dropped = self._uniform(self.samples) >= self._kept_share[self._words]
            order = dropped.to(torch.uint8).argsort(stable=True)  # a mask would make the host wait for its size
            self._text = self._words[order], self._documents[order], (~dropped).sum()
            self._epoch = epoch
        return self._text

    def _uniform(self, *shape: int) -> Tensor:
        return torch.rand(shape, generator=self._generator, device=self.device)


def _cumulative(shares: np.ndarray, device: torch.device | str) -> Tensor:
    return torch.from_numpy(np.cumsum(shares).astype(np.float32)).to(device)


def _pick(cumulative: Tensor, place: Tensor) -> Tensor:
    """Return the number of the interval that holds each of `place` in [0, 1)."""
    return torch.searchsorted(cumulative, place, right=True).clamp(max=len(cumulative) - 1)
