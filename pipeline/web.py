"""HTTP for whoever fetches: time limits, polite repeats, errors of one sentence. Nothing else speaks to a network.

A request is repeated after a broken connection, a time-out, HTTP 408, 429 and 5xx, each time after a longer pause and
never before the moment that the server's ``Retry-After`` names. Proxies and certificates come from the environment, as
in every program that uses requests (``HTTPS_PROXY``, ``REQUESTS_CA_BUNDLE``).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

import requests
from requests.exceptions import ConnectTimeout, InvalidSchema, InvalidURL, MissingSchema, ProxyError, SSLError, Timeout
from urllib3.exceptions import HTTPError, NameResolutionError, TimeoutError
from urllib3.util import Retry

from pipeline import __version__
from pipeline.errors import ConfigError, NetworkError

BLOCK_BYTES = 1 << 18
"""Bytes of a download that are written at a time."""
_REPEATED = {408, 429, 500, 502, 503, 504}
_CONNECT_SECONDS = 20.0

T = TypeVar("T")


@dataclass(frozen=True)
class Patience:
    """How long a client puts up with a server.

    ``tries`` is how often a request is sent in all; ``pause`` is the wait before the second try in seconds, doubled
    before each further one; a server that asks for more than ``longest`` seconds ends the tries; ``timeout`` is the
    longest silence within an answer, in seconds.
    """

    tries: int = 6
    pause: float = 2.0
    longest: float = 600.0
    timeout: float = 60.0


class Refused(NetworkError):
    """The server answers, with an HTTP error that no repeat will change."""


class Unusable(Exception):
    """An answer that arrived but says, by its content, that the request is to be sent again."""


class _Trouble(Exception):
    """A try that failed in a way that may pass; ``wait`` is what the server asks for, in seconds."""

    def __init__(self, reason: str, wait: float = 0.0) -> None:
        super().__init__(reason)
        self.wait = wait


class Client:
    """A polite HTTP client: one connection, requests at least ``interval`` seconds apart.

    Args:
        patience: when to try again, and for how long.
        interval: seconds between the starts of two requests.
        on_wait: called with a sentence before each pause that the user may wonder about.
    """

    def __init__(
        self,
        patience: Patience | None = None,
        *,
        interval: float = 0.0,
        on_wait: Callable[[str], None] | None = None,
    ) -> None:
        self.patience = patience or Patience()
        self.interval = interval
        self.on_wait = on_wait
        self._session = requests.Session()
        self._session.headers["User-Agent"] = f"hepatag/{__version__}"
        self._last = float("-inf")

    def get(self, url: str) -> bytes:
        """The body at an address.

        Args:
            url: the address.

        Returns:
            The body, decompressed.

        Raises:
            ConfigError: no http or https address.
            NetworkError: no usable answer within the tries.
        """

        def once() -> bytes:
            with self._answer("GET", url) as response:
                return response.content

        return self._repeat(url, once)

    def post(
        self, url: str, form: Mapping[str, str], read: Callable[[bytes], T], *, statuses: Collection[int] = ()
    ) -> T:
        """Send a form and read the answer.

        Args:
            url: the address; what must stay out of logs and messages belongs in the form.
            form: the fields.
            read: turns the body into the result; raises `Unusable` to have the request sent again.
            statuses: HTTP errors whose body ``read`` understands.

        Returns:
            What ``read`` returns.

        Raises:
            ConfigError: no http or https address.
            NetworkError: no usable answer within the tries.
        """

        def once() -> T:
            with self._answer("POST", url, form=form, statuses=statuses) as response:
                body = response.content
            try:
                return read(body)
            except Unusable as error:
                raise _Trouble(str(error)) from None

        return self._repeat(url, once)

    def download(self, url: str, path: Path, on_bytes: Callable[[int], None] | None = None) -> None:
        """Write the file at an address to ``path``, going on where an earlier download of it stopped.

        The bytes are kept as they come over the wire. Whether they are the right ones is for the caller to check: the
        beginning may be that of an older file, and a server may call a cut file whole.

        Args:
            url: the address.
            path: where the bytes go; what it holds is taken as the beginning of the file.
            on_bytes: called with the size of ``path`` so far.

        Raises:
            ConfigError: no http or https address.
            NetworkError: no whole answer within the tries. Tries that bring the file forward are not counted.
        """
        self._repeat(
            url, lambda: self._append(url, path, on_bytes), lambda: path.stat().st_size if path.exists() else 0
        )

    def _append(self, url: str, path: Path, on_bytes: Callable[[int], None] | None) -> None:
        start = path.stat().st_size if path.exists() else 0
        headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={start}-"} if start else {})
        statuses = {416} if start else set()
        with self._answer("GET", url, headers=headers, statuses=statuses) as response:
            if response.status_code == 416:  # nothing lies beyond what is here
                return
            ranged = response.status_code == 206
            if ranged and not response.headers.get("Content-Range", "").startswith(f"bytes {start}-"):
                path.unlink(missing_ok=True)
                raise _Trouble("another part of the file than asked for")
            size = start if ranged else 0
            with path.open("ab" if ranged else "wb") as file:
                for block in response.raw.stream(BLOCK_BYTES, decode_content=False):
                    file.write(block)
                    size += len(block)
                    if on_bytes:
                        on_bytes(size)

    @contextmanager
    def _answer(
        self,
        method: str,
        url: str,
        *,
        form: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        statuses: Collection[int] = (),
    ) -> Iterator[requests.Response]:
        """One answer to one request; everything that can go wrong on the wire becomes `_Trouble` or an error."""
        time.sleep(max(0.0, self._last + self.interval - time.monotonic()))
        self._last = time.monotonic()
        try:
            with self._session.request(
                method, url, data=form, headers=headers, stream=True, timeout=(_CONNECT_SECONDS, self.patience.timeout)
            ) as response:
                if response.status_code in _REPEATED:
                    raise _Trouble(f"HTTP {response.status_code} ({response.reason})", _asked_wait(response))
                if response.status_code >= 400 and response.status_code not in statuses:
                    raise Refused(
                        f"Expected an answer from {_shown(url)}, found HTTP {response.status_code} "
                        f"({response.reason}); check the address."
                    )
                yield response
        except (InvalidSchema, InvalidURL, MissingSchema):
            raise ConfigError(
                f"Expected an address that begins with https://, found “{_shown(url)}”; correct it."
            ) from None
        except SSLError:
            raise NetworkError(
                f"Expected a trusted certificate from {_shown(url)}, found another; if your network inspects traffic, "
                "name its certificate file in REQUESTS_CA_BUNDLE."
            ) from None
        except (requests.RequestException, HTTPError) as error:
            raise _Trouble(_reason(error, self.patience.timeout)) from None

    def _repeat(self, url: str, once: Callable[[], T], progress: Callable[[], int] = lambda: 0) -> T:
        tries, best = 0, progress()
        while True:
            try:
                return once()
            except _Trouble as trouble:
                reached = progress()
                tries, best = (1, reached) if reached > best else (tries + 1, best)
                if tries >= self.patience.tries or trouble.wait > self.patience.longest:
                    asked = f", which asks for {trouble.wait:.0f} s of quiet" if trouble.wait else ""
                    raise NetworkError(
                        f"Expected an answer from {_shown(url)}, found {trouble}{asked} ({tries} "
                        f"{'try' if tries == 1 else 'tries'}); check the network, or run the same command again later."
                    ) from None
                self._pause(url, trouble, tries)

    def _pause(self, url: str, trouble: _Trouble, tries: int) -> None:
        seconds = max(trouble.wait, self.patience.pause * 2 ** (tries - 1))
        if self.on_wait:
            self.on_wait(f"{urlsplit(url).hostname}: {trouble}; next try in {seconds:.0f} s")
        time.sleep(seconds)


def _asked_wait(response: requests.Response) -> float:
    """Seconds that ``Retry-After`` asks for, given as a number or a date; 0 where it says nothing."""
    asked = response.headers.get("Retry-After", "")
    try:
        return Retry().parse_retry_after(asked) if asked else 0.0
    except HTTPError:
        return 0.0


def _shown(url: str) -> str:
    """An address for messages: without a user's name and password, and without a query."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{host}{parts.path}" if host else url.split("?")[0]


def _reason(error: Exception, timeout: float) -> str:
    if isinstance(error, ConnectTimeout):
        return "no connection in time"
    if isinstance(error, Timeout | TimeoutError):
        return f"silence for {timeout:.0f} s"
    if isinstance(error, ProxyError):
        return "no way through the proxy"
    inner = getattr(error.args[0], "reason", None) if error.args else None
    if isinstance(inner, NameResolutionError):
        return "no machine of that name"
    broken = isinstance(error, HTTPError | requests.exceptions.ChunkedEncodingError)
    return "a broken connection" if broken else "no connection"
