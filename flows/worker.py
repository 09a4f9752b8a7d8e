"""What runs in a worker process: one task, from its inputs to its receipt.

Only text crosses the process border (import path, JSON parameters, root), never stores, closures or
arrays: Zarr stores defined in ``__main__`` do not pickle, and arrays would fill the scheduler.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import json
import os
import platform
import resource
import socket
import time
import traceback
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from bperp.pipeline.stage import Computation, Region, Stage, Summary
from bperp.stores.blocks import BlockRecord
from bperp.stores.canonical import canonical_json, digest, plain
from bperp.stores.cube import CubeStore
from bperp.stores.errors import BperpError, NetworkError, StorageError
from bperp.stores.locks import read_owner
from bperp.stores.receipts import Ledger, Receipt

if TYPE_CHECKING:
    from bperp.stores.measurement import MeasurementReader


# Parameters of mallopt(3).
_MALLOC_TRIM_THRESHOLD, _MALLOC_MMAP_THRESHOLD = -1, -3


@dataclass(frozen=True)
class ElevationSettings:
    """Where heights come from; see ``bperp.stores.elevation``.

    ``absent`` tells what stands where no tile lies: ``mask`` (NaN, the stage decides) or ``sea``.
    """

    url: str
    vertical_datum: str
    geoid: str | None = None
    absent: Literal["mask", "sea"] = "mask"


@dataclass(frozen=True)
class RunSite:
    """Where the tasks of one run read and write: the same for all of them.

    ``token`` is that of the run lock; a worker left over from another run stops when it finds
    another one there. An empty token is not checked.
    """

    root: str
    storage_options: Mapping[str, Any] = field(default_factory=dict)
    elevation: ElevationSettings | None = None
    token: str = ""

    def as_json(self) -> str:
        """Return the text that ``from_json`` restores."""
        return canonical_json(asdict(self)).decode()

    @classmethod
    def from_json(cls, text: str) -> RunSite:
        """Restore a site in a worker."""
        fields = json.loads(text)
        if fields["elevation"] is not None:
            fields["elevation"] = ElevationSettings(**fields["elevation"])
        return cls(**fields)


@dataclass(frozen=True)
class TaskOrder:
    """One planned task with everything that a worker needs to do it.

    ``path`` is the import path ``module:ATTRIBUTE`` of the stage, ``inputs`` maps ``"stage/key"``
    to ids, ``readable`` lists the finished products that the task may read, ``outputs`` those that
    it may write.
    """

    id: str
    path: str
    stage: str
    version: str
    key: str
    parameters: Mapping[str, Any]
    inputs: Mapping[str, str]
    readable: tuple[str, ...]
    outputs: tuple[str, ...]
    memory_bytes: int
    pixels: int = 0
    batch: str = ""

    @property
    def name(self) -> str:
        """``stage/key``."""
        return f"{self.stage}/{self.key}"

    def as_json(self) -> str:
        """Return the text that ``from_json`` restores."""
        return canonical_json(asdict(self)).decode()

    @classmethod
    def from_json(cls, text: str) -> TaskOrder:
        """Restore an order in a worker."""
        fields = json.loads(text)
        fields["readable"], fields["outputs"] = tuple(fields["readable"]), tuple(fields["outputs"])
        return cls(**fields)


@dataclass(frozen=True)
class TaskResult:
    """The small answer of a worker; the receipt in the store holds the rest."""

    stage: str
    key: str
    id: str
    seconds: float
    bytes_written: int
    pixels: int
    peak_rss_bytes: int
    host: str
    pid: int


class TaskFailedError(RuntimeError):
    """A fault in the program, not in data or machine, with the task it happened in.

    ``transient`` tells whether trying again is worthwhile; ``details`` is the worker's traceback.
    """

    def __init__(self, task: str, cause: str, details: str, *, transient: bool = False) -> None:
        super().__init__(f"{task}: {cause}")
        self.task, self.cause, self.details, self.transient = task, cause, details, transient

    def __reduce__(self) -> tuple[Any, ...]:
        return (_rebuild_failure, (self.task, self.cause, self.details, self.transient))


class TaskSource:
    """The ``Source`` of a running task.

    Parameters
    ----------
    store : CubeStore
        Where the products lie.
    readable : frozenset of str
        Products of finished stages that the task declared as inputs.
    elevation : ElevationSettings, optional
        Where heights come from.
    """

    def __init__(
        self,
        store: CubeStore,
        readable: frozenset[str],
        elevation: ElevationSettings | None = None,
    ) -> None:
        self.store, self.readable, self.elevation_settings = store, readable, elevation
        self._measurement: tuple[tuple[str, str], MeasurementReader] | None = None

    def read(self, product: str, variable: str, region: Region) -> NDArray[Any]:
        """Return a window of a finished product that the task declared as an input.

        Raises
        ------
        StorageError
            R801 for any other product, R802 or R803 for missing or damaged chunks.
        """
        if product not in self.readable:
            raise StorageError(
                "R801",
                "the task may not read this product: it is not finished or not a declared input",
                where=product,
                expected=", ".join(sorted(self.readable)) or "no product at all",
                remedy="run the earlier stages first",
            )
        return self.store.read(product, variable, region)

    def measurement(self, url: str, member: str, first_line: int, lines: int) -> NDArray[np.int16]:
        """Return ``(lines, samples, 2)`` digital numbers of a measurement file.

        The file stays open until ``close`` or the next one: reading a zipped member in order
        inflates it once.
        """
        from bperp.stores.measurement import open_measurement

        if self._measurement is None or self._measurement[0] != (url, member):
            self.close()
            self._measurement = (url, member), open_measurement(url, member)
        return self._measurement[1].read(first_line, lines)

    def close(self) -> None:
        """Close the measurement file that was read last."""
        if self._measurement is not None:
            self._measurement[1].close()
            self._measurement = None

    def elevation(
        self, south_deg: float, west_deg: float, north_deg: float, east_deg: float
    ) -> tuple[NDArray[np.float32], tuple[float, float, float, float]]:
        """Return ellipsoidal heights and ``(lat0, lon0, dlat, dlon)`` of a window, in degrees."""
        if self.elevation_settings is None:
            raise ValueError("the run has no elevation settings, but a task asks for heights")
        model = _open_elevation(self.elevation_settings)
        heights, grid = model.window(south_deg, west_deg, north_deg, east_deg)
        return heights, grid


def run_task(site_text: str, order_text: str) -> dict[str, Any]:
    """Compute one task, write and verify its blocks, record its receipt.

    Parameters
    ----------
    site_text, order_text : str
        ``RunSite`` and ``TaskOrder`` as JSON.

    Returns
    -------
    dict
        Fields of ``TaskResult``.

    Raises
    ------
    BperpError
        Typed faults, unchanged.
    TaskFailedError
        Everything else, with the name of the task.
    """
    keep_freed_memory()
    site, order = RunSite.from_json(site_text), TaskOrder.from_json(order_text)
    try:
        return asdict(_perform(site, order))
    except BperpError:
        raise
    except MemoryError as error:
        raise StorageError(
            "R805",
            "the task ran out of memory",
            where=order.name,
            expected=f"{order.memory_bytes / 1e6:.0f} MB as predicted",
            found=f"a peak of {peak_rss_bytes() / 1e6:.0f} MB",
            remedy="give the workers more memory, or run fewer of them",
        ) from error
    except Exception as error:
        cause = f"{type(error).__name__}: {error}"
        transient = isinstance(error, OSError)
        raise TaskFailedError(
            order.name, cause, traceback.format_exc(), transient=transient
        ) from error


def load_stage(path: str) -> Stage:
    """Import a stage by its path ``module:ATTRIBUTE``.

    Raises
    ------
    ValueError
        There is no stage under this path.
    """
    module, _, attribute = path.partition(":")
    stage = getattr(importlib.import_module(module), attribute, None)
    if not isinstance(stage, Stage):
        raise ValueError(f"path must name a stage as module:ATTRIBUTE, instead got {path!r}")
    return stage


@lru_cache(maxsize=1)
def keep_freed_memory() -> None:
    """Have the C library keep freed tiles for the next ones, where it is glibc.

    Dask has its workers hand every freed array back to the system. Taking it again page by page was
    half of a run's processor time. Arrays above 32 MB still come and go; the rest stays below the
    worker's peak.
    """
    with contextlib.suppress(OSError, AttributeError):
        library = ctypes.CDLL(None)
        library.mallopt(_MALLOC_TRIM_THRESHOLD, 256 << 20)
        library.mallopt(_MALLOC_MMAP_THRESHOLD, 32 << 20)


def peak_rss_bytes() -> int:
    """Return the largest resident memory that this process ever had.

    Linux hands the peak of the parent down in ``getrusage``; the kernel's own record of the
    process does not.
    """
    with contextlib.suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
        return 1024 * int(next(line for line in lines if line.startswith("VmHWM:")).split()[1])
    unit = 1 if platform.system() == "Darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def is_transient(error: BaseException) -> bool:
    """Tell whether the same task may well succeed when it is tried again."""
    if isinstance(error, TaskFailedError):
        return error.transient
    return isinstance(error, NetworkError) and error.code == "R810"


def _perform(site: RunSite, order: TaskOrder) -> TaskResult:
    started = time.perf_counter()
    store = _open_store(site.root, canonical_json(dict(site.storage_options)).decode(), site.token)
    _require_current_run(site, store)
    readable = frozenset(order.readable)
    with contextlib.closing(TaskSource(store, readable, site.elevation)) as source:
        computation = load_stage(order.path).compute(order.parameters, source)
        blocks, summary = _write_all(computation, order, store)
    _require_current_run(site, store)
    receipt = Receipt(
        id=order.id,
        stage=order.stage,
        version=order.version,
        key=order.key,
        inputs=order.inputs,
        parameters_digest=digest(dict(order.parameters)),
        blocks=blocks,
        summary=plain(summary),
        code_version=_code_version(),
        host=socket.gethostname(),
        seconds=round(time.perf_counter() - started, 4),
        bytes_written=sum(_block_bytes(store, block) for block in blocks),
        peak_rss_bytes=peak_rss_bytes(),
    )
    Ledger(store.objects).record(receipt)
    return TaskResult(
        stage=order.stage,
        key=order.key,
        id=order.id,
        seconds=receipt.seconds,
        bytes_written=receipt.bytes_written,
        pixels=order.pixels,
        peak_rss_bytes=receipt.peak_rss_bytes,
        host=receipt.host,
        pid=os.getpid(),
    )


def _write_all(
    generator: Computation, order: TaskOrder, store: CubeStore
) -> tuple[tuple[BlockRecord, ...], Summary]:
    records: list[BlockRecord] = []
    while True:
        try:
            block = next(generator)
        except StopIteration as stop:
            return tuple(records), stop.value or {}
        if block.product not in order.outputs:
            raise ValueError(f"wrote to {block.product}, which is not among its outputs")
        records.append(store.write_block(block))


def _require_current_run(site: RunSite, store: CubeStore) -> None:
    if not site.token:
        return
    owner = read_owner(store.objects)
    if owner is None or owner.token != site.token:
        raise StorageError(
            "R806",
            "this run no longer holds the store",
            where=store.objects.url,
            found=str(owner) if owner is not None else "no lock",
            remedy="let the other run finish, then run again",
        )


def _block_bytes(store: CubeStore, block: BlockRecord) -> int:
    itemsize = store.array(block.product, block.variable).dtype.itemsize
    return int(np.prod(block.shape, dtype=np.int64)) * int(itemsize)


@lru_cache(maxsize=4)
def _open_store(root: str, storage_options: str, token: str) -> CubeStore:
    # The token is part of the key: a worker of a standing cluster must not keep array shapes from
    # one run to the next.
    del token
    return CubeStore(root, json.loads(storage_options))


@lru_cache(maxsize=2)
def _open_elevation(settings: ElevationSettings) -> Any:
    from bperp.stores.elevation import ElevationModel

    datum: Any = settings.vertical_datum  # checked by the model
    return ElevationModel.open(settings.url, datum, settings.geoid, absent=settings.absent)


@lru_cache(maxsize=1)
def _code_version() -> str:
    try:
        return metadata.version("bperp")
    except metadata.PackageNotFoundError:
        return "unknown"


def _rebuild_failure(task: str, cause: str, details: str, transient: bool) -> TaskFailedError:
    return TaskFailedError(task, cause, details, transient=transient)
