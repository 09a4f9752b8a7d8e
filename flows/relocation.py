"""Chunks that follow their dates: what to do when a date is inserted or removed amid the others.

The positions of all later dates change then, their contents do not. Their chunks are copied to the
new positions, read back and given new receipts; whatever goes wrong on the way is computed again.
"""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import product as combinations

from bperp.flows.planning import StagePlan
from bperp.pipeline.stage import ArraySpec
from bperp.stores.blocks import BlockRecord
from bperp.stores.cube import CubeStore
from bperp.stores.errors import StorageError
from bperp.stores.objects import ObjectStore
from bperp.stores.receipts import Ledger, Receipt

_COPIES_AT_ONCE = 8

Move = tuple[BlockRecord, BlockRecord]
"""The same block at its old and at its new position."""


def move_chunks(plan: StagePlan, store: CubeStore) -> dict[str, Receipt]:
    """Copy the chunks of finished work to the new positions of their dates or pairs.

    Parameters
    ----------
    plan : StagePlan
        Plan with ``moved`` receipts; the products still have their old axes.
    store : CubeStore
        Store of the run, locked by it.

    Returns
    -------
    dict of str to Receipt
        What ``record_moved`` may record once the products have their new axes.
    """
    ledger = Ledger(store.objects)
    targets = {order.key: order.places for order in plan.orders}
    receipts = {key: _at_new_places(receipt, targets[key]) for key, receipt in plan.moved.items()}
    specs = {(t.product, spec.name): spec for t in plan.templates for spec in t.arrays}
    # From here on the old positions may be overwritten: nothing may vouch for them any longer.
    for key, receipt in plan.moved.items():
        ledger.discard(plan.name, key, receipt.record)
    moves = [
        pair
        for key, receipt in plan.moved.items()
        for pair in zip(receipt.blocks, receipts[key].blocks, strict=True)
    ]
    _copy_in_order(moves, specs, store.objects)
    return receipts


def record_moved(plan: StagePlan, store: CubeStore, receipts: Mapping[str, Receipt]) -> StagePlan:
    """Read moved chunks back and record them; return the plan without the tasks that they spare."""
    ledger = Ledger(store.objects)
    with ThreadPoolExecutor(_COPIES_AT_ONCE) as pool:
        kept = set(pool.map(lambda receipt: _record(receipt, store, ledger), receipts.values()))
    left = {key: reason for key, reason in plan.reasons.items() if key not in kept}
    return replace(plan, reasons=left, moved={})


def _at_new_places(receipt: Receipt, places: Mapping[str, int]) -> Receipt:
    labels = {index: label for label, index in receipt.places.items()}
    blocks = tuple(
        replace(block, origin=(places[labels[block.origin[0]]], *block.origin[1:]))
        for block in receipt.blocks
    )
    return replace(receipt, places=dict(places), blocks=blocks)


def _copy_in_order(
    moves: list[Move], specs: Mapping[tuple[str, str], ArraySpec], objects: ObjectStore
) -> None:
    """Copy chunks so that none is overwritten before it was copied itself.

    Dates keep their order, so those that go up are copied from the last one down, and those that
    go down from the first one up; the two never meet.
    """
    by_target: dict[int, list[Move]] = defaultdict(list)
    for old, new in moves:
        if old.origin[0] != new.origin[0]:
            by_target[new.origin[0]].append((old, new))
    upwards = [target for target, group in by_target.items() if group[0][0].origin[0] < target]
    order = [*sorted(upwards, reverse=True), *sorted(by_target.keys() - set(upwards))]
    with ThreadPoolExecutor(_COPIES_AT_ONCE) as pool:
        for target in order:
            names = [
                names
                for old, new in by_target[target]
                for names in _chunk_names(old, new, specs[old.product, old.variable])
            ]
            list(pool.map(lambda pair: _copy(objects, *pair), names))


def _copy(objects: ObjectStore, source: str, target: str) -> None:
    # A chunk that is not there will be missed when the block is read back.
    with contextlib.suppress(StorageError, FileNotFoundError):
        objects.copy(source, target)


def _chunk_names(old: BlockRecord, new: BlockRecord, spec: ArraySpec) -> list[tuple[str, str]]:
    """Return the object names of the chunks of a block before and after the move."""
    units = (spec.shards or spec.chunks)[1:]
    parts = zip(old.origin[1:], old.shape[1:], units, strict=True)
    ranges = [range(start // edge, -(-(start + size) // edge)) for start, size, edge in parts]
    base = f"{old.product}/{old.variable}/c"
    tails = ["/".join(map(str, rest)) for rest in combinations(*ranges)]
    return [
        (f"{base}/{old.origin[0]}/{tail}".rstrip("/"), f"{base}/{new.origin[0]}/{tail}".rstrip("/"))
        for tail in tails
    ]


def _record(receipt: Receipt, store: CubeStore, ledger: Ledger) -> str | None:
    """Record moved work that reads back as it should; return its key."""
    try:
        for block in receipt.blocks:
            store.verify_block(block)
    except StorageError:
        return None
    ledger.record(receipt)
    return receipt.key
