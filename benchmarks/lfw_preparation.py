"""Preparing LFW against decoding its JPEGs: ``python -m benchmarks.lfw_preparation --mirror DIR --workers 2``.

Prints wall and CPU seconds (all processes together; they are what to compare on a machine that is not idle) of: a bare
decode of the images, already in memory; reading the archive; preparing from it; and unpacking it to files, which
reading it in one pass saves.
"""

import argparse
import io
import multiprocessing
import resource
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from PIL import Image

from replications.datasets.extract import extract, tar_files
from replications.datasets.faces import lfw
from replications.datasets.prepare import fetch_sources
from replications.datasets.registry import find_set


def decode(images: list[bytes]) -> None:
    for data in images:
        with Image.open(io.BytesIO(data)) as image:
            image.load()


def bare_decode(images: list[bytes], workers: int) -> None:
    chunks = [images[start : start + 256] for start in range(0, len(images), 256)]
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("fork")) as pool:
        list(pool.map(decode, chunks))


def cpu_seconds() -> float:
    usage = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in usage)


def timed(label: str, action: Callable[[], object], repeats: int) -> None:
    figures = []
    for _ in range(repeats):
        wall, cpu = time.perf_counter(), cpu_seconds()
        action()
        figures.append((time.perf_counter() - wall, cpu_seconds() - cpu))
    best = [min(column) for column in zip(*figures, strict=True)]
    print(f"{label:32} {best[0]:6.2f} s wall  {best[1]:6.2f} s CPU", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mirror", type=Path, help="a directory that has lfw/")
    parser.add_argument("--data-root", type=Path, default=Path("data"), help="where downloads lie")
    parser.add_argument("--workers", type=int, default=multiprocessing.cpu_count())
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()

    files = fetch_sources("lfw_112", arguments.data_root, arguments.mirror)
    options, archive = find_set("lfw_112").options, files["images"]
    images = [stream.read() for name, stream in tar_files(archive) if name.endswith(".jpg")]
    print(f"{len(images)} images, {archive.name}, {arguments.workers} processes, best of {arguments.repeats}")

    def prepare() -> None:
        with tempfile.TemporaryDirectory() as target:
            lfw.prepare(Path(target), options, files, arguments.workers)

    def unpack() -> None:
        with tempfile.TemporaryDirectory() as target:
            extract(archive, Path(target) / "out")

    timed("bare decode", lambda: bare_decode(images, arguments.workers), arguments.repeats)
    timed("read the archive", lambda: [stream.read() for _, stream in tar_files(archive)], arguments.repeats)
    timed("prepare from the archive", prepare, arguments.repeats)
    timed("unpack the archive to files", unpack, arguments.repeats)


if __name__ == "__main__":
    main()
