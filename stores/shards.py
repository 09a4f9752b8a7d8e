"""Shards: many chunks in one object, written whole by one writer.

Zarr merges what is written into the shard that it finds. Here a shard is packed in memory and
replaces the object in one step: a missing or damaged predecessor is no obstacle, and no reader
meets half of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product as combinations
from typing import Any

import zarr
from numpy.typing import NDArray
from zarr.buffer import default_buffer_prototype
from zarr.storage import MemoryStore, WrapperStore

from bperp.stores.blocks import is_stored
from bperp.stores.objects import ObjectStore

__all__ = ["NoEmptyObjects", "write_shards"]

Region = tuple[slice, ...]


class NoEmptyObjects(WrapperStore[Any]):
    """A Zarr store that refuses to pass off an empty object as a shard without chunks."""

    async def get(self, key: str, prototype: Any, byte_range: Any = None) -> Any:
        """Return an object or a part of it, never nothing of it."""
        value = await self._store.get(key, prototype, byte_range)
        if value is not None and len(value) == 0:
            raise ValueError(f"nothing of {key} is left")
        return value


def write_shards(
    objects: ObjectStore, name: str, array: Any, region: Region, data: NDArray[Any]
) -> bool:
    """Write the shards of a region, read each object back and compare.

    Parameters
    ----------
    objects : ObjectStore
        Where the array lies.
    name : str
        Name of the array in it.
    array : zarr.Array
        The sharded array.
    region : tuple of slice
        Whole shards, all bounds given.
    data : ndarray
        What ``little_endian`` gave for them.

    Returns
    -------
    bool
        Whether every byte that was read back is that of the data.
    """
    for key, part in _shards(array, region):
        values = data[_within(part, region)]
        packed = _pack(array, key, part, values)
        objects.write(f"{name}/{key}", packed)
        stored = objects.read(f"{name}/{key}")
        # The same bytes again are worth nothing if they were packed wrongly: they are unpacked too.
        buffer = default_buffer_prototype().buffer.from_bytes(packed)
        if stored != packed or not is_stored(_in_memory(array, {key: buffer}), part, values):
            return False
    return True


def _shards(array: Any, region: Region) -> Iterator[tuple[str, Region]]:
    """Yield the key of every shard that a region touches, and its part of the array."""
    edges = array.shards
    indices = [
        range(part.start // edge, -(-part.stop // edge))
        for part, edge in zip(region, edges, strict=True)
    ]
    for index in combinations(*indices):
        place = zip(index, edges, array.shape, strict=True)
        part = tuple(slice(i * edge, min((i + 1) * edge, size)) for i, edge, size in place)
        yield array.metadata.encode_chunk_key(index), part


def _within(part: Region, region: Region) -> Region:
    bounds = zip(part, region, strict=True)
    return tuple(slice(p.start - r.start, p.stop - r.start) for p, r in bounds)


def _pack(array: Any, key: str, part: Region, values: NDArray[Any]) -> bytes:
    """Return the bytes of a shard; chunks of fill value are stored like all others."""
    memory: dict[str, Any] = {}
    scratch = _in_memory(array, memory)
    scratch.with_config({"write_empty_chunks": True})[part] = values
    packed: bytes = memory[key].to_bytes()
    return packed


def _in_memory(array: Any, objects: dict[str, Any]) -> Any:
    """Open the same array, but with these objects for its shards."""
    objects.update(array.metadata.to_buffer_dict(default_buffer_prototype()))
    return zarr.open_array(MemoryStore(store_dict=objects), mode="r+")
