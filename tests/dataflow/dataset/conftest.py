"""Owns what the tests of the data sets share: a real HTTP server on this machine that can be told to misbehave."""

from __future__ import annotations

import hashlib
import re
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from dfserve.dataflow.dataset.download import Patience
from dfserve.dataflow.dataset.published import Published
from dfserve.dataflow.dataset.transfer import Pace

Behaviour = Callable[[BaseHTTPRequestHandler, bytes], None]


def serve(handler: BaseHTTPRequestHandler, content: bytes) -> None:
    """Answer as a good server does, with the range that was asked for."""
    asked = re.fullmatch(r"bytes=([0-9]+)-", handler.headers.get("Range", ""))
    start = int(asked[1]) if asked else 0
    if start and start >= len(content):
        handler.send_response(416)
        handler.send_header("Content-Length", "0")
        handler.end_headers()
        return
    handler.send_response(206 if start else 200)
    handler.send_header("Content-Length", str(len(content) - start))
    if start:
        handler.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
    handler.end_headers()
    handler.wfile.write(content[start:])


class FileServer(ThreadingHTTPServer):
    """Serves ``files``; the first requests as ``behaviours`` says, one for each, and then as a good server does."""

    daemon_threads = True
    block_on_close = False

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.behaviours: list[Behaviour] = []
        self.always: Behaviour = serve
        self.requests: list[tuple[str, str]] = []  # path, range
        self.release = threading.Event()  # ends what waits, at the latest at the end of the test
        super().__init__(("127.0.0.1", 0), _Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def publish(self, name: str, content: bytes, *further: str) -> Published:
        self.files[f"/{name}"] = content
        return Published(name, len(content), hashlib.sha256(content).hexdigest(), (self.url, *further))

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: clients that hang up are what the tests are about."""


class _Handler(BaseHTTPRequestHandler):
    server: FileServer

    def do_GET(self) -> None:
        self.server.requests.append((self.path, self.headers.get("Range", "")))
        behaviour = self.server.behaviours.pop(0) if self.server.behaviours else self.server.always
        if self.path in self.server.files:
            behaviour(self, self.server.files[self.path])
        else:
            self.send_error(404)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[FileServer]:
    with FileServer() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.release.set()
        server.shutdown()
        thread.join()


@pytest.fixture
def hasty() -> Patience:
    """Few attempts and short pauses, so that a test of what goes wrong does not last; a busy machine is no failure."""
    return Patience(rounds=3, pause=0.001)


@pytest.fixture
def impatient() -> Patience:
    """What gives a silent server up once, and soon; one that is only late, as on a busy machine, is not silent yet."""
    return Patience(rounds=1, pause=0.001, pace=Pace(silence=8.0))


Answer = Callable[["_Visit"], None]


class Web(ThreadingHTTPServer):
    """Serves pages over connections that are kept open, as most servers do; each page misbehaves in its own way."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 64

    def __init__(self) -> None:
        self.pages: dict[str, list[Answer]] = {}
        self.hits: Counter[str] = Counter()  # requests, by path
        self.headers: list[dict[str, str]] = []  # of every request
        self.connections = 0
        self.together = 0  # requests under way now
        self.most_together = 0
        self.over = threading.Event()  # ends what waits
        self.lock = threading.Lock()
        super().__init__(("127.0.0.1", 0), _Visit)

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}{path}"

    def page(self, path: str, *answers: Answer) -> str:
        """Answer requests for ``path`` with one after the other of ``answers``, then always with the last."""
        self.pages[path] = list(answers)
        return self.url(path)

    def get_request(self) -> Any:
        with self.lock:
            self.connections += 1
        return super().get_request()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: clients that hang up are what the tests are about."""

    # What pages do:

    @staticmethod
    def body(content: bytes, **headers: str) -> Answer:
        return lambda visit: visit.answer(200, {"Content-Length": str(len(content)), **headers}, content)

    @staticmethod
    def status(code: int, content: bytes = b"an error page", **headers: str) -> Answer:
        return lambda visit: visit.answer(code, {"Content-Length": str(len(content)), **headers}, content)

    @staticmethod
    def redirect(to: str, code: int = 302) -> Answer:
        return Web.status(code, Location=to)

    @staticmethod
    def cut(content: bytes, announced: int) -> Answer:
        """Announce so many bytes, send others, and hang up."""

        def answer(visit: _Visit) -> None:
            visit.answer(200, {"Content-Length": str(announced)}, content)
            visit.close_connection = True

        return answer

    @staticmethod
    def raw(*pieces: bytes, every: float = 0.0) -> Answer:
        """Send bytes as they are, with ``every`` seconds before each piece but the first, and hang up."""

        def answer(visit: _Visit) -> None:
            visit.close_connection = True
            for number, piece in enumerate(pieces):
                if number and visit.server.over.wait(every):
                    return
                visit.wfile.write(piece)
                visit.wfile.flush()

        return answer

    @staticmethod
    def late(seconds: float, answer: Answer) -> Answer:
        def wait(visit: _Visit) -> None:
            visit.server.over.wait(seconds)
            answer(visit)

        return wait


class _Visit(BaseHTTPRequestHandler):
    server: Web
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        web = self.server
        with web.lock:
            web.hits[self.path] += 1
            web.headers.append(dict(self.headers))
            web.together += 1
            web.most_together = max(web.most_together, web.together)
            answers = web.pages.get(self.path, [Web.status(404)])
            answer = answers.pop(0) if len(answers) > 1 else answers[0]
        try:
            answer(self)
        finally:
            with web.lock:
                web.together -= 1

    def answer(self, code: int, headers: dict[str, str], content: bytes) -> None:
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def web(monkeypatch: pytest.MonkeyPatch) -> Iterator[Web]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")  # if there is a proxy here: it is not what is tested
    with Web() as web:
        thread = threading.Thread(target=web.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield web
        web.over.set()
        web.shutdown()
        thread.join()
