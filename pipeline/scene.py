"""Windows of the scene assembled from burst products by index."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bperp.pipeline.stage import Source

Window = tuple[int, int, int, int]
"""``(first line, stop line, first sample, stop sample)`` in scene indices."""


@dataclass(frozen=True)
class Piece:
    """The part of a window that one burst owns: its place in the window and in the burst."""

    burst_id: str
    target: tuple[slice, slice]
    origin: tuple[slice, slice]


class SceneReader:
    """Read windows of the scene; pixels that no burst owns keep the fill value.

    Parameters
    ----------
    source : Source
        Reader of the running task.
    scene : mapping
        ``Scene.as_dict()``.
    """

    def __init__(self, source: Source, scene: Mapping[str, Any]) -> None:
        self._source = source
        self._placements = scene["placements"]

    def bursts(self, window: Window) -> list[str]:
        """Return the bursts that own pixels of a window."""
        return [piece.burst_id for piece in self.pieces(window)]

    def slc(self, window: Window, date: str) -> NDArray[np.complex64]:
        """Return one date, ``(lines, samples)`` complex64, flattened, zero where invalid."""
        result = np.zeros(_shape(window), np.complex64)
        for piece in self.pieces(window):
            result[piece.target] = self.burst_slc(piece.burst_id, date, *piece.origin)
        return result

    def burst_slc(
        self, burst_id: str, date: str, rows: slice, columns: slice
    ) -> NDArray[np.complex64]:
        """Return a window of one burst and date, whoever owns its pixels."""
        region = (date, rows, columns, slice(0, 2))
        numbers = self._source.read(f"bursts/{burst_id}/coregistered", "slc", region)[0]
        return np.ascontiguousarray(numbers, np.float32).view(np.complex64)[..., 0]

    def stack(self, window: Window, dates: Sequence[str]) -> NDArray[np.complex64]:
        """Return several dates, ``(date, lines, samples)`` complex64."""
        result = np.empty((len(dates), *_shape(window)), np.complex64)
        for position, date in enumerate(dates):
            result[position] = self.slc(window, date)
        return result

    def geometry(self, window: Window, variable: str, fill: float = np.nan) -> NDArray[Any]:
        """Return a geometry variable, ``(lines, samples)``, ``fill`` where nobody owns a pixel."""
        result: NDArray[Any] | None = None
        for piece in self.pieces(window):
            values = self._source.read(f"bursts/{piece.burst_id}/geometry", variable, piece.origin)
            if result is None:
                result = np.full(_shape(window), fill, values.dtype)
            result[piece.target] = values
        return np.full(_shape(window), fill) if result is None else result

    def owners(self, window: Window) -> NDArray[np.int16]:
        """Return the index of the owning placement per pixel, -1 where nobody owns it."""
        result = np.full(_shape(window), -1, np.int16)
        index = {place["burst_id"]: i for i, place in enumerate(self._placements)}
        for piece in self.pieces(window):
            result[piece.target] = index[piece.burst_id]
        return result

    def pieces(self, window: Window) -> Iterator[Piece]:
        """Yield the parts of a window by the bursts that own them."""
        for place in self._placements:
            top, bottom = max(window[0], place["owned"][0]), min(window[1], place["owned"][1])
            left, right = max(window[2], place["owned"][2]), min(window[3], place["owned"][3])
            if top >= bottom or left >= right:
                continue
            line, sample = place["origin"]
            yield Piece(
                place["burst_id"],
                (
                    slice(top - window[0], bottom - window[0]),
                    slice(left - window[2], right - window[2]),
                ),
                (slice(top - line, bottom - line), slice(left - sample, right - sample)),
            )


def _shape(window: Window) -> tuple[int, int]:
    return window[1] - window[0], window[3] - window[2]


def tile_windows(shape: tuple[int, int], tile: tuple[int, int]) -> Iterator[tuple[str, Window]]:
    """Yield ``(key, window)`` of the tiles that cover an image, row by row."""
    for row, top in enumerate(range(0, shape[0], tile[0])):
        for column, left in enumerate(range(0, shape[1], tile[1])):
            window = (top, min(top + tile[0], shape[0]), left, min(left + tile[1], shape[1]))
            yield f"tile-{row:03d}-{column:03d}", window
