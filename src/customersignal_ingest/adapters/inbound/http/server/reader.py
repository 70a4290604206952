"""Requests out of bytes, by Node's parser, with a bound to what is read for nothing."""

from typing import Protocol
from urllib.parse import unquote

import httptools

from customersignal_ingest.adapters.inbound.http.asgi import Scope
from customersignal_ingest.adapters.inbound.http.guard import HEADERS_BYTES_MAX, HEADERS_MAX, REFUSED
from customersignal_ingest.adapters.inbound.http.problem import Code, Problem
from customersignal_ingest.adapters.inbound.http.server.again import Head, head_of
from customersignal_ingest.adapters.inbound.http.server.request import Request

# A request's first line comes on top of its headers.
HEAD_BYTES_MAX = HEADERS_BYTES_MAX + 16 * 1024
LEARNED_MAX = 8
"""So many heads of a connection are learned at most, in case that they come again."""

_SCOPE: Scope = {
    "type": "http",
    "asgi": {"version": "3.0", "spec_version": "2.4"},
    "http_version": "1.1",
    "method": "",
    "scheme": "http",
    "path": "",
    "raw_path": b"",
    "query_string": b"",
    "root_path": "",
    "headers": [],
}


class Begin(Protocol):
    """Makes a request of a head, for its body to be fed to."""

    def __call__(self, scope: Scope, /, *, close: bool) -> Request:
        """Make it; `close` says that it is the last one of its connection."""
        ...


