"""Before and after the tasks of a stage: refuse early, prepare products, vouch for them."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bperp.flows.executors import BASELINE_BYTES, USABLE_SHARE
from bperp.flows.planning import StagePlan
from bperp.flows.relocation import move_chunks, record_moved
from bperp.flows.worker import GROUP_CACHE_BYTES
from bperp.pipeline.stage import ArraySpec, Template
from bperp.stores.blocks import BlockRecord, PlacedBlock
from bperp.stores.cube import CubeStore, TemplateState
from bperp.stores.errors import StorageError
from bperp.stores.layout import GROWING_DIMENSIONS, template_digest
from bperp.stores.objects import LocalObjects, is_local
from bperp.stores.receipts import Ledger, Marker, Receipt, content_digest
from bperp.stores.verify import metadata_hashes

_BEST_COMPRESSION = 0.1
"""Products of real data never compress better than this; see docs on the codec chain."""


def begin_stage(plan: StagePlan, store: CubeStore, memory_limit_bytes: int | None) -> StagePlan:
    """Make a store ready for the pending tasks of a stage.

    The order keeps readers safe at every instant: the marker goes first, then the receipts that
    are no longer true, and only then do products change.

    Parameters
    ----------
    plan : StagePlan
        Plan that is not current.
    store : CubeStore
        Store of the run, locked by it.
    memory_limit_bytes : int or None
        Memory of one worker.

    Returns
    -------
    StagePlan
        What is left to do after chunks were moved to new positions of their dates.

    Raises
    ------
    StorageError
        R805 when a task is predicted to need more memory than a worker has, R804 when the disk
        cannot hold what is still to be written. Nothing was changed then.
    """
    require_memory(plan, memory_limit_bytes)
    require_disk(plan, store)
    ledger = Ledger(store.objects)
    marker = ledger.marker(plan.name)
    ledger.remove_marker(plan.name)
    for template in plan.templates:
        store.unseal(template.product)
    moving = {key: receipt.record for key, receipt in plan.moved.items()}
    ledger.retire(plan.name, {**plan.done, **moving}, marker)
    # Before the axes change: a kill on the way leaves products that the next run finishes.
    moved = move_chunks(plan, store)
    for template in plan.templates:
        _remove_entries_beyond(template, store)
        store.create(template, replace=True)
        store.remove_partials(template.product)
    return record_moved(plan, store, moved) if moved else plan


def finish_stage(plan: StagePlan, store: CubeStore) -> Marker:
    """Check that the tasks covered the products, and write the marker.

    Parameters
    ----------
    plan : StagePlan
        Plan whose tasks have all been done.
    store : CubeStore
        Store of the run.

    Returns
    -------
    Marker
        As written. Dates or pairs to which no task wrote (a date without the burst) were filled.

    Raises
    ------
    ValueError
        Tasks left gaps or wrote to one chunk twice: a fault of the stage.
    """
    ledger = Ledger(store.objects)
    receipts = ledger.load(plan.name, plan.records)
    lost = [key for key in plan.records if key not in receipts]
    if lost:
        # It may be there and unreadable: then only its name would count for the next run.
        for key in lost:
            ledger.discard(plan.name, key, plan.records[key])
        raise StorageError(
            "R801",
            "a receipt disappeared while the stage was running",
            where=f"{plan.name}/{lost[0]}",
            remedy="run again: it resumes",
        )
    marker = Marker(
        stage=plan.name,
        version=plan.version,
        receipts=plan.records,
        products={t.product: _vouch(t, receipts, store) for t in plan.templates},
    )
    for product, entry in marker.products.items():
        store.seal(product, entry["content"])
    ledger.write_marker(marker)
    return marker


def _remove_entries_beyond(template: Template, store: CubeStore) -> None:
    """Remove the chunks of dates or pairs that the product holds and its template does not."""
    if store.state(template) is not TemplateState.COMPATIBLE:
        return
    for spec in template.arrays:
        if not spec.dims or spec.dims[0] not in GROWING_DIMENSIONS:
            continue
        remove = store.objects.remove if len(spec.dims) == 1 else store.objects.remove_tree
        unit = (spec.shards or spec.chunks)[0]
        try:
            held = store.array(template.product, spec.name).shape[0]
        except StorageError:
            continue  # a damaged description is written anew, and tells nothing
        for index in range(-(-spec.shape[0] // unit), -(-held // unit)):
            remove(f"{template.product}/{spec.name}/c/{index}")


def require_memory(plan: StagePlan, limit: int | None) -> None:
    """Refuse a stage whose largest pending task does not fit into a worker (R805)."""
    worst = max(plan.pending, key=lambda order: order.memory_bytes, default=None)
    if worst is None or limit is None:
        return
    shared = GROUP_CACHE_BYTES if any(order.group for order in plan.pending) else 0
    needed = int((worst.memory_bytes + shared + BASELINE_BYTES) / USABLE_SHARE)
    if needed > limit:
        raise StorageError(
            "R805",
            "a task would need more memory than a worker has",
            where=worst.name,
            expected=f"at least {needed / 1e6:.0f} MB per worker "
            f"({(worst.memory_bytes + shared) / 1e6:.0f} MB for arrays, "
            f"{BASELINE_BYTES / 1e6:.0f} MB for the "
            f"process, {1 - USABLE_SHARE:.0%} to spare)",
            found=f"{limit / 1e6:.0f} MB per worker",
            remedy="use fewer workers with more memory each (compute.workers, "
            "compute.memory_per_worker)",
        )


def require_disk(plan: StagePlan, store: CubeStore) -> None:
    """Refuse a stage that cannot fit on a local disk even if it compresses well (R804)."""
    if not isinstance(store.objects, LocalObjects) or not is_local(store.root):
        return
    needed = int(sum(_pending_bytes(plan, template) for template in plan.templates))
    needed = int(needed * _BEST_COMPRESSION)
    folder = store.objects.folder
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise StorageError(
            "R804",
            "the disk cannot hold what this step will write",
            where=plan.name,
            expected=f"at least {needed / 1e9:.2f} GB",
            found=f"{free / 1e9:.2f} GB free in {folder}",
            remedy="free space or use another root",
        )


def _pending_bytes(plan: StagePlan, template: Template) -> float:
    writers = [order for order in plan.orders if template.product in order.outputs]
    share = sum(order.key in plan.reasons for order in writers) / max(len(writers), 1)
    return share * sum(
        float(np.prod(spec.shape, dtype=np.float64)) * np.dtype(spec.dtype).itemsize
        for spec in template.arrays
    )


def _vouch(template: Template, receipts: Mapping[str, Receipt], store: CubeStore) -> dict[str, Any]:
    written = [
        block
        for receipt in receipts.values()
        for block in receipt.blocks
        if block.product == template.product
    ]
    holes = [
        store.write_block(block)
        for spec in template.arrays
        for block in _holes(template.product, spec, written)
    ]
    described = template_digest(template)
    return {
        "template": described,
        "content": content_digest(described, [*written, *holes]),
        "holes": [block.as_dict() for block in holes],
        "metadata": metadata_hashes(store, template.product),
    }


def _holes(product: str, spec: ArraySpec, written: list[BlockRecord]) -> Iterator[PlacedBlock]:
    """Yield fill blocks, chunk by chunk, for the dates or pairs that no task wrote."""
    count = _writers_per_chunk(spec, [b for b in written if b.variable == spec.name])
    name = f"{product}/{spec.name}"
    if (count > 1).any():
        index = tuple(int(i) for i in np.argwhere(count > 1)[0])
        raise ValueError(f"two tasks wrote to chunk {index} of {name}: the second may lose data")
    empty = count == 0
    if not empty.any():
        return
    slabs = empty.reshape(empty.shape[0], -1) if empty.ndim else empty.reshape(1, 1)
    may_have_holes = bool(spec.dims) and spec.dims[0] in GROWING_DIMENSIONS and spec.chunks[0] == 1
    if not may_have_holes or not (slabs.all(axis=1) | ~slabs.any(axis=1)).all():
        index = tuple(int(i) for i in np.argwhere(empty)[0])
        raise ValueError(
            f"no task wrote to chunk {index} of {name}: write fill values where there are no data"
        )
    for place in np.argwhere(empty):
        yield _fill_block(product, spec, tuple(int(i) for i in place))


def _writers_per_chunk(spec: ArraySpec, written: list[BlockRecord]) -> NDArray[np.uint16]:
    grid = tuple(-(-size // chunk) for size, chunk in zip(spec.shape, spec.chunks, strict=True))
    count = np.zeros(grid, np.uint16)
    for block in written:
        parts = zip(block.origin, block.shape, spec.chunks, strict=True)
        count[tuple(slice(o // c, -(-(o + n) // c)) for o, n, c in parts)] += 1
    return count


def _fill_block(product: str, spec: ArraySpec, index: tuple[int, ...]) -> PlacedBlock:
    origin = tuple(i * chunk for i, chunk in zip(index, spec.chunks, strict=True))
    shape = tuple(
        min(chunk, size - start)
        for start, chunk, size in zip(origin, spec.chunks, spec.shape, strict=True)
    )
    fill = 0 if spec.fill_value is None else spec.fill_value
    return PlacedBlock(product, spec.name, origin, np.full(shape, fill, np.dtype(spec.dtype)))


def changed_products(plan: StagePlan) -> tuple[str, ...]:
    """Return the products that will be removed and made anew, for ``--dry-run``."""
    return tuple(
        product for product, state in plan.states.items() if state is TemplateState.DIFFERENT
    )


__all__ = ["begin_stage", "changed_products", "finish_stage", "require_disk", "require_memory"]
