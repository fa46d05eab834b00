"""Decoding pictures into rows of uint8 [H, W, 3], RGB.

All readers get the same RGB for any storage format: samples of 16 bits are scaled to 8 (the high byte, as
Pillow does for colour), greyscale, palettes and CMYK are converted, of several frames the first is taken. Alpha is
dropped: a pixel keeps its colour, however transparent. An orientation in the EXIF data is not applied, since boxes and
landmarks are annotated on the pixels as they are stored. Samples with no known range (floats, integers beyond 16 bits)
are refused.
"""

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from replications.errors import UserError

Box = tuple[float, float, float, float]
SIXTEEN_BITS = ("I;16", "I;16B", "I;16L", "I;16N")


class DamagedPicture(UserError):
    """A picture's bytes were read, and are no picture that can be used."""


def decode(data: bytes | Path, name: str, image_size: tuple[int, int] | None = None) -> Image.Image:
    """Decode all of a JPEG or PNG to RGB. Raises DamagedPicture, naming it, where it is damaged, not of `image_size`
    or of samples without a range, and UserError where its file cannot be read.

    `image_size` is (width, height). The whole image is decoded at full size: a JPEG decoder's reduced-size mode
    would give other pixels.
    """
    with _opened(data, name) as image:
        if image_size is not None and image.size != tuple(image_size):
            raise DamagedPicture(
                f"{name} is {image.width}x{image.height} pixels instead of {image_size[0]}x{image_size[1]}"
            )
        image.load()
        return _rgb(image, name)


def decode_depth(path: Path) -> np.ndarray:
    """Return the samples of a greyscale picture of 16 bits as they are, uint16 [H, W]; raises as `decode`."""
    with _opened(path, str(path)) as image:
        if image.mode not in (*SIXTEEN_BITS, "I"):
            raise DamagedPicture(f"{path} is not a depth image: its mode is {image.mode}, not of 16 bits")
        samples = np.asarray(image)
        if samples.min() < 0 or samples.max() >= 1 << 16:
            raise DamagedPicture(f"{path} is not a depth image: it has samples beyond 16 bits")
        return samples.astype(np.uint16)


@contextmanager
def _opened(data: bytes | Path, name: str) -> Iterator[Image.Image]:
    """Open a picture and turn what decoding it raises into one line."""
    try:
        with Image.open(io.BytesIO(data) if isinstance(data, bytes) else data) as image:
            yield image
    except UserError:
        raise
    except Exception as error:  # a decoder of someone else's bytes may fail in any way
        if isinstance(error, OSError) and error.errno is not None:
            raise UserError(f"cannot read {name}: {error.strerror}") from error
        unknown = isinstance(error, UnidentifiedImageError)
        what = "it is of no known format" if unknown else str(error).partition("\n")[0] or type(error).__name__
        raise DamagedPicture(f"{name} cannot be read as an image ({what})") from error


def _rgb(image: Image.Image, name: str) -> Image.Image:
    if image.mode == "F" or (image.mode == "I" and not 0 <= image.getextrema()[0] <= image.getextrema()[1] < 1 << 16):
        raise DamagedPicture(
            f"{name} cannot be read as an image: its samples (mode {image.mode}) have no known range; "
            "store it with 8 or 16 bits a sample"
        )
    if image.mode == "I" or image.mode in SIXTEEN_BITS:
        image = Image.fromarray((np.asarray(image).astype(np.int32) >> 8).astype(np.uint8))
    return image if image.mode == "RGB" else image.convert("RGB")


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
