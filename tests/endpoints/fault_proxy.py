"""A proxy in front of an S3 endpoint that does to requests what networks and services do.

``from fault_proxy import fault_proxy`` (see ``moto_endpoint.py`` for why this works)::

    with fault_proxy(s3.url, slow_down=0.3, reset=0.1) as proxy:
        with exported(s3.through(proxy.url).environment):
            ...
            proxy.rates = Rates(truncate=0.1)
            proxy.down = True

Whether a request suffers is decided by seed, method, address (without the name of the bucket and
other random parts) and the how-many-eth request to that address it is: the order in which threads
and processes come does not matter.
"""

from __future__ import annotations

import contextlib
import http.client
import random
import re
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

_HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length", "date", "server"}

_OTHER_TAG = '"00000000000000000000000000000000"'


@dataclass(frozen=True)
class Rates:
    """Share of the requests, 0 to 1, that suffer from each fault; at most one fault per request."""

    slow_down: float = 0.0
    """503 SlowDown, not passed on."""
    reset: float = 0.0
    """The connection is reset, nothing is passed on."""
    lost_answer: float = 0.0
    """The request is passed on and carried out, the connection reset instead of an answer."""
    truncate: float = 0.0
    """Bodies of GET end half-way, though ``Content-Length`` promises all."""
    flip: float = 0.0
    """One bit of the body of GET is another one."""
    wrong_etag: float = 0.0
    """The answer bears an ETag of something else."""
    delay: float = 0.0
    """The answer takes ``delay_s`` longer."""


class FaultProxy:
    """What a test can turn while requests come in, and what it can count.

    Attributes
    ----------
    rates : Rates
        Random faults.
    down : bool
        Every connection is reset.
    denied : tuple of (int, str), optional
        Status and code of the error that every request gets, such as ``(403, "ExpiredToken")``.
    hide_s, hidden : float, str
        How long new keys stay out of listings, and a regular expression of these keys.
    only : str
        Regular expression of the requests that suffer, as ``PUT /bucket/key``; default all.
    left : int, optional
        How many more random faults there will be; the default is without end.
    requests : list of (method, address, status)
        All that came; status 0 is a reset.
    flipped : int
        How many bits were flipped.
    """

    def __init__(self, upstream: str, seed: int, rates: Rates) -> None:
        self.upstream, self.seed, self.rates = urlsplit(upstream), seed, rates
        self.down, self.denied, self.hide_s, self.delay_s = False, None, 0.0, 0.5
        self.only, self.hidden, self.url, self.left = "", "", "", None
        self.requests: list[tuple[str, str, int]] = []
        self.flipped = 0
        self.random = random.Random(seed)
        self._seen: Counter[tuple[str, str]] = Counter()
        self._written: dict[str, float] = {}
        self._lock = threading.Lock()

    def count(self, method: str = "", address: str = "", status: int | None = None) -> int:
        """Return how many requests of a method, address (a pattern) and status came."""
        return sum(
            method in {"", made} and status in {None, told} and bool(re.search(address, path))
            for made, path, told in list(self.requests)
        )

    def fault(self, method: str, address: str) -> str:
        """Return the name of the fault that this request suffers, empty for none."""
        # Names that differ from run to run (buckets, tokens) take no part in the decision.
        place = re.sub(r"[0-9a-f]{12,}", "#", address)
        with self._lock:
            self._seen[method, place] += 1
            nth = self._seen[method, place]
        if self.only and not re.search(self.only, f"{method} {address}"):
            return ""
        if self.down:
            return "reset"
        if self.denied:
            return "denied"
        draw = random.Random(f"{self.seed} {method} {place} {nth}").random()
        for name, rate in vars(self.rates).items():
            if draw < rate:
                return name if self._is_left() else ""
            draw -= rate
        return ""

    def _is_left(self) -> bool:
        with self._lock:
            if self.left is not None:
                self.left -= 1
            return self.left is None or self.left >= 0

    def note(self, method: str, address: str, status: int) -> None:
        """Remember a request and, if it wrote a key, when."""
        with self._lock:
            self.requests.append((method, address, status))
            if method == "PUT" and status == 200:
                self._written.setdefault(unquote(address).split("/", 2)[-1], time.monotonic())

    def without_fresh(self, listing: bytes) -> bytes:
        """Leave keys that were first written less than ``hide_s`` ago out of a listing."""
        now = time.monotonic()
        with self._lock:
            fresh = {key for key, since in self._written.items() if now - since < self.hide_s}

        def shown(entry: re.Match[bytes]) -> bytes:
            key = unquote(entry[1].decode())
            return b"" if key in fresh and re.search(self.hidden, key) else entry[0]

        entry = rb"<Contents>\s*<Key>(.*?)</Key>.*?</Contents>"
        return re.sub(entry, shown, listing, flags=re.DOTALL)


