"""Blocks of whole chunks: their records, hashes and the rules that a write has to keep."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from zarr.errors import BaseZarrError

from bperp.stores.errors import StorageError
from bperp.stores.objects import storage_errors


class BlockOfData(Protocol):
    """What ``bperp.pipeline.stage.Block`` provides."""

    @property
    def product(self) -> str: ...  # noqa: D102
    @property
    def variable(self) -> str: ...  # noqa: D102
    @property
    def origin(self) -> tuple[int, ...]: ...  # noqa: D102
    @property
    def data(self) -> NDArray[Any]: ...  # noqa: D102


@dataclass(frozen=True)
class PlacedBlock:
    """Whole chunks of one array at a known place; a ``BlockOfData``."""

    product: str
    variable: str
    origin: tuple[int, ...]
    data: NDArray[Any]


@dataclass(frozen=True)
class BlockRecord:
    """Proof that a block was written and read back.

    ``sha256`` is over the little-endian C-order bytes of the block; ``valid`` counts the elements
    that differ from the fill value.
    """

    product: str
    variable: str
    origin: tuple[int, ...]
    shape: tuple[int, ...]
    sha256: str
    valid: int

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON that ``from_dict`` restores."""
        return asdict(self)

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> BlockRecord:
        """Restore a record from its JSON."""
        fields = dict(record)
        fields["origin"], fields["shape"] = tuple(record["origin"]), tuple(record["shape"])
        return cls(**fields)


def little_endian(data: NDArray[Any]) -> NDArray[Any]:
    """Return contiguous little-endian data, the bytes that hashes are taken of."""
    # Numpy makes a line out of a point.
    return np.ascontiguousarray(data, dtype=data.dtype.newbyteorder("<")).reshape(data.shape)


def data_sha256(data: NDArray[Any]) -> str:
    """Return the SHA-256 of an array's little-endian C-order bytes."""
    return hashlib.sha256(little_endian(data).reshape(-1).view(np.uint8).data).hexdigest()


def writing_units(array: Any) -> tuple[int, ...]:
    """Return the edges of what lies in one object: the shards of an array, or its chunks."""
    units: tuple[int, ...] = array.shards or array.chunks
    return units


def is_stored(array: Any, region: tuple[slice, ...], data: NDArray[Any]) -> bool:
    """Read a block back by rows of objects and compare its bytes with what was written.

    Parameters
    ----------
    array : zarr.Array
        Array that holds the block.
    region : tuple of slice
        Place of the block, all bounds given.
    data : ndarray
        What ``little_endian`` gave for the block.

    Returns
    -------
    bool
        Whether every byte agrees; NaN payloads and the sign of zero count.
    """
    axis = next((i for i, part in enumerate(region) if part.stop - part.start > 1), 0)
    if not region:
        return _same_bytes(np.asarray(array[()]), data)
    step = writing_units(array)[axis]
    for start in range(region[axis].start, region[axis].stop, step):
        row = slice(start, min(start + step, region[axis].stop))
        values = np.asarray(array[(*region[:axis], row, *region[axis + 1 :])])
        part = slice(row.start - region[axis].start, row.stop - region[axis].start)
        if not _same_bytes(values, data[(*[slice(None)] * axis, part)]):
            return False
    return True


def _same_bytes(first: NDArray[Any], second: NDArray[Any]) -> bool:
    left, right = (little_endian(item).reshape(-1).view(np.uint8) for item in (first, second))
    return np.array_equal(left, right)


@contextlib.contextmanager
def data_faults(where: str, *, remote: bool) -> Iterator[None]:
    """Turn what Zarr and its codecs raise for damaged chunks into R803; see ``storage_errors``."""
    with storage_errors(where, remote=remote):
        try:
            yield
        except (ValueError, RuntimeError, BaseZarrError) as error:
            raise damaged(where, str(error).splitlines()[0][:200], error) from error


def require_whole_chunks(array: Any, block: BlockOfData) -> None:
    """Refuse a block that covers part of an object: a second writer would lose it.

    Parameters
    ----------
    array : zarr.Array
        Gives dtype, shape and chunks; of a sharded array the shards count.
    block : BlockOfData
        Block to be written.

    Raises
    ------
    StorageError
        R809 with the axis and the edge.
    """
    data, origin = block.data, block.origin
    where = f"{block.product}/{block.variable}"
    if data.dtype.newbyteorder("<") != array.dtype.newbyteorder("<"):
        raise _misaligned(where, f"dtype {array.dtype}", f"dtype {data.dtype}")
    if not len(origin) == data.ndim == array.ndim:
        raise _misaligned(where, f"{array.ndim} axes", f"origin {origin}, shape {data.shape}")
    for axis, (start, size) in enumerate(zip(origin, data.shape, strict=True)):
        chunk, full, stop = writing_units(array)[axis], array.shape[axis], start + size
        whole = start % chunk == 0 and (stop % chunk == 0 or stop == full)
        if not (whole and 0 <= start < stop <= full):
            expected = f"edges on multiples of {chunk} up to {full} on axis {axis}"
            raise _misaligned(where, expected, f"{start} to {stop}")


def require_inside(
    shape: tuple[int, ...], region: tuple[slice, ...], where: str
) -> tuple[slice, ...]:
    """Return a full window for a shape, with bounds checked.

    Parameters
    ----------
    shape : tuple of int
        Shape of the array.
    region : tuple of slice
        One slice without a step per leading axis.
    where : str
        Name of the array for the message.

    Raises
    ------
    ValueError
        The region reaches outside the array.
    """
    # Numpy clips a window that reaches outside; a stage would then compute with a shifted halo.
    if len(region) > len(shape):
        raise ValueError(f"{where} has {len(shape)} axes, instead got {len(region)} slices")
    window = []
    for axis, size in enumerate(shape):
        part = region[axis] if axis < len(region) else slice(None)
        start = 0 if part.start is None else int(part.start)
        stop = size if part.stop is None else int(part.stop)
        if part.step not in (None, 1) or not 0 <= start <= stop <= size:
            raise ValueError(f"{where} axis {axis} holds 0 to {size}, instead got {part}")
        window.append(slice(start, stop))
    return tuple(window)


def count_valid(data: NDArray[Any], fill_value: Any) -> int:
    """Return how many elements differ from the fill value (NaN equals NaN)."""
    invalid = np.isnan(data) if fill_value != fill_value else data == fill_value  # noqa: PLR0124
    return int(data.size - np.count_nonzero(invalid))


def _misaligned(where: str, expected: str, found: str) -> StorageError:
    return StorageError(
        "R809",
        "the block is not made of whole chunks",
        where=where,
        expected=expected,
        found=found,
        remedy="report this: the stage's blocks do not fit its template",
    )


def no_such_product(name: str, root: str) -> StorageError:
    """Return the error for a product that no marker vouches for."""
    return StorageError(
        "R801",
        "the product is not finished or does not exist",
        where=name,
        expected=f"a marker in {root}/markers that vouches for it",
        remedy="run 'bperp status', then 'bperp run' to finish it",
    )


def damaged(where: str, found: str, error: Exception | None) -> StorageError:
    """Return the error for stored bytes that are not those written."""
    kind = f"{type(error).__name__}: " if error is not None else ""
    return StorageError(
        "R803",
        "stored data are damaged",
        where=where,
        found=f"{kind}{found}",
        remedy="run 'bperp repair ROOT', then the same run again",
    )
