"""Decoding pictures into rows of uint8 [H, W, 3], RGB."""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from replications.errors import UserError

Box = tuple[float, float, float, float]


def decode(data: bytes | Path, name: str, image_size: tuple[int, int] | None = None) -> Image.Image:
    """Decode a JPEG or PNG to RGB; raises UserError, naming it, where it is unreadable or not of `image_size`.

    `image_size` is (width, height). The whole image is decoded at full size: a JPEG decoder's reduced-size mode
    would give other pixels.
    """
    try:
        with Image.open(io.BytesIO(data) if isinstance(data, bytes) else data) as image:
            if image_size is not None and image.size != tuple(image_size):
                raise UserError(
                    f"{name} is {image.width}x{image.height} pixels instead of {image_size[0]}x{image_size[1]}"
                )
            image.load()
            return image if image.mode == "RGB" else image.convert("RGB")
    except (OSError, SyntaxError, ValueError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise UserError(f"{name} cannot be read as an image ({error})") from error


def crop_and_resize(image: Image.Image, crop: Box | None, size: int) -> Image.Image:
    """Return the crop box (left, upper, right, lower; None: all) at `size` x `size`, bilinear with antialiasing."""
    if crop is not None:
        image = image.crop(crop)
    return image if image.size == (size, size) else image.resize((size, size), Image.Resampling.BILINEAR)


def face_rows(
    items: Sequence[tuple[str, bytes | Path]], image_size: int | None, crop: Box | None, size: int
) -> dict[str, np.ndarray]:
    """Decode, crop and resize named pictures: images uint8 [n, size, size, 3]."""
    images = np.empty((len(items), size, size, 3), np.uint8)
    expected = None if image_size is None else (image_size, image_size)
    for row, (name, data) in zip(images, items, strict=True):
        row[...] = np.asarray(crop_and_resize(decode(data, name, expected), crop, size))
    return {"images": images}
