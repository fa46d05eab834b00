"""The handwritten digits that scikit-learn carries: 1,797 images of 8x8 pixels and 17 grey levels.

They are the test part of UCI's "Optical recognition of handwritten digits" set, enlarged here and given three equal
channels. The split is by position, so writers of neighbouring digits mostly stay on one side.
"""

from pathlib import Path

import numpy as np
from PIL import Image
from pydantic import Field

from replications.parsing import parse
from replications.spec import Strict


class Options(Strict):
    """Options of the set: its image size, and how many images are held out at its end."""

    size: int = Field(ge=8, le=64, description="pixels, square; enlarged bilinearly")
    validation: int = Field(ge=0)
    test: int = Field(ge=1)


def prepare(target: Path, options: dict, files: dict[str, Path], workers: int) -> dict:
    """Write ``images`` uint8 [N, S, S, 3], ``label`` int32 [N], ``split`` int8 [N] (0 train, 1 validation, 2 test)."""
    from sklearn.datasets import load_digits

    wanted = parse(Options, options, "options of the digits")
    found = load_digits()
    grey = (found.images * (255 / 16)).round().astype(np.uint8)
    side = (wanted.size, wanted.size)
    images = [np.asarray(Image.fromarray(image).resize(side, Image.Resampling.BILINEAR)) for image in grey]
    np.save(target / "images.npy", np.repeat(np.stack(images)[..., None], 3, axis=-1))
    np.save(target / "label.npy", found.target.astype(np.int32))
    split = np.zeros(len(grey), np.int8)
    split[len(grey) - wanted.test - wanted.validation :] = 1
    split[len(grey) - wanted.test :] = 2
    np.save(target / "split.npy", split)
    return {"classes": [str(digit) for digit in range(10)], "images": len(grey)}
