"""Hosts that send what no host should: the next place is asked; what came is kept, what changed begins anew."""

import gzip
import hashlib
import socket
import threading
import time

import pytest
import requests
import urllib3

from replications.datasets import download, drive, registry
from replications.datasets.download import Patience, fetch
from replications.datasets.registry import Registry, Source, Variant
from replications.errors import UserError

BODY = bytes(range(256)) * 400
OTHER = BODY[::-1]
HASTY = Patience(connect_timeout=2, read_timeout=0.5, attempts=2, pause=0.001, longest_pause=0.01, slow=0.2)


def answer(*lines: str, body: bytes = b"", status: str = "200 OK") -> bytes:
    return "\r\n".join([f"HTTP/1.1 {status}", *lines, "Connection: close", "", ""]).encode("latin-1") + body


def whole(*lines: str, body: bytes = BODY) -> bytes:
    return answer(f"Content-Length: {len(body)}", *lines, body=body)


class Host:
    """Answers each request with the next of `answers`, the last one again and again; a callable is given the request
    and the connection."""

    def __init__(self, *answers):
        self.answers, self.requests = list(answers), []
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.socket.getsockname()[1]}/thing.bin"
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    def _serve(self):
        while True:
            try:
                connection, _ = self.socket.accept()
            except OSError:
                return
            with connection:
                connection.settimeout(5)
                request = b""
                try:
                    while b"\r\n\r\n" not in request and (more := connection.recv(65536)):
                        request += more
                    self.requests.append(request.decode("latin-1"))
                    act = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
                    connection.sendall(act(self.requests[-1], connection) or b"" if callable(act) else act)
                    connection.shutdown(socket.SHUT_WR)
                except OSError:
                    pass  # the client has hung up

    def close(self):
        self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()
        self.thread.join()


@pytest.fixture
def hosts():
    running = []

    def start(*answers):
        running.append(Host(*answers))
        return running[-1]

    yield start
    for host in running:
        host.close()


@pytest.fixture
def register(monkeypatch):
    def set_source(*urls: str, content: bytes = BODY, **fields) -> None:
        sha256 = hashlib.sha256(content).hexdigest()
        variant = Variant(path="thing.bin", sha256=sha256, urls=urls, **fields)
        source = Source(title="A thing", licence="none", variants=(variant,))
        monkeypatch.setattr(registry, "load", lambda: Registry(sources={"thing": source}))

    return set_source


def offset_of(request: str) -> int:
    return int(request.partition("Range: bytes=")[2].partition("-")[0] or 0)


def ranged(content: bytes, most: int | None = None, *lines: str):
    """Serves ranges of `content`, at most so many bytes an answer, then hangs up."""

    def act(request, _):
        start = offset_of(request)
        length = f"Content-Length: {len(content) - start}"
        span = f"Content-Range: bytes {start}-{len(content) - 1}/{len(content)}"
        end = None if most is None else start + most
        return answer(length, span, *lines, body=content[start:end], status="206 Partial" if start else "200 OK")

    return act


def dripping(_, connection):
    connection.sendall(answer(f"Content-Length: {len(BODY)}"))
    for place in range(0, 60):
        connection.sendall(BODY[place : place + 1])
        time.sleep(0.02)


