"""StaMPS input trees of single-reference stacks: the writer.

The tree is what ``mt_prep_snap`` and ``mt_prep_gamma`` read: ``rslc/`` (every date), ``diff0/``
(one interferogram and baseline per secondary), ``geo/`` (height, longitude, latitude) and ``dem/``.
All rasters are big-endian, azimuth outer, range inner, without a header. Rows may be written in any
order and any number at a time; memory is one block.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from bperp.stores.errors import StorageError
from bperp.stores.replace_file import storage_error
from bperp.stores.stamps_par import (
    baseline_text,
    difference_parameters,
    image_parameters,
    secondary_parameters,
)
from bperp.stores.stamps_reader import StampsStack, read_stamps_tree, validate_stamps_tree
from bperp.stores.stamps_scene import (
    Platform,
    StampsBaseline,
    StampsScene,
    StateVectors,
    baseline_from_orbits,
    check_sensor,
    perpendicular_baseline,
    platform_from_orbit,
)
from bperp.stores.stamps_target import (
    FOLDERS,
    check_stamps_path,
    check_stamps_size,
    check_stamps_target,
    checked_secondaries,
)

__all__ = [
    "Platform",
    "StampsBaseline",
    "StampsScene",
    "StampsStack",
    "StampsTree",
    "StateVectors",
    "baseline_from_orbits",
    "perpendicular_baseline",
    "platform_from_orbit",
    "read_stamps_tree",
    "stamps_tree_bytes",
    "validate_stamps_tree",
]


def stamps_tree_bytes(lines: int, samples: int, secondaries: int) -> int:
    """Return the size of a tree's rasters in bytes (8 per SLC and interferogram, 12 geometry)."""
    return lines * samples * (8 * (secondaries + 1) + 8 * secondaries + 12)


