"""What a method of the language modelling task must offer: a `SequenceModel`, made of residual blocks around its mixer.

A paper's ``build(vocabulary, length, causal, num_classes, **options)`` returns one. `length` is the training length:
the most positions, for a method that needs to know them. With `num_classes` the model predicts the class of a
sequence, else the next token (`causal`) or the tokens that were masked.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from replications.layers.text.blocks import Block, Mixer, State, make_norm, sinusoidal_positions

IGNORED = -100  # a target that does not count


class SequenceModel(nn.Module):
    """Embedding, blocks, norm, and a classifier of tokens (tied to the embedding) or of sequences.

    `sinusoidal` adds scaled absolute positions to the embedding, for mixers that know none.
    """

    def __init__(
        self,
        blocks: Sequence[Block],
        width: int,
        vocabulary: int,
        num_classes: int | None = None,
        *,
        sinusoidal: bool = False,
        norm: str = "layer",
    ):
        super().__init__()
        self.width, self.num_classes = width, num_classes
        self.embedding = nn.Embedding(vocabulary, width)
        self.position_scale = nn.Parameter(torch.ones(())) if sinusoidal else None
        self.blocks = nn.ModuleList(blocks)
        self.norm = make_norm(norm, width)
        self.classifier = nn.Linear(width, num_classes) if num_classes else None
        self._initialise()

    def _initialise(self) -> None:
        """Variance 1 / inputs; layers that write to the residual stream: divided by the number of writers, as in GPT-2.

        The tied embedding has it too, and is scaled up by ``sqrt(width)`` where it is read (Vaswani et al. 2017), or
        the first blocks would drown the tokens.
        """
        for name, module in self.named_modules():
            if isinstance(module, nn.Embedding):
                nn.init.normal_(module.weight, std=self.width**-0.5)
            elif isinstance(module, nn.Linear):
                writers = 2 * len(self.blocks) if name.endswith(".out") else 1
                nn.init.normal_(module.weight, std=(module.in_features * writers) ** -0.5)

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return means over the batch: ``loss`` in nats, and ``accuracy`` or ``bits``.

        `batch` has ``tokens`` ``[batch, n]`` of any integer type, and either ``target`` int64 ``[batch, n]`` with
        `IGNORED` where nothing is asked, or ``label`` int64 ``[batch]`` and ``length`` int64 ``[batch]``.
        """
        if self.num_classes:
            logits = self.class_logits(batch["tokens"], batch["length"])
            loss = F.cross_entropy(logits.float(), batch["label"])
            accuracy = (logits.argmax(dim=-1) == batch["label"]).float().mean()
            return {"loss": loss, "accuracy": accuracy}
        logits = self.logits(batch["tokens"])
        loss = F.cross_entropy(logits.flatten(0, 1).float(), batch["target"].flatten(), ignore_index=IGNORED)
        return {"loss": loss, "bits": loss.detach() / math.log(2)}

    def features(self, tokens: Tensor, valid: Tensor | None = None) -> Tensor:
        """Return ``[batch, n, width]`` after the last norm; `valid` bool ``[batch, n]`` is False at padding."""
        x = self._embed(tokens, 0)
        for block in self.blocks:
            x = block(x, valid)
        return self.norm(x)

    def _embed(self, tokens: Tensor, start: int) -> Tensor:
        x = self.embedding(tokens.int()) * math.sqrt(self.width)
        if self.position_scale is None:
            return x
        return x + self.position_scale * sinusoidal_positions(start, tokens.shape[1], self.width, x)

    def logits(self, tokens: Tensor, valid: Tensor | None = None) -> Tensor:
        """Return logits ``[batch, n, vocabulary]``: of a causal model those of the token after each position."""
        return F.linear(self.features(tokens, valid), self.embedding.weight)

    def class_logits(self, tokens: Tensor, length: Tensor) -> Tensor:
        """Return logits ``[batch, num_classes]`` of the mean feature over the first `length` ``[batch]`` positions."""
        valid = torch.arange(tokens.shape[1], device=tokens.device) < length[:, None]
        features = self.features(tokens, valid) * valid[:, :, None]
        return self.classifier(features.sum(dim=1) / length[:, None].clamp_min(1))

    @torch.no_grad()
    def attention_maps(self, tokens: Tensor) -> Tensor:
        """Return each layer's weights ``[layers, n, n]``, means over heads, for a sequence ``[n]``."""
        x, maps = self._embed(tokens[None], 0), []
        for block in self.blocks:
            maps.append(block.mixer.weights(block.norm(x))[0].mean(dim=0))
            x = block(x)
        return torch.stack(maps)

    # Decoding

    @property
    def decodes(self) -> bool:
        """Whether the model can be asked token by token."""
        return all(block.mixer.decodes for block in self.blocks)

    def start(self, batch: int, capacity: int) -> list[State]:
        """Return the states before the first of up to `capacity` tokens."""
        return [block.mixer.start(batch, capacity, self.embedding.weight) for block in self.blocks]

    def step(self, token: Tensor, position: int, states: list[State]) -> Tensor:
        """Return logits ``[batch, vocabulary]`` after `token` ``[batch]`` at `position`; changes `states` in place."""
        x = self._embed(token[:, None], position)[:, 0]
        for block, state in zip(self.blocks, states, strict=True):
            x = block.step(x, position, state)
        return F.linear(self.norm(x), self.embedding.weight)


def residual_model(
    mixer: Callable[[], Mixer],
    layers: int,
    vocabulary: int,
    num_classes: int | None,
    *,
    width: int,
    norm: str,
    feed_forward: Callable[[], nn.Module] | None = None,
    sinusoidal: bool = False,
) -> SequenceModel:
    """Return a `SequenceModel` of equal layers: `mixer` makes each one's mixer, `feed_forward` what follows it."""
    blocks = [Block(width, mixer(), feed_forward() if feed_forward else None, norm) for _ in range(layers)]
    return SequenceModel(blocks, width, vocabulary, num_classes, sinusoidal=sinusoidal, norm=norm)
