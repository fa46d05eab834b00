"""Getting a source: from a mirror directory, from earlier downloads, or from the network, always checked.

A download grows in ``<name>.part``, is continued by HTTP Range after any interruption, is checked, and only then
renamed to its name: a file below ``downloads`` is whole. The network is asked politely: back-off with jitter, and the
next place if one fails for any reason: a server's response may break the HTTP library in any way.
"""

import email.utils
import os
import random
import re
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path

import requests
import urllib3

from replications.datasets import drive
from replications.datasets.checksum import fault
from replications.datasets.disk import alone, no_space, require_space, writing
from replications.datasets.extract import extract
from replications.datasets.registry import Source, Variant, find_source
from replications.errors import UserError
from replications.progress import progress

PIECE = 1 << 16
LONGEST_PAGE = 1 << 17  # bytes that are read of a page of Google Drive
PASSING = {408, 425, 429, 500, 502, 503, 504}
USER_AGENT = "replications (research; reproducibility)"


@dataclass(frozen=True)
class Patience:
    """How long a place is tried. Seconds; `attempts` counts those in a row that brought no new byte.

    A place that sends fewer than `least_speed` bytes a second for `slow` seconds is left for the next one.
    """

    connect_timeout: float = 15.0
    read_timeout: float = 30.0
    attempts: int = 5
    pause: float = 1.0
    longest_pause: float = 60.0
    least_speed: float = 1024.0
    slow: float = 60.0

    def wait(self, attempt: int, asked: float = 0.0) -> None:
        """Sleep after `attempt` failed attempts, at least as long as the server asked for."""
        pause = self.pause * 2 ** max(attempt - 1, 0) * random.uniform(0.5, 1.5)
        time.sleep(min(max(pause, asked), self.longest_pause))


class PlaceFailed(Exception):
    """This URL will not give the file; the next one may."""


class _Interrupted(Exception):
    """A passing fault: worth another attempt. `asked` is the pause the server asked for, in seconds."""

    def __init__(self, reason: str, asked: float = 0.0, offline: bool = False):
        super().__init__(reason)
        self.asked, self.offline = asked, offline


def fetch(source_key: str, data_root: Path, mirror: Path | None = None, *, patience: Patience = Patience()) -> Path:
    """Return the path of a source's file or folder, checked; download it where it is not there.

    Tried in order: the mirror directory (used in place, never changed), ``<data_root>/downloads``, the URLs. Safe to
    call from several processes at once. Raises UserError, one line: what was tried, and what to do.
    """
    source = find_source(source_key)
    downloads = Path(data_root) / "downloads"
    if mirror is not None and not Path(mirror).is_dir():
        raise UserError(f"the mirror directory {mirror} does not exist: correct data_mirror, or leave it out")
    tried: list[str] = []
    for root in filter(None, (mirror, downloads)):
        for variant in source.variants:
            path = Path(root) / variant.path
            if not path.exists():
                if root == mirror:
                    tried.append(f"{path} (missing)")
                continue
            wrong = fault(path, variant)
            if wrong is None:
                return _unpacked(path, variant, downloads)
            tried.append(f"{path} ({wrong})")
            if root == mirror:
                print(f"warning: {path} {wrong}: not used", file=sys.stderr)
            else:
                raise UserError(f"{path} {wrong}: delete it, or put the right file there")
    for variant in source.variants:
        target = downloads / variant.path
        for url in variant.urls:
            try:
                _download_once(url, target, variant, patience)
            except PlaceFailed as failure:
                tried.append(f"{url} ({failure})")
            else:
                return _unpacked(target, variant, downloads)
    raise UserError(_cannot_get(source_key, source, downloads, tried))


def _cannot_get(key: str, source: Source, downloads: Path, tried: list[str]) -> str:
    official = source.variants[0]
    what = Path(official.path).name
    if official.contains:
        what = f"the folder {what} (with {', '.join(official.contains)})"
    elif official.checksum:
        what = "{} ({} {})".format(what, *official.checksum)
    others = [variant.path for variant in source.variants[1:]]
    also = f" (or {', '.join(others)} there)" if others else ""
    gated = f" {source.gated}" if source.gated else ""
    return (
        f"cannot get '{key}' ({source.title}): tried {'; '.join(tried) or 'nothing: it has no public address'}.{gated} "
        f"Name a directory that has {official.path} with '--config data_mirror=DIR', or put {what} at "
        f"{downloads / official.path}{also}."
    )


