"""MAE's pretraining step beside other implementations, and augmentation beside the usual worker pipeline.

``python -m benchmarks.mae`` takes turns in one process on one device and tells least milliseconds of a step (forward
and backward) and their quotient, above 1 where ours is faster; then images a second of augmented 64-pixel batches.

The peers are an optional extra: ``pip install .[peers]``. What is not installed is left out, and said so.
"""

import argparse
import importlib
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from replications.papers.mae.model import MaskedAutoencoder
from replications.tasks.image_classification.data import transforms
from replications.tasks.image_classification.options import Augmentation
from replications.training.batches import DeviceBatches
from replications.training.determinism import set_threads

TURNS = 5
# image size, patch, width, depth, heads, decoder width, depth, heads, batch
SIZES = {
    "64 px, width 192": (64, 8, 192, 6, 3, 128, 2, 4, 16),
    "224 px, ViT-Ti": (224, 16, 192, 12, 3, 128, 4, 4, 4),
}
IMAGES, SIDE, BATCH = 2048, 64, 256


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1, help="of a step, and worker processes of the pipeline")
    parser.add_argument("--only", choices=("step", "augmentation"))
    arguments = parser.parse_args()
    set_threads(arguments.threads)
    if arguments.only != "augmentation":
        steps(torch.device(arguments.device))
    if arguments.only != "step":
        augmentation(torch.device(arguments.device), arguments.threads)


def steps(device: torch.device) -> None:
    print(f"{'peer':24} {'size':20} {'ours ms':>9} {'peer ms':>9} {'quotient':>9} {'ours':>9} {'peer':>9} parameters")
    for name, make in PEERS.items():
        for title, size in SIZES.items():
            try:
                peer, run = make(*size[:-1])
            except ImportError as error:
                print(f"{name:24} not installed ({error.name}): pip install .[peers]")
                break
            image_size, patch, width, depth, heads, *decoder, batch = size
            ours = MaskedAutoencoder(
                image_size, patch=patch, width=width, depth=depth, heads=heads,
                decoder=dict(zip(("width", "depth", "heads"), decoder, strict=True)), normalise_target=False,
            )  # fmt: skip
            image = torch.randn(batch, 3, image_size, image_size, device=device)
            sides = {"ours": (ours.to(device), _own), "peer": (peer.to(device), run)}
            least = dict.fromkeys(sides, float("inf"))
            for turn in range(TURNS + 1):
                for side, (module, loss) in sides.items():
                    seconds = timed(module, loss, image)
                    least[side] = min(least[side], seconds) if turn else least[side]
            sizes = [sum(p.numel() for p in module.parameters()) for module, _ in sides.values()]
            print(
                f"{name:24} {title:20} {1e3 * least['ours']:9.1f} {1e3 * least['peer']:9.1f} "
                f"{least['peer'] / least['ours']:9.2f} {sizes[0]:9} {sizes[1]:9}",
                flush=True,
            )


def _own(module: nn.Module, image: Tensor) -> Tensor:
    return module({"image": image})["loss"]


def timed(module: nn.Module, loss: Callable[[nn.Module, Tensor], Tensor], image: Tensor) -> float:
    module.train()
    module.zero_grad(set_to_none=True)
    synchronise(image.device)
    started = time.perf_counter()
    loss(module, image).backward()
    synchronise(image.device)
    return time.perf_counter() - started


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def with_transformers(image_size, patch, width, depth, heads, decoder_width, decoder_depth, decoder_heads):
    peer = importlib.import_module("transformers")
    config = peer.ViTMAEConfig(
        image_size=image_size, patch_size=patch, hidden_size=width, num_hidden_layers=depth,
        num_attention_heads=heads, intermediate_size=4 * width, decoder_hidden_size=decoder_width,
        decoder_num_hidden_layers=decoder_depth, decoder_num_attention_heads=decoder_heads,
        decoder_intermediate_size=4 * decoder_width, mask_ratio=0.75, attn_implementation="sdpa",
    )  # fmt: skip
    return peer.ViTMAEForPreTraining(config), lambda module, image: module(image).loss


def with_vit_pytorch(image_size, patch, width, depth, heads, decoder_width, decoder_depth, decoder_heads):
    peer = importlib.import_module("vit_pytorch")
    encoder = peer.ViT(
        image_size=image_size, patch_size=patch, num_classes=10, dim=width, depth=depth, heads=heads,
        dim_head=width // heads, mlp_dim=4 * width, pool="mean",  # its MAE cannot read the class token's positions
    )  # fmt: skip
    module = peer.MAE(
        encoder=encoder, masking_ratio=0.75, decoder_dim=decoder_width, decoder_depth=decoder_depth,
        decoder_heads=decoder_heads, decoder_dim_head=decoder_width // decoder_heads,
    )  # fmt: skip
    return module, lambda module, image: module(image)


PEERS = {"transformers ViTMAE": with_transformers, "vit-pytorch MAE": with_vit_pytorch}


def augmentation(device: torch.device, workers: int) -> None:
    """Random resized crop, flip and scaling: arrays on the device against JPEG files, torchvision and a DataLoader."""
    from PIL import Image
    from torchvision import datasets
    from torchvision.transforms import v2

    draws = np.random.default_rng(0)
    small = draws.integers(0, 256, (IMAGES, 8, 8, 3), dtype=np.uint8)
    images = np.stack([np.asarray(Image.fromarray(image).resize((SIDE, SIDE))) for image in small])
    augment = transforms(Augmentation(crop_scale=(0.2, 1.0)), SIDE, SIDE, 10)
    batches = DeviceBatches({"image": images, "label": np.zeros(IMAGES, np.int64)}, BATCH, 0, augment, device=device)
    usual = v2.Compose([
        v2.RandomResizedCrop(SIDE, scale=(0.2, 1.0), antialias=True), v2.RandomHorizontalFlip(), v2.ToImage(),
        v2.ToDtype(torch.float32, scale=True), v2.Normalize([0.5] * 3, [0.5] * 3),
    ])  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "class").mkdir()
        for index, image in enumerate(images):
            Image.fromarray(image).save(Path(folder) / "class" / f"{index:05d}.jpg", quality=95)
        files = datasets.ImageFolder(folder, usual)
        loader = torch.utils.data.DataLoader(
            files, BATCH, shuffle=True, drop_last=True, num_workers=workers, persistent_workers=True
        )
        rates = {"device": [], "workers": []}
        step = 0
        for _ in range(3):
            started, count = time.perf_counter(), 0
            for image, _label in loader:
                count += len(image.to(device))
            rates["workers"].append(count / (time.perf_counter() - started))
            started, count = time.perf_counter(), 0
            while count < 4 * IMAGES:
                count += len(batches.batch(step)["image"])
                step += 1
            synchronise(device)
            rates["device"].append(count / (time.perf_counter() - started))
    ours, theirs = (max(rates[side]) for side in ("device", "workers"))
    print(f"augmented {SIDE}-pixel images/s, {workers} thread(s) or worker(s): ours {ours:.0f}, "
          f"torchvision and DataLoader {theirs:.0f}, quotient {ours / theirs:.1f}")  # fmt: skip


if __name__ == "__main__":
    main()
