"""Building blocks of sequence models: norms, rotary positions, feed-forward layers, the mixer's contract."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from replications.errors import UserError, nearest

State = dict[str, Tensor]


class Mixer(nn.Module):
    """Base class of sequence mixers. A mixer has `forward`, `weights` and, if it `decodes`, `start` and `step`."""

    decodes: bool = False

    def forward(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        """Return the mixed ``[batch, n, width]``; `valid` bool ``[batch, n]`` is False at padding, None: no padding."""
        raise NotImplementedError

    def weights(self, x: Tensor) -> Tensor:
        """Return what a position takes from each other, ``[batch, heads, n, n]``, written out: for pictures."""
        raise NotImplementedError

    def start(self, batch: int, capacity: int, like: Tensor) -> State:
        """Return the state before the first token, for up to `capacity` tokens, in `like`'s type and on its device."""
        raise UserError(f"{type(self).__name__} cannot decode token by token")

    def step(self, x: Tensor, position: int, state: State) -> Tensor:
        """Return the output ``[batch, width]`` for the token at `position` (from 0); `state` is changed in place."""
        raise UserError(f"{type(self).__name__} cannot decode token by token")


class ScaleNorm(nn.Module):
    """``g x / (|x| / sqrt(d))`` with one learned number g (Hua et al. 2022)."""

    def __init__(self, width: int, eps: float = 1e-5):
        super().__init__()
        self.gain, self.eps = nn.Parameter(torch.ones(())), eps

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, x.shape[-1:], eps=self.eps) * self.gain


NORMS = {"layer": nn.LayerNorm, "rms": nn.RMSNorm, "scale": ScaleNorm}


def make_norm(name: str, width: int) -> nn.Module:
    """Return a norm over the last axis; raises UserError for an unknown name."""
    if name not in NORMS:
        raise UserError(f"unknown norm '{name}'{nearest(name, NORMS)}")
    return NORMS[name](width, eps=1e-5)


class _Turn(torch.autograd.Function):
    """Turn pairs of channels. The gradient is the gradient turned back: no product need be kept for it."""

    @staticmethod
    def forward(ctx, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.save_for_backward(cos, sin)
        return _turn(x, cos, sin)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None, None]:
        cos, sin = ctx.saved_tensors
        return _turn(gradient, cos, -sin), None, None


