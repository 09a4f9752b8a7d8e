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
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from bperp.pipeline.stage import Block, Computation, Region, Stage, Summary
from bperp.stores.axes import GrowingAxes
from bperp.stores.blocks import BlockRecord, PlacedBlock
from bperp.stores.canonical import canonical_json, digest, plain
from bperp.stores.cube import CubeStore
from bperp.stores.errors import BperpError, NetworkError, StorageError
from bperp.stores.locks import read_owner
from bperp.stores.receipts import Ledger, Receipt, record_id

if TYPE_CHECKING:
    from bperp.stores.measurement import MeasurementReader


GROUP_CACHE_BYTES = 128 << 20
"""Windows that the tasks of a group keep between them."""

_MEMORIES: dict[tuple[str, str, str, str], GroupMemory] = {}
"""The memory of the group that this process works on; never more than one."""

# Parameters of mallopt(3).
_MALLOC_TRIM_THRESHOLD, _MALLOC_MMAP_THRESHOLD = -1, -3


@dataclass(frozen=True)
class ElevationSettings:
    """Where heights come from; see ``bperp.stores.elevation``.

    ``absent`` tells what stands where no tile lies: ``mask`` (NaN, the stage decides) or ``sea``.
    ``content_id`` is a digest of the files: a worker must not keep a model that was replaced.
    """

    url: str
    vertical_datum: str
    geoid: str | None = None
    absent: Literal["mask", "sea"] = "mask"
    content_id: str = ""


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
    it may write, ``places`` the positions of its dates or pairs in them. ``locations`` is added to
    the parameters; orders of one ``group`` share what they read.
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
    places: Mapping[str, int] = field(default_factory=dict)
    locations: Mapping[str, Any] = field(default_factory=dict)
    group: str = ""

    @property
    def name(self) -> str:
        """``stage/key``."""
        return f"{self.stage}/{self.key}"

    @property
    def record(self) -> str:
        """Id of the receipt that proves this order done."""
        return record_id(self.id, self.places)

    def as_json(self) -> str:
        """Return the text that ``from_json`` restores."""
        # Not asdict, which copies the parameters: that took four times as long as the JSON.
        values = {item.name: getattr(self, item.name) for item in fields(self)}
        return canonical_json(values).decode()

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
    cpu_seconds: float
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


