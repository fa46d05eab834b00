"""The Vision Transformer (Dosovitskiy et al., ICLR 2021), assembled from timm's blocks.

Parameter names are timm's, which are also those of the checkpoints of DeiT and MAE.
"""

import functools

import torch
from timm.layers import PatchEmbed
from timm.models.vision_transformer import Block
from torch import Tensor, nn
from torch.nn import functional as F

from replications.errors import UserError, nearest
from replications.layers.images.model import Classifier

# Table 1 of the paper; Ti and S are DeiT's (Touvron et al., ICML 2021, Table 1).
SIZES = {
    "tiny": {"width": 192, "depth": 12, "heads": 3},
    "small": {"width": 384, "depth": 12, "heads": 6},
    "base": {"width": 768, "depth": 12, "heads": 12},
    "large": {"width": 1024, "depth": 24, "heads": 16},
    "huge": {"width": 1280, "depth": 32, "heads": 16},
}
POOLS = ("token", "mean")
POSITIONS = ("learned", "sincos")

layer_norm = functools.partial(nn.LayerNorm, eps=1e-6)


def blocks(width: int, depth: int, heads: int, mlp_ratio: float = 4.0, drop_path: float = 0.0) -> nn.ModuleList:
    """Return pre-norm transformer blocks; the probability to drop a path rises linearly to `drop_path`.

    Raises UserError where `heads` does not divide `width`.
    """
    if width % heads:
        raise UserError(f"a width of {width} does not divide into {heads} heads")
    rates = [drop_path * index / max(1, depth - 1) for index in range(depth)]
    return nn.ModuleList(
        Block(width, heads, mlp_ratio, qkv_bias=True, drop_path=rate, norm_layer=layer_norm) for rate in rates
    )