def _turn(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = x.chunk(2, dim=-1)
    turned = [torch.addcmul(first * cos, second, sin, value=-1), torch.addcmul(second * cos, first, sin)]
    return torch.cat(turned, dim=-1).to(x.dtype)


class Rotary(nn.Module):
    """Rotary position embedding (Su et al. 2021): pairs of channels are turned by ``position * base^(-2i/d)``."""

    def __init__(self, channels: int, base: float = 10000.0):
        super().__init__()
        if channels % 2:
            raise UserError(f"rotary positions need an even number of channels, not {channels}")
        self.channels, self.base = channels, base
        self.register_buffer("table", torch.empty(0, 2, channels // 2), persistent=False)

    def forward(self, x: Tensor, start: int = 0) -> Tensor:
        """Turn ``[..., n, channels]``, whose first position is `start`."""
        cos, sin = self._angles(start + x.shape[-2], x)[start:].unbind(1)
        return _Turn.apply(x, cos, sin)

    def _angles(self, length: int, like: Tensor) -> Tensor:
        table, dtype = self.table, torch.promote_types(like.dtype, torch.float32)
        if len(table) < length or table.dtype != dtype or table.device != like.device:
            rate = self.base ** (-torch.arange(0, self.channels, 2, dtype=torch.float64) / self.channels)
            angle = torch.arange(max(length, len(table)), dtype=torch.float64)[:, None] * rate
            table = torch.stack([angle.cos(), angle.sin()], dim=1).to(like.device, dtype)
            self.table = table
        return table[:length]


class FeedForward(nn.Module):
    """Two layers with GELU; or, `gated`, ``W2(SiLU(W1 x) * W3 x)`` with 2/3 of the hidden size (Shazeer 2020).

    The gated one has the parameters of the plain one, up to rounding the hidden size to a multiple of 8.
    """

    def __init__(self, width: int, expansion: float = 4.0, gated: bool = False):
        super().__init__()
        hidden = int(expansion * width)
        self.gated = gated
        if gated:
            hidden = 8 * round(hidden * 2 / 3 / 8)
        self.into = nn.Linear(width, 2 * hidden if gated else hidden, bias=False)
        self.out = nn.Linear(hidden, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.into(x)
        if self.gated:
            gate, hidden = hidden.chunk(2, dim=-1)
            return self.out(F.silu(gate) * hidden)
        return self.out(F.gelu(hidden))


class Block(nn.Module):
    """A residual layer, norm first: the mixer, and a feed-forward layer where one is given."""

    def __init__(self, width: int, mixer: Mixer, feed_forward: nn.Module | None = None, norm: str = "layer"):
        super().__init__()
        self.norm, self.mixer = make_norm(norm, width), mixer
        if feed_forward is not None:
            self.feed_forward_norm = make_norm(norm, width)
        self.feed_forward = feed_forward

    def forward(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        return self._transform(x + self.mixer(self.norm(x), valid))

    def step(self, x: Tensor, position: int, state: State) -> Tensor:
        return self._transform(x + self.mixer.step(self.norm(x), position, state))

    def _transform(self, x: Tensor) -> Tensor:
        return x if self.feed_forward is None else x + self.feed_forward(self.feed_forward_norm(x))


def sinusoidal_positions(start: int, length: int, width: int, like: Tensor) -> Tensor:
    """Return sines and cosines ``[length, width]`` of positions from `start` (Vaswani et al. 2017, Section 3.5)."""
    position = torch.arange(start, start + length, device=like.device, dtype=torch.float32)[:, None]
    rate = torch.exp(torch.arange(0, width, 2, device=like.device) * (-math.log(10000.0) / width))
    angle = position * rate
    return torch.cat([angle.sin(), angle.cos()], dim=-1)[:, :width].to(like.dtype)


def split_heads(x: Tensor, heads: int) -> Tensor:
    """``[batch, n, heads * channels]`` to ``[batch, heads, n, channels]``."""
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


def join_heads(x: Tensor) -> Tensor:
    """``[batch, heads, n, channels]`` to ``[batch, n, heads * channels]``."""
    return x.transpose(1, 2).flatten(2)


def head_width(width: int, heads: int) -> int:
    """Return the channels of a head; raises UserError where they do not come out even."""
    if width % heads:
        raise UserError(f"width {width} is not divisible by {heads} heads")
    return width // heads


def check_room(position: int, capacity: int) -> None:
    """Raise UserError where a state that was made for `capacity` tokens is asked for one more."""
    if position >= capacity:
        raise UserError(f"position {position} is beyond the {capacity} that decoding was started for: start with more")


# Chunks and prefix sums


def into_chunks(x: Tensor, size: int) -> Tensor:
    """``[..., n, channels]`` to ``[..., chunks, size, channels]``, filled up with zeros at the end."""
    missing = -x.shape[-2] % size
    if missing:
        x = F.pad(x, (0, 0, 0, missing))
    return x.unflatten(-2, (-1, size))


def exclusive_prefix(x: Tensor) -> Tensor:
    """Sum over the chunks before each: ``[..., chunks, rows, columns]``, of which the first is zero.

    Summed in float32 or better, and returned so.
    """
    if x.dtype in (torch.float16, torch.bfloat16):
        x = x.float()
    if x.shape[-3] == 1:
        return torch.zeros_like(x)
    if x.is_cuda and torch.are_deterministic_algorithms_enabled():
        # CUDA's cumsum has no deterministic form; a product with ones below the diagonal does the same
        before = torch.ones(x.shape[-3], x.shape[-3], device=x.device, dtype=x.dtype).tril(-1)
        with torch.autocast("cuda", enabled=False):
            return (before @ x.flatten(-2)).unflatten(-1, x.shape[-2:])
    return F.pad(x[..., :-1, :, :].cumsum(dim=-3), (0, 0, 0, 0, 1, 0))


def inclusive_prefix(x: Tensor, chunk: int) -> Tensor:
    """Sum over the positions up to each: ``[..., n, channels]``, in float32 or better."""
    n = x.shape[-2]
    x = into_chunks(x.to(torch.promote_types(x.dtype, torch.float32)), min(chunk, n))
    below = torch.ones(x.shape[-2], x.shape[-2], device=x.device, dtype=x.dtype).tril()
    with torch.autocast(x.device.type, enabled=False):
        sums = below @ x + exclusive_prefix(x.sum(dim=-2, keepdim=True))
    return sums.flatten(-3, -2)[..., :n, :]
