"""bperp: Sentinel-1 SLC bursts in, ground motion out.

``bperp.open(root)`` gives every finished product of a run as an ``xarray.Dataset``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import xarray

__all__ = ["open"]


def open(  # noqa: A001 - the name users expect: bperp.open(root)
    root: str, storage_options: Mapping[str, Any] | None = None
) -> dict[str, xarray.Dataset]:
    """Open every finished product of a root, lazily.

    Parameters
    ----------
    root : str
        Folder or fsspec URL (``s3://bucket/prefix``) of a run.
    storage_options : mapping, optional
        Passed to fsspec.

    Returns
    -------
    dict of str to xarray.Dataset
        Product name (``scene/timeseries``, ``bursts/<burst_id>/coregistered``, ...) to dataset.

    Raises
    ------
    bperp.stores.errors.StorageError
        R801 if nothing under the root is finished.
    """
    from bperp.stores.cube import open_root

    return open_root(root, storage_options)
