"""Integrity of finished products: every vouched block is read again and compared."""

from __future__ import annotations

from dataclasses import dataclass, field

from bperp.stores.blocks import BlockRecord
from bperp.stores.cube import CubeStore
from bperp.stores.errors import StorageError
from bperp.stores.receipts import Ledger, Marker


@dataclass
class Verification:
    """What ``verify_store`` found; ``faults`` maps ``stage/key`` or a product to its fault."""

    blocks: int = 0
    faults: dict[str, StorageError] = field(default_factory=dict)
    repaired: bool = False


def verify_store(store: CubeStore, *, repair: bool = False) -> Verification:
    """Read every block that a marker vouches for and compare it with its receipt.

    Parameters
    ----------
    store : CubeStore
        Store to check; nothing is changed unless ``repair``.
    repair : bool, default False
        Withdraw the markers and the receipts of what is damaged, so that the next run computes
        exactly that again.

    Returns
    -------
    Verification
        Number of blocks read and the faults (R801 gone, R802 missing, R803 damaged).
    """
    ledger = Ledger(store.objects)
    result = Verification(repaired=repair)
    for stage, marker in ledger.markers().items():
        faults, damaged_keys = _verify_stage(store, ledger, marker, result)
        result.faults.update(faults)
        if repair and faults:
            ledger.remove_marker(stage)
            for key in damaged_keys:
                ledger.discard(stage, key, marker.receipts[key])
            for product in faults.keys() & marker.products.keys():
                if store.objects.read(f"{product}/zarr.json") is not None:
                    store.distrust(product)
    return result


def _verify_stage(
    store: CubeStore, ledger: Ledger, marker: Marker, result: Verification
) -> tuple[dict[str, StorageError], list[str]]:
    faults: dict[str, StorageError] = {}
    damaged_keys = []
    receipts = ledger.load(marker.stage, marker.receipts)
    for key in marker.receipts:
        if key in receipts:
            fault = _block_fault(store, receipts[key].blocks, result)
        else:
            fault = _lost_receipt(f"{marker.stage}/{key}")
        if fault is not None:
            faults[f"{marker.stage}/{key}"] = fault
            damaged_keys.append(key)
    for product, entry in marker.products.items():
        holes = tuple(BlockRecord.from_dict(block) for block in entry.get("holes", ()))
        fault = _block_fault(store, holes, result) or _coordinate_fault(store, product)
        if fault is not None:
            faults[product] = fault
    return faults, damaged_keys


def _block_fault(
    store: CubeStore, blocks: tuple[BlockRecord, ...], result: Verification
) -> StorageError | None:
    for block in blocks:
        result.blocks += 1
        try:
            store.verify_block(block)
        except StorageError as fault:
            return fault
    return None


def _coordinate_fault(store: CubeStore, product: str) -> StorageError | None:
    try:
        for name in store.variables(product)[1]:
            store.read(product, name)
    except StorageError as fault:
        return fault
    return None


def _lost_receipt(name: str) -> StorageError:
    return StorageError(
        "R801",
        "a receipt that the marker vouches for is gone",
        where=name,
        remedy="run 'bperp verify --repair' and then the same run again",
    )
