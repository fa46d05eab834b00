"""Small images beside one another on one pair of axes, for the pictures of tasks. Imported only while drawing."""

import numpy as np
from matplotlib.axes import Axes


def image_sheet(axes: Axes, images: np.ndarray, largest: float) -> None:
    """Show images ``[lines, columns, rows, columns]`` of values from 0 to `largest`, dark on light, grey between."""
    framed = np.pad(images.astype(float), ((0, 0), (0, 0), (1, 1), (1, 1)), constant_values=largest / 2)
    lines, columns, height, width = framed.shape
    sheet = framed.transpose(0, 2, 1, 3).reshape(lines * height, columns * width)
    axes.imshow(sheet, cmap="gray_r", vmin=0, vmax=largest, interpolation="none")
    axes.set(xticks=[], yticks=[])
    axes.grid(False)
