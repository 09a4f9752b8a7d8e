"""The record of a run: ``logs/run-<n>.jsonl``, one event per line, no secrets."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from typing import Any

from bperp.stores.canonical import plain
from bperp.stores.objects import LocalObjects, ObjectStore, storage_errors

_NAME = re.compile(r"logs/run-(\d+)\.jsonl$")


class RunLog:
    """Append-only log of one run.

    Parameters
    ----------
    objects : ObjectStore
        Store of the run. Local logs grow line by line; in an object store, which cannot append,
        the log is written anew by ``flush``.

    Notes
    -----
    Callers pass names, counts and typed errors, never storage options or environment variables.
    """

    def __init__(self, objects: ObjectStore) -> None:
        self.objects = objects
        self._lines: list[str] = []
        taken = [int(m[1]) for name in objects.names("logs") if (m := _NAME.search(name))]
        number = max(taken, default=0) + 1
        while not objects.create(f"logs/run-{number:04d}.jsonl", b""):
            number += 1
        self.name = f"logs/run-{number:04d}.jsonl"

    def event(self, kind: str, **fields: Any) -> None:
        """Add one line with the UTC time, the kind of event and its fields."""
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        line = json.dumps({"time": now, "event": kind, **plain(fields)}) + "\n"
        if isinstance(self.objects, LocalObjects):
            path = self.objects.folder / self.name
            with storage_errors(self.name), path.open("a", encoding="utf-8") as stream:
                stream.write(line)
            return
        self._lines.append(line)

    def flush(self) -> None:
        """Bring the log in an object store up to date."""
        if self._lines:
            self.objects.write(self.name, "".join(self._lines).encode())
