"""Checkpoints: written atomically, checked when read; the previous one is kept.

A file is torch's own format (loadable with ``weights_only``: no code runs) followed by a digest of all its bytes,
because torch checks neither length nor content.
"""

import contextlib
import hashlib
import os
import sys
from pathlib import Path
from typing import Any, BinaryIO

import torch

from replications.errors import disk_error

State = dict[str, Any]
DIGEST_BYTES = 32
CHUNK_BYTES = 1 << 22


class Damaged(Exception):
    """A checkpoint file that is cut short or changed."""


class Checkpoints:
    """The checkpoint of one stage, ``<folder>/<stage>.ckpt``, and the one before, ``<stage>.previous.ckpt``."""

    def __init__(self, folder: Path, stage: str):
        self.stage = stage
        self.latest = Path(folder) / f"{stage}.ckpt"
        self.previous = Path(folder) / f"{stage}.previous.ckpt"

    def write(self, state: State, *, keep_previous: bool = True) -> None:
        """Write a checkpoint; the last one stays as the previous one, or goes where `keep_previous` is false.

        Raises UserError where the disk is full or the folder cannot be written: older checkpoints stay.
        """
        temporary = self.latest.with_suffix(".ckpt.tmp")
        try:
            self.latest.parent.mkdir(parents=True, exist_ok=True)
            with open(temporary, "wb") as stream:
                _save(state, stream)
                stream.flush()
                os.fsync(stream.fileno())
            if keep_previous and self.latest.exists():
                os.replace(self.latest, self.previous)
            os.replace(temporary, self.latest)
            if not keep_previous:
                self.previous.unlink(missing_ok=True)
            _sync_folder(self.latest.parent)
        except OSError as error:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
            told = OSError(error.errno, error.strerror)  # of the checkpoint, whatever its name was then
            raise disk_error(told, "write checkpoint", self.latest, "it continues from the last checkpoint") from error

    def read(self) -> State | None:
        """Return the newest whole checkpoint, or None where the stage has none.

        A damaged file is named on stderr, together with what is used instead: the previous checkpoint, or none.
        """
        damaged = []
        for path in (self.latest, self.previous):
            try:
                state = _load(path)
            except FileNotFoundError:
                continue
            except OSError as error:
                raise disk_error(error, "read checkpoint", path) from error
            except Damaged as error:
                damaged.append(f"{path} is damaged ({error})")
                continue
            if damaged:
                _say(f"{damaged[0]}: continuing from {path.name}")
            return state
        if damaged:
            _say(f"{'; '.join(damaged)}: no intact checkpoint is left, stage '{self.stage}' starts from step 0")
        return None


def _say(message: str) -> None:
    print(f"warning: checkpoint {message}", file=sys.stderr, flush=True)


def _save(state: State, stream: BinaryIO) -> None:
    writer = _DigestingWriter(stream)
    torch.save(state, writer)
    if writer.error is not None:
        raise writer.error
    stream.write(writer.digest.digest())


class _DigestingWriter:
    """Passes bytes on and digests them. An error is kept for later: torch's writer does not survive one raised here."""

    def __init__(self, stream: BinaryIO):
        self._stream = stream
        self.digest = hashlib.blake2b(digest_size=DIGEST_BYTES)
        self.error: OSError | None = None

    def write(self, data: bytes) -> int:
        if self.error is None:
            try:
                self._stream.write(data)
                self.digest.update(data)
            except OSError as error:
                self.error = error
        return len(data)

    def flush(self) -> None:
        pass


def _load(path: Path) -> State:
    with open(path, "rb") as stream:
        _check_digest(stream)
        stream.seek(0)
        return torch.load(stream, map_location="cpu", weights_only=True)


def _check_digest(stream: BinaryIO) -> None:
    left = stream.seek(0, os.SEEK_END) - DIGEST_BYTES
    if left <= 0:
        raise Damaged("cut short")
    stream.seek(0)
    digest = hashlib.blake2b(digest_size=DIGEST_BYTES)
    while left:
        chunk = stream.read(min(left, CHUNK_BYTES))
        digest.update(chunk)
        left -= len(chunk)
    if stream.read() != digest.digest():
        raise Damaged("its digest does not match its contents: truncated or changed")


def _sync_folder(folder: Path) -> None:
    """Make the renames durable: a file's name lives in its folder."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
