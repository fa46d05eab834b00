"""Which operations give other bits on this processor when the libraries are held to older kernels.

``python -m benchmarks.portable_operations`` prints, for each operation, which of the settings of portable mode changes
its result against this processor's own kernels. What no setting changes is the same on every processor, as far as
kernels go; what ``all`` changes is what portable mode is for.
"""

import hashlib
import json
import os
import subprocess
import sys

import pandas as pd

from replications import portable

SETTINGS = {name: {name: value} for name, value in portable.ENVIRONMENT.items()} | {"all": portable.ENVIRONMENT}


def digests() -> dict[str, str]:
    """Return a short hash of each operation's result in this process."""
    import numpy as np
    import torch
    from torch.nn import functional as F

    torch.manual_seed(0)
    torch.set_num_threads(1)
    images, kernel = torch.randn(16, 64, 28, 28), torch.randn(64, 64, 3, 3)
    tokens, weight = torch.randn(4, 4, 256, 32), torch.randn(96, 32)
    points = torch.randn(4, 512, 3)
    numbers = np.random.default_rng(0).normal(size=(300, 300))
    values = torch.randn(64, 32, requires_grad=True)
    # fmt: off
    found = {
        "convolution": F.conv2d(images, kernel, padding=1),
        "linear": F.linear(tokens, weight),
        "batched matrix product": tokens @ tokens.transpose(-1, -2),
        "attention (SDPA)": F.scaled_dot_product_attention(tokens, tokens, tokens),
        "batch norm": F.batch_norm(images, None, None, training=True),
        "layer norm": F.layer_norm(tokens, [32]),
        "GELU": F.gelu(tokens),
        "tanh": tokens.tanh(),
        "exp": tokens.exp(),
        "softmax": tokens.softmax(-1),
        "cross-entropy": F.cross_entropy(tokens.reshape(-1, 32), torch.arange(4096) % 32),
        "sum": images.sum(),
        "mean and variance": torch.cat([images.mean((0, 2, 3)), images.var((0, 2, 3))]),
        "maximum over neighbours": points.amax(1),
        "pairwise distances": torch.cdist(points, points),
        "sorting, gathering": points.sort(1).values,
        "bilinear resizing": F.interpolate(images, scale_factor=1.5, mode="bilinear"),
        "gradient of log-softmax": torch.autograd.grad(values.log_softmax(-1)[:, 0].sum(), values)[0],
        "numpy: matrix product": numbers @ numbers,
        "numpy: singular values": np.linalg.svd(numbers)[1],
        "numpy: exp (float64)": np.exp(numbers),
        "numpy: sum": numbers.sum(),
    }
    # fmt: on
    return {
        name: hashlib.sha256(np.asarray(value.detach() if torch.is_tensor(value) else value).tobytes()).hexdigest()
        for name, value in found.items()
    }


def measured(environment: dict[str, str]) -> dict[str, str]:
    """Return `digests` of a process with `environment`."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.portable_operations", "--digests"],
        env=os.environ | environment,
        check=True,
        capture_output=True,
        text=True,
    )
    return json.loads(done.stdout)


def main() -> None:
    own = measured({})
    held = {name: measured(environment) for name, environment in SETTINGS.items()}
    rows = {
        operation: {name: "differs" if of[operation] != digest else "" for name, of in held.items()}
        for operation, digest in own.items()
    }
    print(pd.DataFrame.from_dict(rows, orient="index").to_markdown())


if __name__ == "__main__":
    if "--digests" in sys.argv:
        json.dump(digests(), sys.stdout)
    else:
        main()
