"""Fetching single items from a real server that misbehaves in every way that is known."""

from __future__ import annotations

import gzip
import os
import pickle
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest

from dfserve.dataflow.dataset.fetch import Fetcher
from dfserve.errors import ConfigError, DownloadError

pytest.importorskip("urllib3")

DEADLINE = 30.0  # seconds, generously: a test that takes so long has hung
HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dfserve.dataflow.dataset.fetch._FIRST_WAIT", 0.02)


def fails(fetcher: Fetcher, url: str, match: str) -> str:
    """Return what the error says, which names the URL and came in time."""
    began = time.monotonic()
    with pytest.raises(DownloadError, match=match) as caught:
        fetcher.fetch(url)
    assert time.monotonic() - began < DEADLINE
    assert url[:300] in str(caught.value)
    return str(caught.value)


def test_an_item_is_what_the_server_has(web: Any, jpegs: list[bytes]) -> None:
    assert Fetcher().fetch(web.page("/a.jpg", web.body(jpegs[0]))) == jpegs[0]
    assert Fetcher().fetch(web.page("/nothing", web.body(b""))) == b""


def test_a_server_is_told_who_asks_and_not_to_compress(web: Any) -> None:
    Fetcher().fetch(web.page("/a", web.body(b"a")))
    assert web.headers[0]["User-Agent"].startswith("dfserve/")
    assert web.headers[0]["Accept-Encoding"] == "identity"


def test_connections_are_kept_and_used_again_also_after_errors_and_redirects(web: Any) -> None:
    good = web.page("/good", web.body(b"good"))
    moved = web.page("/moved", web.redirect("/good"))
    fetcher = Fetcher()
    for _ in range(5):
        assert fetcher.fetch(good) == fetcher.fetch(moved) == b"good"
        fails(fetcher, web.url("/missing"), "404")
    assert web.connections == 1
    assert len(web.headers) == 20


def test_threads_share_a_fetcher(web: Any) -> None:
    bodies = [web.body(str(n).encode() * 1000) for n in range(40)]
    together = threading.Barrier(2)  # so that the first two are under way at once, however late a thread starts
    for n in range(2):
        bodies[n] = lambda visit, answer=bodies[n]: (together.wait(DEADLINE), answer(visit))
    urls = [web.page(f"/{n}", body) for n, body in enumerate(bodies)]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(Fetcher().fetch, urls)) == [str(n).encode() * 1000 for n in range(40)]
    assert 1 < web.connections <= 8


def test_failures_leave_no_connections_open(web: Any) -> None:
    def is_open(connection: Any) -> bool:
        return bool(connection.raddr) and connection.raddr.port == web.server_address[1]

    pages = [
        web.page("/large", web.status(404, b"x" * 100_000)),
        web.page("/cut", web.cut(b"x" * 10, 100)),
        web.page("/nonsense", web.raw(b"nonsense")),
        web.page("/too-large", web.body(b"x" * 200_000)),
        web.page("/elsewhere", web.redirect("file:///a")),
    ]
    for url in pages * 5:
        fails(Fetcher(retries=0, max_bytes=100_000), url, "cannot be fetched")
    assert sum(map(is_open, psutil.Process().net_connections("tcp"))) <= 1  # the one that is kept


@pytest.mark.parametrize("status", [204, 302, 304, 400, 401, 403, 404, 410, 416, 501])
def test_a_refusal_is_final(web: Any, status: int) -> None:
    url = web.page("/a", web.status(status, b"" if status in (204, 304) else b"no"))
    assert "tries: 1" in fails(Fetcher(), url, f"the server answers {status}")
    assert web.hits["/a"] == 1


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504])
def test_a_passing_trouble_is_tried_again(web: Any, status: int) -> None:
    assert Fetcher().fetch(web.page("/a", web.status(status), web.status(status), web.body(b"a"))) == b"a"
    assert web.hits["/a"] == 3


def test_a_lasting_trouble_is_given_up_after_the_retries(web: Any) -> None:
    message = fails(Fetcher(retries=2), web.page("/a", web.status(503)), "503 Service Unavailable")
    assert "tries: 3" in message
    assert "retries=2" in message
    assert web.hits["/a"] == 3
    fails(Fetcher(retries=0), web.page("/b", web.status(503)), "tries: 1")


