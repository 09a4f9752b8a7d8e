"""The contract between stages (what is computed) and the engine (how, where, when).

A stage plans templates and tasks, and computes one task at a time. It reads through a ``Source``
and yields ``Block`` objects; it never opens, writes, submits or retries. The engine in
``bperp.flows`` does that for every stage in the same way, and the same functions serve in a
notebook.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Region = tuple[slice | str | tuple[str, ...], ...]
"""Window of an array: a slice per leading axis; on a growing axis labels may stand in its place."""
Summary = dict[str, Any]


def pair_label(reference: str, secondary: str) -> str:
    """Return the label of a pair of ISO dates on the ``pair`` axis."""
    return f"{reference}_{secondary}"


@dataclass(frozen=True)
class ArraySpec:
    """One array of a product: everything that is needed to create it.

    ``dims``, ``shape`` and ``chunks`` have equal length; ``fill_value`` is what a reader sees in
    an unwritten chunk (never valid data); ``attributes`` hold CF metadata (units, long_name, ...).
    With ``shards``, whole multiples of ``chunks``, the chunks of a shard lie in one object: it is
    the unit of writing then, chunks that of reading. A shard that holds several dates is written by
    a task whose parameters name them, so that the length of a growing axis needs no other trace.
    """

    name: str
    dims: tuple[str, ...]
    shape: tuple[int, ...]
    chunks: tuple[int, ...]
    dtype: str
    fill_value: float | int | None = 0
    attributes: Mapping[str, Any] = field(default_factory=dict)
    shards: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Template:
    """A product to be created before its chunks are filled.

    ``coordinates`` maps a name to ``(dims, values, attributes)``; they are small, written whole
    with the template, and part of the content hash.
    """

    product: str
    arrays: tuple[ArraySpec, ...]
    coordinates: Mapping[str, tuple[tuple[str, ...], NDArray[Any], Mapping[str, Any]]] = field(
        default_factory=dict
    )
    attributes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Block:
    """Whole chunks of one array, computed by one task.

    ``origin`` is the index of the first element; every edge of the block is a multiple of the
    chunk edge or the edge of the array. On a growing axis (date, pair) the index is a label: an
    ISO date, or two joined by an underscore. Positions there change when a date is inserted or
    removed, the work of the other dates does not.
    """

    product: str
    variable: str
    origin: tuple[int | str, ...]
    data: NDArray[Any]


@dataclass(frozen=True)
class Task:
    """One unit of work, one receipt.

    ``parameters`` is JSON-serialisable and complete: together with the stage's version and the
    receipts of ``inputs`` (each ``"stage/key"``) it determines every byte that the task writes.
    ``outputs`` names the products it writes to; ``memory_bytes`` is the predicted peak of the
    arrays that the task holds; ``pixels`` is the amount of work for the progress display; ``batch``
    groups tasks for the orchestrator (e.g. a burst and date).

    ``labels`` are the entries of the growing axis that the task writes. ``locations`` are added to
    the parameters when the task runs and are no part of its identity: where inputs lie, as opposed
    to what they are. Tasks of one ``group`` read the same windows: one worker does them in turn.
    """

    stage: str
    key: str
    parameters: Mapping[str, Any]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    memory_bytes: int
    pixels: int = 0
    batch: str = ""
    labels: tuple[str, ...] = ()
    locations: Mapping[str, Any] = field(default_factory=dict)
    group: str = ""


@dataclass(frozen=True)
class Plan:
    """What a stage needs created and computed for a given stack."""

    templates: tuple[Template, ...]
    tasks: tuple[Task, ...]


class Source(Protocol):
    """Where a running task gets its input from; the engine provides it."""

    def read(self, product: str, variable: str, region: Region) -> NDArray[Any]:
        """Return a window of a product's array; refuses products without a marker.

        An axis whose entries the region names by labels has them in that order; one label gives
        an axis of length one.
        """
        ...

    def measurement(self, url: str, member: str, first_line: int, lines: int) -> NDArray[np.int16]:
        """Return ``(lines, samples, 2)`` digital numbers of a measurement file."""
        ...

    def shared(self, name: str, make: Callable[[], Any]) -> Any:
        """Return what an earlier task of the same group made under a name, else make it now.

        For intermediate results that all tasks of a group need, such as where the cells of a map
        tile lie; they must not be changed.
        """
        ...

    def elevation(
        self, south_deg: float, west_deg: float, north_deg: float, east_deg: float
    ) -> tuple[NDArray[np.float32], tuple[float, float, float, float]]:
        """Return ellipsoidal heights ``(rows, columns)`` and their ``(lat0, lon0, dlat, dlon)``.

        Degrees; ``lat0, lon0`` is the centre of sample ``[0, 0]``; ``dlat`` is negative for
        north-up grids.
        """
        ...


class Context(Protocol):
    """What a stage may know while it plans; the engine provides it."""

    @property
    def stack(self) -> Any:
        """The stack to be processed (``bperp.pipeline.stack.Stack`` for the stages here)."""
        ...

    @property
    def options(self) -> Mapping[str, Mapping[str, Any]]:
        """Options of each step by name, JSON values only."""
        ...

    def tasks(self, stage: str) -> Sequence[str]:
        """Return the keys of the tasks of an upstream stage, whether or not they are done."""
        ...

    def receipts(self, stage: str) -> Mapping[str, Mapping[str, Any]]:
        """Return the receipts of a finished upstream stage by task key, as plain JSON.

        What ``compute`` returned is under ``"summary"``.
        """
        ...


Computation = Generator[Block, None, Summary]


@dataclass(frozen=True)
class Stage:
    """A named step of the chain.

    ``version`` changes whenever the numbers may change. ``plan`` returns templates and tasks;
    ``compute`` yields the blocks of one task and returns a small JSON summary for its receipt.
    ``path`` is where a worker finds the stage again: ``"package.module:ATTRIBUTE"``.
    """

    name: str
    version: str
    path: str
    plan: Callable[[Context], Plan]
    compute: Callable[[Mapping[str, Any], Source], Computation]
