"""One recorded block read again: which of its chunks are gone or damaged."""

from __future__ import annotations

import errno
import hashlib
from collections.abc import Iterator
from itertools import product as every_index
from typing import Any

from bperp.stores.blocks import BlockRecord, damaged, little_endian, writing_units
from bperp.stores.cube import CubeStore
from bperp.stores.errors import StorageError

_DAMAGE = frozenset({"R801", "R802", "R803"})
"""Faults of stored bytes. Others (R807 not permitted, R810 no answer) are passed on."""


def examine_block(store: CubeStore, record: BlockRecord) -> tuple[dict[str, StorageError], int]:
    """Read a recorded block by rows of chunks and compare its hash.

    Parameters
    ----------
    store : CubeStore
        Store that holds the block.
    record : BlockRecord
        Place and hash.

    Returns
    -------
    faults : dict of str to StorageError
        Name of each damaged object to its fault. When all chunks of a block can be read but are
        not those written, each of them is named: nothing tells which it is.
    size : int
        Bytes read, as numbers in memory.
    """
    where = f"{record.product}/{record.variable}"
    try:
        array = store.array(record.product, record.variable)
    except StorageError as fault:
        described = f"{where}/zarr.json"
        return {described: only_damage(fault, described)}, 0
    if not _has_room(array, record):
        found = f"no room for a block of {record.shape} at {record.origin} in {array.shape}"
        return {f"{where}/zarr.json": damaged(f"{where}/zarr.json", found, None)}, 0
    sha256, size = hashlib.sha256(), 0
    try:
        for window in _rows(array, record):
            data = little_endian(store.read_raw(record.product, record.variable, window))
            sha256.update(data.reshape(-1).view("u1").data)
            size += data.nbytes
    except (StorageError, OSError) as error:
        only_damage(error, where)
        return _damaged_chunks(store, array, record), size
    if sha256.hexdigest() == record.sha256:
        return {}, size
    return _damaged_chunks(store, array, record) or _suspects(array, record), size


def _damaged_chunks(store: CubeStore, array: Any, record: BlockRecord) -> dict[str, StorageError]:
    """Read the chunks of a block one by one and name those that cannot be read."""
    faults = {}
    for name, window in _chunks(array, record):
        try:
            store.read_raw(record.product, record.variable, window)
        except (StorageError, OSError) as error:
            faults[name] = only_damage(error, name)
    return faults


def _suspects(array: Any, record: BlockRecord) -> dict[str, StorageError]:
    names = [name for name, _ in _chunks(array, record)]
    found = "other bytes than its receipt says"
    if len(names) > 1:
        found += f", here or in {len(names) - 1} more chunks of the same block"
    return {name: damaged(name, found, None) for name in names}


def only_damage(error: StorageError | OSError, name: str) -> StorageError:
    """Return the fault of an object if its bytes are at fault, raise it if access to them is."""
    if isinstance(error, StorageError) and error.code in _DAMAGE:
        return error
    if isinstance(error, OSError) and error.errno == errno.EIO:
        return damaged(name, "the disk cannot read it", error)
    raise error


def _has_room(array: Any, record: BlockRecord) -> bool:
    ends = [start + size for start, size in zip(record.origin, record.shape, strict=True)]
    return array.ndim == len(ends) and all(
        end <= size for end, size in zip(ends, array.shape, strict=True)
    )


def _rows(array: Any, record: BlockRecord) -> Iterator[tuple[slice, ...]]:
    """Yield windows that follow each other in the C order of a block, a row of objects each."""
    region = [slice(o, o + n) for o, n in zip(record.origin, record.shape, strict=True)]
    axis = next((i for i, size in enumerate(record.shape) if size > 1), None)
    if axis is None:
        yield tuple(region)
        return
    step = writing_units(array)[axis]
    for start in range(region[axis].start, region[axis].stop, step):
        stop = min(start + step, region[axis].stop)
        yield (*region[:axis], slice(start, stop), *region[axis + 1 :])


def _chunks(array: Any, record: BlockRecord) -> Iterator[tuple[str, tuple[slice, ...]]]:
    """Yield object name and window of every chunk (or shard) of a block."""
    units = writing_units(array)
    parts = list(zip(record.origin, record.shape, units, strict=True))
    for index in every_index(*(range(o // u, -(-(o + n) // u)) for o, n, u in parts)):
        key = array.metadata.encode_chunk_key(index)
        window = tuple(
            slice(i * u, min((i + 1) * u, size))
            for i, u, size in zip(index, units, array.shape, strict=True)
        )
        yield f"{record.product}/{record.variable}/{key}", window