def test_the_waits_are_random_and_double_up_to_a_bound(web: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dfserve.dataflow.dataset.fetch._FIRST_WAIT", 0.25)
    waits: list[float] = []
    monkeypatch.setattr("dfserve.dataflow.dataset.fetch.time.sleep", waits.append)
    fails(Fetcher(timeout=300, retries=20), web.page("/a", web.status(503)), "503")
    assert len(waits) == len(set(waits)) == 20
    assert all(0 <= wait <= min(8, 0.25 * 2**n) for n, wait in enumerate(waits))
    assert max(waits) > 1


def test_a_server_that_asks_to_wait_is_obeyed(web: Any) -> None:
    url = web.page("/a", web.status(429, Retry_After="1"), web.body(b"a"))
    began = time.monotonic()
    assert Fetcher().fetch(url) == b"a"
    assert time.monotonic() - began >= 1
    assert web.hits["/a"] == 2


@pytest.mark.parametrize("asked", ["120", "Fri, 31 Dec 2199 23:59:59 GMT"])
def test_a_server_that_asks_for_more_time_than_there_is_is_not_asked_again(web: Any, asked: str) -> None:
    url = web.page("/a", web.status(429, Retry_After=asked))
    fails(Fetcher(timeout=20), url, r"429 Too Many Requests, to be asked again after [0-9]+ s .*timeout=20")
    assert web.hits["/a"] == 1


@pytest.mark.parametrize("asked", ["soon", "-5", "9" * 5000, "", "Thu, 32 Foo 99999999999 99:99:99 GMT"])
def test_a_wait_that_makes_no_sense_is_not_obeyed(web: Any, asked: str) -> None:
    assert Fetcher().fetch(web.page("/a", web.status(503, Retry_After=asked), web.body(b"a"))) == b"a"


def test_a_body_that_is_cut_short_is_fetched_again(web: Any) -> None:
    url = web.page("/a", web.cut(b"only ha", 14), web.cut(b"", 14), web.body(b"the whole of it"))
    assert Fetcher().fetch(url) == b"the whole of it"
    assert "7 more expected" in fails(Fetcher(retries=1), web.page("/b", web.cut(b"only ha", 14)), "IncompleteRead")
    assert web.hits["/b"] == 2


def test_a_connection_that_is_cut_before_the_answer_is_made_again(web: Any) -> None:
    url = web.page("/a", web.raw(), web.raw(b"HTTP/1.1 20"), web.raw(b"nonsense\r\n\r\n"), web.body(b"a"))
    assert Fetcher().fetch(url) == b"a"


def test_a_chunked_body_arrives_whole_or_is_fetched_again(web: Any) -> None:
    start = CHUNKED + b"4\r\nthe \r\n"
    url = web.page("/a", web.raw(start), web.raw(start, b"5\r\nwh"), web.raw(start, b"5\r\nwhole\r\n0\r\n\r\n"))
    assert Fetcher().fetch(url) == b"the whole"
    assert web.hits["/a"] == 3


def test_a_server_that_sends_more_than_it_announced_does_not_spoil_the_next_item(web: Any) -> None:
    lie = web.page("/lie", lambda visit: visit.answer(200, {"Content-Length": "3"}, b"abcdef"))
    good = web.page("/good", web.body(b"good"))
    for _ in range(5):
        assert Fetcher().fetch(lie) == b"abc"
        assert Fetcher().fetch(good) == b"good"


def test_nobody_listening_is_tried_again_and_then_told(free_port: int) -> None:
    message = fails(Fetcher(retries=2), f"http://127.0.0.1:{free_port}/a.jpg", "refused")
    assert "tries: 3" in message


def test_a_name_that_does_not_exist_is_told() -> None:
    fails(Fetcher(retries=0, timeout=10), "http://no-such-host.invalid/a.jpg", "gaierror|Timeout")


def test_a_silent_server_is_left_for_another_try(web: Any) -> None:
    good = web.body(b"a")
    assert Fetcher(timeout=9).fetch(web.page("/a", web.late(DEADLINE, good), good)) == b"a"
    assert "Timeout" in fails(Fetcher(timeout=0.4, retries=1), web.page("/b", web.late(DEADLINE, good)), "/b")


@pytest.mark.parametrize(
    "pieces",
    [
        pytest.param([HEAD] + [b"x"] * 1000, id="body"),
        pytest.param([b"HTTP/1.1 200 OK\r\n"] + [b"X-Slow: 1\r\n"] * 1000, id="headers"),
        pytest.param([bytes([byte]) for byte in b"HTTP/1.1 200 O" + b"K" * 1000], id="status line"),
        pytest.param([b"HTTP/1.1 100 Continue\r\n\r\n"] * 1000, id="endless continue"),
        pytest.param([CHUNKED] + [b"0"] * 1000, id="chunk"),
        pytest.param([HEAD.replace(b"200 OK", b"302 Found\r\nLocation: /b")] + [b"x"] * 1000, id="redirect"),
    ],
)
def test_a_server_that_drips_holds_nobody_longer_than_the_timeout(web: Any, pieces: list[bytes]) -> None:
    began = time.monotonic()
    url = web.page("/a", web.raw(*pieces, every=0.05))
    assert "Timeout" in fails(Fetcher(timeout=0.3), url, "time")
    assert time.monotonic() - began < DEADLINE  # the pieces would take 50 s


def test_an_error_page_that_drips_or_breaks_off_is_still_what_its_status_says(web: Any) -> None:
    page = HEAD.replace(b"200 OK", b"404 Not Found")
    began = time.monotonic()
    fails(Fetcher(timeout=9), web.page("/a", web.raw(page, *[b"x"] * 1000, every=0.05)), "404 Not Found")
    assert time.monotonic() - began < 40  # the page would take 50 s
    fails(Fetcher(), web.page("/b", web.raw(page, b"x")), "404 Not Found")


def names(monkeypatch: pytest.MonkeyPatch, name: str, *addresses: tuple[str, int]) -> None:
    """Let a host name have addresses."""
    real = socket.getaddrinfo
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", address) for address in addresses]
    monkeypatch.setattr(
        socket, "getaddrinfo", lambda host, *rest, **kw: found if host == name else real(host, *rest, **kw)
    )


def test_addresses_that_do_not_answer_share_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as deaf, socket.create_connection(deaf.getsockname()):
        # That one connection fills the queue; further ones are not answered.
        names(monkeypatch, "many.invalid", *[deaf.getsockname()] * 300)
        began = time.monotonic()
        fails(Fetcher(timeout=0.4, retries=0), "http://many.invalid/a.jpg", "time")
        assert time.monotonic() - began < DEADLINE  # 300 addresses with 0.13 s for each would take longer


def test_a_later_address_is_tried_when_the_first_refuses(
    web: Any, free_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = web.page("/a", web.body(b"a"))
    names(monkeypatch, "two.invalid", ("127.0.0.1", free_port), web.server_address)
    assert Fetcher(retries=0).fetch(url.replace("127.0.0.1", "two.invalid")) == b"a"


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
def test_redirects_are_followed(web: Any, code: int) -> None:
    web.page("/b/end", web.body(b"end"))
    web.page("/b/middle", web.redirect("end", code))
    url = web.page("/a", web.redirect(web.url("/b/middle"), code))
    assert Fetcher().fetch(url) == b"end"


def test_five_redirects_are_followed_and_a_loop_is_not(web: Any) -> None:
    web.page("/5", web.body(b"end"))
    for n in range(5):
        web.page(f"/{n}", web.redirect(f"/{n + 1}"))
    assert Fetcher().fetch(web.url("/0")) == b"end"
    web.page("/-1", web.redirect("/0"))
    fails(Fetcher(), web.url("/-1"), r"more than 5 redirects, the last to .*/5 \(tries: 1")
    fails(Fetcher(), web.page("/loop", web.redirect("/loop")), "more than 5 redirects")
    assert web.hits["/loop"] == 6


@pytest.mark.parametrize("to", ["file:///etc/passwd", "ftp://127.0.0.1/a", "data:image/png;base64,AA", "x:1"])
def test_a_redirect_to_another_scheme_is_refused(web: Any, to: str) -> None:
    assert to in fails(Fetcher(), web.page("/a", web.redirect(to)), "only http:// and https:// are fetched")
    assert web.hits["/a"] == 1


@pytest.mark.parametrize("to", ["http://[::1", "http://127.0.0.1:port/"])
def test_a_redirect_to_nowhere_is_refused(web: Any, to: str) -> None:
    fails(Fetcher(), web.page("/a", web.redirect(to)), "malformed")
    assert web.hits["/a"] == 1


@pytest.mark.parametrize(
    "url",
    ["", "a.jpg", "/etc/passwd", "file:///etc/passwd", "http:/a.jpg", "http://", "http://[::1/a.jpg", "http://a:b/c",
     f"http://{'a' * 300}.com/", "http://a..b/", "ftp://a/b", "data:," + "x" * 100_000],
)  # fmt: skip
def test_what_is_no_url_is_refused_at_once(url: str) -> None:
    with pytest.raises(DownloadError, match=r"malformed|only http") as caught:
        Fetcher().fetch(url)
    assert len(str(caught.value)) < 1500


def test_a_url_may_have_spaces_other_letters_and_a_fragment(web: Any) -> None:
    web.page("/%C3%A4%20b.jpg?q=1", web.body(b"a"))
    assert Fetcher().fetch(web.url("/ä b.jpg?q=1#part")) == b"a"


def test_an_item_that_announces_too_much_is_refused_before_it_is_read(web: Any) -> None:
    url = web.page("/a", web.raw(HEAD, b"x" * 100, every=DEADLINE))
    assert "tries: 1" in fails(Fetcher(max_bytes=99_999), url, "announces 100000 bytes, more than max_bytes=99999")


@pytest.mark.parametrize("start", [b"HTTP/1.1 200 OK\r\n\r\n", b"HTTP/1.0 200 OK\r\nContent-Length: many\r\n\r\n"])
def test_an_item_that_never_ends_is_refused_when_it_passes_the_limit(web: Any, start: bytes) -> None:
    url = web.page("/a", web.raw(start, *[b"x" * 1000] * 100_000))
    assert "tries: 1" in fails(Fetcher(max_bytes=50_000), url, "sends more than max_bytes=50000")


def test_an_item_may_be_as_large_as_the_limit(web: Any) -> None:
    content = os.urandom(700_000)
    url = web.page("/a", web.body(content))
    assert Fetcher(max_bytes=700_000).fetch(url) == content
    fails(Fetcher(max_bytes=699_999), url, "max_bytes")


def test_a_packed_body_is_unpacked(web: Any, jpegs: list[bytes]) -> None:
    for name, packed in (("gzip", gzip.compress(jpegs[0])), ("deflate", zlib.compress(jpegs[0]))):
        url = web.page(f"/{name}", web.body(packed, Content_Encoding=name))
        assert Fetcher().fetch(url) == jpegs[0]


def test_a_packed_bomb_is_refused_at_the_limit(web: Any) -> None:
    bomb = gzip.compress(bytes(50_000_000))
    assert len(bomb) < 100_000
    url = web.page("/a", web.body(bomb, Content_Encoding="gzip"))
    fails(Fetcher(max_bytes=100_000), url, "sends more than max_bytes=100000")
    assert Fetcher(max_bytes=50_000_000).fetch(url) == bytes(50_000_000)


def test_a_damaged_or_foreign_packing_is_refused(web: Any) -> None:
    packed = gzip.compress(b"a" * 1000)
    url = web.page("/cut", web.body(packed[:-9], Content_Encoding="gzip"), web.body(packed, Content_Encoding="gzip"))
    assert Fetcher().fetch(url) == b"a" * 1000
    fails(Fetcher(retries=1), web.page("/bad", web.body(b"no gzip", Content_Encoding="gzip")), "damaged gzip")
    fails(Fetcher(), web.page("/br", web.body(b"?", Content_Encoding="br")), "'br' unasked")
    assert web.hits["/br"] == 1


def test_a_packing_of_several_members_is_unpacked_whole(web: Any) -> None:
    members = gzip.compress(b"a" * 1000) + gzip.compress(os.urandom(300_000)) + gzip.compress(b"c" * 1000)
    content = gzip.decompress(members)
    for name, packed in (("/plain", members), ("/padded", members + bytes(100))):
        url = web.page(name, web.body(packed, Content_Encoding="gzip"))
        assert Fetcher(retries=0).fetch(url) == content
        assert Fetcher(retries=0, max_bytes=len(content)).fetch(url) == content
        fails(Fetcher(retries=0, max_bytes=len(content) - 1), url, "max_bytes")


@pytest.mark.parametrize("cut", [1, 5, 9, 15, 500])
def test_a_later_member_that_breaks_off_is_an_error(web: Any, cut: int) -> None:
    packed = gzip.compress(b"a" * 1000) + gzip.compress(os.urandom(1000))
    fails(Fetcher(retries=0), web.page("/a", web.body(packed[:-cut], Content_Encoding="gzip")), "breaks off")


def test_what_is_no_member_after_one_is_an_error(web: Any) -> None:
    packed = gzip.compress(b"a" * 1000) + b"something else"
    fails(Fetcher(retries=0), web.page("/a", web.body(packed, Content_Encoding="gzip")), "damaged gzip")


def test_members_without_end_are_refused(web: Any) -> None:
    url = web.page("/a", web.body(gzip.compress(b"") * 10_001, Content_Encoding="gzip"))
    fails(Fetcher(), url, "more than 10000 members")
    assert web.hits["/a"] == 1


@pytest.mark.parametrize("options", [{"timeout": 0}, {"retries": -1}, {"max_bytes": 0}])
def test_limits_that_make_no_sense_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(options))):
        Fetcher(**options)


