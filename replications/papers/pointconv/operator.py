"""The PointConv operator (Wu et al. 2019, Sections 3.1 and 3.2) in its naive and its efficient form."""

from collections.abc import Sequence

from torch import Tensor, nn

from replications.errors import UserError, nearest
from replications.layers.points.shared_mlp import SharedMLP

FORMS = ("reordered", "naive")
DENSITIES = ("kde", "released", "none")
SCALES = ("sigmoid", "relu")


class PointConv(nn.Module):
    """``F_out = sum_k sum_c S(k) W(k, c) F_in(k, c)``: a convolution whose weights are a function of position.

    W is an MLP of the relative position (`weight_widths`, the last of which is the paper's C_mid) and a last, linear
    layer; S is an MLP of the inverse density. The features pass a shared network of `widths` first, as in both
    released codes (it may be empty); batch norm and ReLU follow.

    `form`: ``naive`` makes the weights ``[batch, centres, k, c_in, c_out]``; ``reordered`` multiplies features with the
    MLP's output first and applies the last layer to the product (Equation 6), the same sum in another order.
    """

    def __init__(
        self,
        channels_in: int,
        widths: Sequence[int],
        channels_out: int,
        *,
        weight_widths: Sequence[int] = (8, 8, 16),
        density_widths: Sequence[int] = (16, 8),
        density: str = "kde",
        scale: str = "sigmoid",
        form: str = "reordered",
    ):
        super().__init__()
        for value, known, what in ((form, FORMS, "form"), (density, DENSITIES, "density"), (scale, SCALES, "scale")):
            if value not in known:
                raise UserError(f"unknown {what} '{value}' of a point convolution{nearest(value, known)}")
        self.shared = SharedMLP(channels_in, widths)
        self.weight_net = SharedMLP(3, weight_widths)
        self.density_net = None if density == "none" else DensityNet(scale, density_widths)
        self.form = form
        self.c_in, self.c_mid, self.channels = self.shared.channels, self.weight_net.channels, channels_out
        # Rows are the output channels, columns (c_in, c_mid) with c_mid the faster.
        self.kernel = nn.Linear(self.c_in * self.c_mid, channels_out)
        self.norm = nn.BatchNorm1d(channels_out)

    def forward(self, offset: Tensor, features: Tensor, inverse_density: Tensor | None) -> Tensor:
        """Return ``[batch, centres, channels_out]``.

        `offset` ``[batch, centres, k, 3]`` is relative to the centre, `features` ``[batch, centres, k, channels_in]``,
        `inverse_density` ``[batch, centres, k]`` is at most 1 in each group (None without a density net).
        """
        x = self.shared(features)
        if self.density_net is not None:
            x = x * self.density_net(inverse_density)
        x = self.sum(x, self.weight_net(offset))
        return self.norm(x.flatten(0, 1)).relu().view(x.shape)

    def sum(self, x: Tensor, m: Tensor, form: str | None = None) -> Tensor:
        """Return the operator's sum ``[batch, centres, channels_out]`` of scaled features and the weight MLP's output.

        `x` ``[batch, centres, k, c_in]``, `m` ``[batch, centres, k, c_mid]``.
        """
        if (form or self.form) == "reordered":
            product = x.transpose(-1, -2) @ m  # [batch, centres, c_in, c_mid]
            return self.kernel(product.flatten(-2))
        kernel = self.kernel.weight.view(self.channels, self.c_in, self.c_mid).permute(2, 1, 0)
        weights = m @ kernel.flatten(1)  # [batch, centres, k, c_in * c_out]
        weights = weights.view(*x.shape[:2], -1, self.channels)  # [batch, centres, k * c_in, c_out]
        return (x.flatten(-2)[..., None, :] @ weights)[..., 0, :] + self.kernel.bias


class DensityNet(nn.Module):
    """An MLP (1-16-8-1) of the inverse density (Section 3.1), to a factor for each neighbour ``[..., k, 1]``.

    `scale` ``sigmoid`` ends in a sigmoid, as both released codes mean to; ``relu`` in batch norm and ReLU, as the
    PyTorch code does (its sigmoid cannot be reached): about half of the factors are then 0 at the start.
    """

    def __init__(self, scale: str, widths: Sequence[int] = (16, 8)):
        super().__init__()
        self.last = scale
        self.net = SharedMLP(1, (*widths, 1), last_plain=scale == "sigmoid")

    def forward(self, inverse_density: Tensor) -> Tensor:
        x = self.net(inverse_density[..., None])
        return x.sigmoid() if self.last == "sigmoid" else x
