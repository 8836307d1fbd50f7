"""Owns fetching one item by its URL: tries, redirects, and what is worth another try."""

from __future__ import annotations

import random
import time
from contextlib import suppress
from typing import TYPE_CHECKING
from urllib.parse import urljoin, urlsplit

from dfserve.dataflow.dataset.bodies import read_body
from dfserve.dataflow.dataset.failed import Failed
from dfserve.errors import ConfigError, DownloadError

if TYPE_CHECKING:
    from urllib3 import BaseHTTPResponse

    from dfserve.dataflow.dataset.connections import Deadline

MAX_BYTES = 64 << 20  # of an item: more than any camera's JPEG has, and 16 threads hold 1 GiB at worst

_REDIRECTS = 5  # in a row; a loop is one that does not end, and a real chain has one or two
_WHOLE = (200, 203)  # statuses of an answer that is the item; 203: as changed by a proxy
_FIRST_WAIT, _LONGEST_WAIT = 0.25, 8.0  # seconds before the second try, and before any later one, at most
_SCRAPS = 1 << 14  # bytes of an error page: read, so that the connection can be used again; a larger one is cut off
_LONGEST_NAME = 300  # characters of a URL in a message


class Fetcher:
    """Fetches items over HTTP and HTTPS. Threads may share one, and it pickles: it has options and no connections.

    Connections are kept open, and belong to the process. Certificates are checked against the system's. The proxies
    that ``http_proxy``, ``https_proxy``, ``all_proxy`` and ``no_proxy`` name are used.
    """

    def __init__(self, *, timeout: float = 30.0, retries: int = 4, max_bytes: int = MAX_BYTES) -> None:
        """Set the limits.

        Args:
            timeout: seconds that an item may take with all its tries and the waits between them, so that no thread is
                held for longer (but for the look-up of a name, which the system limits). A third of it is how long a
                server may be silent, so that there is time for another try.
            retries: further tries after a connection that failed or broke off, a body that is cut short, or one of the
                statuses 408, 425, 429, 500, 502, 503 and 504. Before each there is a random wait, up to 0.25 s and then
                twice as long each time (4: about 2 s in all), after what the server asked for with ``Retry-After``.
            max_bytes: the largest item; one that announces or sends more is not read to its end.

        Raises:
            ConfigError: ``timeout`` or ``max_bytes`` is not positive, or ``retries`` is negative.
        """
        if timeout <= 0 or retries < 0 or max_bytes <= 0:
            raise ConfigError(
                f"timeout={timeout} and max_bytes={max_bytes} must be more than 0, and retries={retries} not less"
            )
        self.timeout = timeout
        self.retries = retries
        self.max_bytes = max_bytes

    def fetch(self, url: str) -> bytes:
        """Return what ``url`` names.

        Raises:
            DownloadError: it cannot be had; it tells the last reason, how often and for how long it was tried.
            ImportError: urllib3 is missing.
        """
        require_client()
        from dfserve.dataflow.dataset.connections import Deadline

        deadline = Deadline(self.timeout, self.timeout / 3)
        tries = 0
        while True:
            tries += 1
            try:
                return self._try(url, deadline)
            except Failed as failure:
                wait = failure.wait + _random_wait(tries)
                if not failure.again or tries > self.retries or wait >= deadline.left():
                    raise DownloadError(self._told(url, failure, tries, deadline.passed())) from failure
            time.sleep(wait)

    def _try(self, url: str, deadline: Deadline) -> bytes:
        from urllib3.exceptions import HTTPError

        place = url
        try:
            for _ in range(_REDIRECTS + 1):
                location, body = self._ask(place, deadline)
                if location is None:
                    return body
                place = urljoin(place, location)
        except ValueError as error:
            raise Failed(f"{_shown(place)} is malformed: {error}", again=False) from error
        except (HTTPError, TimeoutError) as error:
            raise _broken(error) from error
        raise Failed(f"more than {_REDIRECTS} redirects, the last to {_shown(place)}", again=False)

    def _ask(self, place: str, deadline: Deadline) -> tuple[str | None, bytes]:
        """Make one request; return where it redirects to, or else None and the body."""
        from urllib3.exceptions import HTTPError

        from dfserve.dataflow.dataset.connections import answer

        if urlsplit(place).scheme not in ("http", "https"):
            raise Failed(f"only http:// and https:// are fetched, not {_shown(place)}", again=False)
        with answer(place, deadline) as response:
            location = response.get_redirect_location()
            if response.status in _WHOLE:
                return None, read_body(response, self.max_bytes)
            with suppress(HTTPError):  # what the page does is no matter: its status is known
                response.read(_SCRAPS, decode_content=False)
            if not location:
                raise _refusal(response)
            return location, b""

    def _told(self, url: str, failure: Failed, tries: int, seconds: float) -> str:
        remedy = f"; timeout={self.timeout} and retries={self.retries} can be raised" if failure.again else ""
        return f"{_shown(url)} cannot be fetched: {failure} (tries: {tries}, in {seconds:.1f} s{remedy})"


def require_client() -> None:
    """Check that the HTTP client is there.

    Raises:
        ImportError: urllib3 is not installed; the message has the command.
    """
    try:
        import urllib3  # noqa: F401  # only to see whether it is there
    except ImportError as error:
        raise ImportError("fetching over the network needs urllib3: pip install 'dfserve[network]'") from error


def _random_wait(tries: int) -> float:
    # Spread from 0 on, so that threads which failed together do not come back together. Source: M. Brooker,
    # "Exponential backoff and jitter", AWS architecture blog, 2015 ("full jitter").
    return random.uniform(0, min(_LONGEST_WAIT, _FIRST_WAIT * 2 ** (tries - 1)))  # noqa: S311  # no secret


def _refusal(response: BaseHTTPResponse) -> Failed:
    """Return what a status means that is not that of an item."""
    from dfserve.dataflow.dataset.connections import PASSING, asked_wait

    why = f"the server answers {response.status} {response.reason or ''}".rstrip()
    if response.status not in PASSING:
        return Failed(why, again=False)
    wait = asked_wait(response)
    return Failed(f"{why}, to be asked again after {wait:.0f} s" if wait else why, wait=wait)


def _broken(error: Exception) -> Failed:
    """Return what an exception of the client means."""
    from ssl import SSLCertVerificationError

    # What urllib3 wraps is its last argument, and says more than the wrapping.
    inner = error.args[-1] if error.args and isinstance(error.args[-1], Exception) else error
    # A certificate does not become right by asking again.
    return Failed(f"{type(inner).__name__}: {inner}", again=not isinstance(inner, SSLCertVerificationError))


def _shown(url: str) -> str:
    return url if len(url) <= _LONGEST_NAME else f"{url[:_LONGEST_NAME]}..."
