"""A small LFW in the official layout: pictures of coloured noise, of nobody."""

import io
import tarfile
from pathlib import Path

import numpy as np
from PIL import Image

PEOPLE = {1: {"Zoe_Last": 2, "Abe_First": 3, "Mid_Dle": 1}, 2: {"Bea_Two": 2, "Cy_Three": 1, "Di_Four": 4}}
PAIRS = {
    1: (["Zoe_Last\t1\t2", "Abe_First\t1\t3"], ["Abe_First\t2\tMid_Dle\t1", "Mid_Dle\t1\tZoe_Last\t2"]),
    2: (["Bea_Two\t1\t2", "Di_Four\t2\t4"], ["Bea_Two\t1\tDi_Four\t1", "Cy_Three\t1\tDi_Four\t3"]),
}
OPTIONS = {
    "image_size": 250,
    "crop": [55, 48, 195, 188],
    "size": 28,
    "num_images": 13,
    "num_identities": 6,
    "num_pairs": 8,
    "label_errors": [[2, "Di_Four", 2, 4]],
}


def jpeg(seed: int, size: tuple[int, int] = (250, 250), quality: int = 90) -> bytes:
    """A JPEG whose colours depend on the seed."""
    draws = np.random.default_rng(seed)
    small = Image.fromarray(draws.integers(0, 256, (12, 12, 3), dtype=np.uint8))
    out = io.BytesIO()
    small.resize(size, Image.Resampling.BICUBIC).save(out, "JPEG", quality=quality)
    return out.getvalue()


def image_names() -> list[tuple[str, int]]:
    counts = {name: count for fold in PEOPLE.values() for name, count in fold.items()}
    return [(name, number) for name in sorted(counts) for number in range(1, counts[name] + 1)]


def pictures() -> dict[str, bytes]:
    """Member of the archive -> JPEG, in the order of the names."""
    return {
        f"lfw-deepfunneled/{name}/{name}_{number:04}.jpg": jpeg(seed)
        for seed, (name, number) in enumerate(image_names())
    }


def people_text() -> str:
    folds = [f"{len(fold)}\n" + "".join(f"{n}\t{c}\n" for n, c in fold.items()) for fold in PEOPLE.values()]
    return f"{len(folds)}\n" + "".join(folds)


def pairs_text() -> str:
    lines = [line for matched, mismatched in PAIRS.values() for line in matched + mismatched]
    return f"{len(PAIRS)}\t2\n" + "\n".join(lines) + "\n"


def write(folder: Path, members: dict[str, bytes] | None = None, mode: str = "w:gz") -> dict[str, Path]:
    """Write the three files and return them by role."""
    files = {"images": folder / "lfw.tgz", "people": folder / "people.txt", "pairs": folder / "pairs.txt"}
    with tarfile.open(files["images"], mode) as tar:
        for name, data in (pictures() if members is None else members).items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    files["people"].write_text(people_text())
    files["pairs"].write_text(pairs_text())
    return files