HUGE = "9" * 5000
ODD = {
    "no answer": b"",
    "no HTTP": b"220 smtp ready\r\n\r\n",
    "no status": b"HTTP/1.1 \r\n\r\n",
    "a status of letters": b"HTTP/1.1 abc OK\r\n\r\n",
    "status 999": answer(status="999 ?"),
    "status 204": answer(status="204 No Content"),
    "status 304": answer(status="304 Not Modified"),
    "status 401": answer(status="401 Unauthorized"),
    "status 412": answer(status="412 Precondition Failed"),
    "status 416": answer(status="416 Range Not Satisfiable"),
    "status 451": answer(status="451 Unavailable"),
    "status 503, wait for nonsense": answer("Retry-After: ²", status="503 Busy"),
    "status 503, wait for ever": answer(f"Retry-After: {HUGE}", status="503 Busy"),
    "status 503, wait until a day that is none": answer("Retry-After: Wed, 99 Foo 2026", status="503 Busy"),
    "header without end": b"HTTP/1.1 200 OK\r\nX: " + b"x" * 200_000,
    "200 headers": answer(*(f"X-{i}: 1" for i in range(200)), body=BODY),
    "length of letters and another file": answer("Content-Length: abc", body=OTHER),
    "two lengths": answer("Content-Length: 5", "Content-Length: 7", body=BODY),
    "length ²": answer("Content-Length: ²", body=OTHER),
    "length -5": answer("Content-Length: -5", body=OTHER),
    "length huge": answer(f"Content-Length: {HUGE}", body=OTHER),
    "length 10^17": answer(f"Content-Length: {10**17}", body=BODY),
    "206 that was not asked for": answer("Content-Range: bytes 5-9/10", body=b"12345", status="206 Partial"),
    "206 without a range": answer(body=BODY, status="206 Partial"),
    "range of letters": answer("Content-Range: bytes a-b/c", body=BODY, status="206 Partial"),
    "range huge": answer(f"Content-Range: bytes {HUGE}-{HUGE}/{HUGE}", body=BODY, status="206 Partial"),
    "chunk of letters": answer("Transfer-Encoding: chunked", body=b"zz\r\n123\r\n"),
    "chunk without end": answer("Transfer-Encoding: chunked", body=b"ffff\r\n123"),
    "gzip that is none": answer("Content-Encoding: gzip", body=BODY),
    "gzip cut": answer("Content-Encoding: gzip", body=gzip.compress(OTHER)[:-400]),
    "redirect without an address": answer(status="302 Found"),
    "redirect to itself": answer("Location: /thing.bin", status="302 Found"),
    "redirect to an address that is none": answer("Location: http://[::1", status="302 Found"),
    "redirect to a port that is none": answer("Location: http://127.0.0.1:99999/x", status="302 Found"),
    "redirect to a name that is too long": answer(f"Location: http://{'a' * 300}.invalid/x", status="302 Found"),
    "redirect to a file": answer("Location: file:///etc/hosts", status="302 Found"),
    "redirect to bytes": answer("Location: http://\xff\xfe/", status="302 Found"),
    "page": whole("Content-Type: text/html", body=b"<!DOCTYPE html><p>Log in</p>"),
    "other file": whole(body=OTHER),
    "nothing": whole(body=b""),
    "drips": dripping,
    "hangs up": ranged(BODY, 0),
}


@pytest.mark.parametrize("act", ODD)
def test_the_next_place_is_asked_whatever_the_first_one_sends(hosts, register, tmp_path, act):
    first, second = hosts(ODD[act]), hosts(ranged(BODY))
    register(first.url, second.url)
    begin = time.monotonic()
    assert fetch("thing", tmp_path, patience=HASTY).read_bytes() == BODY
    assert time.monotonic() - begin < 3 and first.requests
    assert [path.name for path in (tmp_path / "downloads").glob("*.part")] == []


@pytest.mark.parametrize("act", ODD)
def test_where_there_is_no_other_place_it_is_one_line(hosts, register, tmp_path, act):
    host = hosts(ODD[act])
    register(host.url)
    with pytest.raises(UserError, match="cannot get 'thing'") as error:
        fetch("thing", tmp_path, patience=HASTY)
    assert "\n" not in str(error.value) and host.url in str(error.value)


RAISED = [
    *(error("x") for error in (requests.exceptions.RetryError, requests.exceptions.InvalidHeader)),
    *(
        getattr(requests.exceptions, name)("x")
        for name in ("ContentDecodingError", "InvalidSchema", "UnrewindableBodyError")
    ),
    urllib3.exceptions.LocationParseError("x"),
    urllib3.exceptions.IncompleteRead(1, 2),
    urllib3.exceptions.HTTPError("x"),
    UnicodeError("label too long"),
    ValueError("x"),
    RuntimeError("x"),
    OSError("x"),
    TimeoutError("x"),
    MemoryError(),
]