def patchify(image: Tensor, size: int) -> Tensor:
    """Cut images ``[n, C, H, W]`` into patches ``[n, rows * columns, size * size * C]``, each as (row, column, C)."""
    n, channels, height, width = image.shape
    patches = image.reshape(n, channels, height // size, size, width // size, size)
    return patches.permute(0, 2, 4, 3, 5, 1).reshape(n, -1, size * size * channels)


def unpatchify(patches: Tensor, size: int, rows: int) -> Tensor:
    """Put patches ``[n, rows * columns, size * size * C]`` together again: ``[n, C, H, W]``."""
    n, count, length = patches.shape
    columns, channels = count // rows, length // size**2
    image = patches.reshape(n, rows, columns, size, size, channels).permute(0, 5, 1, 3, 2, 4)
    return image.reshape(n, channels, rows * size, columns * size)


def sincos_positions(width: int, grid: int) -> Tensor:
    """Return fixed 2-D position embeddings ``[1, 1 + grid * grid, width]``; the class token's is zero.

    Half of the channels encode the column, half the row; each half is sines, then cosines, of frequencies
    ``10000^(-k / (width / 4))`` (MAE, appendix A.1, as MoCo v3). Raises UserError where 4 does not divide `width`.
    """
    if width % 4:
        raise UserError(f"2-D sine-cosine positions need a width that 4 divides, not {width}")
    frequency = 10000.0 ** -(torch.arange(width // 4, dtype=torch.float64) / (width // 4))
    place = torch.arange(grid, dtype=torch.float64)
    row, column = (axis.reshape(-1, 1) * frequency for axis in torch.meshgrid(place, place, indexing="ij"))
    table = torch.cat([column.sin(), column.cos(), row.sin(), row.cos()], dim=1)
    return torch.cat([torch.zeros(1, width, dtype=torch.float64), table])[None].float()


class VisionTransformer(Classifier):
    """Class token and patches with positions, pre-norm blocks, a pooled feature, one linear head.

    `size` names one of the paper's (`SIZES`), or `width`, `depth` and `heads` are given. `pool` "token" reads the
    class token after the last norm; "mean" averages the patches and then norms. `positions` are learned (1-D) or fixed
    sines and cosines (2-D). With ``num_classes=0`` there is no head and `features` are those of the last norm.

    Raises UserError where the patch does not divide the image.
    """

    def __init__(
        self,
        num_classes: int,
        image_size: int,
        patch: int = 16,
        size: str | None = None,
        width: int | None = None,
        depth: int | None = None,
        heads: int | None = None,
        mlp_ratio: float = 4.0,
        pool: str = "token",
        positions: str = "learned",
        drop_path: float = 0.0,
    ):
        super().__init__()
        if image_size % patch:
            raise UserError(f"an image of {image_size} pixels does not divide into patches of {patch}")
        for value, known, what in ((pool, POOLS, "pool"), (positions, POSITIONS, "positions")):
            if value not in known:
                raise UserError(f"ViT has no {what} '{value}'{nearest(value, known)}")
        width, depth, heads = dimensions(size, width, depth, heads)
        self.image_size, self.patch, self.grid = image_size, patch, image_size // patch
        self.pool, self.width = pool, width
        self.patch_embed = PatchEmbed(image_size, patch, 3, width)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(sincos_positions(width, self.grid) if positions == "sincos" else
                                      0.02 * torch.randn(1, 1 + self.grid**2, width))  # fmt: skip
        self.pos_embed.requires_grad_(positions == "learned")
        self.blocks = blocks(width, depth, heads, mlp_ratio, drop_path)
        normed_patches = pool == "mean" and num_classes > 0
        self.norm = nn.Identity() if normed_patches else layer_norm(width)
        self.fc_norm = layer_norm(width) if normed_patches else nn.Identity()
        self.head = nn.Linear(width, num_classes) if num_classes else nn.Identity()
        initialise(self)
        nn.init.normal_(self.cls_token, std=0.02)
        if num_classes:
            nn.init.zeros_(self.head.weight)

    def embed(self, patches: Tensor) -> Tensor:
        """Project patches of `patchify` (any of them): ``[n, k, width]``; the convolution as a matrix product."""
        projection = self.patch_embed.proj
        return F.linear(patches, projection.weight.permute(0, 2, 3, 1).flatten(1), projection.bias)

    def with_class_token(self, tokens: Tensor) -> Tensor:
        """Put the class token before ``[n, k, width]``."""
        token = self.cls_token + self.pos_embed[:, :1]
        return torch.cat([token.expand(len(tokens), -1, -1).to(tokens.dtype), tokens], dim=1)

    def encode(self, image: Tensor) -> Tensor:
        """Return all tokens after the last norm, ``[n, 1 + patches, width]``."""
        self.check(image)
        x = self.with_class_token(self.embed(patchify(image, self.patch)) + self.pos_embed[:, 1:])
        for block in self.blocks:
            x = block(x)
        return self.norm(x)

    def check(self, image: Tensor) -> None:
        """Raise UserError where images are not of the size the network was built for."""
        if image.shape[2:] != (self.image_size, self.image_size):
            raise UserError(f"images are {tuple(image.shape[2:])}, the network was built for {self.image_size} a side")

    def features(self, image: Tensor) -> Tensor:
        x = self.encode(image)
        return self.fc_norm(x[:, 1:].mean(1)) if self.pool == "mean" else x[:, 0]

    def logits(self, image: Tensor) -> Tensor:
        return self.head(self.features(image))

    @torch.no_grad()
    def attention(self, image: Tensor) -> Tensor | None:
        """Return the last block's attention of the class token, ``[n, heads, rows, columns]``; None where it is unread.

        The class token's own share is left out, so a head sums to less than 1.
        """
        if self.pool != "token":
            return None
        x = self.with_class_token(self.embed(patchify(image, self.patch)) + self.pos_embed[:, 1:])
        for block in self.blocks[:-1]:
            x = block(x)
        last = self.blocks[-1].attn
        query, key, _ = last.qkv(self.blocks[-1].norm1(x)).unflatten(-1, (3, last.num_heads, -1)).unbind(2)
        scores = torch.einsum("nhd,nkhd->nhk", query[:, 0], key) * last.scale
        return scores.softmax(-1)[:, :, 1:].unflatten(-1, (self.grid, self.grid))

    def no_weight_decay(self) -> set[str]:
        """Positions and the class token do not decay, as in timm."""
        return {"pos_embed", "cls_token"}

    def group_matcher(self, coarse: bool = False) -> dict:
        """Say which parameters belong to which layer, for timm's layer-wise decay of the learning rate."""
        return {
            "stem": r"^cls_token|pos_embed|patch_embed",
            "blocks": [(r"^blocks\.(\d+)", None), (r"^norm", (99999,))],
        }


def dimensions(size: str | None, width: int | None, depth: int | None, heads: int | None) -> tuple[int, int, int]:
    """Return width, depth and heads of a named size, each replaced where it is given by itself.

    Raises UserError for an unknown size or where neither is complete.
    """
    if size is not None and size not in SIZES:
        raise UserError(f"ViT has no size '{size}'{nearest(size, SIZES)}")
    named = SIZES[size] if size else {}
    chosen = {"width": width, "depth": depth, "heads": heads}
    merged = named | {name: value for name, value in chosen.items() if value is not None}
    missing = [name for name in chosen if name not in merged]
    if missing:
        raise UserError(f"ViT needs a size ({', '.join(SIZES)}) or width, depth and heads: {missing[0]} is missing")
    return merged["width"], merged["depth"], merged["heads"]


def initialise(module: nn.Module) -> None:
    """Xavier-uniform weights, zero biases; the patch projection as the linear layer it is."""
    for part in module.modules():
        if isinstance(part, (nn.Linear, nn.Conv2d)):
            nn.init.xavier_uniform_(part.weight.flatten(1) if isinstance(part, nn.Conv2d) else part.weight)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
