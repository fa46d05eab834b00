"""What a method of the online action task must offer: an `ActionDetector`.

A paper's ``build(features, classes, window, horizon, **options)`` returns one. `features` is the width of a frame,
`classes` counts the background, which is class 0.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from replications.errors import UserError

Logits = tuple[Tensor, Tensor | None]


class ActionDetector(nn.Module):
    """Tells the action of a frame from the frames up to it, and of the `horizon` frames after it.

    `causal` says what `logits` gives: every frame of its input, each from those before (recurrent networks), or the
    last frame only, from a whole window. `future_weight` weighs the loss of the frames ahead.
    """

    causal = False

    def __init__(self, window: int, horizon: int, future_weight: float = 1.0):
        super().__init__()
        self.window, self.horizon, self.future_weight = window, horizon, future_weight

    def logits(self, features: Tensor) -> Logits:
        """Return logits ``[batch, n, classes]`` of frames of ``[batch, frames, width]``: of all, or (n = 1) the last.

        The second are those of the frames ahead, ``[batch, n, horizon, classes]``; None of a method without.
        """
        raise NotImplementedError

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the ``loss``: cross-entropy now and, weighted, ahead; means over the frames that are valid.

        `batch` has ``features`` ``[batch, window, width]``, ``target`` uint8 ``[batch, window + horizon, classes]`` and
        ``valid`` bool ``[batch, window + horizon]``.
        """
        now, ahead = self.logits(batch["features"])
        first = self.window - now.shape[1]
        target, valid = batch["target"].float(), batch["valid"]
        found = {"now": cross_entropy(now, target[:, first : self.window], valid[:, first : self.window])}
        found["loss"] = found["now"]
        if ahead is not None:
            later = slice(first + 1, None)  # frame i is followed by those of later[i : i + horizon]
            targets = target[:, later].unfold(1, self.horizon, 1).transpose(2, 3)
            seen = valid[:, first : self.window]  # a frame before the stream has nothing to tell of
            found["ahead"] = cross_entropy(ahead, targets, valid[:, later].unfold(1, self.horizon, 1) & seen[..., None])
            found["loss"] = found["now"] + self.future_weight * found["ahead"]
        return found

    def score(self, features: Tensor, chunk: int) -> Tensor:
        """Return log-probabilities ``[streams, frames, 1 + ahead, classes]`` of streams ``[streams, frames, width]``.

        A stream begins with ``window - 1`` frames of zeros, in training too; they are not in what is returned. `chunk`
        windows are scored at a time.
        """
        padded = F.pad(features, (0, 0, self.window - 1, 0))
        if self.causal:
            parts = self.logits(padded)
            parts = [part[:, self.window - 1 :] for part in parts if part is not None]
        else:
            windows = padded.unfold(1, self.window, 1).transpose(2, 3).split(max(1, chunk // len(features)), dim=1)
            shape = (len(features), -1)
            found = [self.logits(part.flatten(0, 1)) for part in windows]
            parts = [
                torch.cat([piece.unflatten(0, shape)[:, :, 0] for piece in pieces], dim=1)
                for pieces in zip(*found, strict=True)
                if pieces[0] is not None
            ]
        now, *ahead = parts
        return torch.cat([now[:, :, None], *ahead], dim=2).float().log_softmax(-1)


def cross_entropy(logits: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """Return ``-sum_c target_c log p_c``, the mean over the valid frames; 0 where there is none."""
    loss = -(target * logits.float().log_softmax(-1)).sum(-1)
    return (loss * valid).sum() / valid.sum().clamp_min(1)


def require_heads(width: int, heads: int) -> None:
    """Raise UserError where the width is no multiple of the heads."""
    if width % heads:
        raise UserError(f"option 'heads': a width of {width} does not divide into {heads} heads")
