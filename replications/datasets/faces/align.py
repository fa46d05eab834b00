"""Aligning a face by five landmarks to the 112x112 template of ArcFace (similarity transform)."""

import numpy as np
from PIL import Image

# Left eye, right eye, nose, left and right corner of the mouth, as seen in the picture; pixel centres, (x, y).
# ArcFace (insightface, recognition/arcface_mxnet/common/face_align.py).
TEMPLATE_112 = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]]
)


def similarity(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Return the [2, 3] matrix of rotation, scale and shift that brings `source` [n, 2] nearest to `target` [n, 2].

    Least squares without reflection (Umeyama 1991, equations 40-43). Raises ValueError where all source points are one.
    """
    source_mean, target_mean = source.mean(0), target.mean(0)
    source_centred, target_centred = source - source_mean, target - target_mean
    variance = (source_centred**2).sum() / len(source)
    if variance == 0:
        raise ValueError("the landmarks are all at one place")
    u, singular, vt = np.linalg.svd(target_centred.T @ source_centred / len(source))
    sign = np.array([1.0, np.sign(np.linalg.det(u) * np.linalg.det(vt)) or 1.0])
    rotation = u * sign @ vt
    scale = (singular * sign).sum() / variance
    return np.column_stack([scale * rotation, target_mean - scale * rotation @ source_mean])


def warp(image: Image.Image, matrix: np.ndarray, size: int) -> Image.Image:
    """Return `image` moved by `matrix` [2, 3] onto a canvas of `size` x `size`, bilinear, black outside.

    The matrix maps coordinates of pixel centres, (0, 0) being the first pixel's, as OpenCV's warpAffine has it.
    """
    inverse = np.linalg.inv(np.vstack([matrix, [0, 0, 1]]))[:2]
    # Pillow asks for output -> input, and has the first pixel's centre at (0.5, 0.5)
    shift = inverse[:, 2] + 0.5 - inverse[:, :2] @ [0.5, 0.5]
    coefficients = (*inverse[0, :2], shift[0], *inverse[1, :2], shift[1])
    return image.transform((size, size), Image.Transform.AFFINE, coefficients, Image.Resampling.BILINEAR)