def test_it_pickles_without_its_connections(web: Any) -> None:
    url = web.page("/a", web.body(b"a" * 100))
    fetcher = Fetcher(timeout=7, retries=1, max_bytes=99)
    fails(fetcher, url, "max_bytes=99")
    copy = pickle.loads(pickle.dumps(fetcher))
    assert vars(copy) == vars(fetcher)
    fails(copy, url, "max_bytes=99")


# Python 3.12 warns of forking beside threads; here the child uses nothing that the server's threads may hold.
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_forked_child_makes_connections_of_its_own(web: Any) -> None:
    url = web.page("/a", web.body(b"a"))
    fetcher = Fetcher()
    assert fetcher.fetch(url) == b"a"
    child = os.fork()
    if not child:
        os._exit(0 if fetcher.fetch(url) == fetcher.fetch(url) == b"a" else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert web.connections == 2
    assert fetcher.fetch(url) == b"a"
    assert web.connections == 2


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A certificate for localhost that only who knows it trusts, with its key."""
    file = tmp_path / "localhost.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-days", "2"]
    try:
        subprocess.run([*command, *names, "-keyout", file, "-out", f"{file}.crt"], check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("making a certificate needs openssl")
    file.write_bytes(file.read_bytes() + Path(f"{file}.crt").read_bytes())
    return file


def test_https_is_fetched_from_servers_that_are_trusted_and_from_no_others(web: Any, certificate: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    web.socket = context.wrap_socket(web.socket, server_side=True, do_handshake_on_connect=False)
    url = web.page("/a", web.body(b"a" * 300_000)).replace("http://127.0.0.1", "https://localhost")
    drip = web.page("/drip", web.raw(HEAD, *[b"x"] * 1000, every=0.05)).replace("http://127.0.0.1", "https://localhost")
    code = (
        "import sys; from dfserve.dataflow.dataset.fetch import Fetcher\n"
        f"try: print(Fetcher().fetch({url!r}) == b'a' * 300_000)\n"
        "except OSError as error: print(error)\n"
        "else:\n"
        f"  try: Fetcher(timeout=1).fetch({drip!r})\n"
        "  except OSError as error: print(error)\n"
    )

    def said(**environment: str) -> str:
        environment = {**os.environ, "no_proxy": "localhost", **environment}
        run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, timeout=60)
        return run.stdout + run.stderr

    stranger = said()
    assert "CERTIFICATE_VERIFY_FAILED" in stranger
    assert "tries: 1" in stranger
    trusted = said(SSL_CERT_FILE=f"{certificate}.crt")
    assert trusted.startswith("True\n")
    assert "timed out" in trusted or "time is over" in trusted


def test_the_proxy_of_the_environment_is_used(web: Any) -> None:
    web.page("http://far.invalid/a.jpg", web.body(b"through the proxy"))
    web.page("/near.jpg", web.body(b"directly"))
    code = (
        "from dfserve.dataflow.dataset.fetch import Fetcher\n"
        "print(Fetcher(timeout=20).fetch('http://far.invalid/a.jpg'))\n"
        f"print(Fetcher(timeout=20).fetch({web.url('/near.jpg')!r}))\n"
    )
    environment = {**os.environ, "http_proxy": web.url("").replace("//", "//me:pass%20word@"), "no_proxy": "127.0.0.1"}
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, timeout=60)
    assert run.stdout.splitlines() == ["b'through the proxy'", "b'directly'"], run.stderr
    assert web.headers[0]["proxy-authorization"] == "Basic bWU6cGFzcyB3b3Jk"


def test_without_urllib3_the_error_says_what_to_install() -> None:
    code = (
        "import sys; sys.modules['urllib3'] = None\n"
        "from dfserve.dataflow.dataset.fetch import Fetcher\n"
        "try: Fetcher().fetch('http://127.0.0.1/')\n"
        "except ImportError as error: print(error)\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "pip install 'dfserve[network]'" in result.stdout


def test_an_interrupt_ends_a_fetch_at_once(web: Any) -> None:
    late = web.late(DEADLINE, web.body(b"a"))
    # Not at once: between Python's last look for signals and the wait in the system one is not seen.
    url = web.page("/a", web.late(0.3, lambda visit: (os.kill(os.getpid(), signal.SIGINT), late(visit))))
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        Fetcher(timeout=DEADLINE * 3).fetch(url)
    assert time.monotonic() - began < DEADLINE
