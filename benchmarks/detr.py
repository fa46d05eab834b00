"""DETR's training step beside that of transformers' DETR, and what matching takes: ``python -m benchmarks.detr``.

Both train the same sizes on the same batch in one process, turn by turn, so that a slow minute of the machine falls on
both; theirs gets our backbone with copied weights, so that transformer, matching and losses are compared. Reported: the
median step of each, the median over turns of their quotient, and the share of our step that matching takes (costs,
copy and assignment). Needs an environment that has transformers. On a GPU: ``--device cuda`` (bf16), ``--compile``.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from contextlib import nullcontext

import torch
from torch import nn

from replications.layers.detection import criterion
from replications.papers.detr.model import build

CLASSES = 80


class Borrowed(nn.Module):
    """Our backbone in the place of theirs."""

    def __init__(self, backbone: nn.Module):
        super().__init__()
        self.backbone = backbone
        self.intermediate_channel_sizes = backbone.channels

    def forward(self, image, mask):
        features = self.backbone(image)[-1]
        return [(features, nn.functional.interpolate(mask[None].float(), size=features.shape[-2:]).bool()[0])]


def ours(options: argparse.Namespace) -> nn.Module:
    return build(
        CLASSES, range(CLASSES), backbone={"name": options.backbone}, queries=options.queries,
        encoder_layers=options.layers, decoder_layers=options.layers, dropout=0.0,
    )  # fmt: skip


def theirs(options: argparse.Namespace, backbone: nn.Module) -> nn.Module:
    from transformers import DetrConfig, DetrForObjectDetection, ResNetConfig

    stand_in = ResNetConfig(depths=[1] * 4, hidden_sizes=[8, 8, 8, backbone.channels[-1]], out_features=["stage4"])
    config = DetrConfig(
        backbone_config=stand_in,
        num_queries=options.queries, encoder_layers=options.layers, decoder_layers=options.layers, dropout=0.0,
        auxiliary_loss=True, num_labels=CLASSES,
    )  # fmt: skip
    model = DetrForObjectDetection(config)
    model.model.backbone = Borrowed(backbone)
    return model


class Share:
    """Adds up the seconds that matching takes."""

    def __init__(self, device: torch.device):
        self.device, self.seconds = device, 0.0
        self._cost, self._match = criterion.matching_cost, criterion.match

    def __enter__(self) -> "Share":
        criterion.matching_cost, criterion.match = self._timed(self._cost), self._timed(self._match)
        return self

    def __exit__(self, *_: object) -> None:
        criterion.matching_cost, criterion.match = self._cost, self._match

    def _timed(self, function: Callable) -> Callable:
        def timed(*arguments):
            wait(self.device)
            started = time.perf_counter()
            result = function(*arguments)
            wait(self.device)
            self.seconds += time.perf_counter() - started
            return result

        return timed


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backbone", default="resnet18")
    parser.add_argument("--size", type=int, default=224, help="image side in pixels")
    parser.add_argument("--batch-size", type=int, default=2)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--queries", type=int, default=100)
    parser.add_argument("--objects", type=int, default=7, help="of each image; COCO has 7 on average")
    parser.add_argument("--turns", type=int, default=8)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--compile", action="store_true")
    options = parser.parse_args()
    device = torch.device(options.device)
    torch.set_num_threads(1)
    torch.manual_seed(0)

    mine = ours(options).to(device)
    other = theirs(options, mine.backbone).to(device)
    image = torch.randn(options.batch_size, 3, options.size, options.size, device=device)
    boxes = (0.2 + 0.3 * torch.rand(options.batch_size, options.objects, 4)).to(device)
    labels = torch.randint(CLASSES, (options.batch_size, options.objects), device=device)
    batch = {"image": image, "boxes": boxes, "labels": labels, "valid": torch.ones_like(labels, dtype=torch.bool)}
    targets = [{"class_labels": label, "boxes": box} for label, box in zip(labels, boxes, strict=True)]

    def step(model: nn.Module, loss: Callable[[], torch.Tensor]) -> Callable[[], None]:
        optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-5)

        def take() -> None:
            optimizer.zero_grad()
            with torch.autocast("cuda", torch.bfloat16) if device.type == "cuda" else nullcontext():
                value = loss()
            value.backward()
            optimizer.step()
            wait(device)

        return take

    model = torch.compile(mine) if options.compile else mine
    steps = {
        "this suite": step(mine, lambda: model(batch)["loss"]),
        "transformers": step(other, lambda: other(pixel_values=image, labels=targets).loss),
    }
    mine.train()
    other.train()
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    with Share(device) as share:
        for turn in range(options.turns + 1):
            for name, take in steps.items():
                started = time.perf_counter()
                take()
                if turn:  # the first warms up
                    seconds[name].append(time.perf_counter() - started)
                elif name == "this suite":
                    share.seconds = 0.0
    for name, own in seconds.items():
        print(f"{name:<14}{1000 * statistics.median(own):>9.1f} ms a step")
    quotient = statistics.median(b / a for a, b in zip(*seconds.values(), strict=True))
    print(f"transformers / this suite: {quotient:.2f}")
    print(f"matching: {100 * share.seconds / sum(seconds['this suite']):.2f} % of this suite's step")


if __name__ == "__main__":
    main()
