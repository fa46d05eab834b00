"""DETR (Carion et al., ECCV 2020): a CNN, an encoder, a decoder of learned queries, and two heads.

Read beside Section 3.2 and Appendix A.3. Parameters have the names of the official code.
"""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from replications.errors import UserError, nearest
from replications.layers.detection.attention import (
    Attention,
    BoxHead,
    Encoder,
    EncoderLayer,
    FeedForward,
    watched,
)
from replications.layers.detection.backbone import Backbone, feature_shape, shrink_padding
from replications.layers.detection.boxes import to_xyxy
from replications.layers.detection.criterion import SetLoss, order_gap
from replications.layers.detection.model import Detections, Detector
from replications.layers.detection.positions import TEMPERATURE, sine_positions
from replications.papers.detr.official import renamed

POSITIONS = ("attention", "input", "learned", "decoder", "none")


class DecoderLayer(FeedForward):
    """Self-attention of the queries, attention to the image, feed-forward; post-norm (Appendix A.3)."""

    def __init__(self, width: int, heads: int, feedforward: int, dropout: float):
        super().__init__()
        self.self_attn = Attention(width, heads, dropout)
        self.multihead_attn = Attention(width, heads, dropout)
        self.linear1, self.linear2 = nn.Linear(width, feedforward), nn.Linear(feedforward, width)
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(width) for _ in range(3))
        self.drop = nn.Dropout(dropout)

    def forward(
        self, x: Tensor, query: Tensor | None, memory: Tensor, placed: Tensor, ignored: Tensor | None
    ) -> Tensor:
        """Refine ``x`` ``[batch, queries, width]``; `placed` is `memory` with its positions, `query` the queries'."""
        own = x if query is None else x + query
        x = self.norm1(x + self.drop(self.self_attn(own, own, x)))
        own = x if query is None else x + query
        x = self.norm2(x + self.drop(self.multihead_attn(own, placed, memory, ignored)))
        return self.norm3(x + self.drop(self.feed_forward(x)))


class Decoder(nn.Module):
    """Layers one after the other; each one's output goes through the same last normalisation to the heads."""

    def __init__(self, depth: int, width: int, heads: int, feedforward: int, dropout: float):
        super().__init__()
        self.layers = nn.ModuleList(DecoderLayer(width, heads, feedforward, dropout) for _ in range(depth))
        self.norm = nn.LayerNorm(width)

    def forward(
        self, x: Tensor, query: Tensor | None, memory: Tensor, placed: Tensor, ignored: Tensor | None
    ) -> Tensor:
        """Return the outputs of all layers, ``[layers, batch, queries, width]``."""
        outputs = []
        for layer in self.layers:
            x = layer(x, query, memory, placed, ignored)
            outputs.append(self.norm(x))
        return torch.stack(outputs)


class Transformer(nn.Module):
    def __init__(self, width: int, heads: int, feedforward: int, dropout: float, encoder: int, decoder: int):
        super().__init__()
        self.encoder = Encoder(lambda: EncoderLayer(width, heads, feedforward, dropout), encoder)
        self.decoder = Decoder(decoder, width, heads, feedforward, dropout)
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter)


