"""The cube: products as Zarr v3 groups, written by whole chunks, read with every fault noticed.

Zarr reads a missing chunk as fill value and, without a checksum, a flipped bit as data. Here a
missing chunk is R802, a damaged one R803, and a block counts as written once it was read back.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from enum import Enum
from typing import TYPE_CHECKING, Any

import numpy as np
import zarr
from numpy.typing import NDArray

from bperp.stores.blocks import (
    BlockOfData,
    BlockRecord,
    count_valid,
    damaged,
    data_faults,
    data_sha256,
    is_stored,
    little_endian,
    no_such_product,
    require_inside,
    require_whole_chunks,
)
from bperp.stores.errors import StorageError
from bperp.stores.layout import (
    SCHEMA,
    ProductDescription,
    layout_digest,
    render_product,
    template_digest,
)
from bperp.stores.objects import (
    LocalObjects,
    ObjectStore,
    is_local,
    local_path,
    open_objects,
)
from bperp.stores.published import seal, under, unseal, without_vouchers
from bperp.stores.shards import NoEmptyObjects, write_shards
from bperp.stores.strict import open_strict_store

if TYPE_CHECKING:
    import xarray


class TemplateState(Enum):
    """What the store already holds under a product's name."""

    ABSENT = "absent"
    SAME = "same"
    COMPATIBLE = "compatible"
    """Same chunks, other attributes, coordinates or number of dates: the chunks stay."""
    DIFFERENT = "different"
    """Other arrays, chunks or types: the chunks have to go."""


