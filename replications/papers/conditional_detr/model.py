"""Conditional DETR (Meng et al., ICCV 2021): cross-attention by content and by place, kept apart.

Read beside Section 3. Parameters have the names of the official code. Backbone, encoder, heads and set prediction are
those of the task; the decoder is this paper's.
"""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from replications.layers.detection.attention import BoxHead, Encoder, EncoderLayer, FeedForward, attend, watched
from replications.layers.detection.backbone import Backbone, feature_shape, shrink_padding
from replications.layers.detection.boxes import to_xyxy
from replications.layers.detection.criterion import SetLoss, order_gap
from replications.layers.detection.matcher import MatchCost
from replications.layers.detection.model import Detections, Detector
from replications.layers.detection.positions import TEMPERATURE, point_positions, sine_positions

FOCAL = {"label": 2.0, "focal": True, "cost": MatchCost(label=2.0, focal=True)}
PRIOR = 0.01  # probability of each class at the start, as the focal loss has it


class ConditionalDecoderLayer(FeedForward):
    """Self-attention by sums of content and query; cross-attention by concatenations (Section 3.2, Figure 3)."""

    def __init__(self, width: int, heads: int, feedforward: int, dropout: float, first: bool):
        super().__init__()
        self.heads, self.dropout = heads, dropout
        for name in ("qcontent", "qpos", "kcontent", "kpos", "v"):
            setattr(self, f"sa_{name}_proj", nn.Linear(width, width))
        for name in ("qcontent", "kcontent", "kpos", "v", "qpos_sine"):
            setattr(self, f"ca_{name}_proj", nn.Linear(width, width))
        self.ca_qpos_proj = nn.Linear(width, width) if first else None
        self.sa_out_proj, self.ca_out_proj = nn.Linear(width, width), nn.Linear(width, width)
        self.linear1, self.linear2 = nn.Linear(width, feedforward), nn.Linear(feedforward, width)
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(width) for _ in range(3))
        self.drop = nn.Dropout(dropout)
        self.keep: list[Tensor] | None = None
        for projection in (self.sa_out_proj, self.ca_out_proj):
            nn.init.zeros_(projection.bias)

    def forward(
        self, x: Tensor, query: Tensor, spot: Tensor, memory: Tensor, place: Tensor, ignored: Tensor | None
    ) -> Tensor:
        """Refine ``x`` ``[batch, queries, width]``. `spot` is p_q, the encoded reference point, scaled by content."""
        dropout = self.dropout if self.training else 0.0
        q = self.sa_qcontent_proj(x) + self.sa_qpos_proj(query)
        k = self.sa_kcontent_proj(x) + self.sa_kpos_proj(query)
        mixed = attend(q, k, self.sa_v_proj(x), self.heads, None, dropout, None)
        x = self.norm1(x + self.drop(self.sa_out_proj(mixed)))

        q, k, placed = self.ca_qcontent_proj(x), self.ca_kcontent_proj(memory), self.ca_kpos_proj(place)
        if self.ca_qpos_proj is not None:
            q, k = q + self.ca_qpos_proj(query), k + placed
        q = _beside(q, self.ca_qpos_sine_proj(spot), self.heads)
        k = _beside(k, placed, self.heads)
        mixed = attend(q, k, self.ca_v_proj(memory), self.heads, ignored, dropout, self.keep)
        x = self.norm2(x + self.drop(self.ca_out_proj(mixed)))
        return self.norm3(x + self.drop(self.feed_forward(x)))


def _beside(content: Tensor, place: Tensor, heads: int) -> Tensor:
    """Concatenate content and place within each head: ``[batch, n, 2 width]``."""
    both = torch.cat([x.unflatten(-1, (heads, -1)) for x in (content, place)], dim=-1)
    return both.flatten(-2)


