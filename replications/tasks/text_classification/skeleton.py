"""The smallest method of the task, which ``new paper`` copies: the mean of a text's word vectors."""

import torch
from torch import Tensor, nn

from replications.datasets.text.words import PADDING
from replications.layers.text.classifier import TextModel


class MeanOfWords(TextModel):
    """A masked word is told from the mean of all others, a class too."""

    word_head = ("words",)
    class_head = ("classifier",)

    def __init__(self, vocabulary: int, num_classes: int, width: int):
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width)
        self.words, self.classifier = nn.Linear(width, vocabulary), nn.Linear(width, num_classes)

    def features(self, tokens: Tensor) -> Tensor:
        real = (tokens != PADDING)[:, :, None]
        return (self.embedding(tokens) * real).sum(1) / real.sum(1).clamp_min(1)

    def word_logits(self, tokens: Tensor, places: Tensor) -> Tensor:
        return self.words(self.features(tokens))[:, None].expand(-1, places.shape[1], -1)

    def class_logits(self, tokens: Tensor) -> Tensor:
        return self.classifier(self.features(tokens))

    @torch.no_grad()
    def start_from(self, other: TextModel) -> None:
        self.embedding.weight.copy_(other.embedding.weight)


def build(vocabulary: int, num_classes: int) -> MeanOfWords:
    """Return the method."""
    return MeanOfWords(vocabulary, num_classes, 16)