class CubeStore:
    """Products under one root.

    Parameters
    ----------
    root : str
        Local folder or fsspec URL.
    storage_options : mapping, optional
        JSON-serialisable options for fsspec; never logged, never stored.

    Notes
    -----
    Instances pickle by root and options. Open arrays are kept, so use one instance per run: array
    metadata is read once.
    """

    def __init__(self, root: str, storage_options: Mapping[str, Any] | None = None) -> None:
        self.root = str(local_path(root)) if is_local(root) else root
        self.storage_options = dict(storage_options or {})
        self.objects: ObjectStore = open_objects(self.root, self.storage_options)
        self._zarr_store: Any = None
        self._arrays: dict[tuple[str, str], Any] = {}
        self._remote = not is_local(self.root)

    def __reduce__(self) -> tuple[Any, ...]:
        return (type(self), (self.root, self.storage_options))

    def __repr__(self) -> str:
        return f"CubeStore({self.objects.url!r})"

    # Metadata ---------------------------------------------------------------------------------

    def state(self, template: ProductDescription) -> TemplateState:
        """Compare a template with what is stored, by one small read.

        Parameters
        ----------
        template : ProductDescription
            Product as the stage wants it.

        Returns
        -------
        TemplateState
            ``ABSENT`` also when the creation was interrupted.

        Raises
        ------
        StorageError
            R808 when a newer version of bperp wrote the product.
        """
        stored = self._group_attributes(template.product)
        if stored is None:
            return TemplateState.ABSENT
        if stored.get("bperp_template") == template_digest(template):
            return TemplateState.SAME
        if stored.get("bperp_layout") == layout_digest(template):
            return TemplateState.COMPATIBLE
        return TemplateState.DIFFERENT

    def create(self, template: ProductDescription, *, replace: bool = False) -> TemplateState:
        """Create an empty product, or bring an existing one up to its template.

        An identical product is left alone. A compatible one gets new metadata and coordinates and
        keeps its chunks. A different one is removed first, and only if ``replace`` says so. A
        published cube counts as unfinished from here on, until ``seal``.

        Parameters
        ----------
        template : ProductDescription
            Product as the stage wants it.
        replace : bool, default False
            Whether a stored product that does not agree may be changed or removed.

        Returns
        -------
        TemplateState
            What was found before.

        Raises
        ------
        StorageError
            R808 when the stored product differs and ``replace`` is false.
        """
        state = self.state(template)
        if state is TemplateState.SAME:
            self.unseal(template.product)
            return state
        rendered = render_product(template)
        if state is not TemplateState.ABSENT and not replace:
            raise StorageError(
                "R808",
                "the stored product does not agree with its template",
                where=template.product,
                found=f"a {state.value} product",
                remedy="let the engine replace it, or use another root",
            )
        self._clear(template, state)
        for name, data in rendered.items():
            self.objects.write(f"{template.product}/{name}", data)
        self._forget(template.product)
        return state

    def distrust(self, product: str) -> None:
        """Have metadata and coordinates written anew by the next ``create``; chunks stay."""
        stored = json.loads(self.objects.read(f"{product}/zarr.json") or b'{"attributes": {}}')
        group = without_vouchers(stored)
        group["attributes"]["bperp_template"] = ""
        self.objects.write(f"{product}/zarr.json", json.dumps(group).encode())

    def seal(self, product: str, content: str) -> None:
        """Write into a published cube that it is finished; see ``bperp.stores.published``."""
        seal(self.objects, product, content)

    def unseal(self, product: str) -> None:
        """Take back that a published cube is finished, before anything of it changes."""
        unseal(self.objects, product)

    def remove(self, product: str) -> None:
        """Remove a product with all its chunks."""
        # The group goes first: what is left of a killed removal does not count as a product.
        self.objects.remove(f"{product}/zarr.json")
        self.objects.remove_tree(product)
        self._forget(product)

    def remove_partials(self, product: str) -> int:
        """Remove temporary files that killed writers left in a product; return how many."""
        if isinstance(self.objects, LocalObjects):
            return self.objects.remove_partials(product)
        return 0

    def array(self, product: str, variable: str) -> Any:
        """Return the Zarr array of a variable, opened once, with R802 for missing chunks.

        Raises
        ------
        StorageError
            R801 when the product or the variable does not exist.
        """
        if (product, variable) not in self._arrays:
            with data_faults(under(product, variable), remote=self._remote):
                self._arrays[product, variable] = self._open_array(product, variable)
        return self._arrays[product, variable]

    def variables(self, product: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Return the names of a product's arrays and of its coordinates.

        Raises
        ------
        StorageError
            R801 when there is no such product, R808 when a newer version wrote it.
        """
        attributes = self.attributes(product)
        return tuple(attributes["bperp_arrays"]), tuple(attributes["bperp_coordinates"])

    def attributes(self, product: str, level: str = "") -> dict[str, Any]:
        """Return the attributes of a product's group, ours included, or of a group inside it."""
        if level:
            return self._group_attributes(under(product, level)) or {}
        attributes = self._group_attributes(product)
        if attributes is None or "bperp_arrays" not in attributes:
            raise no_such_product(product or "a cube", self.objects.url)
        return attributes

    # Data -------------------------------------------------------------------------------------

    def write_block(self, block: BlockOfData) -> BlockRecord:
        """Write whole chunks, read them back, and return the proof.

        Parameters
        ----------
        block : BlockOfData
            Data of the array's dtype whose edges lie on chunk edges (of a sharded array: on shard
            edges) or on the array's edge.

        Returns
        -------
        BlockRecord
            Place, shape, hash and number of valid elements.

        Raises
        ------
        StorageError
            R809 when the block is not whole chunks of the right type, R803 when the bytes read
            back are not those written, R804 disk full, R807 not permitted.
        """
        where = f"{block.product}/{block.variable}"
        array = self.array(block.product, block.variable)
        require_whole_chunks(array, block)
        data = little_endian(block.data)
        region = tuple(
            slice(start, start + size) for start, size in zip(block.origin, data.shape, strict=True)
        )
        with data_faults(where, remote=self._remote):
            if array.shards:
                intact = write_shards(self.objects, where, array, region, data)
            else:
                # By default Zarr drops a chunk of fill values only; it would count as missing.
                array.with_config({"write_empty_chunks": True})[region] = data
                intact = is_stored(array, region, data)
        if not intact:
            raise damaged(where, f"other bytes at {block.origin} than were written", None)
        return BlockRecord(
            product=block.product,
            variable=block.variable,
            origin=tuple(int(start) for start in block.origin),
            shape=tuple(int(size) for size in data.shape),
            sha256=data_sha256(data),
            valid=count_valid(data, array.fill_value),
        )

    def read(
        self, product: str, variable: str, region: tuple[slice, ...] | None = None
    ) -> NDArray[Any]:
        """Return a window of an array, stored values as they are.

        Markers are not looked at: that is the business of ``TaskSource`` and ``open_root``.

        Parameters
        ----------
        product, variable : str
            Array to read.
        region : tuple of slice, optional
            One slice without a step per leading axis, inside the array; default all of it.

        Returns
        -------
        ndarray
            Window in the dtype of the array.

        Raises
        ------
        StorageError
            R801 no such product, R802 missing chunk, R803 damaged chunk.
        ValueError
            The region lies outside the array.
        """
        array = self.array(product, variable)
        window = require_inside(array.shape, region or (), under(product, variable))
        return self.read_raw(product, variable, window)

    def read_raw(self, product: str, variable: str, key: Any) -> NDArray[Any]:
        """Return ``array[key]`` for any basic index, with typed faults."""
        array = self.array(product, variable)
        with data_faults(under(product, variable), remote=self._remote):
            return np.asarray(array[key])

    def verify_block(self, record: BlockRecord) -> None:
        """Read a recorded block again and compare its hash.

        Raises
        ------
        StorageError
            R801 product gone, R802 chunk gone, R803 damaged or replaced.
        """
        region = tuple(
            slice(start, start + size)
            for start, size in zip(record.origin, record.shape, strict=True)
        )
        where = f"{record.product}/{record.variable}"
        try:
            data = self.read(record.product, record.variable, region)
        except ValueError as error:
            raise damaged(where, f"no room for the block at {record.origin}", error) from error
        if data_sha256(data) != record.sha256:
            raise damaged(where, f"other bytes at {record.origin} than its receipt says", None)

    def open_dataset(self, product: str, *, decode: bool = True) -> xarray.Dataset:
        """Open a finished product lazily.

        Parameters
        ----------
        product : str
            Name such as ``scene/interferogram``.
        decode : bool, default True
            Apply CF decoding: times, ``scale_factor``, ``_FillValue``.

        Returns
        -------
        xarray.Dataset
            Backed by dask, one dask chunk per stored chunk.

        Raises
        ------
        StorageError
            R801 when no marker vouches for the product.
        """
        from bperp.stores.dataset import open_product
        from bperp.stores.receipts import Ledger

        if product not in Ledger(self.objects).vouched_products():
            raise no_such_product(product, self.objects.url)
        return open_product(self, product, decode=decode)

    # Private ----------------------------------------------------------------------------------

    def _group_attributes(self, product: str) -> dict[str, Any] | None:
        text = self.objects.read(under(product, "zarr.json"))
        if text is None:
            return None
        try:
            attributes: dict[str, Any] = json.loads(text)["attributes"]
        except (ValueError, KeyError) as error:
            raise damaged(under(product, "zarr.json"), "no Zarr v3 metadata", error) from error
        if int(attributes.get("bperp_schema", SCHEMA)) > SCHEMA:
            raise StorageError(
                "R808",
                "the product was written by a newer bperp",
                where=product,
                expected=f"schema {SCHEMA} or older",
                found=f"schema {attributes['bperp_schema']}",
                remedy="upgrade bperp",
            )
        return attributes

    def _clear(self, template: ProductDescription, state: TemplateState) -> None:
        """Take the old metadata out of force before anything of it changes."""
        product = template.product
        if state is not TemplateState.COMPATIBLE:
            self.remove(product)
            return
        # Were the group absent after a kill, the next run would remove its chunks.
        self.distrust(product)
        keep = {array.name.partition("/")[0] for array in template.arrays}
        for name in self.objects.children(product):
            if name not in keep:
                self.objects.remove_tree(f"{product}/{name}")
        for group in {array.name.rpartition("/")[0] for array in template.arrays} - {""}:
            self.objects.remove(f"{product}/{group}/zarr.json")

    def _forget(self, product: str) -> None:
        self._arrays = {key: value for key, value in self._arrays.items() if key[0] != product}

    def _open_array(self, product: str, variable: str) -> Any:
        if self._zarr_store is None:
            store = open_strict_store(self.root, self.storage_options)
            self._zarr_store = NoEmptyObjects(store)
        try:
            # Without the format Zarr also asks for the metadata of its older one.
            path = under(product, variable)
            return zarr.open_array(self._zarr_store, path=path, mode="r+", zarr_format=3)
        except (FileNotFoundError, KeyError) as error:
            raise no_such_product(under(product, variable), self.objects.url) from error


def open_root(
    root: str, storage_options: Mapping[str, Any] | None = None
) -> dict[str, xarray.Dataset]:
    """Open every finished product of a run, or one published cube, lazily and CF-decoded.

    Parameters
    ----------
    root : str
        Local folder or fsspec URL of the run, or of a cube below its ``results/``, wherever that
        was copied to.
    storage_options : mapping, optional
        Passed to fsspec.

    Returns
    -------
    dict of str to xarray.Dataset
        Product name to dataset, a level of an overview counting as a product of its own; products
        without a marker are left out.

    Raises
    ------
    StorageError
        R801 when nothing under this root is finished.
    """
    from bperp.stores.dataset import open_levels, open_published
    from bperp.stores.receipts import Ledger

    store = CubeStore(root, storage_options)
    # Asked first: who only serves a published cube may not allow listings.
    if store.objects.read("zarr.json") is not None:
        return open_published(store)
    products = Ledger(store.objects).vouched_products()
    if not products:
        raise no_such_product("any product", store.objects.url)
    found = [open_levels(store, product).items() for product in sorted(products)]
    return dict(item for items in found for item in items)