@pytest.mark.parametrize("error", RAISED, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("where", ["asked", "read"])
def test_whatever_the_library_raises_the_next_place_is_asked(hosts, register, tmp_path, monkeypatch, error, where):
    first, second = hosts(ranged(BODY)), hosts(ranged(BODY))
    register(first.url, second.url)
    asked = requests.Session.get

    def fails(*_, **__):
        raise error

    def get(session, url, **options):
        if url == first.url and where == "asked":
            fails()
        response = asked(session, url, **options)
        if url == first.url:
            response.raw.read1 = fails
        return response

    monkeypatch.setattr(requests.Session, "get", get)
    assert fetch("thing", tmp_path, patience=HASTY).read_bytes() == BODY
    assert second.requests


@pytest.mark.parametrize(
    "line",
    ["ETag: \xff", 'ETag: W/"1"', "ETag: 1", 'ETag: "a" "b"', "Last-Modified: never", "Content-Encoding: identity",
     "Content-Type: \xff", "Content-Length: abc", "Date: yesterday", "Accept-Ranges: none", "Set-Cookie: ;;=;"],
)  # fmt: skip
def test_headers_that_do_not_parse_do_not_matter_where_the_file_is_right(hosts, register, tmp_path, line):
    length = () if line.startswith("Content-Length") else (f"Content-Length: {len(BODY)}",)
    register(hosts(answer(*length, line, body=BODY)).url)
    assert fetch("thing", tmp_path, patience=HASTY).read_bytes() == BODY


def test_short_reads_keep_what_came(hosts, register, tmp_path):
    """Each answer ends after 1,100 bytes, far less than is read at a time: the next one goes on from there."""
    host = hosts(ranged(BODY[:11_000], 1100))
    register(host.url, content=BODY[:11_000])
    assert fetch("thing", tmp_path, patience=HASTY).read_bytes() == BODY[:11_000]
    assert [offset_of(request) for request in host.requests] == list(range(0, 11_000, 1100))


@pytest.mark.parametrize("size", [len(BODY), None])
def test_an_answer_without_a_length_that_ends_early_is_gone_on_with(hosts, register, tmp_path, size):
    host = hosts(answer(body=BODY[:60_000]), ranged(BODY))
    register(host.url, bytes=size)
    if size is None:  # nothing tells that it ended early but the checksum
        with pytest.raises(UserError, match="sha256"):
            fetch("thing", tmp_path, patience=HASTY)
    else:
        assert fetch("thing", tmp_path, patience=HASTY).read_bytes() == BODY
        assert [offset_of(request) for request in host.requests] == [0, 60_000]


@pytest.mark.parametrize("size", [len(BODY), None])
def test_a_page_without_a_length_is_told_as_one(hosts, register, tmp_path, size):
    register(hosts(answer(body=b"\n<!DOCTYPE html>")).url, bytes=size)
    with pytest.raises(UserError, match="sends a web page, not the file"):
        fetch("thing", tmp_path, patience=HASTY)


def test_what_a_slow_place_sent_is_kept_for_the_next(hosts, register, tmp_path):
    second = hosts(ranged(BODY))
    register(hosts(dripping).url, second.url)
    assert fetch("thing", tmp_path, patience=HASTY).read_bytes() == BODY
    assert 1 <= offset_of(second.requests[0]) <= 60


@pytest.mark.parametrize("tags", [(), ('ETag: "1"', 'ETag: "2"')], ids=["unnoticed", "told by its tag"])
def test_a_file_that_changes_between_two_answers_is_fetched_from_the_start(hosts, register, tmp_path, tags):
    new = ranged(BODY, None, *tags[1:])

    def later(request, connection):
        if "If-Range" in request and 'If-Range: "2"' not in request:
            return whole(*tags[1:])
        return new(request, connection)

    host = hosts(ranged(OTHER, 5000, *tags[:1]), later)
    register(host.url)
    assert fetch("thing", tmp_path, patience=HASTY).read_bytes() == BODY
    assert len(host.requests) == (2 if tags else 3)


@pytest.mark.parametrize("status", ["412 Precondition Failed", "416 Range Not Satisfiable"])
def test_a_part_that_the_server_does_not_go_on_with_begins_anew(hosts, register, tmp_path, status):
    (tmp_path / "downloads").mkdir()
    (tmp_path / "downloads/thing.bin.part").write_bytes(OTHER[:5000])
    host = hosts(answer(status=status), ranged(BODY))
    register(host.url)
    assert fetch("thing", tmp_path, patience=HASTY).read_bytes() == BODY
    assert [offset_of(request) for request in host.requests] == [5000, 0]


def test_it_does_not_begin_anew_for_ever(hosts, register, tmp_path):
    host = hosts(ranged(OTHER, 60_000))
    register(host.url)
    with pytest.raises(UserError, match="sha256"):
        fetch("thing", tmp_path, patience=HASTY)
    assert len(host.requests) == 4 and not (tmp_path / "downloads/thing.bin.part").exists()


@pytest.mark.parametrize("page", [b"<![x", b"<form action='http://[::1'><input name=id value=1>", b"<" * 3_000_000])
def test_a_page_of_google_drive_that_cannot_be_read_is_left(hosts, register, tmp_path, monkeypatch, page):
    first, second = hosts(whole("Content-Type: text/html; charset=none", body=page)), hosts(ranged(BODY))
    monkeypatch.setattr(drive, "is_drive", lambda url: url == first.url)
    register(first.url, second.url)
    assert fetch("thing", tmp_path, patience=HASTY).read_bytes() == BODY


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("7", 7), ("-1", 0), ("²", 0), ("1e9", 0), (None, 0), ("soon", 0), ("Thu, 01 Jan 1970 00:16:40 GMT", 800)],
)
def test_the_pause_that_a_server_asks_for(monkeypatch, value, seconds):
    monkeypatch.setattr(time, "time", lambda: 200.0)
    response = requests.Response()
    response.headers = {} if value is None else {"Retry-After": value}
    assert download._retry_after(response) == seconds
