"""Pictures of any mode in every reader: 16 bits are scaled; what has no range or does not decode is refused."""

import io
import struct
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image

from replications.datasets.decoding import DamagedPicture, decode, decode_depth
from replications.datasets.images.classified import photograph_rows
from replications.errors import UserError

STORED = [0, 8192, 16384, 32768, 65535]
EIGHT = [0, 32, 64, 128, 255]
RAMP = np.repeat([STORED], 5, axis=0).astype(np.uint16)  # square, so that no reader crops


def saved(image, form, **options):
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


def png16(kind, channels):
    """A PNG of 16 bits a sample, of colour type `kind`: Pillow itself writes only grey ones."""
    samples = np.repeat(RAMP[..., None], channels, axis=2).astype(">u2")
    rows = b"".join(b"\0" + row.tobytes() for row in samples)
    head = struct.pack(">IIBBBBB", *RAMP.shape[::-1], 16, kind, 0, 0, 0)
    parts = ((b"IHDR", head), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    chunks = (struct.pack(">I", len(d)) + t + d + struct.pack(">I", zlib.crc32(t + d)) for t, d in parts)
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


SIXTEEN = {
    "grey PNG": png16(0, 1),
    "colour PNG": png16(2, 3),
    "grey PNG with alpha": png16(4, 2),
    "colour PNG with alpha": png16(6, 4),
    "TIFF": saved(Image.fromarray(RAMP), "TIFF"),
    "big-endian TIFF": saved(Image.fromarray(RAMP.astype(">u2")), "TIFF"),
    "integers in a TIFF": saved(Image.fromarray(RAMP.astype(np.int32)), "TIFF"),
    "PGM": b"P5 5 5 65535\n" + RAMP.astype(">u2").tobytes(),
    "PPM": b"P6 5 5 65535\n" + np.repeat(RAMP[..., None], 3, axis=2).astype(">u2").tobytes(),
}


@pytest.mark.parametrize("form", SIXTEEN)
def test_sixteen_bits_are_scaled(form):
    found = np.asarray(decode(SIXTEEN[form], form))
    assert found.shape == (5, 5, 3) and found.dtype == np.uint8
    assert np.abs(found.astype(int) - np.reshape(EIGHT, (1, 5, 1))).max() <= 1
    rows = photograph_rows([(form, SIXTEEN[form])], 5)["images"][0]
    np.testing.assert_array_equal(rows, found)


@pytest.mark.parametrize(
    "data",
    [
        saved(Image.fromarray(RAMP.astype(np.float32)), "TIFF"),
        saved(Image.fromarray(RAMP.astype(np.int32) * 2), "TIFF"),
        saved(Image.fromarray(RAMP.astype(np.int32) - 1), "TIFF"),
    ],
    ids=["floats", "beyond 16 bits", "negative"],
)
def test_samples_without_a_range_are_refused(data):
    with pytest.raises(DamagedPicture, match=r"x\.tif cannot be read as an image: its samples .* no known range"):
        decode(data, "x.tif")


def test_modes_of_eight_bits_keep_their_colours():
    red = Image.new("RGB", (4, 4), (200, 30, 60))
    for image, form in ((red, "PNG"), (red.convert("RGBA"), "PNG"), (red.quantize(2), "PNG"), (red.quantize(2), "GIF")):
        assert decode(saved(image, form), "x").getpixel((1, 1)) == (200, 30, 60)
    for mode in ("CMYK", "YCbCr"):
        found = np.array(decode(saved(red.convert(mode), "TIFF"), "x").getpixel((1, 1)))
        assert np.abs(found - (200, 30, 60)).max() <= 2
    for image in (Image.new("1", (2, 2), 1), Image.new("LA", (2, 2), (255, 7))):
        assert decode(saved(image, "PNG"), "x").getpixel((1, 1)) == (255, 255, 255)


def test_alpha_orientation_and_later_frames_change_nothing():
    clear = Image.new("RGBA", (3, 3), (200, 30, 60, 0))
    assert decode(saved(clear, "PNG"), "x").getpixel((1, 1)) == (200, 30, 60)
    palette = clear.convert("RGB").quantize(2)
    palette.info["transparency"] = 0
    assert decode(saved(palette, "PNG", transparency=0), "x").getpixel((1, 1)) == (200, 30, 60)
    turned = Image.Exif()
    turned[0x0112] = 6
    assert decode(saved(Image.new("RGB", (8, 4)), "JPEG", exif=turned), "x").size == (8, 4)
    frames = [Image.new("RGB", (4, 4), colour) for colour in ((200, 30, 60), (0, 0, 255))]
    moving = saved(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert decode(moving, "x").getpixel((1, 1)) == (200, 30, 60)


NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8))


@pytest.mark.parametrize("form", ["JPEG", "PNG", "GIF", "BMP"])
def test_a_picture_that_is_cut_anywhere_is_found(form):
    data = saved(NOISE, form)
    for kept in (0, 1, 10, len(data) // 4, len(data) // 2, len(data) * 9 // 10):
        with pytest.raises(DamagedPicture, match=r"^dir/x\.jpg cannot be read as an image") as error:
            decode(data[:kept], "dir/x.jpg")
        assert "\n" not in str(error.value) and "object at" not in str(error.value)


def test_bytes_flipped_anywhere_give_a_picture_or_one_line():
    rng = np.random.default_rng(0)
    for form in ("JPEG", "PNG", "GIF", "TIFF", "BMP", "WEBP", "PPM"):
        data = np.frombuffer(saved(NOISE.crop((0, 0, 16, 16)), form), np.uint8)
        for _ in range(60):
            changed = data.copy()
            changed[rng.integers(0, min(len(data), 200), 4)] = rng.integers(0, 256, 4)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # Pillow's, of odd headers
                try:
                    assert decode(changed.tobytes(), "x").mode == "RGB"
                except DamagedPicture as error:
                    assert "\n" not in str(error)


def test_a_file_that_cannot_be_read_is_not_taken_for_a_damaged_picture(tmp_path):
    for path in (tmp_path / "none.png", tmp_path):
        with pytest.raises(UserError, match="cannot read x") as error:
            photograph_rows([("x", path)], 4)  # "damaged: skip" must not pass over it
        assert not isinstance(error.value, DamagedPicture)


def test_depth_is_of_sixteen_bits_and_stays_as_it_is(tmp_path):
    (tmp_path / "d.png").write_bytes(png16(0, 1))
    assert decode_depth(tmp_path / "d.png").tolist() == RAMP.tolist()
    for mode in ("L", "RGB"):
        Image.new(mode, (4, 4)).save(tmp_path / "d.png")
        with pytest.raises(UserError, match=rf"d\.png is not a depth image: its mode is {mode}"):
            decode_depth(tmp_path / "d.png")
