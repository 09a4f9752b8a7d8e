"""One spelling of JSON, so that equal content has equal bytes and therefore equal digests."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np


def canonical_json(value: Any) -> bytes:
    """Return the only JSON text of a value: sorted keys, no blanks, ASCII, shortest floats.

    Parameters
    ----------
    value : JSON-serialisable
        Mappings with string keys, lists, tuples, strings, booleans, integers, finite floats, None.

    Returns
    -------
    bytes
        ASCII text; equal for equal values whatever the order of the keys.

    Raises
    ------
    ValueError
        The value holds something else, such as NaN, a numpy scalar or a path.
    """
    try:
        text = json.dumps(
            value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False
        )
    except TypeError as error:
        raise ValueError(f"not JSON-serialisable: {error}") from error
    return text.encode("ascii")


def digest(value: Any) -> str:
    """Return the SHA-256 of the canonical JSON text as 64 hexadecimal digits."""
    return hashlib.sha256(canonical_json(value)).hexdigest()


def plain(value: Any) -> Any:
    """Return a value with numpy types, tuples and non-finite floats turned into strict JSON.

    NaN and the infinities become ``None``: strict JSON has no spelling for them, and a reader that
    computes with ``None`` fails loudly.

    Parameters
    ----------
    value : Any
        Nested mappings and sequences of plain or numpy values.

    Returns
    -------
    Any
        The same nesting of ``dict`` with string keys, ``list`` and JSON scalars.

    Raises
    ------
    ValueError
        An item has no JSON form.
    """
    if isinstance(value, np.generic | np.ndarray):
        value = value.tolist()
    if isinstance(value, Mapping):
        return {str(name): plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, str | bool | int):
        return value
    raise ValueError(f"not JSON-serialisable: {type(value).__name__} {value!r}")