class Detr(Detector):
    """The detector. `positions` are the rows of Table 3: where spatial encodings are added.

    "attention": sine, at every attention (the paper's choice); "learned": as that, learned for each row and column;
    "input": sine, once at the encoder's input, and the queries once at the decoder's; "decoder": sine at the decoder's
    attention only; "none": no spatial encoding, the queries once at the decoder's input.
    """

    class_heads = ("class_embed",)

    def __init__(
        self,
        backbone: Backbone,
        num_classes: int,
        *,
        width: int = 256,
        heads: int = 8,
        feedforward: int = 2048,
        dropout: float = 0.1,
        encoder_layers: int = 6,
        decoder_layers: int = 6,
        queries: int = 100,
        positions: str = "attention",
        auxiliary: bool = True,
        temperature: float = TEMPERATURE,
        loss: SetLoss | None = None,
        category_ids: Sequence[int] = (),
    ):
        super().__init__()
        if positions not in POSITIONS:
            raise UserError(f"DETR has no positions '{positions}'{nearest(positions, POSITIONS)}")
        self.width, self.positions, self.auxiliary, self.temperature = width, positions, auxiliary, temperature
        self.set_loss, self.category_ids = loss or SetLoss(), tuple(category_ids)
        self.backbone = backbone
        self.input_proj = nn.Conv2d(backbone.channels[-1], width, 1)
        self.transformer = Transformer(width, heads, feedforward, dropout, encoder_layers, decoder_layers)
        self.query_embed = nn.Embedding(queries, width)
        self.class_embed = nn.Linear(width, num_classes + 1)
        self.bbox_embed = BoxHead(width)
        if positions == "learned":
            self.row_embed, self.col_embed = nn.Embedding(50, width // 2), nn.Embedding(50, width // 2)
            nn.init.uniform_(self.row_embed.weight)
            nn.init.uniform_(self.col_embed.weight)

    def predict(self, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Return logits ``[layers, batch, queries, classes + 1]`` and boxes ``[layers, batch, queries, 4]``."""
        features = self.backbone(batch["image"])[-1]
        padding = shrink_padding(batch.get("padding"), features)
        hidden, _ = self.transform(self.input_proj(features), padding, "padding" in batch)
        return self.class_embed(hidden), self.bbox_embed(hidden).sigmoid()

    def transform(self, features: Tensor, padding: Tensor, padded: bool) -> tuple[Tensor, Tensor]:
        """Return decoder outputs ``[layers, batch, queries, width]`` and the encoded image ``[batch, h * w, width]``.

        `features` are ``[batch, width, h, w]``, `padding` ``[batch, h, w]``; `padded` says whether there is any.
        """
        x = features.flatten(2).transpose(1, 2)
        ignored = padding.flatten(1) if padded else None
        place = self._place(padding)
        query = self.query_embed.weight.expand(len(x), -1, -1)
        start = torch.zeros_like(query)
        if self.positions in ("input", "none"):
            x, start, place, query = (x if place is None else x + place), query, None, None
        memory = self.transformer.encoder(x, None if self.positions == "decoder" else place, ignored)
        placed = memory if place is None else memory + place
        return self.transformer.decoder(start, query, memory, placed, ignored), memory

    def _place(self, padding: Tensor) -> Tensor | None:
        """The spatial encodings ``[batch, positions, width]``."""
        if self.positions == "none":
            return None
        if self.positions == "learned":
            height, width = padding.shape[1:]
            if max(height, width) > self.row_embed.num_embeddings:
                raise UserError(f"learned positions reach {self.row_embed.num_embeddings} rows, not {height}x{width}")
            column = self.col_embed.weight[:width].expand(height, -1, -1)
            row = self.row_embed.weight[:height, None].expand(-1, width, -1)
            return torch.cat([column, row], -1).flatten(0, 1).expand(len(padding), -1, -1)
        return sine_positions(padding, self.width, self.temperature).flatten(1, 2)

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        logits, boxes = self.predict(batch)
        if not self.auxiliary:
            logits, boxes = logits[-1:], boxes[-1:]
        losses = self.set_loss(logits, boxes, batch)
        del losses["matched"]
        return losses

    def order_gap(self, batch: dict[str, Tensor]) -> float:
        with torch.no_grad():
            return order_gap(self.set_loss, *self.predict(batch), batch)

    def from_official(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """The official names differ only in the backbone's prefix; another class count is met by `official_classes`."""
        return renamed(state, self.category_ids, self.class_embed.out_features)

    def look(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        transformer = self.transformer
        with watched(transformer.decoder.layers[-1].multihead_attn) as decoder:
            encoder_layers = transformer.encoder.layers
            with watched(encoder_layers[-1].self_attn) if len(encoder_layers) else nullcontext([]) as encoder:
                logits, boxes = self.predict(batch)
        shape = feature_shape(batch["image"], self.backbone)
        found = {
            "decoder_attention": decoder[0].mean(1).unflatten(-1, shape),
            "raw_logits": logits[-1],
            "raw_boxes": to_xyxy(boxes[-1]),
        }
        if encoder:
            found["encoder_attention"] = encoder[0].mean(1).unflatten(-1, shape)
        return found

    def detect(self, batch: dict[str, Tensor]) -> Detections:
        logits, boxes = self.predict(batch)
        layers = [best_classes(*layer) for layer in zip(logits, boxes, strict=True)]
        return Detections(layers[-1].boxes, layers[-1].scores, layers[-1].labels, layers=layers)


def best_classes(logits: Tensor, boxes: Tensor) -> Detections:
    """One detection a query: its best class but for "no object" (the second-best class, where that came first)."""
    scores, labels = logits.float().softmax(-1)[..., :-1].max(-1)
    return Detections(to_xyxy(boxes.float()), scores, labels)


def build(
    num_classes: int,
    category_ids: Sequence[int],
    *,
    backbone: Mapping[str, Any],
    level: int = 4,
    output_stride: int = 32,
    width: int = 256,
    heads: int = 8,
    feedforward: int = 2048,
    dropout: float = 0.1,
    encoder_layers: int = 6,
    decoder_layers: int = 6,
    queries: int = 100,
    positions: str = "attention",
    auxiliary: bool = True,
    temperature: float = TEMPERATURE,
    loss: Mapping[str, float] | None = None,
) -> Detr:
    """DETR on the backbone's feature map number `level`; `output_stride` 16 with level 4 is DETR-DC5."""
    return Detr(
        Backbone(**{"levels": (level,), **backbone}, output_stride=output_stride),
        num_classes,
        width=width,
        heads=heads,
        feedforward=feedforward,
        dropout=dropout,
        encoder_layers=encoder_layers,
        decoder_layers=decoder_layers,
        queries=queries,
        positions=positions,
        auxiliary=auxiliary,
        temperature=temperature,
        loss=SetLoss.of(loss),
        category_ids=category_ids,
    )