class StampsTree:
    """Write one tree row block by row block; it appears under its name when it is complete.

    Parameters
    ----------
    out : Path or str
        Folder to create. It is written as ``<out>.partial`` and renamed by `close`.
    scene : StampsScene
        Grid and sensor of the reference date.
    secondaries : sequence of str
        ``YYYYMMDD`` of every other date, in any order; all of them must be written.
    replace : bool, default False
        Replace an existing tree. A folder that holds anything else is never replaced.
    sensors : mapping of str to str, optional
        Sensor per secondary date where it differs from the scene's.

    Raises
    ------
    ConfigurationError
        ``C111`` the folder exists, ``C112`` a path that StaMPS cannot read, ``C113`` more pixels
        than StaMPS can address, ``C114`` dates that do not form a stack.
    StorageError
        ``R804`` not enough space, ``R807`` not writable.

    Notes
    -----
    Use it as a context manager: an exception inside the block removes the partial folder. Nothing
    is written for the pair of the reference with itself, which StaMPS would miscount.
    """

    def __init__(
        self,
        out: Path | str,
        scene: StampsScene,
        secondaries: Sequence[str],
        *,
        replace: bool = False,
        sensors: Mapping[str, str] | None = None,
    ) -> None:
        self.scene = scene
        self.path = Path(os.path.abspath(out))  # noqa: PTH100 - links in the path are kept
        self.secondaries = checked_secondaries(scene.reference_date, secondaries)
        self.nonfinite_samples = 0
        """Samples that were not finite and became 0+0j (or NaN longitude and latitude)."""
        self._sensors = {date: check_sensor(name) for date, name in (sensors or {}).items()}
        self._replace = replace
        self._partial = self.path.with_name(self.path.name + ".partial")
        self._baselines: dict[str, StampsBaseline] = {}
        self._open = False
        check_stamps_path(self.path, f"{self._diff_name(self.secondaries[0])}.par")
        check_stamps_size(self.path, scene.lines, scene.samples)
        check_stamps_target(self.path, replace=replace)
        self._create()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.abandon()

    def write_rslc_rows(self, date: str, first_row: int, rows: NDArray[np.complexfloating]) -> None:
        """Write lines of a coregistered SLC.

        Parameters
        ----------
        date : str
            Reference or secondary date.
        first_row : int
            0-based line of ``rows[0]``.
        rows : ndarray of shape (n, samples), complex64
            Samples on the reference grid; 0 = no data; not finite becomes 0.
        """
        self._write_complex(f"rslc/{self._known(date)}.rslc", first_row, rows)

    def write_diff_rows(
        self, secondary: str, first_row: int, rows: NDArray[np.complexfloating]
    ) -> None:
        """Write lines of an interferogram.

        Parameters
        ----------
        secondary : str
            Secondary date.
        first_row : int
            0-based line of ``rows[0]``.
        rows : ndarray of shape (n, samples), complex64
            reference * conj(secondary), flat-earth and topographic phase removed, phase
            +4 pi (R_secondary - R_reference) / lambda; 0 = no data; not finite becomes 0.
        """
        self._write_complex(self._diff_name(secondary), first_row, rows)

    def write_geometry_rows(
        self,
        first_row: int,
        height_m: NDArray[np.floating],
        longitude_deg: NDArray[np.floating],
        latitude_deg: NDArray[np.floating],
    ) -> None:
        """Write lines of the three geometry rasters.

        Parameters
        ----------
        first_row : int
            0-based line of the first row.
        height_m, longitude_deg, latitude_deg : ndarray of shape (n, samples), float32
            Where one of the three is not finite, longitude and latitude become NaN (StaMPS drops
            such candidates) and the height 0 (a NaN height would stay in its results).
        """
        good = np.isfinite(height_m) & np.isfinite(longitude_deg) & np.isfinite(latitude_deg)
        self.nonfinite_samples += int(good.size - np.count_nonzero(good))
        reference = self.scene.reference_date
        for name, values, fill in (
            ("geo/elevation_dem.rdc", height_m, 0.0),
            (f"geo/{reference}.lon", longitude_deg, np.nan),
            (f"geo/{reference}.lat", latitude_deg, np.nan),
        ):
            self._write(name, first_row, np.where(good, values, fill).astype(">f4"))

    def write_baseline(self, baseline: StampsBaseline) -> None:
        """Write the ``.base`` file of one secondary."""
        self._baselines[baseline.secondary_date] = baseline
        stem = self._diff_name(baseline.secondary_date).removesuffix(".diff")
        self._write_text(f"{stem}.base", baseline_text(baseline))

    def close(self) -> None:
        """Verify that every row and baseline is there, then give the tree its name.

        Raises
        ------
        StorageError
            ``R801`` names what is missing (the partial folder is removed), ``R804`` disk full,
            ``R807`` not writable.
        """
        if not self._open:
            return
        missing = self._missing()
        if missing:
            self.abandon()
            raise StorageError(
                "R801",
                "the StaMPS tree is incomplete and was not published",
                where=str(self.path),
                expected="every row of every raster and one baseline per secondary",
                found=", ".join(missing[:8]) + (" ..." if len(missing) > 8 else ""),
                remedy="run the export again",
            )
        try:
            self._write_parameters()
            for path in sorted(self._partial.rglob("*")):
                _synchronise(path)
            self._publish()
        except OSError as error:
            raise storage_error(error, self.path) from error
        self._open = False

    def abandon(self) -> None:
        """Remove the partial folder; an existing tree under the name stays as it is."""
        shutil.rmtree(self._partial, ignore_errors=True)
        self._open = False

    # Preparation ---------------------------------------------------------------------------------

    def _create(self) -> None:
        scene = self.scene
        needed = stamps_tree_bytes(scene.lines, scene.samples, len(self.secondaries))
        self._rows: dict[str, NDArray[np.bool_]] = {
            name: np.zeros(scene.lines, dtype=np.bool_) for name in self._rasters()
        }
        try:
            _discard(self._partial)
            self.path.parent.mkdir(parents=True, exist_ok=True)
            free = shutil.disk_usage(self.path.parent).free
            if free < needed:
                raise StorageError(
                    "R804",
                    "the StaMPS tree does not fit on the disk",
                    where=str(self.path),
                    expected=f"{needed / 1e9:.2f} GB free",
                    found=f"{free / 1e9:.2f} GB",
                    remedy="free space, choose another folder or export a smaller area",
                )
            for folder in FOLDERS:
                (self._partial / folder).mkdir(parents=True)
            for name in self._rasters():
                (self._partial / name).touch()
        except OSError as error:
            raise storage_error(error, self.path) from error
        self._open = True

    def _rasters(self) -> list[str]:
        reference = self.scene.reference_date
        return [
            *(f"rslc/{date}.rslc" for date in sorted([reference, *self.secondaries])),
            *(self._diff_name(date) for date in self.secondaries),
            "geo/elevation_dem.rdc",
            f"geo/{reference}.lon",
            f"geo/{reference}.lat",
        ]

    # Writing -------------------------------------------------------------------------------------

    def _known(self, date: str) -> str:
        if date != self.scene.reference_date and date not in self.secondaries:
            raise ValueError(f"{date!r} is not a date of this tree")
        return date

    def _diff_name(self, secondary: str) -> str:
        if secondary not in self.secondaries:
            raise ValueError(f"{secondary!r} is not a secondary date of this tree")
        return f"diff0/{self.scene.reference_date}_{secondary}.diff"

    def _write_complex(
        self, name: str, first_row: int, rows: NDArray[np.complexfloating[Any, Any]]
    ) -> None:
        if not np.iscomplexobj(rows):
            raise ValueError(f"rows must be complex, instead got {rows.dtype}")
        good = np.isfinite(rows)
        if not good.all():
            self.nonfinite_samples += int(good.size - np.count_nonzero(good))
            rows = np.where(good, rows, 0)
        self._write(name, first_row, rows.astype(">c8"))

    def _write(self, name: str, first_row: int, rows: NDArray[Any]) -> None:
        scene = self.scene
        if not self._open:
            raise ValueError("the tree is closed")
        if rows.ndim != 2 or rows.shape[1] != scene.samples:
            raise ValueError(f"rows must be (n, {scene.samples}), instead got {rows.shape}")
        if not 0 <= first_row <= first_row + rows.shape[0] <= scene.lines:
            raise ValueError(
                f"rows {first_row}..{first_row + rows.shape[0]} exceed {scene.lines} lines"
            )
        try:
            with (self._partial / name).open("r+b") as stream:
                stream.seek(first_row * scene.samples * rows.dtype.itemsize)
                stream.write(np.ascontiguousarray(rows).data)
        except OSError as error:
            raise storage_error(error, self.path) from error
        self._rows[name][first_row : first_row + rows.shape[0]] = True

    def _write_text(self, name: str, text: str) -> None:
        try:
            (self._partial / name).write_text(text, encoding="ascii", newline="\n")
        except OSError as error:
            raise storage_error(error, self.path) from error

    def _write_parameters(self) -> None:
        scene, reference = self.scene, self.scene.reference_date
        complex_text = image_parameters(scene, "FCOMPLEX")
        float_text = image_parameters(scene, "FLOAT")
        self._write_text(f"rslc/{reference}.rslc.par", complex_text)
        for date in self.secondaries:
            sensor = self._sensors.get(date, scene.sensor)
            text = secondary_parameters(scene, date, sensor, "FCOMPLEX")
            self._write_text(f"rslc/{date}.rslc.par", text)
            self._write_text(f"{self._diff_name(date)}.par", complex_text)
        for name in ("geo/elevation_dem.rdc", f"geo/{reference}.lon", f"geo/{reference}.lat"):
            self._write_text(f"{name}.par", float_text)
        self._write_text("dem/projected_dem.par", float_text)
        self._write_text(f"geo/{reference}.diff_par", difference_parameters(scene))

    # Publication ---------------------------------------------------------------------------------

    def _missing(self) -> list[str]:
        missing = []
        for name, written in self._rows.items():
            absent = np.flatnonzero(~written)
            if absent.size:
                missing.append(f"{name} lacks {absent.size} rows from row {absent[0]}")
                continue
            size = self.scene.lines * self.scene.samples * (4 if name.startswith("geo/") else 8)
            found = (self._partial / name).stat().st_size
            if found != size:
                missing.append(f"{name} has {found} of {size} bytes")
        absent_baselines = sorted(set(self.secondaries) - set(self._baselines))
        return missing + [f"baseline of {date}" for date in absent_baselines]

    def _publish(self) -> None:
        retired = self.path.with_name(self.path.name + ".replaced")
        _discard(retired)
        if self.path.exists():
            # Somebody may have put results into the folder while we were writing.
            check_stamps_target(self.path, replace=self._replace)
            self.path.rename(retired)
        try:
            self._partial.rename(self.path)
        except OSError:
            if retired.exists():
                retired.rename(self.path)
            raise
        _synchronise(self.path.parent)
        _discard(retired)


def _discard(tree: Path) -> None:
    """Remove what a killed run left, but never a folder that holds anything else."""
    check_stamps_target(tree, replace=True)
    shutil.rmtree(tree, ignore_errors=True)


def _synchronise(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