class ConditionalDecoder(nn.Module):
    """Layers that look around a reference point of each query, predicted from the query alone (Eq. 2 to 4)."""

    def __init__(self, depth: int, width: int, heads: int, feedforward: int, dropout: float, temperature: float):
        super().__init__()
        self.width, self.temperature = width, temperature
        self.layers = nn.ModuleList(
            ConditionalDecoderLayer(width, heads, feedforward, dropout, first=index == 0) for index in range(depth)
        )
        self.norm = nn.LayerNorm(width)
        self.query_scale = BoxHead(width, width, depth=2)
        self.ref_point_head = BoxHead(width, 2, depth=2)

    def forward(self, query: Tensor, memory: Tensor, place: Tensor, ignored: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return outputs ``[layers, batch, queries, width]`` and points ``[batch, queries, 2]`` before the sigmoid."""
        point = self.ref_point_head(query)
        spot = point_positions(point.sigmoid(), self.width, self.temperature)
        x, outputs = torch.zeros_like(query), []
        for index, layer in enumerate(self.layers):
            scale = 1.0 if index == 0 else self.query_scale(x)
            x = layer(x, query, spot * scale, memory, place, ignored)
            outputs.append(self.norm(x))
        return torch.stack(outputs), point


class ConditionalTransformer(nn.Module):
    def __init__(
        self, width: int, heads: int, feedforward: int, dropout: float, encoder: int, decoder: int, temperature: float
    ):
        super().__init__()
        self.encoder = Encoder(lambda: EncoderLayer(width, heads, feedforward, dropout), encoder)
        self.decoder = ConditionalDecoder(decoder, width, heads, feedforward, dropout, temperature)
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter)


class ConditionalDetr(Detector):
    """The detector: classes by sigmoids, boxes as offsets from the reference points (Eq. 1)."""

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
        queries: int = 300,
        auxiliary: bool = True,
        temperature: float = TEMPERATURE,
        loss: SetLoss | None = None,
    ):
        super().__init__()
        self.width, self.auxiliary, self.temperature = width, auxiliary, temperature
        self.set_loss = loss or SetLoss.of(None, **FOCAL)
        self.backbone = backbone
        self.input_proj = nn.Conv2d(backbone.channels[-1], width, 1)
        self.transformer = ConditionalTransformer(
            width, heads, feedforward, dropout, encoder_layers, decoder_layers, temperature
        )
        self.query_embed = nn.Embedding(queries, width)
        self.class_embed = nn.Linear(width, num_classes)
        self.bbox_embed = BoxHead(width)
        nn.init.constant_(self.class_embed.bias, -math.log((1 - PRIOR) / PRIOR))
        nn.init.zeros_(self.bbox_embed.layers[-1].weight)
        nn.init.zeros_(self.bbox_embed.layers[-1].bias)

    def predict(self, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Return logits ``[layers, batch, queries, classes]`` and boxes ``[layers, batch, queries, 4]``."""
        features = self.backbone(batch["image"])[-1]
        padding = shrink_padding(batch.get("padding"), features)
        ignored = padding.flatten(1) if "padding" in batch else None
        x = self.input_proj(features).flatten(2).transpose(1, 2)
        place = sine_positions(padding, self.width, self.temperature).flatten(1, 2)
        memory = self.transformer.encoder(x, place, ignored)
        query = self.query_embed.weight.expand(len(x), -1, -1)
        hidden, point = self.transformer.decoder(query, memory, place, ignored)
        boxes = self.bbox_embed(hidden)
        boxes = torch.cat([boxes[..., :2] + point, boxes[..., 2:]], dim=-1).sigmoid()
        return self.class_embed(hidden), boxes

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

    def look(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        with watched(self.transformer.decoder.layers[-1]) as attention:
            logits, boxes = self.predict(batch)
        shape = feature_shape(batch["image"], self.backbone)
        return {
            "decoder_attention": attention[0].mean(1).unflatten(-1, shape),
            "raw_logits": logits[-1],
            "raw_boxes": to_xyxy(boxes[-1]),
        }

    def detect(self, batch: dict[str, Tensor]) -> Detections:
        logits, boxes = self.predict(batch)
        layers = [best_pairs(*layer) for layer in zip(logits, boxes, strict=True)]
        return Detections(layers[-1].boxes, layers[-1].scores, layers[-1].labels, layers=layers)


def best_pairs(logits: Tensor, boxes: Tensor, most: int = 100) -> Detections:
    """The best pairs of query and class, at most as many as there are queries: a query may say two classes."""
    queries, classes = logits.shape[1:]
    scores, index = logits.float().sigmoid().flatten(1).topk(min(most, queries * classes), dim=1)
    row = (index // classes)[..., None].expand(-1, -1, 4)
    return Detections(to_xyxy(boxes.float().gather(1, row)), scores, index % classes)


def build(
    num_classes: int,
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
    queries: int = 300,
    auxiliary: bool = True,
    temperature: float = TEMPERATURE,
    loss: Mapping[str, float] | None = None,
) -> ConditionalDetr:
    """Conditional DETR on the backbone's feature map number `level`."""
    return ConditionalDetr(
        Backbone(**backbone, levels=(level,), output_stride=output_stride),
        num_classes,
        width=width,
        heads=heads,
        feedforward=feedforward,
        dropout=dropout,
        encoder_layers=encoder_layers,
        decoder_layers=decoder_layers,
        queries=queries,
        auxiliary=auxiliary,
        temperature=temperature,
        loss=SetLoss.of(loss, **FOCAL),
    )
