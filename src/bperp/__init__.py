"""bperp: Sentinel-1 SLC bursts in, ground motion out."""

from __future__ import annotations

__all__ = ["open"]


def open(root: str) -> dict[str, object]:  # noqa: A001
    """Placeholder replaced below."""
    raise ImportError(root)
