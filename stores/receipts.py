"""Receipts and markers: what was done, provably, and which products may be read.

A receipt ``receipts/<stage>/<key>.<id>.json`` says that a task with exactly this id has written
exactly these blocks. Its id is a hash over what determines the bytes, the ids of its inputs
included, so a whole plan can be compared with a store before anything runs. The marker
``markers/<stage>.json`` is written last and vouches for the products of the stage.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from typing import Any
from urllib.parse import quote, unquote

from bperp.stores.blocks import BlockRecord
from bperp.stores.canonical import canonical_json, digest, plain
from bperp.stores.errors import StorageError
from bperp.stores.objects import LocalObjects, ObjectStore

_SHORT = 12
_NAME = re.compile(r"^(?P<key>.+)\.(?P<short>[0-9a-f]{12})\.json$")


def task_id(
    *,
    stage: str,
    version: str,
    key: str,
    parameters: Mapping[str, Any],
    inputs: Mapping[str, str],
    layouts: Mapping[str, str],
) -> str:
    """Return the id of a task: equal ids write equal bytes.

    Parameters
    ----------
    stage, version, key : str
        Stage, its version, and the task's name within the stage.
    parameters : mapping
        Plain JSON; together with the inputs it determines every byte that the task writes.
    inputs : mapping of str to str
        ``"stage/key"`` to the id of that receipt.
    layouts : mapping of str to str
        Product to ``layout_digest``: a re-chunked product loses its receipts.

    Returns
    -------
    str
        64 hexadecimal digits. No time, host, path of the store or version of the program enters.
    """
    return digest(
        {
            "stage": stage,
            "version": version,
            "key": key,
            "parameters": dict(parameters),
            "inputs": dict(inputs),
            "layouts": dict(layouts),
        }
    )


def record_id(identity: str, places: Mapping[str, int]) -> str:
    """Return the id of a receipt: of the work and of the positions it was written to.

    Equal task ids with other positions are the same work at another place: a date was inserted or
    removed before it. Its chunks can be moved; they need not be computed again.
    """
    return digest([identity, dict(places)]) if places else identity


@dataclass(frozen=True)
class Receipt:
    """Proof that one task is done.

    ``summary`` is the small JSON that the stage returned. Everything from ``code_version`` on is a
    note about the run that did the work and takes part in no comparison.
    """

    id: str
    stage: str
    version: str
    key: str
    inputs: Mapping[str, str]
    parameters_digest: str
    blocks: tuple[BlockRecord, ...]
    summary: Mapping[str, Any]
    places: Mapping[str, int] = field(default_factory=dict)
    """Where on the growing axis each label (date, pair) was written."""
    code_version: str = ""
    host: str = ""
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    bytes_written: int = 0
    peak_rss_bytes: int = 0

    @property
    def record(self) -> str:
        """Name of this receipt among those of its task; see ``record_id``."""
        return record_id(self.id, self.places)

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON that ``from_dict`` restores."""
        outcome = hashlib.sha256(self.outcome()).hexdigest()
        blocks = [block.as_dict() for block in self.blocks]
        return {**asdict(self), "blocks": blocks, "outcome": outcome}

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Receipt:
        """Restore a receipt from its JSON.

        Raises
        ------
        ValueError
            Blocks or summary are not those that were recorded.
        """
        fields = {name: value for name, value in record.items() if name != "outcome"}
        fields["blocks"] = tuple(BlockRecord.from_dict(block) for block in record["blocks"])
        receipt = cls(**fields)
        if record.get("outcome") != hashlib.sha256(receipt.outcome()).hexdigest():
            raise ValueError(f"receipt {record.get('stage')}/{record.get('key')} is damaged")
        return receipt

    def outcome(self) -> bytes:
        """Return what two runs of the same task must agree on."""
        blocks = sorted((block.as_dict() for block in self.blocks), key=canonical_json)
        return canonical_json({"id": self.id, "blocks": blocks, "summary": plain(self.summary)})


