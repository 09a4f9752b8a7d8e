"""What lies in a store besides finished products: unfinished ones, left-over files, strays.

None of it does harm: readers see finished products only, and the next run of a step cleans its own
products.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from bperp.stores.blocks import writing_units
from bperp.stores.cube import CubeStore
from bperp.stores.errors import StorageError
from bperp.stores.objects import LocalObjects

_GROUP = "/zarr.json"


@dataclass(frozen=True)
class Inventory:
    """Names of what no marker vouches for.

    ``unfinished`` are products without a marker; ``partial`` are files that killed writers left;
    ``strays`` are objects in the folders of products that belong to no array.
    """

    unfinished: list[str] = field(default_factory=list)
    partial: list[str] = field(default_factory=list)
    strays: list[str] = field(default_factory=list)


def take_inventory(
    store: CubeStore, vouched: Collection[str], broken: Collection[str] = ()
) -> Inventory:
    """List a store once and sort its objects.

    Parameters
    ----------
    store : CubeStore
        Store to look at; only read.
    vouched : collection of str
        Products that a marker vouches for.
    broken : collection of str
        Those of them whose description is damaged: nothing in them can be called a stray.

    Returns
    -------
    Inventory
        Sorted names.
    """
    names = store.objects.names("")
    unfinished = _unfinished(store, names, vouched)
    products = {*vouched, *unfinished}
    tops = {product.partition("/")[0] for product in products}
    owned: dict[str, list[str]] = {product: [] for product in set(vouched) - set(broken)}
    strays = []
    for name in names:
        if name.partition("/")[0] not in tops:
            continue
        product = next((p for p in _parents(name) if p in products), None)
        if product is None:
            strays.append(name)
        elif product in owned:
            owned[product].append(name)
    for product, found in owned.items():
        strays += _strays(store, product, found)
    return Inventory(unfinished, partial_files(store), sorted(strays))


def partial_files(store: CubeStore) -> list[str]:
    """Return the names of temporary files that writers left; object stores have none."""
    if not isinstance(store.objects, LocalObjects):
        return []
    folder = store.objects.folder
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*.partial"))


def _parents(name: str) -> list[str]:
    parts = name.split("/")
    return ["/".join(parts[:count]) for count in range(1, len(parts))]


def _unfinished(store: CubeStore, names: Sequence[str], vouched: Collection[str]) -> list[str]:
    folders = (name.removesuffix(_GROUP) for name in names if name.endswith(_GROUP))
    found: set[str] = set()
    for folder in sorted(folders, key=lambda name: name.count("/")):
        within = {folder, *_parents(folder)}
        if not within & found and not within & set(vouched) and _is_product(store, folder):
            found.add(folder)
    return sorted(found)


def _is_product(store: CubeStore, folder: str) -> bool:
    try:
        store.attributes(folder)
    except StorageError as fault:
        # A description that cannot be read is one nevertheless; R801 is an array or another group.
        return fault.code == "R803"
    return True


def _strays(store: CubeStore, product: str, names: Sequence[str]) -> list[str]:
    """Return the objects of a product that are neither metadata nor chunks inside an array."""
    arrays, coordinates = store.variables(product)
    grids = {name: _grid(store, product, name) for name in (*arrays, *coordinates)}
    documents = {f"{product}{_GROUP}"}
    for name in grids:
        documents |= {f"{product}/{part}{_GROUP}" for part in (name, *_parents(name))}
    return [name for name in names if name not in documents and not _is_chunk(product, name, grids)]


def _grid(store: CubeStore, product: str, variable: str) -> tuple[int, ...]:
    array = store.array(product, variable)
    units = writing_units(array)
    return tuple(-(-size // unit) for size, unit in zip(array.shape, units, strict=True))


def _is_chunk(product: str, name: str, grids: dict[str, tuple[int, ...]]) -> bool:
    variable, _, key = name.removeprefix(f"{product}/").rpartition("/c")
    grid = grids.get(variable)
    index = key.split("/")[1:]
    if grid is None or len(index) != len(grid) or not all(part.isdecimal() for part in index):
        return False
    return all(int(i) < n for i, n in zip(index, grid, strict=True))
