"""Downloading from hosts that misbehave, from a mirror, and from nowhere. All hosts are threads of this process."""

import errno
import hashlib
import re
import socket
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from replications.datasets import disk, download, drive, registry
from replications.datasets.download import Patience, fetch
from replications.datasets.registry import Registry, Source, Variant
from replications.errors import UserError

BODY = bytes(range(256)) * 1200  # 307,200 bytes: several pieces
SHA256 = hashlib.sha256(BODY).hexdigest()
HASTY = Patience(connect_timeout=2, read_timeout=1.0, attempts=3, pause=0.01, longest_pause=0.05)


class Host(ThreadingHTTPServer):
    """`acts[path]` is what happens at each request to that path in turn; the last is repeated."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.acts: dict[str, list[str]] = {}
        self.asked: list[tuple[str, str | None]] = []  # path, Range

    def url(self, path: str, *acts: str) -> str:
        self.acts[path] = list(acts)
        return f"http://127.0.0.1:{self.server_port}{path}"

    def handle_error(self, *_):
        pass  # clients that hang up are part of the tests


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def reply(self, status: int, body: bytes, announced: int | None = None, **headers: str) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body) if announced is None else announced))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        path, _, query = self.path.partition("?")
        wanted = self.headers.get("Range")
        self.server.asked.append((self.path, wanted))
        acts = self.server.acts.get(path, ["404"])
        act = acts.pop(0) if len(acts) > 1 else acts[0]
        begin = int(re.match(r"bytes=(\d+)-", wanted)[1]) if wanted and act != "ignore_range" else 0
        status = 206 if begin else 200
        span = {"Content_Range": f"bytes {begin}-{len(BODY) - 1}/{len(BODY)}"} if begin else {}
        self.close_connection = True
        if act.isdigit():
            self.reply(int(act), b"<html>no</html>")
        elif begin >= len(BODY):
            self.reply(416, b"", Content_Range=f"bytes */{len(BODY)}")
        elif act in ("ok", "ignore_range"):
            self.reply(status, BODY[begin:], **span)
        elif act.startswith("cut"):  # announces all, and hangs up earlier
            self.reply(status, BODY[begin : begin + int(act[3:])], len(BODY) - begin, **span)
        elif act.startswith("ignore_range_cut"):
            self.reply(200, BODY[: int(act[16:])], len(BODY))
        elif act.startswith("stall"):
            self.reply(status, BODY[begin : begin + int(act[5:])], len(BODY) - begin, **span)
            time.sleep(3.0)
        elif act == "wrong":
            self.reply(200, BODY[::-1])
        elif act == "page":
            self.reply(200, b"<!DOCTYPE html><p>Log in</p>", Content_Type="text/html")
        elif act == "busy":
            self.reply(503, b"", Retry_After="1")
        elif act == "endless":
            self.send_response(200)
            self.end_headers()
            for _ in range(1000):
                self.wfile.write(BODY)
        elif act == "chunked":  # without a length
            self.send_response(200)
            self.end_headers()
            self.wfile.write(BODY)
        elif act == "confirm":
            form = '<form id="download-form" action="/behind"><input type="hidden" name="id" value="7">'
            form += '<input type="hidden" name="confirm" value="t"><input type="submit" value="Download anyway"></form>'
            self.reply(200, form.encode(), Content_Type="text/html; charset=utf-8")
        elif act == "confirmed":
            self.reply(*((200, BODY) if "id=7" in query and "confirm=t" in query else (403, b"")))


@pytest.fixture
def host():
    server = Host()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def register(monkeypatch):
    """Make 'thing' the one source there is."""

    def set_source(*variants: Variant, gated: str | None = None) -> None:
        source = Source(title="A thing", licence="none", gated=gated, variants=variants)
        monkeypatch.setattr(registry, "load", lambda: Registry(sources={"thing": source}))

    return set_source


def variant(*urls: str, path: str = "box/thing.bin", **fields) -> Variant:
    return Variant(path=path, **({"sha256": SHA256, "urls": urls} | fields))


def part_of(root: Path) -> Path:
    return root / "downloads/box/thing.bin.part"


def one_line(error) -> str:
    text = str(error.value)
    assert "\n" not in text and text
    return text


@pytest.mark.parametrize(
    ("acts", "requests"),
    [
        (["ok"], 1),
        (["chunked"], 1),
        (["cut100000", "cut100000", "ok"], 3),  # goes on by Range
        (["cut70000", "ignore_range"], 2),  # the second attempt begins again, and must not append
        (["stall150000", "ok"], 2),
        (["503", "ok"], 2),
        (["429", "500", "ok"], 3),
        (["cut70000", "503", "503", "cut70000", "503", "503", "ok"], 7),  # progress renews its patience
    ],
)
def test_a_fault_that_passes_is_overcome(host, register, tmp_path, acts, requests):
    register(variant(host.url("/thing", *acts), bytes=len(BODY)))
    path = fetch("thing", tmp_path, patience=HASTY)
    assert path == tmp_path / "downloads/box/thing.bin"
    assert path.read_bytes() == BODY
    assert not part_of(tmp_path).exists()
    assert len(host.asked) == requests


def test_it_continues_where_it_stopped_also_in_a_later_process(host, register, tmp_path):
    part_of(tmp_path).parent.mkdir(parents=True)
    part_of(tmp_path).write_bytes(BODY[:200_000])
    register(variant(host.url("/thing", "ok")))
    assert fetch("thing", tmp_path, patience=HASTY).read_bytes() == BODY
    assert host.asked == [("/thing", "bytes=200000-")]


@pytest.mark.parametrize("left", [BODY[::-1][:200_000], BODY, BODY + b"more"], ids=["another file", "whole", "longer"])
def test_a_part_that_does_not_fit_is_not_kept(host, register, tmp_path, left):
    part_of(tmp_path).parent.mkdir(parents=True)
    part_of(tmp_path).write_bytes(left)
    register(variant(host.url("/thing", "ok")))
    assert fetch("thing", tmp_path, patience=HASTY).read_bytes() == BODY


@pytest.mark.parametrize(
    ("act", "reason"),
    [
        ("404", "HTTP 404"),
        ("403", "HTTP 403"),
        ("503", "HTTP 503"),
        ("wrong", "sha256"),
        ("page", "web page"),
        ("endless", "more than"),
        ("ignore_range_cut70000", "the connection broke"),
        ("stall0", "no answer in time"),
    ],
)
def test_the_next_place_is_tried_and_the_reason_told(host, register, tmp_path, act, reason):
    bad = host.url("/bad", act)
    register(variant(bad, host.url("/good", "ok"), about_bytes=len(BODY)))
    assert fetch("thing", tmp_path, patience=HASTY).read_bytes() == BODY

    register(variant(bad, path="box/other.bin", about_bytes=len(BODY)))
    with pytest.raises(UserError) as error:
        fetch("thing", tmp_path, patience=HASTY)
    text = one_line(error)
    assert bad in text and reason in text and "data_mirror=DIR" in text
    assert str(tmp_path / "downloads/box/other.bin") in text
    assert not (tmp_path / "downloads/box/other.bin").exists()
    if act in ("wrong", "page", "endless"):
        assert not (tmp_path / "downloads/box/other.bin.part").exists()


def test_a_file_of_another_size_is_refused_before_it_is_read(host, register, tmp_path):
    register(variant(host.url("/thing", "ok"), bytes=len(BODY) + 1))
    with pytest.raises(UserError, match=f"offers {len(BODY)} bytes instead of {len(BODY) + 1}"):
        fetch("thing", tmp_path, patience=HASTY)


def test_it_waits_as_long_as_the_server_asks(host, register, tmp_path, monkeypatch):
    slept = []
    monkeypatch.setattr(time, "sleep", slept.append)
    register(variant(host.url("/thing", "busy", "ok")))
    fetch("thing", tmp_path, patience=Patience(pause=0.01, longest_pause=30))
    assert [pause for pause in slept if pause >= 1] == [1.0]


def test_google_drive_is_confirmed(host, register, tmp_path, monkeypatch):
    monkeypatch.setattr(drive, "HOSTS", {"127.0.0.1"})
    register(variant(host.url("/uc", "confirm")))
    host.url("/behind", "confirmed")
    assert fetch("thing", tmp_path, patience=HASTY).read_bytes() == BODY

    register(variant(host.url("/quota", "page"), path="box/other.bin"))
    with pytest.raises(UserError, match="quota"):
        fetch("thing", tmp_path, patience=HASTY)


def test_offline_is_one_line_that_says_what_to_do(register, tmp_path):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/thing"
    mirror = tmp_path / "mirror"
    mirror.mkdir()
    other = Variant(path="box/thing.xz", sha256="0" * 64)
    register(variant(url), other, gated="Ask the owner.")
    with pytest.raises(UserError) as error:
        fetch("thing", tmp_path / "data", mirror, patience=HASTY)
    text = one_line(error)
    for said in (
        f"{mirror}/box/thing.bin (missing)",
        f"{url} (no connection)",
        "Ask the owner.",
        "data_mirror=DIR",
        f"put thing.bin (sha256 {SHA256}) at {tmp_path}/data/downloads/box/thing.bin (or box/thing.xz there)",
    ):
        assert said in text


def test_a_mirror_is_used_in_place(host, register, tmp_path):
    mirror = tmp_path / "mirror/box"
    mirror.mkdir(parents=True)
    (mirror / "thing.xz").write_bytes(b"packed")
    packed = Variant(path="box/thing.xz", sha256=hashlib.sha256(b"packed").hexdigest(), bytes=6)
    register(variant(host.url("/thing", "ok")), packed)
    assert fetch("thing", tmp_path / "data", tmp_path / "mirror") == mirror / "thing.xz"
    assert host.asked == []
    assert not (tmp_path / "data").exists()
    assert [path.name for path in mirror.iterdir()] == ["thing.xz"]


def test_a_wrong_file_in_a_mirror_is_told_and_not_used(host, register, tmp_path, capsys):
    mirror = tmp_path / "mirror/box"
    mirror.mkdir(parents=True)
    (mirror / "thing.bin").write_bytes(b"damaged")
    register(variant(host.url("/thing", "ok")))
    fetched = fetch("thing", tmp_path / "data", tmp_path / "mirror", patience=HASTY)
    assert fetched.read_bytes() == BODY and fetched.is_relative_to(tmp_path / "data")
    assert f"{mirror / 'thing.bin'} has the sha256" in capsys.readouterr().err
    assert (mirror / "thing.bin").read_bytes() == b"damaged"

    register(variant())
    with pytest.raises(UserError, match="has the sha256"):
        fetch("thing", tmp_path / "nothing", tmp_path / "mirror")


def test_a_mirror_that_is_not_there_is_an_error(register, tmp_path):
    register(variant())
    with pytest.raises(UserError, match=r"mirror directory .* does not exist"):
        fetch("thing", tmp_path, tmp_path / "typo")


def test_a_file_that_a_person_put_in_place_is_checked_and_never_overwritten(host, register, tmp_path):
    register(variant(host.url("/thing", "ok")))
    path = tmp_path / "downloads/box/thing.bin"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"not it")
    with pytest.raises(UserError, match="delete it, or put the right file there"):
        fetch("thing", tmp_path, patience=HASTY)
    assert path.read_bytes() == b"not it"
    path.write_bytes(BODY)
    assert fetch("thing", tmp_path) == path
    assert host.asked == []


def test_a_folder_must_hold_its_files(register, tmp_path):
    register(Variant(path="box/thing", contains=("a.rec", "b.idx")), gated="Withdrawn by its owner.")
    with pytest.raises(UserError) as error:
        fetch("thing", tmp_path)
    assert "Withdrawn by its owner." in one_line(error)
    assert f"the folder thing (with a.rec, b.idx) at {tmp_path}/downloads/box/thing" in one_line(error)
    folder = tmp_path / "downloads/box/thing"
    folder.mkdir(parents=True)
    (folder / "a.rec").touch()
    with pytest.raises(UserError, match=r"lacks b\.idx"):
        fetch("thing", tmp_path)
    (folder / "b.idx").touch()
    assert fetch("thing", tmp_path) == folder


def test_a_full_disk_is_one_line_and_keeps_what_came(host, register, tmp_path, monkeypatch):
    register(variant(host.url("/thing", "ok")))
    receive = download._receive

    def full(response, part, *rest):
        part.write_bytes(BODY[:1000])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(download, "_receive", full)
    with pytest.raises(UserError, match=r"no space left for .*free some space"):
        fetch("thing", tmp_path, patience=HASTY)
    monkeypatch.setattr(download, "_receive", receive)
    assert fetch("thing", tmp_path, patience=HASTY).read_bytes() == BODY
    assert host.asked[-1][1] == "bytes=1000-"


def test_too_little_room_is_told_before_the_download(host, register, tmp_path, monkeypatch):
    register(variant(host.url("/thing", "ok")))
    usage = type("usage", (), {"free": 1000})
    monkeypatch.setattr(disk.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(UserError, match="no space left"):
        fetch("thing", tmp_path, patience=HASTY)
    assert not part_of(tmp_path).exists()


FETCH = """
import sys
from pathlib import Path
from replications.datasets import registry
from replications.datasets.download import fetch
from replications.datasets.registry import Registry, Source, Variant
url, sha256, root = sys.argv[1:]
source = Source(title="A thing", licence="none", variants=(Variant(path="box/thing.bin", sha256=sha256, urls=(url,)),))
registry.load = lambda: Registry(sources={"thing": source})
print(fetch("thing", Path(root)).stat().st_size)
"""


def test_two_processes_download_a_file_once(host, register, tmp_path):
    url = host.url("/thing", "cut150000", "cut50000", "ok")
    command = [sys.executable, "-c", FETCH, url, SHA256, str(tmp_path)]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert [process.communicate(timeout=60)[0].strip() for process in processes] == [str(len(BODY))] * 2
    assert len(host.asked) == 3
