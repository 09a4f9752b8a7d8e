"""A Prefect server for the time of one command, and the settings that Prefect needs.

Prefect's own temporary server writes its shutdown tracebacks to our terminal although the flow
succeeded, and outlives a killed program. This one logs to a file in its own folder, listens on
this machine only, and ends with the program. Nothing here imports Prefect: its settings are read
from the environment when it is imported.
"""

from __future__ import annotations

import contextlib
import os
import runpy
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from bperp.stores.errors import StorageError

_ATTEMPTS = 3


def prepare_environment() -> None:
    """Give Prefect settings that work on a small, offline machine, unless the user chose others.

    A first start on two busy cores takes a minute, mostly imports and database migrations.
    """
    os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "300")
    os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
    os.environ.setdefault("DO_NOT_TRACK", "1")


def has_profile() -> bool:
    """Tell whether the user has a Prefect profile or server of their own."""
    home = Path(os.environ.get("PREFECT_HOME", "~/.prefect")).expanduser()
    return "PREFECT_API_URL" in os.environ or (home / "profiles.toml").exists()


@contextlib.contextmanager
def temporary_server() -> Iterator[str]:
    """Run a Prefect server on a free port of this machine.

    Yields
    ------
    str
        Address of its API.

    Raises
    ------
    StorageError
        R815 when it does not start; the message holds the last line of its log.
    """
    prepare_environment()
    with tempfile.TemporaryDirectory(prefix="bperp-prefect-", ignore_cleanup_errors=True) as home:
        log = Path(home) / "server.log"
        process, url = _start_any(home, log)
        try:
            yield url
        finally:
            # The pipe, not a signal: the server ends at once and has no time for tracebacks.
            with contextlib.suppress(OSError):
                process.communicate(timeout=10)
            process.kill()
            process.wait()


def _start_any(home: str, log: Path) -> tuple[subprocess.Popen[bytes], str]:
    for _ in range(_ATTEMPTS):
        port = _free_port()
        process = _start(home, log, port)
        if _wait_until_healthy(process, port):
            return process, f"http://127.0.0.1:{port}/api"
        process.kill()
        process.communicate()
    lines = log.read_text(errors="replace").strip().splitlines() or ["no log"]
    raise StorageError(
        "R815",
        "the Prefect server did not start",
        where="--engine prefect",
        found=lines[-1][:200],
        remedy="use --engine local, or set PREFECT_API_URL to a running server",
    )


def _start(home: str, log: Path, port: int) -> subprocess.Popen[bytes]:
    with log.open("ab") as stream:
        return subprocess.Popen(  # noqa: S603 (our own module, no shell)
            [sys.executable, "-m", "bperp.flows.prefect_server", str(port)],
            stdin=subprocess.PIPE,
            stdout=stream,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PREFECT_HOME": home},
            start_new_session=True,
        )


def _wait_until_healthy(process: subprocess.Popen[bytes], port: int) -> bool:
    limit = float(os.environ["PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS"])
    deadline = time.monotonic() + limit
    while process.poll() is None and time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/health", timeout=5) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    return False


def _free_port() -> int:
    with contextlib.closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _end_with_parent() -> None:
    sys.stdin.buffer.read()
    os._exit(0)


def main(port: str) -> None:
    """Serve until standard input closes, which it does when the parent ends in whatever way."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    sys.argv = ["prefect", "server", "start", "--host", "127.0.0.1", "--port", port, "--no-ui"]
    runpy.run_module("prefect", run_name="__main__")


if __name__ == "__main__":
    main(sys.argv[1])