@dataclass(frozen=True)
class Marker:
    """What a finished stage vouches for; equal runs write equal markers, byte for byte."""

    stage: str
    version: str
    receipts: Mapping[str, str]
    """Key to ``record_id`` of every receipt."""
    products: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Product to ``template`` and ``content``, the digests of its description and its blocks, and
    ``holes``, the blocks of dates or pairs without data that were filled when the stage ended."""

    def as_json(self) -> bytes:
        """Return the only JSON text of this marker."""
        return canonical_json(asdict(self))


class Ledger:
    """The receipts and markers of one root.

    Parameters
    ----------
    objects : ObjectStore
        Where they lie.
    """

    def __init__(self, objects: ObjectStore) -> None:
        self.objects = objects

    def recorded(self, stage: str) -> dict[str, set[str]]:
        """Return, from one listing, key to the first 12 digits of the record ids."""
        prefix = f"receipts/{stage}/"
        found: dict[str, set[str]] = {}
        for name in self.objects.names(prefix.rstrip("/")):
            match = _NAME.match(name.removeprefix(prefix))
            if match is not None:
                found.setdefault(unquote(match["key"]), set()).add(match["short"])
        return found

    def load(self, stage: str, records: Mapping[str, str]) -> dict[str, Receipt]:
        """Return the receipts out of ``records`` (key to record id); unreadable ones are absent.

        The first 12 digits of a record id are enough.
        """
        # Reading thousands of small objects one by one from a remote store takes minutes.
        readers = 1 if isinstance(self.objects, LocalObjects) else 16
        with ThreadPoolExecutor(readers) as pool:
            found = pool.map(lambda item: self._read(stage, *item), records.items())
            return {r.key: r for r in found if r is not None}

    def record(self, receipt: Receipt) -> Receipt:
        """Write a receipt exactly once.

        Parameters
        ----------
        receipt : Receipt
            Written after its blocks were read back.

        Returns
        -------
        Receipt
            The one on record: an equal one of another worker when that one was first.

        Raises
        ------
        StorageError
            R812 when another worker recorded a different outcome for the same id.
        """
        name = _receipt_name(receipt.stage, receipt.key, receipt.record)
        text = json.dumps(plain(receipt.as_dict()), indent=1, sort_keys=True).encode()
        for _ in range(3):
            if self.objects.create(name, text):
                return receipt
            known = self._read(receipt.stage, receipt.key, receipt.record)
            if known is not None:
                return _require_same(known, receipt)
            # Half a receipt, left by a crash on a file system without hard links.
            self.objects.remove(name)
        raise StorageError(
            "R812",
            "the receipt can neither be written nor read",
            where=name,
            remedy="remove this object and run again",
        )

    def discard(self, stage: str, key: str, record: str) -> None:
        """Remove one receipt, so that the next run does its task again."""
        self.objects.remove(_receipt_name(stage, key, record))

    def retire(self, stage: str, keep: Mapping[str, str], marker: Marker | None = None) -> int:
        """Remove every receipt of a stage that is not in ``keep`` (key to record id); count them.

        Chunks of tasks that left the plan will be overwritten: their receipts must not be found
        again when the user changes the options back. The receipts that the last marker names are
        removed even if a listing that lags behind does not show them.
        """
        vouched = {} if marker is None else marker.receipts
        named = {_receipt_name(stage, key, record) for key, record in vouched.items()}
        wanted = {_receipt_name(stage, key, record) for key, record in keep.items()}
        stale = (named | set(self.objects.names(f"receipts/{stage}"))) - wanted
        for name in sorted(stale):
            self.objects.remove(name)
        return len(stale)

    def marker(self, stage: str) -> Marker | None:
        """Return the marker of a stage, ``None`` when there is none or it is unreadable."""
        text = self.objects.read(_marker_name(stage))
        try:
            return None if text is None else Marker(**json.loads(text))
        except (ValueError, TypeError):
            return None

    def markers(self) -> dict[str, Marker]:
        """Return the markers of all finished stages."""
        names = [name for name in self.objects.names("markers") if name.endswith(".json")]
        stages = [unquote(name.removeprefix("markers/").removesuffix(".json")) for name in names]
        found = {stage: self.marker(stage) for stage in stages}
        return {stage: marker for stage, marker in found.items() if marker is not None}

    def vouched_products(self) -> frozenset[str]:
        """Return the products that a marker vouches for."""
        return frozenset(p for marker in self.markers().values() for p in marker.products)

    def write_marker(self, marker: Marker) -> None:
        """Declare a stage finished; the last write of its run."""
        self.objects.write(_marker_name(marker.stage), marker.as_json())

    def remove_marker(self, stage: str) -> None:
        """Withdraw a stage's products from readers, before their chunks change."""
        self.objects.remove(_marker_name(stage))

    def _read(self, stage: str, key: str, record: str) -> Receipt | None:
        text = self.objects.read(_receipt_name(stage, key, record))
        try:
            receipt = None if text is None else Receipt.from_dict(json.loads(text))
        except (ValueError, TypeError, KeyError):
            return None
        return receipt if receipt is not None and receipt.record.startswith(record) else None


def content_digest(template: str, blocks: Sequence[BlockRecord]) -> str:
    """Return the digest of a product: its template and the hash of every block."""
    parts = sorted([block.variable, list(block.origin), block.sha256] for block in blocks)
    return digest([template, parts])


def _receipt_name(stage: str, key: str, record: str) -> str:
    return f"receipts/{stage}/{quote(key, safe='/')}.{record[:_SHORT]}.json"


def _marker_name(stage: str) -> str:
    return f"markers/{quote(stage, safe='')}.json"


def _require_same(known: Receipt, receipt: Receipt) -> Receipt:
    if known.outcome() == receipt.outcome():
        return known
    raise StorageError(
        "R812",
        "the same task gave different results in two runs",
        where=f"{receipt.stage}/{receipt.key}",
        expected=f"the blocks and summary on record from host {known.host}",
        found=f"others on host {receipt.host}",
        remedy="report this; remove the receipt and its marker to start the task afresh",
    )
