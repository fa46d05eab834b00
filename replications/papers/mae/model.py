"""Masked autoencoders (He et al., CVPR 2022), after the paper's section 3 and appendix A.1.

Parameter names are those of the official checkpoints.
"""

import functools

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from replications.errors import UserError
from replications.layers.images.model import Pretrainer, Reconstruction
from replications.layers.images.vision_transformer import (
    VisionTransformer,
    blocks,
    initialise,
    layer_norm,
    patchify,
    sincos_positions,
    unpatchify,
)
from replications.papers.mae.masking import check_masking, mask_noise
from replications.training.stage import Batch

VARIANCE_EPS = 1e-6
PAPER_SIZE = {"image_size": 224, "size": "large", "patch": 16}
PAPER_DECODER = {"width": 512, "heads": 16}


class MaskedAutoencoder(VisionTransformer):
    """A ViT that sees the visible patches, and a small decoder that tells the pixels of the hidden ones.

    `mask_tokens_in_encoder` is Table 1c's ablation: the encoder runs on all patches, the hidden ones replaced by a
    mask token. With `normalise_target` each target patch has mean 0 and variance 1 (Table 1d).

    Raises UserError for a mask that leaves nothing visible or nothing hidden, or that the grid cannot hold.
    """

    def __init__(
        self,
        image_size: int,
        *,
        decoder: dict,
        mask_ratio: float = 0.75,
        mask: str = "random",
        normalise_target: bool = True,
        mask_tokens_in_encoder: bool = False,
        tell_speed: bool = False,
        **vit,
    ):
        super().__init__(0, image_size, positions="sincos", **vit)
        self.tell_speed = tell_speed
        self.mask_ratio, self.mask, self.normalise_target = mask_ratio, mask, normalise_target
        self.visible = check_masking(mask, mask_ratio, self.grid)
        self.mask_tokens_in_encoder = mask_tokens_in_encoder
        width = decoder["width"]
        self.decoder_embed = nn.Linear(self.width, width)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, self.width if mask_tokens_in_encoder else width))
        self.decoder_pos_embed = nn.Parameter(sincos_positions(width, self.grid), requires_grad=False)
        self.decoder_blocks = blocks(width, decoder["depth"], decoder["heads"])
        self.decoder_norm = layer_norm(width)
        self.decoder_pred = nn.Linear(width, self.patch**2 * 3)
        for part in (self.decoder_embed, self.decoder_blocks, self.decoder_pred):
            initialise(part)
        nn.init.normal_(self.mask_token, std=0.02)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Return the loss of freshly drawn masks: the mean squared error of hidden patches."""
        image = batch["image"]
        noise = mask_noise(self.mask, len(image), self.grid, image.device)
        decoded, order = self.decode(image, noise)
        hidden = order[:, self.visible :]
        prediction = self.decoder_pred(self.decoder_norm(rows(decoded, hidden)))
        target = self.target(rows(patchify(image, self.patch), hidden))
        return {"loss": F.mse_loss(prediction.float(), target)}

    def target(self, patches: Tensor) -> Tensor:
        """Return the pixels to tell, normalised within each patch where asked for (unbiased variance)."""
        if not self.normalise_target:
            return patches
        mean, deviation = moments(patches)
        return (patches - mean) / deviation

    def predict(self, image: Tensor, noise: Tensor, visible: int | None = None) -> tuple[Tensor, Tensor]:
        """Return the prediction of all patches, ``[n, L, p*p*3]``, and the order of `noise`: visible patches first."""
        decoded, order = self.decode(image, noise, visible)
        return self.decoder_pred(self.decoder_norm(decoded)), order

    def decode(self, image: Tensor, noise: Tensor, visible: int | None = None) -> tuple[Tensor, Tensor]:
        """Return the decoder's tokens of all patches, ``[n, L, w]``, and the order of `noise`: visible patches first.

        Section 3: the encoder sees the patches with the smallest noise; mask tokens come in only at the decoder.
        """
        self.check(image)
        visible = visible or self.visible
        order = noise.argsort(dim=1)
        patches = patchify(image, self.patch)
        if self.mask_tokens_in_encoder:
            hidden = order.argsort(dim=1) >= visible
            tokens = torch.where(hidden[..., None], self.mask_token.to(patches.dtype), self.embed(patches))
            encoded = self.encode_tokens(tokens + self.pos_embed[:, 1:])
            decoded = self.decoder_embed(encoded)
        else:
            kept = order[:, :visible]
            positions = self.pos_embed[0, 1:].index_select(0, kept.flatten()).view(*kept.shape, -1)
            encoded = self.encode_tokens(self.embed(rows(patches, kept)) + positions)
            decoded = self._with_mask_tokens(self.decoder_embed(encoded), order)
        decoded = decoded + self.decoder_pos_embed
        for block in self.decoder_blocks:
            decoded = block(decoded)
        return decoded[:, 1:], order

    def encode_tokens(self, tokens: Tensor) -> Tensor:
        """Put the class token before patches (with positions) and run the encoder: ``[n, 1 + k, width]``."""
        x = self.with_class_token(tokens)
        for block in self.blocks:
            x = block(x)
        return self.norm(x)

    def _with_mask_tokens(self, encoded: Tensor, order: Tensor) -> Tensor:
        """Fill up the visible tokens ``[n, 1 + k, w]`` with mask tokens and put all in their places."""
        n, count = order.shape
        missing = self.mask_token.to(encoded.dtype).expand(n, count - encoded.shape[1] + 1, -1)
        shuffled = torch.cat([encoded[:, 1:], missing], dim=1)
        return torch.cat([encoded[:, :1], rows(shuffled, order.argsort(dim=1))], dim=1)

    @torch.no_grad()
    def reconstruct(self, image: Tensor, generator: Generator, mask_ratio: float | None = None) -> Reconstruction:
        """Return losses and pictures; see `Reconstruction`. A normalised target is shown with each patch's own mean
        and deviation, which the network does not know.
        """
        visible = self.visible if mask_ratio is None else check_masking("random", mask_ratio, self.grid)
        kind = self.mask if mask_ratio is None else "random"
        noise = mask_noise(kind, len(image), self.grid, torch.device("cpu"), generator).to(image.device)
        prediction, order = self.predict(image, noise, visible)
        prediction = prediction.float()
        patches = patchify(image, self.patch)
        target, hidden = self.target(patches), order.argsort(dim=1) >= visible
        seen = ~hidden[..., None]
        mean_seen = (target * seen).sum(1, keepdim=True) / seen.sum(1, keepdim=True)
        losses = [
            ((told - target).square().mean(-1) * hidden).sum(1) / hidden.sum(1) for told in (prediction, mean_seen)
        ]
        if self.normalise_target:
            mean, deviation = moments(patches)
            prediction = prediction * deviation + mean
        shown = torch.where(hidden[..., None], prediction, patches)
        return Reconstruction(
            *losses, hidden.unflatten(1, (self.grid, self.grid)), unpatchify(shown, self.patch, self.grid)
        )

    def no_weight_decay(self) -> set[str]:
        """Nothing by name: in the authors' pretraining class and mask token decay (positions are not trained)."""
        return set()

    def at_paper_size(self, saving: bool, depth: float) -> "MaskedAutoencoder | None":
        """ViT-L/16 at 224 pixels with a decoder of eight blocks, the default of Table 2; None unless `tell_speed`."""
        if not self.tell_speed:
            return None
        encoder, decoder = round(24 * depth), PAPER_DECODER | {"depth": round(8 * depth)}
        return MaskedAutoencoder(
            **PAPER_SIZE, depth=encoder, decoder=decoder, mask_ratio=0.75, mask_tokens_in_encoder=not saving
        )


