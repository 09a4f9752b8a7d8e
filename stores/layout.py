"""How a product lies in the store: its description, its digests, its Zarr metadata as bytes.

The metadata is rendered in memory and compared with what is stored, so that creating a product
twice changes nothing and a killed creation is repaired by the next one.

An array or coordinate named ``group/name`` lies in a group of its own inside the product, as the
levels of an overview do; the attributes of these groups are the template's attribute ``groups``.
"""

from __future__ import annotations

import base64
import struct
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import BloscCodec, Crc32cCodec
from zarr.storage import MemoryStore

from bperp.stores.blocks import data_sha256, little_endian
from bperp.stores.canonical import digest, plain
from bperp.stores.published import consolidate, is_published

SCHEMA = 1
"""Version of the store's layout; readers refuse a newer one."""
GROWING_DIMENSIONS = frozenset({"date", "pair"})
"""Leading dimensions that may grow without touching the chunks that exist."""

Coordinate = tuple[tuple[str, ...], NDArray[Any], Mapping[str, Any]]


class ArrayDescription(Protocol):
    """What ``bperp.pipeline.stage.ArraySpec`` provides."""

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def dims(self) -> tuple[str, ...]: ...  # noqa: D102
    @property
    def shape(self) -> tuple[int, ...]: ...  # noqa: D102
    @property
    def chunks(self) -> tuple[int, ...]: ...  # noqa: D102
    @property
    def dtype(self) -> str: ...  # noqa: D102
    @property
    def fill_value(self) -> float | int | None: ...  # noqa: D102
    @property
    def attributes(self) -> Mapping[str, Any]: ...  # noqa: D102
    @property
    def shards(self) -> tuple[int, ...] | None: ...  # noqa: D102


class ProductDescription(Protocol):
    """What ``bperp.pipeline.stage.Template`` provides."""

    @property
    def product(self) -> str: ...  # noqa: D102
    @property
    def arrays(self) -> Sequence[ArrayDescription]: ...  # noqa: D102
    @property
    def coordinates(self) -> Mapping[str, Coordinate]: ...  # noqa: D102
    @property
    def attributes(self) -> Mapping[str, Any]: ...  # noqa: D102


def layout_digest(template: ProductDescription) -> str:
    """Return a digest of everything that gives stored chunks their place and meaning.

    It enters the id of every task that writes the product. The length of a leading ``date`` or
    ``pair`` axis with one entry per chunk is left out, and so are names and coordinates: appending
    a date keeps the chunks and the receipts of all others. It is left out of sharded arrays too:
    the task that writes the last shard names its dates.
    """
    return digest([_array_layout(array) for array in template.arrays])


def template_digest(template: ProductDescription) -> str:
    """Return a digest of the whole description, coordinate values and attributes included."""
    return digest(
        {
            "schema": SCHEMA,
            "arrays": [_array_description(array) for array in template.arrays],
            "coordinates": {
                name: _coordinate_description(coordinate)
                for name, coordinate in template.coordinates.items()
            },
            "attributes": plain(template.attributes),
        }
    )


def render_product(template: ProductDescription) -> dict[str, bytes]:
    """Return the Zarr v3 objects of an empty product: array metadata and whole coordinates.

    Parameters
    ----------
    template : ProductDescription
        Product to be created.

    Returns
    -------
    dict of str to bytes
        Names relative to the product; the group's own ``zarr.json`` comes last because it is what
        makes the product exist.

    Raises
    ------
    ValueError
        Dimensions, shape and chunks of an array do not agree, or a coordinate has no CF form.
    """
    memory: dict[str, Any] = {}
    store = MemoryStore(store_dict=memory)
    names = [array.name for array in template.arrays] + list(template.coordinates)
    if len(set(names)) != len(names):
        raise ValueError(f"array names of {template.product} must be unique, instead got {names}")
    zarr.create_group(store, zarr_format=3, attributes=group_attributes(template))
    for group in sorted({name.rpartition("/")[0] for name in names} - {""}):
        zarr.create_group(store, path=group, zarr_format=3, attributes=_inner(template, group))
    for array in template.arrays:
        _create_array(store, array)
    for name, coordinate in template.coordinates.items():
        _create_coordinate(store, name, coordinate)
    objects = {name: buffer.to_bytes() for name, buffer in memory.items()}
    if is_published(template.product):
        consolidate(objects)
    group = objects.pop("zarr.json")
    return {**dict(sorted(objects.items())), "zarr.json": group}


def group_attributes(template: ProductDescription) -> dict[str, Any]:
    """Return the attributes of the product's group; the ``bperp_`` ones are ours to compare."""
    published = is_published(template.product)
    return {
        "Conventions": "CF-1.11",
        **{name: value for name, value in plain(template.attributes).items() if name != "groups"},
        **_auxiliary(template, ""),
        **({"bperp_product": template.product} if published else {}),
        "bperp_schema": SCHEMA,
        "bperp_arrays": [array.name for array in template.arrays],
        "bperp_coordinates": list(template.coordinates),
        "bperp_layout": layout_digest(template),
        "bperp_template": template_digest(template),
    }


def _inner(template: ProductDescription, group: str) -> dict[str, Any]:
    """Return the attributes of a group inside the product."""
    given = plain(template.attributes.get("groups", {})).get(group, {})
    return {"Conventions": "CF-1.11", **given, **_auxiliary(template, group)}


def _auxiliary(template: ProductDescription, group: str) -> dict[str, str]:
    """Name the coordinates of a group that are no dimensions, the way CF does."""
    arrays = [array for array in template.arrays if array.name.rpartition("/")[0] == group]
    dimensions = {dim for array in arrays for dim in array.dims}
    places = [name.rpartition("/") for name in template.coordinates]
    names = [name for path, _, name in places if path == group and name not in dimensions]
    return {"coordinates": " ".join(names)} if names else {}


