"""Files are fetched from a real server that cuts, stalls, lies and refuses."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import tempfile
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dfserve.dataflow.dataset import published
from dfserve.dataflow.dataset.download import Patience, fetch
from dfserve.dataflow.dataset.published import Published
from dfserve.dataflow.dataset.transfer import Pace
from dfserve.errors import DownloadError, StoreError

CONTENT = bytes(range(256)) * 1200  # 300 KB: more than one read of a socket
Behaviour = Callable[[BaseHTTPRequestHandler, bytes], None]


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


def answer(status: int, content: bytes = b"", **headers: str) -> Behaviour:
    def behave(handler: BaseHTTPRequestHandler, _: bytes) -> None:
        handler.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        handler.wfile.write(content)

    return behave


def cut(after: int) -> Behaviour:
    """Send so many bytes of what was asked for, then hang up."""

    def behave(handler: BaseHTTPRequestHandler, content: bytes) -> None:
        start = int(handler.headers.get("Range", "bytes=0-")[6:-1])
        handler.send_response(206 if start else 200)
        handler.send_header("Content-Length", str(len(content) - start))
        handler.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        handler.end_headers()
        handler.wfile.write(content[start : start + after])

    return behave


def stall(server: Any, after: int) -> Behaviour:
    """Send so many bytes, then nothing more, and keep the connection."""

    def behave(handler: BaseHTTPRequestHandler, content: bytes) -> None:
        cut(after)(handler, content)
        handler.wfile.flush()
        server.release.wait(60)

    return behave


def drip(server: Any) -> Behaviour:
    """Send a byte now and then, so that the connection is never silent."""

    def behave(handler: BaseHTTPRequestHandler, content: bytes) -> None:
        cut(0)(handler, content)
        while not server.release.wait(0.02):
            handler.wfile.write(b"x")

    return behave


def chunked(page: bytes) -> Behaviour:
    """Send a page whose length is not told beforehand."""

    def behave(handler: BaseHTTPRequestHandler, _: bytes) -> None:
        handler.protocol_version = "HTTP/1.1"
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        for start in range(0, len(page), 100_000):
            piece = page[start : start + 100_000]
            handler.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
        handler.wfile.write(b"0\r\n\r\n")

    return behave


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_missing_file_is_downloaded_once(server: Any, tmp_path: Path) -> None:
    file = server.publish("a.bin", CONTENT)
    path = fetch(file, tmp_path / "new" / "folder")
    assert path == tmp_path / "new" / "folder" / "a.bin"
    assert path.read_bytes() == CONTENT
    assert fetch(file, path.parent) == path
    assert server.requests == [("/a.bin", "")]
    assert names(path.parent) == ["a.bin"]


def test_an_empty_and_a_large_file_arrive_too(server: Any, tmp_path: Path) -> None:
    large = os.urandom(3_000_000)
    assert fetch(server.publish("empty", b""), tmp_path).read_bytes() == b""
    assert fetch(server.publish("large", large), tmp_path).read_bytes() == large


def test_it_goes_on_where_the_connection_was_cut(server: Any, tmp_path: Path, hasty: Patience) -> None:
    file = server.publish("a.bin", CONTENT)
    server.behaviours = [cut(100_000), cut(50_000)]
    assert fetch(file, tmp_path, hasty).read_bytes() == CONTENT
    assert [asked for _, asked in server.requests] == ["", "bytes=100000-", "bytes=150000-"]
    assert names(tmp_path) == ["a.bin"]


def test_a_later_call_goes_on_where_an_earlier_one_gave_up(server: Any, tmp_path: Path, hasty: Patience) -> None:
    file = server.publish("a.bin", CONTENT)
    server.behaviours = [cut(100_000), answer(503), answer(503)]
    with pytest.raises(DownloadError, match="503"):
        fetch(file, tmp_path, hasty)
    assert names(tmp_path) == ["a.bin.part"]
    assert fetch(file, tmp_path, hasty).read_bytes() == CONTENT
    assert server.requests[-1] == ("/a.bin", "bytes=100000-")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25)
@given(cuts=st.lists(st.integers(0, len(CONTENT)), max_size=6))
def test_wherever_connections_are_cut_the_file_is_whole_in_the_end(server: Any, cuts: list[int]) -> None:
    file = server.publish("a.bin", CONTENT)
    server.behaviours = [cut(after) for after in cuts]
    with tempfile.TemporaryDirectory() as folder:
        patience = Patience(rounds=len(cuts) + 1, pause=0.0)
        assert fetch(file, Path(folder), patience).read_bytes() == CONTENT
        assert names(Path(folder)) == ["a.bin"]


def test_a_server_that_cannot_resume_sends_it_from_the_start(server: Any, tmp_path: Path, hasty: Patience) -> None:
    file = server.publish("a.bin", CONTENT)
    server.behaviours = [cut(100_000), answer(200, CONTENT)]
    assert fetch(file, tmp_path, hasty).read_bytes() == CONTENT


def test_a_server_that_resumes_elsewhere_is_not_believed(server: Any, tmp_path: Path, hasty: Patience) -> None:
    file = server.publish("a.bin", CONTENT)
    elsewhere = answer(206, CONTENT[5:], Content_Range=f"bytes 5-{len(CONTENT) - 1}/{len(CONTENT)}")
    server.behaviours = [cut(100_000), elsewhere]
    with pytest.raises(DownloadError, match="was asked for bytes from 100,000 on, but sends them from 5 on"):
        fetch(file, tmp_path, hasty)


@pytest.mark.parametrize("content_range", ["", "bytes */300", "bytes 1-2", "lines 1-2/3", f"bytes {10**30}-1/2"])
def test_a_malformed_range_is_refused(server: Any, tmp_path: Path, hasty: Patience, content_range: str) -> None:
    file = server.publish("a.bin", CONTENT)
    server.behaviours = [cut(10), answer(206, CONTENT[10:], Content_Range=content_range)]
    with pytest.raises(DownloadError, match="Content-Range"):
        fetch(file, tmp_path, hasty)


def test_a_half_file_that_is_something_else_is_thrown_away(server: Any, tmp_path: Path, hasty: Patience) -> None:
    file = server.publish("a.bin", CONTENT)
    for half in (b"?" * 1000, b"?" * len(CONTENT), b"?" * (len(CONTENT) + 1000)):
        (tmp_path / "a.bin.part").write_bytes(half)
        assert fetch(file, tmp_path, hasty).read_bytes() == CONTENT
        (tmp_path / "a.bin").unlink()


def test_a_wrong_checksum_is_refused_and_nothing_is_kept(server: Any, tmp_path: Path, hasty: Patience) -> None:
    file = server.publish("a.bin", CONTENT)
    server.files["/a.bin"] = CONTENT[:-1] + b"!"
    with pytest.raises(DownloadError, match="checksum") as caught:
        fetch(file, tmp_path, hasty)
    assert file.sha256 in str(caught.value)
    assert hashlib.sha256(server.files["/a.bin"]).hexdigest() in str(caught.value)
    assert names(tmp_path) == []
    assert len(server.requests) == 1


@pytest.mark.parametrize("page", [b"<html>Please log in</html>", CONTENT + b"more"])
def test_another_size_is_refused_before_a_byte_is_stored(server: Any, tmp_path: Path, page: bytes) -> None:
    file = server.publish("a.bin", CONTENT)
    server.always = answer(200, page)
    with pytest.raises(DownloadError, match=f"has another file: {len(page):,} bytes, not 307,200"):
        fetch(file, tmp_path)
    assert names(tmp_path) == []


def test_no_more_than_the_published_size_is_stored(server: Any, tmp_path: Path) -> None:
    file = server.publish("a.bin", CONTENT)
    stored: list[int] = []

    def endless(handler: BaseHTTPRequestHandler, content: bytes) -> None:
        handler.send_response(200)
        handler.end_headers()
        while not server.release.is_set():
            handler.wfile.write(b"x" * 65536)
            stored.append((tmp_path / "a.bin.part").stat().st_size)

    server.always = endless
    with pytest.raises(DownloadError, match="too many"):
        fetch(file, tmp_path)
    assert max(stored) <= len(CONTENT)


def test_an_answer_of_unknown_length_arrives_too(server: Any, tmp_path: Path) -> None:
    file = server.publish("a.bin", CONTENT)
    server.always = chunked(CONTENT)
    assert fetch(file, tmp_path).read_bytes() == CONTENT


PAGE = b"<html>log in</html>"


@pytest.mark.parametrize(
    "bad",
    [
        pytest.param(chunked(PAGE), id="a page of unknown length"),
        pytest.param(chunked(b"?" * (len(CONTENT) + 100_000)), id="a long page of unknown length"),
        pytest.param(answer(200, PAGE), id="a page"),
        pytest.param(answer(206, PAGE, Content_Range="bytes 200000-200018/200019"), id="another file's end"),
        pytest.param(answer(416), id="no such byte, and no file"),
        pytest.param(answer(404), id="no file"),
    ],
)
def test_what_was_resumed_outlives_a_mirror_that_has_another_file(
    server: Any, tmp_path: Path, hasty: Patience, bad: Behaviour
) -> None:
    file = server.publish("a.bin", CONTENT)
    server.files["/bad/a.bin"] = CONTENT

    def mirror(handler: BaseHTTPRequestHandler, content: bytes) -> None:
        (bad if handler.path == "/bad/a.bin" else cut(len(CONTENT)))(handler, content)

    server.always = mirror
    mirrored = Published(file.name, file.size, file.sha256, (f"{server.url}/bad", server.url))
    (tmp_path / "a.bin.part").write_bytes(CONTENT[:200_000])
    assert fetch(mirrored, tmp_path, hasty).read_bytes() == CONTENT
    assert server.requests[-1] == ("/a.bin", "bytes=200000-")
    assert [path for path, _ in server.requests].count("/a.bin") == 1
    # Alone, it is given up at once, and the next call can still go on.
    (tmp_path / "a.bin").unlink()
    (tmp_path / "a.bin.part").write_bytes(CONTENT[:200_000])
    alone = Published(file.name, file.size, file.sha256, (f"{server.url}/bad",))
    with pytest.raises(DownloadError, match=r"/bad/a\.bin"):
        fetch(alone, tmp_path, hasty)
    assert (tmp_path / "a.bin.part").read_bytes() == CONTENT[:200_000]


def test_a_page_in_place_of_the_file_is_not_kept_as_its_beginning(server: Any, tmp_path: Path, hasty: Patience) -> None:
    file = server.publish("a.bin", CONTENT)
    server.always = chunked(PAGE)
    with pytest.raises(DownloadError, match=f"has another file: {len(PAGE)} bytes, not 307,200"):
        fetch(file, tmp_path, hasty)
    assert len(server.requests) == 1
    assert names(tmp_path) == []


def test_a_mirror_is_not_blamed_for_the_beginning_that_another_sent(
    server: Any, tmp_path: Path, hasty: Patience
) -> None:
    file = server.publish("a.bin", CONTENT)
    server.files["/bad/a.bin"] = b"?" * len(CONTENT)

    def mirror(handler: BaseHTTPRequestHandler, content: bytes) -> None:
        cut(1000 if handler.path == "/bad/a.bin" else len(CONTENT))(handler, content)

    server.always = mirror
    mirrored = Published(file.name, file.size, file.sha256, (f"{server.url}/bad", server.url))
    assert fetch(mirrored, tmp_path, hasty).read_bytes() == CONTENT
    assert server.requests == [("/bad/a.bin", ""), ("/a.bin", "bytes=1000-"), ("/a.bin", "")]


def test_a_server_that_cannot_resume_and_is_cut_costs_nothing_that_was_there(
    server: Any, tmp_path: Path, hasty: Patience
) -> None:
    file = server.publish("a.bin", CONTENT)

    def cut_200(handler: BaseHTTPRequestHandler, content: bytes) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        handler.wfile.write(content[:50_000])

    server.behaviours = [cut(100_000), cut_200]
    assert fetch(file, tmp_path, hasty).read_bytes() == CONTENT
    assert [asked for _, asked in server.requests] == ["", "bytes=100000-", "bytes=100000-"]


def test_a_server_that_knows_no_such_byte_is_asked_for_the_whole(server: Any, tmp_path: Path, hasty: Patience) -> None:
    file = server.publish("a.bin", CONTENT)
    server.behaviours = [answer(416), answer(200, CONTENT)]
    (tmp_path / "a.bin.part").write_bytes(CONTENT[:1000])
    assert fetch(file, tmp_path, hasty).read_bytes() == CONTENT
    assert [asked for _, asked in server.requests] == ["bytes=1000-", ""]


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410])
def test_a_refusal_is_not_asked_again(server: Any, tmp_path: Path, hasty: Patience, status: int) -> None:
    file = server.publish("a.bin", CONTENT)
    server.always = answer(status)
    with pytest.raises(DownloadError, match=f"{status}"):
        fetch(file, tmp_path, hasty)
    assert len(server.requests) == 1
    assert names(tmp_path) == []


@pytest.mark.parametrize("status", [425, 429, 500, 503])
def test_a_busy_server_is_asked_again(server: Any, tmp_path: Path, hasty: Patience, status: int) -> None:
    file = server.publish("a.bin", CONTENT)
    server.behaviours = [answer(status, Retry_After="0"), answer(status, Retry_After="Thu, 01 Jan 2026 00:00:00 GMT")]
    assert fetch(file, tmp_path, hasty).read_bytes() == CONTENT


def test_the_time_that_a_server_asks_for_is_kept(
    server: Any, tmp_path: Path, hasty: Patience, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = server.publish("a.bin", CONTENT)
    pauses: list[float] = []
    monkeypatch.setattr("dfserve.dataflow.dataset.download.time.sleep", pauses.append)
    server.behaviours = [answer(503, Retry_After="7"), answer(503, Retry_After="100000")]
    fetch(file, tmp_path, hasty)
    assert pauses == [7.0, 60.0]


def test_headway_starts_the_count_of_failures_anew(server: Any, tmp_path: Path, hasty: Patience) -> None:
    content = os.urandom(8 << 20)
    file = server.publish("large", content)
    server.behaviours = [cut((1 << 20) + 1)] * 7  # more than the rounds that bring nothing
    assert fetch(file, tmp_path, hasty).read_bytes() == content


def test_a_redirect_is_followed_but_not_for_ever(server: Any, tmp_path: Path, hasty: Patience) -> None:
    file = server.publish("a.bin", CONTENT)
    server.files["/moved.bin"] = CONTENT
    server.behaviours = [answer(302, Location="/moved.bin")]
    assert fetch(file, tmp_path, hasty).read_bytes() == CONTENT
    (tmp_path / "a.bin").unlink()
    server.always = answer(302, Location="/a.bin")
    with pytest.raises(DownloadError, match="redirect"):
        fetch(file, tmp_path, hasty)


def test_a_server_that_falls_silent_is_given_up(server: Any, tmp_path: Path, impatient: Patience) -> None:
    file = server.publish("a.bin", CONTENT)
    server.always = stall(server, 100_000)
    with pytest.raises(DownloadError, match="timed out"):
        fetch(file, tmp_path, impatient)
    assert names(tmp_path) == ["a.bin.part"]
    assert (tmp_path / "a.bin.part").read_bytes() == CONTENT[:100_000]


def test_a_server_that_only_pretends_to_send_is_given_up(server: Any, tmp_path: Path) -> None:
    file = server.publish("a.bin", CONTENT)
    server.always = drip(server)
    impatient = Patience(rounds=2, pause=0.001, pace=Pace(window=0.3))
    with pytest.raises(DownloadError, match=r"sent \d+ bytes in 0 s"):
        fetch(file, tmp_path, impatient)


def test_the_next_address_is_tried_where_one_fails(
    server: Any, tmp_path: Path, hasty: Patience, free_port: int
) -> None:
    file = server.publish("a.bin", CONTENT)
    nobody = f"http://127.0.0.1:{free_port}"
    mirrored = Published(file.name, file.size, file.sha256, (nobody, f"{server.url}/gone", server.url))
    assert fetch(mirrored, tmp_path, hasty).read_bytes() == CONTENT
    assert [path for path, _ in server.requests] == ["/gone/a.bin", "/a.bin"]


def test_without_a_network_the_error_says_what_to_fetch_and_where_to_put_it(
    tmp_path: Path, hasty: Patience, free_port: int
) -> None:
    file = Published("a.bin", 12345, "ab" * 32, (f"http://127.0.0.1:{free_port}/data",))
    with pytest.raises(DownloadError) as caught:
        fetch(file, tmp_path, hasty)
    for part in (f"http://127.0.0.1:{free_port}/data/a.bin", str(tmp_path / "a.bin"), "ab" * 32, "12,345", "refused"):
        assert part in str(caught.value)
    assert names(tmp_path) == []


def test_a_file_put_there_by_hand_is_taken_if_it_is_the_published_one(server: Any, tmp_path: Path) -> None:
    file = server.publish("a.bin", CONTENT)
    (tmp_path / "a.bin").write_bytes(CONTENT)
    assert fetch(file, tmp_path).read_bytes() == CONTENT
    for content in (CONTENT[:100], CONTENT[:-1] + b"!"):
        (tmp_path / "a.bin").write_bytes(content)
        with pytest.raises(StoreError, match=r"a\.bin is not the published"):
            fetch(file, tmp_path)
        assert (tmp_path / "a.bin").read_bytes() == content
    assert server.requests == []


def test_a_folder_that_cannot_be_written_is_an_error_that_names_it(server: Any, tmp_path: Path) -> None:
    file = server.publish("a.bin", CONTENT)
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(DownloadError, match="cannot be stored") as caught:
        fetch(file, tmp_path / "file" / "folder")
    assert str(tmp_path / "file" / "folder") in str(caught.value)


def test_a_full_disk_is_an_error_that_names_the_folder(
    server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = server.publish("a.bin", CONTENT)

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("dfserve.dataflow.dataset.download.os.fsync", full)
    with pytest.raises(DownloadError, match="No space left on device"):
        fetch(file, tmp_path)
    assert not (tmp_path / "a.bin").exists()


FETCH = """
import logging, sys
from pathlib import Path
from dfserve.dataflow.dataset.download import fetch
from dfserve.dataflow.dataset.published import Published
logging.basicConfig(level="INFO")
name, size, digest, url, folder = sys.argv[1:]
print(fetch(Published(name, int(size), digest, (url,)), Path(folder)).stat().st_size, flush=True)
"""


def fetching(file: Published, folder: Path) -> list[str]:
    return ["-c", FETCH, file.name, str(file.size), file.sha256, file.folders[0], str(folder)]


def test_of_several_processes_one_downloads_and_the_others_wait(server: Any, start: Any, tmp_path: Path) -> None:
    file = server.publish("a.bin", CONTENT)
    go = threading.Event()

    def held(handler: BaseHTTPRequestHandler, content: bytes) -> None:
        cut(100_000)(handler, content)
        handler.wfile.flush()
        go.wait(60)
        handler.wfile.write(content[100_000:])

    server.behaviours = [held]
    programs = [start(*fetching(file, tmp_path / "data")) for _ in range(3)]
    while sum(program.said("another process") for program in programs) < 2:
        assert all(program.process.poll() is None for program in programs), [program.output for program in programs]
        threading.Event().wait(0.02)
    go.set()
    assert [program.wait() for program in programs] == [0, 0, 0]
    assert all(program.said(f"{len(CONTENT)}\n") for program in programs)
    assert len(server.requests) == 1
    assert names(tmp_path / "data") == ["a.bin"]


def test_what_a_killed_process_left_is_resumed(server: Any, start: Any, until: Any, tmp_path: Path) -> None:
    content = os.urandom(4 << 20)
    file = server.publish("large", content)
    server.behaviours = [stall(server, 3 << 20)]
    program = start(*fetching(file, tmp_path))
    part = tmp_path / "large.part"
    until(lambda: part.exists() and part.stat().st_size > 1 << 20, "the first half")
    program.kill()
    size = part.stat().st_size
    assert fetch(file, tmp_path).read_bytes() == content
    assert server.requests[-1] == ("/large", f"bytes={size}-")


def test_a_file_system_without_locks_does_too(
    server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hasty: Patience
) -> None:
    def cannot(*_: Any) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", cannot)
    file = server.publish("a.bin", CONTENT)
    server.behaviours = [cut(1000), answer(404)]
    with pytest.raises(DownloadError, match="404"):
        fetch(file, tmp_path, hasty)
    assert names(tmp_path) == []
    server.behaviours = [cut(1000)]
    assert fetch(file, tmp_path, hasty).read_bytes() == CONTENT
    assert names(tmp_path) == ["a.bin"]


@pytest.mark.parametrize("variable", ["http_proxy", "all_proxy", "ALL_PROXY"])
def test_the_proxy_of_the_environment_is_used(
    server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hasty: Patience, variable: str
) -> None:
    # A proxy is asked for whole addresses; this one knows the file under that name.
    server.files["http://files.example/a.bin"] = CONTENT
    file = Published("a.bin", len(CONTENT), hashlib.sha256(CONTENT).hexdigest(), ("http://files.example",))
    monkeypatch.setenv(variable, server.url.replace("://", "://me:secret@"))
    assert fetch(file, tmp_path, hasty).read_bytes() == CONTENT
    assert server.requests == [("http://files.example/a.bin", "")]


def test_without_urllib3_the_error_says_what_to_install(server: Any, start: Any, tmp_path: Path) -> None:
    file = server.publish("a.bin", CONTENT)
    hidden = fetching(file, tmp_path)
    hidden[1] = "import sys; sys.modules['urllib3'] = None\n" + hidden[1]
    program = start(*hidden)
    assert program.wait() == 1
    assert program.said("pip install 'dfserve[network]'")


PUBLISHED = [
    *(file for table in (published.MNIST, published.FASHION_MNIST) for files in table.values() for file in files),
    *(published.CIFAR10, published.CIFAR100, published.TINY_IMAGENET, published.CAFFE_ILSVRC12),
]


def test_every_published_file_has_a_checksum_and_an_address() -> None:
    assert len({(file.name, file.sha256) for file in PUBLISHED}) == 12
    for file in PUBLISHED:
        assert len(bytes.fromhex(file.sha256)) == 32
        assert file.size > 1000
        assert all(address.startswith(("https://", "http://")) for address in file.addresses)
        assert all(address.endswith(f"/{file.name}") for address in file.addresses)
