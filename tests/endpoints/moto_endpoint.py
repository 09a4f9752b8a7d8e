"""A real S3 endpoint on this machine: ``moto`` in a process of its own.

How to use it from a test: ``tests/conftest.py`` puts this folder on ``sys.path``, so in any test
file, in any folder, both of these work:

* the fixture ``s3``: one server per test session, a fresh bucket per test, the environment set
  for the test (and for processes it starts) and restored afterwards; ``s3.root`` is the URL
  ``s3://bucket``;
* ``from moto_endpoint import moto_endpoint`` and ``with moto_endpoint() as server:`` for a server
  of one's own; the environment of this process is set inside the block.

Processes started by a test find the server through the environment. Programs that lie outside
``tests`` and want the module itself add this folder to ``PYTHONPATH``.

The server ends with the process that started it, however that one ends: it reads its standard
input, which then closes.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

KEY, SECRET, REGION = "AKIAFAKEBPERPTEST0001", "fake/secret+bperp-test-do-not-show", "eu-central-1"

# What a user's own machine may hold and a test must not see. Left out of the environment.
FOREIGN = ("AWS_PROFILE", "AWS_DEFAULT_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL_S3")


@dataclass(frozen=True)
class Endpoint:
    """A running endpoint with one bucket."""

    url: str
    bucket: str

    @property
    def root(self) -> str:
        """Root for bperp, fsspec and Zarr."""
        return f"s3://{self.bucket}"

    @property
    def environment(self) -> dict[str, str]:
        """What a user would export, and nothing more, apart from files of this machine's user."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    @contextlib.contextmanager
    def session(self) -> Iterator[Any]:
        """Open a boto3 client that looks at the endpoint from outside bperp."""
        import boto3

        client = boto3.client(
            "s3",
            endpoint_url=self.url,
            region_name=REGION,
            aws_access_key_id=KEY,
            aws_secret_access_key=SECRET,
        )
        with contextlib.closing(client):
            yield client

    def with_bucket(self, name: str | None = None) -> Endpoint:
        """Create another bucket and return the endpoint with it."""
        bucket = name or f"bperp-{uuid.uuid4().hex[:12]}"
        where = {"LocationConstraint": REGION}
        with self.session() as client:
            client.create_bucket(Bucket=bucket, CreateBucketConfiguration=where)
        return Endpoint(self.url, bucket)

    def through(self, url: str) -> Endpoint:
        """Return the same bucket behind another address, such as that of a fault proxy."""
        return Endpoint(url, self.bucket)


@contextlib.contextmanager
def moto_endpoint() -> Iterator[Endpoint]:
    """Start a server, create a bucket, set the environment; undo all of it at the end."""
    with serve() as url:
        endpoint = Endpoint(url, "").with_bucket()
        with exported(endpoint.environment):
            yield endpoint


@contextlib.contextmanager
def serve() -> Iterator[str]:
    """Start a server on a free port of the loopback interface and yield its address."""
    process = subprocess.Popen(
        [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        # The line is printed once the socket listens: from then on requests wait, none is refused.
        url = process.stdout.readline().strip()
        if not url:
            raise RuntimeError(f"moto did not start: exit code {process.wait(10)}")
        yield url
    finally:
        process.stdin.close()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()


@contextlib.contextmanager
def exported(variables: Mapping[str, str]) -> Iterator[None]:
    """Set variables, drop those of the machine's user, forget clients of other endpoints."""
    names = {*variables, *FOREIGN}
    before = {name: os.environ.get(name) for name in names}
    for name in FOREIGN:
        os.environ.pop(name, None)
    os.environ.update(variables)
    forget_clients()
    try:
        yield
    finally:
        forget_clients()
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def forget_clients() -> None:
    """Drop the file systems that fsspec keeps: their clients remember the old endpoint."""
    if "s3fs" in sys.modules:
        sys.modules["s3fs"].S3FileSystem.clear_instance_cache()


def main() -> None:
    """Serve until standard input closes."""
    import logging
    import threading

    from moto.server import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import WSGIRequestHandler, make_server

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    # Without connections that stay open every request pays for a new one, as with no real store.
    WSGIRequestHandler.protocol_version = "HTTP/1.1"
    application = DomainDispatcherApplication(create_backend_app)
    server = make_server("127.0.0.1", 0, application, threaded=True)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(f"http://127.0.0.1:{server.server_port}", flush=True)
    sys.stdin.read()
    os._exit(0)


if __name__ == "__main__":
    main()