class GroupMemory:
    """What the tasks of a group share: the windows they read last, and what they made of them."""

    def __init__(self, limit_bytes: int = GROUP_CACHE_BYTES) -> None:
        self.limit_bytes = limit_bytes
        self.made: dict[str, Any] = {}
        self._windows: OrderedDict[Any, NDArray[Any]] = OrderedDict()
        self._bytes = 0

    def window(self, key: Any, read: Callable[[], NDArray[Any]]) -> NDArray[Any]:
        """Return a window, read-only, from memory if it is there."""
        if key in self._windows:
            self._windows.move_to_end(key)
            return self._windows[key]
        values = read()
        values.setflags(write=False)
        self._windows[key] = values
        self._bytes += values.nbytes
        while self._bytes > self.limit_bytes:
            self._bytes -= self._windows.popitem(last=False)[1].nbytes
        return values


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
    axes : GrowingAxes, optional
        Where dates and pairs lie in the products.
    memory : GroupMemory, optional
        What the tasks of a group share; without it every window is read from the store.
    """

    def __init__(
        self,
        store: CubeStore,
        readable: frozenset[str],
        elevation: ElevationSettings | None = None,
        axes: GrowingAxes | None = None,
        memory: GroupMemory | None = None,
    ) -> None:
        self.store, self.readable, self.elevation_settings = store, readable, elevation
        self._axes, self._memory = axes or GrowingAxes(store), memory
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
        if self._memory is None:
            return self._read(product, variable, region)
        key = (product, variable, tuple(map(str, region)))
        return self._memory.window(key, lambda: self._read(product, variable, region))

    def _read(self, product: str, variable: str, region: Region) -> NDArray[Any]:
        """Read a window; labels of the first axis become positions."""
        first = region[0] if region else None
        tail = tuple(part for part in region[1:] if isinstance(part, slice))
        if first is None or isinstance(first, slice):
            return self.store.read(product, variable, (first, *tail) if first else ())
        labels = (first,) if isinstance(first, str) else first
        rows = self._axes.positions(product, labels)
        if rows == list(range(rows[0], rows[0] + len(rows))):
            return self.store.read(product, variable, (slice(rows[0], rows[-1] + 1), *tail))
        parts = [self.store.read(product, variable, (slice(r, r + 1), *tail)) for r in rows]
        return np.concatenate(parts)

    def shared(self, name: str, make: Callable[[], Any]) -> Any:
        """Return what an earlier task of the same group made under a name, else make it now."""
        if self._memory is None:
            return make()
        if name not in self._memory.made:
            self._memory.made[name] = make()
        return self._memory.made[name]

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
    started, cpu_started = time.perf_counter(), time.process_time()
    store = _open_store(site.root, canonical_json(dict(site.storage_options)).decode(), site.token)
    require_current_run(site, store)
    readable = frozenset(order.readable)
    axes, memory = _axes_of(store), _memory_of(site, order)
    with contextlib.closing(TaskSource(store, readable, site.elevation, axes, memory)) as source:
        parameters = {**order.parameters, **order.locations}
        computation = load_stage(order.path).compute(parameters, source)
        blocks, summary = _write_all(computation, order, store)
    require_current_run(site, store)
    receipt = Receipt(
        id=order.id,
        stage=order.stage,
        version=order.version,
        key=order.key,
        inputs=order.inputs,
        parameters_digest=digest(dict(order.parameters)),
        blocks=blocks,
        summary=plain(summary),
        places=order.places,
        code_version=_code_version(),
        host=socket.gethostname(),
        seconds=round(time.perf_counter() - started, 4),
        cpu_seconds=round(time.process_time() - cpu_started, 4),
        bytes_written=sum(_block_bytes(store, block) for block in blocks),
        peak_rss_bytes=peak_rss_bytes(),
    )
    Ledger(store.objects).record(receipt)
    return TaskResult(
        stage=order.stage,
        key=order.key,
        id=order.id,
        seconds=receipt.seconds,
        cpu_seconds=receipt.cpu_seconds,
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
        records.append(store.write_block(_placed(block, order)))


def _placed(block: Block, order: TaskOrder) -> PlacedBlock:
    """Return a block with the label of its first axis turned into a position."""
    first, *rest = block.origin or (None,)
    if isinstance(first, str) != bool(order.places) or first not in (order.places or (first,)):
        raise ValueError(
            f"origin of {block.product} must start with one of {list(order.places) or 'no labels'},"
            f" instead got {first!r}"
        )
    numbers = [order.places[first]] if isinstance(first, str) else [first] if block.origin else []
    origin = tuple(int(part) for part in (*numbers, *rest) if part is not None)
    return PlacedBlock(block.product, block.variable, origin, block.data)


def require_current_run(site: RunSite, store: CubeStore) -> None:
    """Raise R806 when another run holds the lock of the store."""
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


@lru_cache(maxsize=4)
def _axes_of(store: CubeStore) -> GrowingAxes:
    # Stores are those of _open_store: one per run, whose finished products keep their axes.
    return GrowingAxes(store)


def _memory_of(site: RunSite, order: TaskOrder) -> GroupMemory | None:
    """Return the memory of the order's group; that of another group is given up."""
    key = (site.root, site.token, order.stage, order.group) if order.group else None
    if key is None or key not in _MEMORIES:
        _MEMORIES.clear()
        if key is not None:
            _MEMORIES[key] = GroupMemory()
    return _MEMORIES[key] if key is not None else None


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
