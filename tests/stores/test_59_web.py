"""Published cubes read from a web server, by people who have nothing but its address."""

from __future__ import annotations

import contextlib
import re
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

import bperp
from bperp.pipeline.stage import ArraySpec, Block, Template
from bperp.stores.cube import CubeStore
from bperp.stores.errors import BperpError, SecurityError, StorageError

PRODUCT = "results/series"
VALUES = np.random.default_rng(5).normal(size=(11, 13, 7)).astype(np.float32)


class RangeHandler(SimpleHTTPRequestHandler):
    """A file server that knows ranges, as all servers of files do but that of Python."""

    def do_GET(self) -> None:
        path = Path(self.translate_path(self.path))
        if not path.is_file():
            self.send_error(404)
            return
        data, status = path.read_bytes(), 200
        if asked := re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range", "")):
            first, last = asked.groups()
            start = int(first) if first else max(0, len(data) - int(last))
            stop = int(last) + 1 if first and last else len(data)
            data, status = data[start:stop], 206
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("Accept-Ranges", "bytes")
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass


@contextlib.contextmanager
def served(folder: Path) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(RangeHandler, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def cube(tmp_path: Path) -> CubeStore:
    spec = ArraySpec(
        "displacement",
        ("date", "y", "x"),
        VALUES.shape,
        (8, 4, 4),
        "float32",
        float("nan"),
        {"units": "m"},
        shards=(16, 16, 8),
    )
    time = {"units": "days since 1970-01-01", "calendar": "proleptic_gregorian"}
    store = CubeStore(str(tmp_path / "run"))
    store.create(Template(PRODUCT, (spec,), {"date": (("date",), np.arange(11) + 19000, time)}))
    store.write_block(Block(PRODUCT, "displacement", (0, 0, 0), VALUES))
    store.seal(PRODUCT, "content")
    return store


def test_a_cube_on_a_web_server_opens_by_its_address(cube: CubeStore) -> None:
    with served(Path(cube.root)) as address:
        found = bperp.open(f"{address}/{PRODUCT}")[PRODUCT]
        np.testing.assert_array_equal(found.displacement.values, VALUES)
        assert str(found.date.values[0])[:10] == "2022-01-08"


def test_damage_is_noticed_over_the_web_too(cube: CubeStore) -> None:
    chunk = Path(cube.root, PRODUCT, "displacement/c/0/0/0")
    data = bytearray(chunk.read_bytes())
    data[40] ^= 1
    chunk.write_bytes(bytes(data))
    with served(Path(cube.root)) as address, pytest.raises(StorageError, match="R803"):
        bperp.open(f"{address}/{PRODUCT}")[PRODUCT].displacement.load()
    chunk.unlink()
    with served(Path(cube.root)) as address, pytest.raises(StorageError, match="R802"):
        bperp.open(f"{address}/{PRODUCT}")[PRODUCT].displacement.load()


def test_nothing_there_is_one_line(cube: CubeStore) -> None:
    with served(Path(cube.root)) as address, pytest.raises(BperpError):
        bperp.open(f"{address}/elsewhere")


@pytest.mark.parametrize(
    ("url", "code"),
    [("http://example.org/cube", "X909"), ("https://me:secret@example.org/cube", "X907"),
     ("https://example.org/cube?signature=secret", "X907")],
)  # fmt: skip
def test_addresses_that_are_not_safe_are_refused(url: str, code: str) -> None:
    with pytest.raises(SecurityError, match=code) as caught:
        bperp.open(url)
    assert "secret" not in str(caught.value)
