"""What two roots must agree on, byte by byte."""

from __future__ import annotations

import json
from pathlib import Path

from bperp.stores.receipts import Receipt

NOTES = ("logs", "pictures", "report.html")
"""What tells about runs and not about results."""


def root_state(root: Path) -> dict[str, bytes]:
    """Return every file of a root by name; of receipts only what two runs must agree on."""
    state = {}
    for path in sorted(root.rglob("*")):
        name = path.relative_to(root)
        if path.is_file() and name.parts[0] not in NOTES and not path.name.endswith(".partial"):
            state[str(name)] = path.read_bytes()
    for name, data in state.items():
        if name.startswith("receipts/") and "blocks" in json.loads(data):
            state[name] = Receipt.from_dict(json.loads(data)).outcome()
    return state


def replace(path: Path, data: bytes) -> None:
    """Give a file other bytes without touching the files that are linked to the same ones."""
    path.unlink()
    path.write_bytes(data)


def flipped(data: bytes, bit: int = 2) -> bytes:
    """Return bytes with one bit of the middle one turned over."""
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ (1 << bit)]) + data[middle + 1 :]