@contextlib.contextmanager
def fault_proxy(upstream: str, seed: int = 0, **rates: float) -> Iterator[FaultProxy]:
    """Run a proxy in threads of this process; yields it with its address in ``url``."""
    proxy = FaultProxy(upstream, seed, replace(Rates(), **rates))
    handler = type("Handler", (_Handler,), {"proxy": proxy})
    server = _Server(("127.0.0.1", 0), handler)
    proxy.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: connections end abruptly here on purpose."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    proxy: FaultProxy

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        pass

    def handle_any(self) -> None:
        body = self._body()
        fault = self.proxy.fault(self.command, self.path)
        if fault == "slow_down":
            self._refuse(503, "SlowDown")
        elif fault == "denied":
            self._refuse(*self.proxy.denied)
        elif fault == "reset":
            self._reset()
        else:
            status, headers, answer = self._forward(body)
            if fault == "delay":
                time.sleep(self.proxy.delay_s)
            if fault == "lost_answer":
                self._reset()
            else:
                self._answer(status, headers, answer, fault)

    do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = handle_any  # noqa: N815

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        parts = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _forward(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        upstream = self.proxy.upstream
        kept = {k: v for k, v in self.headers.items() if k.lower() not in _HOP_BY_HOP | {"expect"}}
        connection = http.client.HTTPConnection(upstream.hostname, upstream.port, timeout=60)
        with contextlib.closing(connection):
            connection.request(self.command, self.path, body, kept)
            response = connection.getresponse()
            answer = response.read()
        if self.proxy.hide_s and self.command == "GET" and "list-type=2" in self.path:
            answer = self.proxy.without_fresh(answer)
        return response.status, response.getheaders(), answer

    def _answer(self, status: int, headers: list[tuple[str, str]], body: bytes, fault: str) -> None:
        self.proxy.note(self.command, self.path, status)
        data = self.command == "GET" and status in {200, 206} and len(body) > 1
        if fault == "flip" and data:
            self.proxy.flipped += 1
            place = self.proxy.random.randrange(len(body))
            body = body[:place] + bytes([body[place] ^ 1]) + body[place + 1 :]
        kept = {name: value for name, value in headers if name.lower() not in _HOP_BY_HOP}
        if fault == "wrong_etag":
            kept |= {name: _OTHER_TAG for name in kept if name.lower() == "etag"}
        length = {name.lower(): value for name, value in headers}.get("content-length")
        promised = length if self.command == "HEAD" and length else str(len(body))
        self.send_response(status)
        for name, value in {**kept, "Content-Length": promised}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        cut = fault == "truncate" and data
        self.wfile.write(body[: len(body) // 2] if cut else body)
        if cut:
            self.wfile.flush()
            self.close_connection = True

    def _refuse(self, status: int, code: str) -> None:
        # AWS repeats in some refusals what it was sent: nothing of it may reach a message.
        sent = "".join(
            f"<{name}>{self.headers.get(header, '')}</{name}>"
            for name, header in (
                ("AWSAccessKeyId", "Authorization"),
                ("StringToSign", "Authorization"),
                ("Token-0", "x-amz-security-token"),
            )
        )
        text = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>no</Message>{sent}</Error>"
        self._answer(status, [("Content-Type", "application/xml")], text.encode(), "")

    def _reset(self) -> None:
        self.proxy.note(self.command, self.path, 0)
        # Closing with this option set sends RST instead of an orderly end.
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True
        self.connection.close()
