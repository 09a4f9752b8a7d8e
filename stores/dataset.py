"""Finished products as xarray datasets, lazily, with the typed faults of the cube store.

``xarray.open_zarr`` on the same path works as well; it only reports faults in Zarr's own words and
takes missing chunks for fill values.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray
from numpy.typing import NDArray
from xarray.backends import BackendArray, BackendEntrypoint
from xarray.core import indexing

from bperp.stores.blocks import writing_units
from bperp.stores.cube import CubeStore
from bperp.stores.errors import StorageError
from bperp.stores.layout import decode_fill
from bperp.stores.published import CONTENT, PUBLISHED, under


class _CubeArray(BackendArray):
    """One stored variable behind xarray's lazy indexing; pickles by name."""

    def __init__(self, store: CubeStore, product: str, variable: str) -> None:
        array = store.array(product, variable)
        self.store, self.product, self.variable = store, product, variable
        self.shape: tuple[int, ...] = tuple(array.shape)
        self.dtype: np.dtype[Any] = np.dtype(array.dtype)

    def __getitem__(self, key: indexing.ExplicitIndexer) -> NDArray[Any]:
        values: NDArray[Any] = indexing.explicit_indexing_adapter(
            key, self.shape, indexing.IndexingSupport.BASIC, self._read
        )
        return values

    def _read(self, key: tuple[int | slice, ...]) -> NDArray[Any]:
        return self.store.read_raw(self.product, self.variable, key)


class CubeBackend(BackendEntrypoint):
    """xarray backend; ``filename_or_obj`` is the root, ``product`` the name of the group.

    ``level`` names a group inside the product instead.
    """

    open_dataset_parameters = ("filename_or_obj", "product", "level", "storage_options")

    def open_dataset(  # type: ignore[override]
        self,
        filename_or_obj: str,
        *,
        product: str,
        level: str = "",
        storage_options: dict[str, Any] | None = None,
        mask_and_scale: bool = True,
        decode_times: bool = True,
        drop_variables: Any = None,
    ) -> xarray.Dataset:
        """Return the lazy dataset of one product; see ``open_product``."""
        store = CubeStore(filename_or_obj, storage_options)
        arrays, coordinates = (_of_level(names, level) for names in store.variables(product))
        attributes = store.attributes(product, level)
        variables = {
            name: _variable(store, product, under(level, name)) for name in (*arrays, *coordinates)
        }
        shown = {name: value for name, value in attributes.items() if not _is_private(name)}
        dataset = xarray.Dataset(variables, attrs=shown)
        decoded = xarray.decode_cf(
            dataset,
            mask_and_scale=mask_and_scale,
            decode_times=decode_times,
            drop_variables=drop_variables,
        )
        return decoded.set_coords([name for name in coordinates if name in decoded.variables])


def open_product(
    store: CubeStore, product: str, level: str = "", *, decode: bool = True
) -> xarray.Dataset:
    """Open a product whether or not a marker vouches for it.

    Parameters
    ----------
    store : CubeStore
        Where it lies.
    product : str
        Name such as ``bursts/t052_109876_iw1/slc``.
    level : str, default ""
        Group inside the product.
    decode : bool, default True
        Apply CF decoding of times, scale factors and fill values.

    Returns
    -------
    xarray.Dataset
        Backed by dask, one dask chunk per stored object: a chunk, or a shard.
    """
    dataset = xarray.open_dataset(
        store.root,
        engine=CubeBackend,
        chunks={},
        product=product,
        level=level,
        storage_options=store.storage_options,
        mask_and_scale=decode,
        decode_times=decode,
    )
    for name in _of_level(store.variables(product)[1], level):
        # Coordinates are small and stored in one piece: nobody wants to wait for them later.
        dataset[name].load()
    return dataset


def open_levels(store: CubeStore, product: str) -> dict[str, xarray.Dataset]:
    """Open a product, or each group inside it if it has some, as ``product/level``."""
    levels = dict.fromkeys(name.rpartition("/")[0] for name in store.variables(product)[0])
    return {under(product, level): open_product(store, product, level) for level in levels}


def open_published(store: CubeStore) -> dict[str, xarray.Dataset]:
    """Open a published cube that is the root of a store, under the name that it had.

    Raises
    ------
    StorageError
        R801 if it is no published cube or does not say that it is finished.
    """
    attributes = store.attributes("")
    if CONTENT not in attributes:
        raise StorageError(
            "R801",
            "this cube does not say that it is finished",
            where=store.objects.url,
            expected=f"the attribute {CONTENT}, written last into a cube of {PUBLISHED}",
            found="none: it is being written or was copied while it was, or is an inner product",
            remedy="wait for the run and copy the cube again, or open the root of the run",
        )
    name = attributes["bperp_product"]
    datasets = open_levels(store, "").items()
    return {under(name, level) if level else name: dataset for level, dataset in datasets}


def _variable(store: CubeStore, product: str, name: str) -> xarray.Variable:
    array = store.array(product, name)
    units = writing_units(array)
    lazy = indexing.LazilyIndexedArray(_CubeArray(store, product, name))
    dims = tuple(array.metadata.dimension_names or ())
    attributes = dict(array.attrs)
    if "_FillValue" in attributes:
        attributes["_FillValue"] = decode_fill(attributes["_FillValue"], np.dtype(array.dtype))
    # Dask would make a million tasks of the chunks of a published series.
    chunks = dict(zip(dims, units, strict=True))
    return xarray.Variable(
        dims, lazy, attributes, encoding={"preferred_chunks": chunks, "chunks": array.chunks}
    )


def _of_level(names: tuple[str, ...], level: str) -> list[str]:
    """Return the names, without their group, of what lies in a group."""
    places = (name.rpartition("/") for name in names)
    return [name for group, _, name in places if group == level]


def _is_private(name: str) -> bool:
    return name.startswith("bperp_")