class Reader:
    """Reads the requests of one connection, each from the moment that its head is there.

    `in_head` tells that a request has begun of which that is not so yet, `request` is the one whose
    body is being read.
    """

    __slots__ = (
        *("in_head", "request"),
        *("_before", "_begin", "_data", "_headers", "_heads", "_known", "_parser", "_scope", "_unused_bytes", "_url"),
    )

    def __init__(self, begin: Begin) -> None:
        """Nothing has come yet."""
        self.in_head = False
        self.request: Request | None = None
        self._begin = begin
        self._headers: list[tuple[bytes, bytes]] = []
        self._url = b""
        self._unused_bytes = 0
        self._known: Head | None = None
        self._heads = 0
        self._scope: Scope = {}  # What the last head says that the parser read of these data, if it may come again.
        # What is being read, and what came of the same head before it.
        self._data: bytes | memoryview = b""
        self._before = bytearray()
        self._parser = httptools.HttpRequestParser(self)

    def feed(self, data: bytes | memoryview) -> None:
        """Read on; raises `Problem` for what can't be read, behind which nothing can be."""
        between, heads = self._is_between, self._heads
        known = self._known.request(bytes(data)) if between and self._known is not None else None
        if known is not None:
            self._take(*known)
            return
        self._parse(data)
        came_whole = between and self._is_between and self._heads == heads + 1
        # Nothing is learned of who has one request only, and not for ever of who says something new each time.
        if came_whole and self._scope and 1 < self._heads <= LEARNED_MAX:
            self._known = head_of(bytes(data), self._scope)
        self._scope = {}

    @property
    def _is_between(self) -> bool:
        return not self.in_head and self.request is None

    def _take(self, scope: Scope, body: bytes) -> None:
        self._unused_bytes = 0
        request = self._begin(scope, close=False)
        request.feed(body)
        request.end()

    def _parse(self, data: bytes | memoryview) -> None:
        self._unused_bytes += len(data)
        while data:
            data = self._read(data)
        if self._unused_bytes > HEAD_BYTES_MAX:
            details = {"limit": "headers_bytes_max", "value": HEADERS_BYTES_MAX}
            raise Problem(Code.HEADERS_TOO_LARGE, details=details, close=True)

    def _read(self, data: bytes | memoryview) -> bytes:
        """Return what is to be read again."""
        self._data = data
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            return self._without_upgrade() + bytes(data[upgrade.args[0] :])
        except httptools.HttpParserCallbackError:
            raise  # A bug of ours.
        except httptools.HttpParserInvalidMethodError:
            raise unreadable("the method is none that HTTP has, or this is not HTTP") from None
        except httptools.HttpParserError:
            raise unreadable("the request is not HTTP/1.1, or could be read in two ways") from None
        if self.in_head:
            self._before += data
        else:
            self._before.clear()
        return b""

    def _without_upgrade(self) -> bytes:
        """Return the head without its wish for another protocol: Java's client has it in every first request."""
        if self._parser.get_method() == b"CONNECT":
            raise unreadable("this is no proxy")
        line = self._first_line(self._parser.get_method(), self._parser.get_http_version())
        headers = [b"%s: %s\r\n" % header for header in self._headers if header[0] != b"upgrade"]
        self._parser = httptools.HttpRequestParser(self)
        self._before.clear()
        return b"%s%s\r\n" % (line, b"".join(headers))

    def _first_line(self, method: bytes, version: str) -> bytes:
        """Return it; raises `Problem` where it came otherwise: the parser takes RTSP for HTTP, and any blanks."""
        line = b"%s %s HTTP/%s\r\n" % (method, self._url, version.encode())
        # Nearly always nothing is before it; then nothing needs to be copied.
        if (self._before or self._data[: len(line)] != line) and line not in self._before + self._data:
            raise unreadable("the first line is not that of an HTTP request")
        return line

    def stop(self) -> None:
        """Let go of the parser, and of the request, which hold the reader, or its connection, as they are held."""
        del self._parser, self._begin
        self.request = None

    # What the parser calls.

    def on_message_begin(self) -> None:
        """A request begins."""
        self.in_head, self._url, self._headers = True, b"", []

    def on_url(self, url: bytes) -> None:
        """Take the target, or a part of it."""
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header, but no trailer, nor more headers than it takes to refuse them."""
        if self.in_head and len(self._headers) <= HEADERS_MAX:
            self._headers.append((name.lower(), value.rstrip(b" \t")))  # The parser leaves blanks behind.

    def on_headers_complete(self) -> None:
        """The head is whole."""
        parser = self._parser
        if parser.should_upgrade():
            return
        self.in_head = False
        method, version = parser.get_method(), parser.get_http_version()
        scope = {**_SCOPE, "http_version": version, "method": method.decode(), "headers": self._headers}
        try:
            self._first_line(method, version)
            _set_target(scope, self._url)
        except Problem as problem:
            scope[REFUSED] = problem
        self._heads += 1
        # HTTP/1.0 has no way to go on that everybody agrees upon.
        close = version != "1.1" or not parser.should_keep_alive()
        self._scope = {} if close else scope.copy()  # The app may put into its own what it likes.
        self.request = self._begin(scope, close=close)

    def on_body(self, body: bytes) -> None:
        """Hand on a piece of the body."""
        self._unused_bytes = 0
        if self.request is not None:
            self.request.feed(body)

    def on_message_complete(self) -> None:
        """The request is whole."""
        if self.request is not None:
            request, self.request = self.request, None
            self._headers = []  # No key stays here when its request is whole.
            self._unused_bytes = 0
            request.end()


def unreadable(message: str) -> Problem:
    """Return the problem of what can't be read, or not in one way only."""
    return Problem(Code.INVALID_REQUEST, message, close=True)


def refused(flaw: Exception) -> Scope:
    """Return the scope of a request that can't be read, for the app to answer like any other."""
    return {**_SCOPE, "headers": [], REFUSED: flaw}


def _set_target(scope: Scope, target: bytes) -> None:
    """Take path and query from the target; raises `Problem` for one that names another host than the header."""
    if target[:1] != b"/" and b"://" in target:
        scheme, _, rest = target.partition(b"://")
        host, slash, target = rest.partition(b"/")
        target = slash + target
        if scheme.lower() not in (b"http", b"https") or host.lower() != _host(scope).lower():
            raise unreadable("the target and the header host name different hosts")
    path, _, scope["query_string"] = target.partition(b"?")
    scope["raw_path"] = path
    decoded = path.decode("latin-1")
    scope["path"] = unquote(decoded) if "%" in decoded else decoded


def _host(scope: Scope) -> bytes:
    return next((value for name, value in scope["headers"] if name == b"host"), b"")