def _unpacked(path: Path, variant: Variant, downloads: Path) -> Path:
    if variant.unpack is None:
        return path
    return extract(path, (downloads / variant.path).with_name(variant.unpack))


def _download_once(url: str, target: Path, variant: Variant, patience: Patience) -> None:
    """Download unless another process does so meanwhile. Raises PlaceFailed, or UserError for the local disk."""
    with alone(target, f"downloads {target.name}"), writing(target):
        if not target.exists():
            _download(url, target, variant, patience)


def _download(url: str, target: Path, variant: Variant, patience: Patience) -> None:
    part = target.with_name(f"{target.name}.part")
    for last in (False, True):
        resumed = _fill(url, part, variant, patience)
        wrong = fault(part, variant)
        if wrong is None:
            with part.open("rb") as stream:
                os.fsync(stream.fileno())
            os.replace(part, target)
            return
        page = _is_page(part)
        part.unlink()
        if last or not resumed:
            raise PlaceFailed("sends a web page, not the file" if page else f"the file {wrong}")
        # its pieces may be of two versions of the file: once more, from the start


def _fill(url: str, part: Path, variant: Variant, patience: Patience) -> bool:
    """Make `part` as long as the file at `url`, however many attempts it takes while they bring new bytes.

    Returns whether it was put together from several answers, which may be of several versions of the file.
    """
    attempt, furthest, tag = 0, _length(part), ""
    with progress(f"download {part.stem}", variant.size, "B") as counter, requests.Session() as session:
        while True:
            counter.advance(_length(part) - counter.done)
            offset = _length(part)
            try:
                with _network():
                    response = _ask(session, url, offset, tag, patience)
                with response:
                    tag = _tag(response)
                    return _receive(response, part, offset, variant, patience, counter)
            except _Interrupted as interruption:
                attempt = 0 if _length(part) > furthest else attempt + 1
                furthest = max(furthest, _length(part))
                if attempt >= (2 if interruption.offline else patience.attempts):
                    raise PlaceFailed(str(interruption)) from interruption
                counter.describe(f"({interruption}; again)")
                patience.wait(attempt, interruption.asked)


@contextmanager
def _network() -> Iterator[None]:
    """Turn any exception of the HTTP library into another attempt, or the next place."""
    try:
        yield
    except PlaceFailed:
        raise
    except requests.exceptions.Timeout as error:
        raise _Interrupted("no answer in time", offline=isinstance(error, requests.ConnectTimeout)) from error
    except urllib3.exceptions.TimeoutError as error:
        raise _Interrupted("no answer in time") from error
    except requests.exceptions.ConnectionError as error:
        raise _Interrupted("no connection", offline=True) from error
    except requests.exceptions.ChunkedEncodingError as error:
        raise _Interrupted("the connection broke") from error
    except requests.exceptions.RequestException as error:
        raise PlaceFailed(type(error).__name__) from error
    except (urllib3.exceptions.ProtocolError, urllib3.exceptions.SSLError, HTTPException, OSError) as error:
        raise _Interrupted("the connection broke") from error
    except Exception as error:
        raise PlaceFailed(f"an unreadable answer: {type(error).__name__}") from error


def _ask(session, url: str, offset: int, tag: str, patience: Patience):
    headers = {"User-Agent": USER_AGENT, "Accept-Encoding": "identity"}
    if offset:
        headers["Range"] = f"bytes={offset}-"
        if tag:
            headers["If-Range"] = tag  # another version of the file is sent from its start
    options = {
        "headers": headers,
        "stream": True,
        "timeout": (patience.connect_timeout, patience.read_timeout),
    }
    response = session.get(url, **options)
    if drive.is_drive(url) and response.headers.get("Content-Type", "").startswith("text/html"):
        with response:
            page = response.raw.read(LONGEST_PAGE, decode_content=True).decode("utf-8", "replace")
        behind = drive.confirmation(page, url)
        if behind is None:
            raise PlaceFailed("Google Drive refuses it now: over its quota, or no longer shared")
        response = session.get(behind[0], params=behind[1], **options)
    return response


