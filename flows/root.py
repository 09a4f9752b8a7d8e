"""A root as its users see it: the stack it was made from and the finished products."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from bperp.flows.config import StackConfig
from bperp.flows.stack_index import StackIndex
from bperp.flows.worker import TaskSource
from bperp.pipeline.stack import Stack
from bperp.stores.canonical import canonical_json
from bperp.stores.cube import CubeStore
from bperp.stores.errors import StorageError
from bperp.stores.receipts import Ledger, Receipt

RECORD = "stack.json"
"""What was processed and how: enough to read and export a root without the inputs."""


def write_root_record(
    store: CubeStore,
    config: StackConfig,
    index: StackIndex,
    elevation: Mapping[str, Mapping[str, Any]],
) -> None:
    """Record the stack, the options and the notes of the index in the root."""
    record = {
        "stack": index.stack.as_dict(),
        "config": config.as_values(),
        "notes": list(index.notes),
        "products": list(index.products),
        "elevation": elevation,
    }
    text = canonical_json(record)
    if store.objects.read(RECORD) != text:
        store.objects.write(RECORD, text)


@dataclass(frozen=True)
class Root:
    """An existing root, read-only.

    Attributes
    ----------
    store : CubeStore
        Its products.
    stack : Stack
        What it was made from.
    config : dict
        Options of the last run.
    notes : tuple of str
        Decisions of the index: duplicates, holes, fallbacks.
    elevation : dict
        What the elevation files held, see ``elevation_contents``.
    """

    store: CubeStore
    stack: Stack
    config: Mapping[str, Any]
    notes: tuple[str, ...]
    elevation: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @classmethod
    def open(cls, url: str, storage_options: Mapping[str, Any] | None = None) -> Root:
        """Open a root by folder or URL.

        Raises
        ------
        StorageError
            R801 if no run was ever started there.
        """
        store = CubeStore(url, storage_options)
        root = cls.find(store)
        if root is None:
            raise StorageError(
                "R801",
                "this is not a root of bperp",
                where=store.objects.url,
                expected=f"a folder or bucket with {RECORD}",
                found="none",
                remedy="give the root: of stack.yaml, after 'bperp run' has been started",
            )
        return root

    @classmethod
    def find(cls, store: CubeStore) -> Root | None:
        """Return the root in a store, ``None`` when no run was ever started there.

        Raises
        ------
        StorageError
            R803 when its record is damaged.
        """
        text = store.objects.read(RECORD)
        if text is None:
            return None
        try:
            record = json.loads(text)
            stack = Stack.from_dict(record["stack"])
            contents = record.get("elevation", {})
            return cls(store, stack, record["config"], tuple(record["notes"]), contents)
        except (ValueError, KeyError, TypeError, StopIteration) as error:
            raise StorageError(
                "R803",
                "the record of the root is damaged",
                where=f"{store.objects.url}/{RECORD}",
                found=f"{type(error).__name__}: {error}"[:200],
                remedy=f"remove {RECORD} and run 'bperp run' with the same configuration: it is "
                "written anew and all products are kept",
            ) from error

    @cached_property
    def ledger(self) -> Ledger:
        """Receipts and markers."""
        return Ledger(self.store.objects)

    @cached_property
    def source(self) -> TaskSource:
        """Reader of all finished products."""
        return TaskSource(self.store, self.ledger.vouched_products())

    @cached_property
    def receipts(self) -> dict[str, dict[str, Receipt]]:
        """Receipts of the finished stages, by stage and task key."""
        return {
            stage: self.ledger.load(stage, marker.receipts)
            for stage, marker in self.ledger.markers().items()
        }

    @cached_property
    def summaries(self) -> dict[str, dict[str, Mapping[str, Any]]]:
        """Receipt summaries of the finished stages, by stage and task key."""
        return {
            stage: {key: receipt.summary for key, receipt in receipts.items()}
            for stage, receipts in self.receipts.items()
        }
