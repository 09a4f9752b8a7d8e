"""Stores that look like S3 and are not fit for it: a proxy in front of a good one, with one flaw.

``with lenient_endpoint(s3.url, "ignores If-None-Match") as url: ...``
"""

from __future__ import annotations

import contextlib
import http.client
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

FLAWS = (
    "ignores If-None-Match",
    "gives the beginning for the end",
    "ignores ranges",
    "shows old objects",
    "lists nothing",
)


@contextlib.contextmanager
def lenient_endpoint(upstream: str, flaw: str) -> Iterator[str]:
    """Run a flawed endpoint in threads of this process and yield its address."""
    if flaw not in FLAWS:
        raise ValueError(f"flaw must be one of {FLAWS}, instead got {flaw!r}")
    handler = type(
        "Handler", (_Handler,), {"upstream": urlsplit(upstream), "flaw": flaw, "old": {}}
    )
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    upstream: Any
    flaw: str
    old: dict[str, tuple[list[tuple[str, str]], bytes]]

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        pass

    def handle_any(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        headers = {name.lower(): value for name, value in self.headers.items()}
        headers.pop("connection", None)
        self._spoil_request(headers)
        connection = http.client.HTTPConnection(self.upstream.hostname, self.upstream.port)
        with contextlib.closing(connection):
            connection.request(self.command, self.path, body, headers)
            response = connection.getresponse()
            told, answer = response.getheaders(), response.read()
        if self.command == "GET" and response.status in {200, 206}:
            told, answer = self._spoil_answer(told, answer, headers)
        self.send_response(response.status)
        for name, value in told:
            if name.lower() not in {"connection", "content-length", "server", "date"}:
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = handle_any  # noqa: N815

    def _spoil_request(self, headers: dict[str, str]) -> None:
        if self.flaw == "ignores If-None-Match":
            headers.pop("if-none-match", None)
        if self.flaw == "ignores ranges":
            headers.pop("range", None)
        if self.flaw == "gives the beginning for the end" and "range" in headers:
            headers["range"] = re.sub(r"=-(\d+)$", r"=0-\1", headers["range"])

    def _spoil_answer(
        self, told: list[tuple[str, str]], answer: bytes, headers: dict[str, str]
    ) -> tuple[list[tuple[str, str]], bytes]:
        if self.flaw == "shows old objects" and "list-type" not in self.path:
            return self.old.setdefault(self.path + headers.get("range", ""), (told, answer))
        if self.flaw == "lists nothing":
            return told, re.sub(rb"<Contents>.*</Contents>", b"", answer, flags=re.DOTALL)
        return told, answer
