"""A run from its spec to its evaluation: one stage is trained, then the test images are scored, once."""

import numpy as np
import torch
from torch import Tensor, nn

from replications.datasets.arrays import PreparedSet, open_set
from replications.tasks.run import Context, Evaluation
from replications.training.augment import Compose, ToFloat
from replications.training.batches import DeviceBatches
from replications.training.stage import Stage, Workload

TRAIN, TEST = 0, 2  # splits of a prepared set; 1 is for validation


def execute(context: Context) -> Evaluation:
    """Train the method and score the test images."""
    data = open_set(context.spec.data["images"], context.data_root)
    stage = make_stage(context, data)
    context.train(stage)
    module = stage.module.eval()
    images, label = test_images(context, data)
    with torch.no_grad():
        logits = torch.cat([module.logits(part) for part in images.split(context.options.evaluation_batch_size)])
    accuracy = 100 * (logits.argmax(1) == label).double().mean().item()
    parameters = sum(parameter.numel() for parameter in module.parameters())
    return Evaluation({"accuracy": accuracy}, category=data.meta["title"], model_parameters=parameters)


def workload(context: Context) -> Workload:
    """Return a training step and inference on test images, for the measurement of speed."""
    data = open_set(context.spec.data["images"], context.data_root)
    stage = make_stage(context, data)
    size = context.options.evaluation_batch_size
    images = test_images(context, data)[0][:size]

    @torch.no_grad()
    def infer(module: nn.Module, n: int) -> Tensor:
        if n > len(images):
            raise ValueError(f"inference on at most {len(images)} samples, not {n}")
        return module.logits(images[:n])

    return Workload(stage, stage.batches.batch(0), infer, len(images), context.device)


def make_stage(context: Context, data: PreparedSet) -> Stage:
    """Return what is trained. Batches have ``image`` float ``[n, 3, H, W]`` in [-1, 1] and ``label`` int64 ``[n]``."""
    classes, size = len(data.meta["facts"]["classes"]), data.arrays["images"].shape[1]
    module = context.build("network", num_classes=classes, image_size=size).to(context.device)
    spec = context.spec
    arrays = {"image": data.arrays["images"], "label": np.asarray(data.arrays["label"], np.int64)}
    rows = np.flatnonzero(data.arrays["split"] == TRAIN)
    augment = Compose([ToFloat()])
    batches = DeviceBatches(arrays, spec.recipe.batch_size, spec.seed, augment, rows=rows, device=context.device)
    return Stage("network", module, batches, spec.recipe)


def test_images(context: Context, data: PreparedSet) -> tuple[Tensor, Tensor]:
    """Return the test images, float ``[n, 3, H, W]`` in [-1, 1], and their classes, int64 ``[n]``."""
    rows = np.flatnonzero(data.arrays["split"] == TEST)
    images = torch.from_numpy(np.array(data.arrays["images"][rows])).to(context.device)
    return ToFloat()(images), torch.from_numpy(np.asarray(data.arrays["label"][rows], np.int64)).to(context.device)