def moments(patches: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation (unbiased) over the pixels of each patch, ``[n, L, 1]`` each."""
    mean = patches.mean(-1, keepdim=True)
    variance = (patches - mean).square().sum(-1, keepdim=True) / (patches.shape[-1] - 1)
    return mean, (variance + VARIANCE_EPS).sqrt()


def rows(tokens: Tensor, index: Tensor) -> Tensor:
    """Return ``tokens[i, index[i, j]]``: ``[n, k, w]`` of ``[n, L, w]`` and int64 ``[n, k]``.

    One row selection of the whole batch: its gradient is deterministic on every device.
    """
    n, length, width = tokens.shape
    flat = index + length * torch.arange(n, device=index.device)[:, None]
    return tokens.reshape(n * length, width).index_select(0, flat.flatten()).view(*index.shape, width)


class MaskedAutoencoderClassifier(VisionTransformer):
    """The encoder as a classifier: on all patches, from scratch or from a pretraining."""

    def __init__(self, num_classes: int, image_size: int, make_pretrainer, **options):
        super().__init__(num_classes, image_size, positions="sincos", **options)
        self._make_pretrainer = make_pretrainer

    def pretrainer(self) -> MaskedAutoencoder | None:
        return self._make_pretrainer() if self._make_pretrainer else None

    def start_from(self, pretrainer: Pretrainer) -> None:
        """Take over the encoder; with mean pooling the last norm is new, as the head is (appendix A.1)."""
        own = self.state_dict()
        taken = {name: value for name, value in pretrainer.state_dict().items() if name in own}
        lacking = [name for name in own if name not in taken and not name.startswith(("head", "fc_norm", "norm"))]
        if lacking:
            raise UserError(f"the pretrained weights have no {lacking[0]}")
        self.load_state_dict(own | taken)


def build(
    num_classes: int,
    image_size: int,
    *,
    vit: dict,
    decoder: dict,
    pretrain: bool = True,
    pool: str = "mean",
    drop_path: float = 0.0,
    mask_ratio: float = 0.75,
    mask: str = "random",
    normalise_target: bool = True,
    mask_tokens_in_encoder: bool = False,
    decoder_depth: int | None = None,
    tell_speed: bool = False,
) -> MaskedAutoencoderClassifier:
    """The classifier; with `pretrain` it brings its autoencoder, without it is the supervised baseline.

    `decoder` has width, depth and heads; `decoder_depth` replaces its depth. `tell_speed` lets the run measure what
    the masking saves at the paper's size.
    """
    make = functools.partial(
        MaskedAutoencoder,
        image_size,
        decoder=decoder | ({} if decoder_depth is None else {"depth": decoder_depth}),
        mask_ratio=mask_ratio,
        mask=mask,
        normalise_target=normalise_target,
        mask_tokens_in_encoder=mask_tokens_in_encoder,
        tell_speed=tell_speed,
        pool=pool,
        **vit,
    )
    return MaskedAutoencoderClassifier(
        num_classes, image_size, make if pretrain else None, pool=pool, drop_path=drop_path, **vit
    )
