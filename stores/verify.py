"""Integrity of finished products: everything that markers vouch for is read again and compared.

Verification changes nothing and takes no lock. It names every damaged object; what belongs to no
finished product (left-over files, strays, unfinished products) is told as information.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections import defaultdict, deque
from collections.abc import Callable, Collection, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Protocol, TypeVar
from urllib.parse import unquote

from bperp.stores.block_examination import examine_block, only_damage
from bperp.stores.blocks import BlockRecord, damaged
from bperp.stores.canonical import canonical_json
from bperp.stores.cube import CubeStore
from bperp.stores.errors import StorageError
from bperp.stores.inventory import Inventory, take_inventory
from bperp.stores.objects import LocalObjects
from bperp.stores.published import CONTENT, is_published
from bperp.stores.receipts import Ledger, Marker, Receipt, content_digest

_REMOTE_READERS = 16

T = TypeVar("T")
R = TypeVar("R")


class Watcher(Protocol):
    """Told how far the verification is; ``bperp.flows.progress.Progress`` fits."""

    def stage_started(self, stage: str, total: int, done: int, pixels: int) -> None:
        """Tell that the blocks of a stage are next, ``total`` with ``pixels`` elements."""
        ...

    def task_finished(self, stage: str, pixels: int, bytes_written: int) -> None:
        """Tell that a block with so many elements and bytes was read."""
        ...

    def stage_finished(self, stage: str, seconds: float) -> None:
        """Tell that all blocks of a stage were read."""
        ...


@dataclass
class StageDamage:
    """What has to be made again for one stage to be whole."""

    marker: Marker
    keys: set[str] = field(default_factory=set)
    """Tasks whose blocks or receipts are damaged."""
    products: set[str] = field(default_factory=set)
    """Products of which something is damaged."""


@dataclass
class Verification:
    """What ``verify_store`` found.

    ``faults`` maps the name of each damaged object to its fault (R801 gone, R802 chunk missing,
    R803 other bytes); ``damage`` says by stage what to repeat. ``unsettled`` lists stages that
    another run changed in the meantime. ``inventory`` is information, and ``None`` when only a part
    was verified.
    """

    stages: list[str] = field(default_factory=list)
    blocks: int = 0
    bytes_read: int = 0
    faults: dict[str, StorageError] = field(default_factory=dict)
    damage: dict[str, StageDamage] = field(default_factory=dict)
    unsettled: list[str] = field(default_factory=list)
    inventory: Inventory | None = None

    @property
    def is_sound(self) -> bool:
        """Whether everything in the store is finished and unharmed."""
        unfinished = self.inventory is not None and self.inventory.unfinished
        return bool(self.stages) and not (self.faults or self.unsettled or unfinished)


def verify_store(
    store: CubeStore,
    *,
    readers: int | None = None,
    watcher: Watcher | None = None,
    only: Collection[str] | None = None,
) -> Verification:
    """Read every block that a marker vouches for and compare it with its receipt.

    Parameters
    ----------
    store : CubeStore
        Store to check; only read. Damage of metadata counts for instances opened later, so do not
        go on working with this one.
    readers : int, optional
        Threads; default one per processor, 16 for an object store. Each holds one row of chunks.
    watcher : Watcher, optional
        Display.
    only : collection of str, optional
        Stages to be verified; default all, and then the inventory is taken as well.

    Returns
    -------
    Verification
        Blocks and bytes read, every damaged object by name, what to repeat.

    Raises
    ------
    BperpError
        R807, R808, R810: the store cannot be read or was written by a newer bperp.
    """
    ledger = Ledger(store.objects)
    result = Verification()
    count = readers or _readers(store)
    markers = _markers(ledger, result)
    with ThreadPoolExecutor(count, thread_name_prefix="verify") as pool:
        for stage, marker in markers.items():
            if only is None or stage in only:
                _StageVerifier(store, ledger, marker, watcher).verify(pool, 2 * count, result)
    if only is None:
        vouched = {p for marker in markers.values() for p in marker.products}
        described = [name for name in result.faults if name.endswith("/zarr.json")]
        broken = {p for p in vouched for name in described if name.startswith(f"{p}/")}
        result.inventory = take_inventory(store, vouched, broken)
    return result


def withdraw(store: CubeStore, damage: StageDamage) -> None:
    """Take what is damaged out of force, so that the next run of the stage makes just that again.

    The marker goes last. Whatever instant a kill chooses: as long as the marker is there, another
    verification finds the damage, and once it is gone no receipt speaks for a damaged block.

    Parameters
    ----------
    store : CubeStore
        Store that the caller has locked.
    damage : StageDamage
        From ``verify_store``.
    """
    ledger, marker = Ledger(store.objects), damage.marker
    for key in sorted(damage.keys):
        ledger.discard(marker.stage, key, marker.receipts[key])
    for product in sorted(damage.products):
        try:
            store.attributes(product)
        except StorageError:
            # Without its description the product counts as absent.
            store.objects.remove(f"{product}/zarr.json")
        else:
            store.distrust(product)
    ledger.remove_marker(marker.stage)


def metadata_hashes(store: CubeStore, product: str) -> dict[str, str]:
    """Return the SHA-256 of each metadata object and coordinate chunk of a product.

    Parameters
    ----------
    store : CubeStore
        Store that holds the product.
    product : str
        Name of a product whose description is complete.

    Returns
    -------
    dict of str to str
        Name relative to the product to 64 hexadecimal digits; array chunks are left out.
    """
    arrays, coordinates = store.variables(product)
    described = (*arrays, *coordinates)
    groups = {name.rpartition("/")[0] for name in described} - {""}
    names = ["zarr.json", *(f"{name}/zarr.json" for name in (*sorted(groups), *described))]
    for name in coordinates:
        array = store.array(product, name)
        names.append(f"{name}/{array.metadata.encode_chunk_key((0,) * array.ndim)}")
    # One by one they would take a second per product in an object store.
    with ThreadPoolExecutor(_readers(store)) as pool:
        stored = list(pool.map(lambda name: store.objects.read(f"{product}/{name}"), names))
    found = zip(names, stored, strict=True)
    return {name: metadata_hash(name, data) for name, data in found if data is not None}


def metadata_hash(name: str, data: bytes) -> str:
    """Return the SHA-256 of one metadata object; that a published cube is sealed does not count."""
    if name == "zarr.json":
        with contextlib.suppress(ValueError, KeyError, TypeError):
            document = json.loads(data)
            document["attributes"].pop(CONTENT, None)
            data = canonical_json(document)
    return hashlib.sha256(data).hexdigest()


class _StageVerifier:
    """Compares the products and receipts of one stage with its marker."""

    def __init__(
        self, store: CubeStore, ledger: Ledger, marker: Marker, watcher: Watcher | None
    ) -> None:
        self.store, self.ledger, self.marker, self.watcher = store, ledger, marker, watcher
        self.damage = StageDamage(marker)
        self.faults: dict[str, StorageError] = {}

    def verify(self, pool: ThreadPoolExecutor, width: int, result: Verification) -> None:
        """Read everything; add what was found to the result."""
        started, stage = time.perf_counter(), self.marker.stage
        receipts = self.ledger.load(stage, self.marker.receipts)
        for lost in sorted(self.marker.receipts.keys() - receipts.keys()):
            self.faults[f"receipts/{stage}/{lost}"] = _lost_receipt(stage, lost)
            self.damage.keys.add(lost)
        self._compare_digests(receipts)
        for product in self.marker.products:
            self._compare_metadata(pool, width, product)
        blocks = list(self._blocks(receipts))
        watcher = self.watcher if blocks else None
        if watcher is not None:
            watcher.stage_started(stage, len(blocks), 0, sum(_elements(b) for _, b in blocks))
        for key, block, faults, size in _in_parallel(pool, width, self._read, blocks):
            self._block_faults(key, block, faults)
            result.blocks += 1
            result.bytes_read += size
            if watcher is not None:
                watcher.task_finished(stage, _elements(block), size)
        if watcher is not None:
            watcher.stage_finished(stage, time.perf_counter() - started)
        self._settle(result)

    def _settle(self, result: Verification) -> None:
        """Believe what was found unless a run has withdrawn the marker in the meantime."""
        stage = self.marker.stage
        if self.faults and self.ledger.marker(stage) != self.marker:
            result.unsettled.append(stage)
            return
        result.stages.append(stage)
        result.faults.update(self.faults)
        if self.faults:
            result.damage[stage] = self.damage

    def _blocks(self, receipts: dict[str, Receipt]) -> Iterator[tuple[str | None, BlockRecord]]:
        for key, receipt in receipts.items():
            yield from ((key, block) for block in receipt.blocks)
        for entry in self.marker.products.values():
            yield from ((None, BlockRecord.from_dict(hole)) for hole in entry.get("holes", ()))

    def _read(
        self, item: tuple[str | None, BlockRecord]
    ) -> tuple[str | None, BlockRecord, dict[str, StorageError], int]:
        key, block = item
        described = f"{block.product}/{block.variable}/zarr.json"
        if described in self.faults:
            # Nothing may be read by a wrong description: it could ask for any amount of memory.
            return key, block, {described: self.faults[described]}, 0
        faults, size = examine_block(self.store, block)
        return key, block, faults, size

    def _block_faults(
        self, key: str | None, block: BlockRecord, faults: dict[str, StorageError]
    ) -> None:
        for name, fault in faults.items():
            self.faults.setdefault(name, fault)
            self.damage.products.add(block.product)
            if key is not None:
                self.damage.keys.add(key)

    def _compare_digests(self, receipts: dict[str, Receipt]) -> None:
        """Compare the marker with the receipts it was made from, when all of them are there."""
        if len(receipts) < len(self.marker.receipts):
            return
        blocks: dict[str, list[BlockRecord]] = defaultdict(list)
        for block in (block for receipt in receipts.values() for block in receipt.blocks):
            blocks[block.product].append(block)
        for product, entry in self.marker.products.items():
            holes = [BlockRecord.from_dict(hole) for hole in entry.get("holes", ())]
            if content_digest(entry["template"], [*blocks[product], *holes]) != entry["content"]:
                name = f"markers/{self.marker.stage}.json"
                found = f"another digest of {product} than its receipts give"
                self.faults[name] = damaged(name, found, None)

    def _compare_metadata(self, pool: ThreadPoolExecutor, width: int, product: str) -> None:
        """Compare the metadata objects and coordinates of a product with their hashes."""
        hashes = self.marker.products[product].get("metadata", {})
        names = [f"{product}/{name}" for name in hashes]
        stored = _in_parallel(pool, width, self.store.objects.read, names)
        for (name, expected), data in zip(hashes.items(), stored, strict=True):
            if data is None or metadata_hash(name, data) != expected:
                found = "nothing" if data is None else "other bytes than were written"
                self.faults[f"{product}/{name}"] = damaged(f"{product}/{name}", found, None)
                self.damage.products.add(product)
        group = f"{product}/zarr.json"
        if group not in self.faults:
            try:
                content = self.store.attributes(product).get(CONTENT)
            except StorageError as fault:
                self.faults[group] = only_damage(fault, group)
            else:
                if is_published(product) and content != self.marker.products[product]["content"]:
                    self.faults[group] = damaged(group, "another seal than its marker says", None)
        if group in self.faults:
            self.damage.products.add(product)


def _markers(ledger: Ledger, result: Verification) -> dict[str, Marker]:
    """Return the markers; note those that cannot be read or belong to another stage."""
    found = {stage: m for stage, m in ledger.markers().items() if m.stage == stage}
    for name in ledger.objects.names("markers"):
        stage = unquote(name.removeprefix("markers/").removesuffix(".json"))
        if name.endswith(".json") and stage not in found:
            result.faults[name] = damaged(name, "no marker that can be read", None)
    return found


def _in_parallel(
    pool: ThreadPoolExecutor, width: int, function: Callable[[T], R], items: Iterable[T]
) -> Iterator[R]:
    """Yield results in order with at most ``width`` items under way."""
    running: deque[Future[R]] = deque()
    try:
        for item in items:
            if len(running) >= width:
                yield running.popleft().result()
            running.append(pool.submit(function, item))
        while running:
            yield running.popleft().result()
    finally:
        for future in running:
            future.cancel()


def _elements(block: BlockRecord) -> int:
    count = 1
    for size in block.shape:
        count *= size
    return count


def _readers(store: CubeStore) -> int:
    """Return how many threads to read with: latency counts in an object store, not processors."""
    if not isinstance(store.objects, LocalObjects):
        return _REMOTE_READERS
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 4


def _lost_receipt(stage: str, key: str) -> StorageError:
    return StorageError(
        "R801",
        "a receipt that the marker vouches for is gone or cannot be read",
        where=f"{stage}/{key}",
        remedy="run 'bperp repair ROOT': it computes again what is damaged and nothing else",
    )