def _receive(response, part: Path, offset: int, variant: Variant, patience: Patience, counter) -> bool:
    """Write the body to `part`, from `offset` on where the server does so; returns whether it did.

    What came before a fault stays in `part`. (urllib3 raises where the body is shorter than announced.)
    """
    status = response.status_code
    if status in (412, 416) and offset:  # the part is already as long as the file, or longer than it
        if status == 416 and _number(r"bytes \*/(\d+)", response.headers.get("Content-Range")) == offset:
            return True
        part.unlink(missing_ok=True)
        raise _Interrupted("the server has a different file")
    if status in PASSING:
        raise _Interrupted(f"HTTP {status}", asked=_retry_after(response))
    if status not in (200, 206):
        raise PlaceFailed(f"HTTP {status}")
    if status == 206 and _number(r"bytes (\d+)-", response.headers.get("Content-Range")) != offset:
        part.unlink(missing_ok=True)
        raise _Interrupted("the server sends a different range than requested")
    if status == 200:
        counter.advance(-offset)
        offset = 0  # the server ignores ranges, or has another version, and sends everything
    most = variant.bytes or 2 * (variant.about_bytes or 0) or None
    encoded = response.headers.get("Content-Encoding", "identity") != "identity"
    announced = None if encoded else _number(r"(\d+)$", response.headers.get("Content-Length"))
    total = offset + announced if announced is not None else None
    if total is not None and (total != variant.bytes if variant.bytes else total > (most or total)):
        raise PlaceFailed(f"offers {total} bytes instead of {variant.bytes or variant.about_bytes}")
    if variant.size:
        require_space(part, (total or variant.bytes or 0) - offset)
    elif total is not None and total - offset > shutil.disk_usage(part.parent).free:
        raise PlaceFailed(no_space(part, total - offset))  # or the server says what is not so
    with part.open("r+b" if offset else "wb") as stream:
        stream.truncate(offset)
        stream.seek(offset)
        for piece in _pieces(response, patience):
            stream.write(piece)
            counter.advance(len(piece))
            if most is not None and stream.tell() > most:
                break
        received = stream.tell()
    if most is not None and received > most:
        part.unlink()
        raise PlaceFailed(f"sends more than {most} bytes")
    if received < (variant.bytes or 0) and not _is_page(part):
        raise _Interrupted("the connection broke")  # of an answer without a length, so that nothing else tells
    return offset > 0


def _pieces(response, patience: Patience) -> Iterator[bytes]:
    """Yield what comes as it comes; raises PlaceFailed where too little does."""
    begin, since = time.monotonic(), 0
    while True:
        with _network():
            piece = response.raw.read1(PIECE, decode_content=True)
        if not piece:
            return
        yield piece
        since += len(piece)
        if (now := time.monotonic()) - begin >= patience.slow:
            if since < patience.least_speed * (now - begin):
                raise PlaceFailed(f"sends fewer than {patience.least_speed:.0f} bytes a second")
            begin, since = now, 0


def _is_page(part: Path) -> bool:
    """Whether a file begins as a web page does."""
    with part.open("rb") as stream:
        return stream.read(64).lstrip()[:1] == b"<"


def _length(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _number(pattern: str, header: str | None) -> int | None:
    """The number that a header begins with, or None where it is missing or odd."""
    match = re.match(pattern, (header or "").strip(), re.ASCII)
    return int(match[1]) if match and len(match[1]) <= 18 else None


def _tag(response) -> str:
    """The strong entity tag of what is sent, or nothing."""
    tag = response.headers.get("ETag", "")
    return tag if re.fullmatch(r'"[\x21-\x7e]*"', tag) else ""


def _retry_after(response) -> float:
    """Seconds that the server asks to wait, given as a number or a date; 0 where it says nothing that can be read."""
    value = response.headers.get("Retry-After")
    seconds = _number(r"(\d+)$", value)
    if seconds is not None or not value:
        return float(seconds or 0)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, TypeError, OverflowError, IndexError):
        return 0.0
