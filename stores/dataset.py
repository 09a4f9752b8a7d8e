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

from bperp.stores.cube import CubeStore
from bperp.stores.layout import decode_fill


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
    """xarray backend; ``filename_or_obj`` is the root, ``product`` the name of the group."""

    open_dataset_parameters = ("filename_or_obj", "product", "storage_options")

    def open_dataset(  # type: ignore[override]
        self,
        filename_or_obj: str,
        *,
        product: str,
        storage_options: dict[str, Any] | None = None,
        mask_and_scale: bool = True,
        decode_times: bool = True,
        drop_variables: Any = None,
    ) -> xarray.Dataset:
        """Return the lazy dataset of one product; see ``open_product``."""
        store = CubeStore(filename_or_obj, storage_options)
        arrays, coordinates = store.variables(product)
        attributes = store.attributes(product)
        variables = {name: _variable(store, product, name) for name in (*arrays, *coordinates)}
        shown = {name: value for name, value in attributes.items() if not _is_private(name)}
        dataset = xarray.Dataset(variables, attrs=shown)
        decoded = xarray.decode_cf(
            dataset,
            mask_and_scale=mask_and_scale,
            decode_times=decode_times,
            drop_variables=drop_variables,
        )
        return decoded.set_coords([name for name in coordinates if name in decoded.variables])


def open_product(store: CubeStore, product: str, *, decode: bool = True) -> xarray.Dataset:
    """Open a product whether or not a marker vouches for it.

    Parameters
    ----------
    store : CubeStore
        Where it lies.
    product : str
        Name such as ``bursts/t052_109876_iw1/slc``.
    decode : bool, default True
        Apply CF decoding of times, scale factors and fill values.

    Returns
    -------
    xarray.Dataset
        Backed by dask, one dask chunk per stored chunk.
    """
    dataset = xarray.open_dataset(
        store.root,
        engine=CubeBackend,
        chunks={},
        product=product,
        storage_options=store.storage_options,
        mask_and_scale=decode,
        decode_times=decode,
    )
    for name in store.variables(product)[1]:
        # Coordinates are small and stored in one piece: nobody wants to wait for them later.
        dataset[name].load()
    return dataset


def _variable(store: CubeStore, product: str, name: str) -> xarray.Variable:
    array = store.array(product, name)
    lazy = indexing.LazilyIndexedArray(_CubeArray(store, product, name))
    dims = tuple(array.metadata.dimension_names or ())
    attributes = dict(array.attrs)
    if "_FillValue" in attributes:
        attributes["_FillValue"] = decode_fill(attributes["_FillValue"], np.dtype(array.dtype))
    chunks = dict(zip(dims, array.chunks, strict=True))
    return xarray.Variable(
        dims, lazy, attributes, encoding={"preferred_chunks": chunks, "chunks": array.chunks}
    )


def _is_private(name: str) -> bool:
    return name.startswith("bperp_")