def encode_fill(value: Any, dtype: np.dtype[Any]) -> Any:
    """Return a ``_FillValue`` attribute in the spelling that xarray uses in Zarr v3."""
    if dtype.kind == "f":
        return base64.standard_b64encode(struct.pack("<d", float(value))).decode()
    return int(value)


def decode_fill(value: Any, dtype: np.dtype[Any]) -> Any:
    """Return the number in a ``_FillValue`` attribute written by ``encode_fill``."""
    if dtype.kind == "f" and isinstance(value, str):
        return struct.unpack("<d", base64.standard_b64decode(value))[0]
    return value


def _array_layout(array: ArrayDescription) -> dict[str, Any]:
    growing = bool(array.dims) and array.dims[0] in GROWING_DIMENSIONS
    growing = growing and (array.chunks[0] == 1 or array.shards is not None)
    shards = {} if array.shards is None else {"shards": [int(size) for size in array.shards]}
    scaling = {name: array.attributes.get(name) for name in ("scale_factor", "add_offset")}
    return {
        "name": array.name,
        "dims": list(array.dims),
        "shape": [int(size) for size in array.shape[1 if growing else 0 :]],
        "chunks": [int(size) for size in array.chunks],
        "dtype": np.dtype(array.dtype).str,
        "fill_value": _fill_json(array.fill_value),
        **plain(scaling),
        **shards,
    }


def _array_description(array: ArrayDescription) -> dict[str, Any]:
    return {
        **_array_layout(array),
        "shape": [int(size) for size in array.shape],
        "attributes": plain(array.attributes),
    }


def _coordinate_description(coordinate: Coordinate) -> list[Any]:
    dims, values, attributes = coordinate
    shape = [int(size) for size in values.shape]
    return [list(dims), str(values.dtype), shape, _values_sha256(values), plain(attributes)]


def _fill_json(value: float | int | None) -> Any:
    return str(value) if isinstance(value, float) else value


def _values_sha256(values: NDArray[Any]) -> str:
    if values.dtype.kind in "UO":
        return digest([str(item) for item in values.reshape(-1)])
    return data_sha256(values)


def _create_array(store: MemoryStore, array: ArrayDescription) -> None:
    if not len(array.dims) == len(array.shape) == len(array.chunks):
        raise ValueError(
            f"dims, shape and chunks of {array.name} must be equally long, instead got "
            f"{array.dims}, {array.shape}, {array.chunks}"
        )
    dtype = np.dtype(array.dtype)
    attributes = plain(array.attributes)
    if "_FillValue" in attributes:
        attributes["_FillValue"] = encode_fill(array.attributes["_FillValue"], dtype)
    zarr.create_array(
        store,
        name=array.name,
        shape=tuple(int(size) for size in array.shape),
        chunks=tuple(int(size) for size in array.chunks),
        shards=None if array.shards is None else tuple(int(size) for size in array.shards),
        dtype=dtype,
        fill_value=array.fill_value if array.fill_value is not None else 0,
        compressors=_codecs(dtype, sharded=array.shards is not None),
        dimension_names=list(array.dims),
        attributes=attributes,
    )


def _create_coordinate(store: MemoryStore, name: str, coordinate: Coordinate) -> None:
    dims, values, attributes = coordinate
    if len(dims) != values.ndim:
        raise ValueError(f"dims of {name} must match {values.ndim} axes, instead got {dims}")
    values, extra = _encode_coordinate(name, values)
    text = values.dtype.kind in "UO"
    array = zarr.create_array(
        store,
        name=name,
        shape=values.shape,
        chunks=tuple(max(size, 1) for size in values.shape),
        dtype="string" if text else values.dtype,
        compressors=_codecs(np.dtype(np.uint8) if text else values.dtype),
        dimension_names=list(dims),
        attributes={**extra, **plain(attributes)},
        config={"write_empty_chunks": True},
    )
    array[...] = values.astype(object) if text else values


def _encode_coordinate(name: str, values: NDArray[Any]) -> tuple[NDArray[Any], dict[str, Any]]:
    if values.dtype.kind != "M":
        return (values if values.dtype.kind in "UO" else little_endian(values)), {}
    if np.isnat(values).any():
        raise ValueError(f"coordinate {name} must hold dates, instead got NaT")
    for unit, word in (("D", "days"), ("s", "seconds"), ("us", "microseconds")):
        coarse = values.astype(f"datetime64[{unit}]")
        if (coarse == values).all():
            return coarse.astype(np.int64), _epoch(word)
    return values.astype("datetime64[ns]").astype(np.int64), _epoch("nanoseconds")


def _epoch(word: str) -> dict[str, Any]:
    return {"units": f"{word} since 1970-01-01", "calendar": "proleptic_gregorian"}


def _codecs(dtype: np.dtype[Any], *, sharded: bool = False) -> list[Any]:
    # LZ4 packs speckle and geometry a tenth worse than Zstandard and 3 to 10 times faster: with
    # Zstandard, packing took longer than all kernels together. Integers have idle high bits, which
    # bit planes expose; for floats whole bytes do as well and are faster still.
    shuffle: Literal["shuffle", "bitshuffle"] = "shuffle" if dtype.kind == "f" else "bitshuffle"
    blosc = BloscCodec(cname="lz4", clevel=1, shuffle=shuffle, typesize=dtype.itemsize)
    if sharded:
        # Published cubes are packed once and fetched often: half the size of LZ4 where rounded.
        blosc = BloscCodec(cname="zstd", clevel=5, shuffle=shuffle, typesize=dtype.itemsize)
    # Blosc alone passes a flipped bit as data; the checksum has to come last in the chain.
    return [blosc, Crc32cCodec()]
