"""What a method of the text classification task must offer: a `TextModel`.

A paper's ``build(vocabulary, length, num_classes, **options)`` returns one. Tokens are int64 ``[batch, length]``, with
`PADDING` at the end; `UNKNOWN` and `MASK` are tokens too (``datasets/text/words.py``).
"""

import math

import numpy as np
from torch import Tensor, nn
from torch.nn import functional as F

from replications.layers.text.model import IGNORED
from replications.training.stage import Batch


class TextModel(nn.Module):
    """Tells masked words, if the task pretrains it, and the class of a text.

    `word_head` and `class_head` are what the names of parameters start with that serve one of the two alone. A model
    that is not trained by gradients `fits`: it has `fit`, and neither words nor features.
    """

    fits = False
    word_head: tuple[str, ...] = ()
    class_head: tuple[str, ...] = ()

    def learn_words(self, words: bool) -> None:
        """Let gradients reach what tells words, or else what tells the class."""
        unused = self.class_head if words else self.word_head
        for name, parameter in self.named_parameters():
            parameter.requires_grad_(not name.startswith(unused))

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Return means over the batch: ``loss`` in nats, and ``bits`` or ``accuracy``.

        `batch` has ``tokens``, and either ``places`` and ``target``, both int64 ``[batch, m]`` (`IGNORED` where nothing
        is asked), or ``label`` int64 ``[batch]``.
        """
        if "places" in batch:
            logits = self.word_logits(batch["tokens"], batch["places"]).flatten(0, 1).float()
            loss = F.cross_entropy(logits, batch["target"].flatten(), ignore_index=IGNORED)
            return {"loss": loss, "bits": loss.detach() / math.log(2)}
        logits = self.class_logits(batch["tokens"])
        loss = F.cross_entropy(logits.float(), batch["label"])
        return {"loss": loss, "accuracy": (logits.argmax(-1) == batch["label"]).float().mean()}

    def word_logits(self, tokens: Tensor, places: Tensor) -> Tensor:
        """Return logits ``[batch, m, vocabulary]`` of the words at `places`."""
        raise NotImplementedError

    def features(self, tokens: Tensor) -> Tensor:
        """Return a vector of each text, ``[batch, width]``: what the classifier reads."""
        raise NotImplementedError

    def class_logits(self, tokens: Tensor) -> Tensor:
        """Return logits ``[batch, num_classes]``; a text without a word has some too."""
        raise NotImplementedError

    def start_from(self, other: "TextModel") -> None:
        """Take over what `other`, a model of the same method, learned from masked words; the classifier stays new."""
        raise NotImplementedError

    def fit(self, unlabelled: np.ndarray, tokens: np.ndarray, label: np.ndarray) -> None:
        """Learn from tokens without labels ``[N, length]`` and from labelled ones ``[n, length]``."""
        raise NotImplementedError
