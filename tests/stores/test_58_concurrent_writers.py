"""Several processes write into one array: nothing is lost, or the write is refused."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from bperp.pipeline.stage import ArraySpec, Block, Template
from bperp.stores.cube import CubeStore
from bperp.stores.errors import StorageError

PRODUCT, SHAPE, CHUNKS = "scene/x", (2, 64, 96), (1, 16, 32)
SPEC = ArraySpec("x", ("date", "azimuth", "range"), SHAPE, CHUNKS, "int32", -1)
WRITERS = 4

WRITE = """if True:
    import sys
    import numpy as np
    from bperp.pipeline.stage import Block
    from bperp.stores.cube import CubeStore

    root, writer, writers = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    store = CubeStore(root)
    store.array("scene/x", "x")
    print("ready", flush=True)
    sys.stdin.readline()
    columns = np.arange(96)
    for step in range(8):
        date, row = step // 4, step % 4
        line = np.arange(16 * row, 16 * row + 16)
        # Each writer has every fourth row of chunks; all of them are at work in the same array.
        if step % writers == writer:
            data = 10_000 * date + 100 * line[:, None] + columns
            store.write_block(Block("scene/x", "x", (date, 16 * row, 0), data[None].astype("i4")))
    print("done")
"""

RECORD = """if True:
    import sys
    from bperp.stores.blocks import BlockRecord
    from bperp.stores.errors import StorageError
    from bperp.stores.objects import open_objects
    from bperp.stores.receipts import Ledger, Receipt

    root, writer, kind = sys.argv[1], sys.argv[2], sys.argv[3]
    digest = (writer if kind == "different" else "a") * 64
    block = BlockRecord("scene/x", "x", (0, 0, 0), (1, 16, 32), digest, 512)
    receipt = Receipt("f" * 64, "ingest", "1", "t/1", {}, "0" * 64, (block,), {}, host=writer)
    ledger = Ledger(open_objects(root))
    ledger.recorded("ingest")
    print("ready", flush=True)
    sys.stdin.readline()
    try:
        print(ledger.record(receipt).blocks[0].sha256[0])
    except StorageError as error:
        print(error.code)
"""


def together(program: str, arguments: Sequence[Sequence[str]]) -> list[str]:
    """Start processes that have imported everything, let them go at once, return what they say."""
    pipe = subprocess.PIPE
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", program, *words], stdin=pipe, stdout=pipe, text=True
        )
        for words in arguments
    ]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    return [process.communicate(timeout=60)[0].strip() for process in processes]


@pytest.fixture(params=["local", pytest.param("s3", marks=pytest.mark.slow)])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path) if request.param == "local" else request.getfixturevalue("s3").root


def expected() -> np.ndarray:
    date, line, sample = np.ogrid[:2, :64, :96]
    return (10_000 * date + 100 * line + sample).astype(np.int32)


def test_writers_of_whole_chunks_lose_nothing(root):
    CubeStore(root).create(Template(PRODUCT, (SPEC,)))
    arguments = [(root, str(number), str(WRITERS)) for number in range(WRITERS)]
    assert together(WRITE, arguments) == ["done"] * WRITERS
    # Looked at from outside as well: every chunk is there, none is half written.
    store = CubeStore(root)
    chunks = [name for name in store.objects.names(PRODUCT) if "/c/" in name]
    assert len(chunks) == 2 * 4 * 3
    lost = np.count_nonzero(store.read(PRODUCT, "x") != expected())
    assert lost == 0


def test_writers_of_the_same_chunks_agree(root):
    """A task that two workers got (one was thought dead) is written twice, whole each time."""
    CubeStore(root).create(Template(PRODUCT, (SPEC,)))
    arguments = [(root, "0", "1")] * WRITERS
    assert together(WRITE, arguments) == ["done"] * WRITERS
    np.testing.assert_array_equal(CubeStore(root).read(PRODUCT, "x"), expected())


@pytest.mark.parametrize(
    ("origin", "shape"),
    [
        ((0, 8, 0), (1, 16, 96)),  # two writers would share a chunk
        ((0, 0, 0), (1, 8, 96)),
        ((0, 0, 16), (1, 16, 32)),
        ((0, 0, 0), (1, 16, 90)),
        ((0, 48, 0), (1, 32, 96)),  # beyond the edge
        ((2, 0, 0), (1, 16, 96)),
    ],
)
def test_a_block_that_is_not_whole_chunks_is_refused_and_nothing_is_written(root, origin, shape):
    store = CubeStore(root)
    store.create(Template(PRODUCT, (SPEC,)))
    store.write_block(Block(PRODUCT, "x", (0, 0, 0), expected()[:1, :16]))
    before = digests(store)
    block = Block(PRODUCT, "x", origin, np.zeros(shape, np.int32))
    with pytest.raises(StorageError, match=r"R809 scene/x/x"):
        CubeStore(root).write_block(block)
    assert digests(store) == before


def digests(store: CubeStore) -> dict[str, str]:
    read: Callable[[str], bytes] = lambda name: store.objects.read(name) or b""  # noqa: E731
    return {name: hashlib.sha256(read(name)).hexdigest() for name in store.objects.names("")}


def test_of_different_results_for_one_task_the_first_counts_and_the_others_are_faults(root):
    said = together(RECORD, [(root, digit, "different") for digit in "abcd"])
    assert sorted(said)[:3] == ["R812"] * 3
    (winner,) = [word for word in said if word != "R812"]
    (kept,) = CubeStore(root).objects.names("receipts")
    assert f'"{winner * 64}"' in (CubeStore(root).objects.read(kept) or b"").decode()


def test_equal_results_for_one_task_are_recorded_once(root):
    assert together(RECORD, [(root, digit, "equal") for digit in "abcd"]) == ["a"] * 4
    assert len(CubeStore(root).objects.names("receipts")) == 1
