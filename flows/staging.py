"""Before and after the tasks of a stage: refuse early, prepare products, vouch for them."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bperp.flows.executors import BASELINE_BYTES, USABLE_SHARE
from bperp.flows.planning import StagePlan
from bperp.pipeline.stage import ArraySpec, Block, Template
from bperp.stores.blocks import BlockRecord
from bperp.stores.cube import CubeStore, TemplateState
from bperp.stores.errors import StorageError
from bperp.stores.layout import GROWING_DIMENSIONS, template_digest
from bperp.stores.objects import LocalObjects, is_local
from bperp.stores.receipts import Ledger, Marker, Receipt, content_digest

_BEST_COMPRESSION = 0.1
"""Products of real data never compress better than this; see docs on the codec chain."""


def begin_stage(plan: StagePlan, store: CubeStore, memory_limit_bytes: int | None) -> None:
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

    Raises
    ------
    StorageError
        R805 when a task is predicted to need more memory than a worker has, R804 when the disk
        cannot hold what is still to be written. Nothing was changed then.
    """
    require_memory(plan, memory_limit_bytes)
    require_disk(plan, store)
    ledger = Ledger(store.objects)
    ledger.remove_marker(plan.name)
    ledger.retire(plan.name, keep=plan.done)
    for template in plan.templates:
        store.create(template, replace=True)
        store.remove_partials(template.product)


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
    receipts = ledger.load(plan.name, plan.ids)
    lost = [key for key in plan.ids if key not in receipts]
    if lost:
        raise StorageError(
            "R801",
            "a receipt disappeared while the stage was running",
            where=f"{plan.name}/{lost[0]}",
            remedy="run again: it resumes",
        )
    marker = Marker(
        stage=plan.name,
        version=plan.version,
        receipts=plan.ids,
        products={t.product: _vouch(t, receipts, store) for t in plan.templates},
    )
    ledger.write_marker(marker)
    return marker


def require_memory(plan: StagePlan, limit: int | None) -> None:
    """Refuse a stage whose largest pending task does not fit into a worker (R805)."""
    worst = max(plan.pending, key=lambda order: order.memory_bytes, default=None)
    if worst is None or limit is None:
        return
    needed = int((worst.memory_bytes + BASELINE_BYTES) / USABLE_SHARE)
    if needed > limit:
        raise StorageError(
            "R805",
            "a task would need more memory than a worker has",
            where=worst.name,
            expected=f"at least {needed / 1e6:.0f} MB per worker "
            f"({worst.memory_bytes / 1e6:.0f} MB for arrays, {BASELINE_BYTES / 1e6:.0f} MB for the "
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
    }


def _holes(product: str, spec: ArraySpec, written: list[BlockRecord]) -> Iterator[Block]:
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


def _fill_block(product: str, spec: ArraySpec, index: tuple[int, ...]) -> Block:
    origin = tuple(i * chunk for i, chunk in zip(index, spec.chunks, strict=True))
    shape = tuple(
        min(chunk, size - start)
        for start, chunk, size in zip(origin, spec.chunks, spec.shape, strict=True)
    )
    fill = 0 if spec.fill_value is None else spec.fill_value
    return Block(product, spec.name, origin, np.full(shape, fill, np.dtype(spec.dtype)))


def changed_products(plan: StagePlan) -> tuple[str, ...]:
    """Return the products that will be removed and made anew, for ``--dry-run``."""
    return tuple(
        product for product, state in plan.states.items() if state is TemplateState.DIFFERENT
    )


__all__ = ["begin_stage", "changed_products", "finish_stage", "require_disk", "require_memory"]
