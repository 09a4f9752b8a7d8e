"""StaMPS input trees of single-reference stacks: importer and validator.

Trees made by other programs are read as well; what StaMPS would stumble over is listed with code
``C110``, and known defects of such trees as warnings.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from bperp.stores.errors import ConfigurationError
from bperp.stores.stamps_par import (
    BASELINE_KEYS_READ,
    KEYS_READ,
    key_faults,
    numbers,
    parse_parameters,
    read_text,
)
from bperp.stores.stamps_scene import MAXIMUM_PIXELS, StampsBaseline
from bperp.stores.stamps_target import SHELL_CHARACTERS

_PAIR = re.compile(r"([0-9]{8})_([0-9]{8})\.diff")
_SLC = re.compile(r"([0-9]{8})\.r?slc")


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong with a tree.

    ``error``: StaMPS stops or miscounts; ``warning``: it runs with degraded numbers.
    """

    severity: Literal["error", "warning"]
    where: str
    message: str
    code: str = "C110"

    def __str__(self) -> str:
        return f"{self.code} {self.severity} {self.where}: {self.message}"


@dataclass(frozen=True)
class StampsStack:
    """An existing tree, opened for reading.

    Parameters
    ----------
    root : Path
        Folder of the tree.
    reference_date : str
        ``YYYYMMDD``.
    secondaries : tuple of str
        Other dates in ascending order.
    lines, samples : int
        Grid.
    parameters : mapping of str to tuple of str
        Keys and values of the reference's ``.par`` file.
    baselines : mapping of str to StampsBaseline
        Per secondary.
    files : mapping of str to Path
        ``slc/<date>``, ``diff/<date>``, ``height``, ``longitude``, ``latitude``.
    """

    root: Path
    reference_date: str
    secondaries: tuple[str, ...]
    lines: int
    samples: int
    parameters: Mapping[str, tuple[str, ...]]
    baselines: Mapping[str, StampsBaseline]
    files: Mapping[str, Path]

    def number(self, key: str) -> float:
        """Return a numeric parameter of the reference; ValueError when it is not there."""
        return numbers(self.parameters, key, 1)[0]

    def read_slc_rows(self, date: str, first_row: int, stop_row: int) -> NDArray[np.complex64]:
        """Return lines of a coregistered SLC as native complex64 ``(rows, samples)``."""
        path = self.files[f"slc/{date}"]
        if self.parameters.get("image_format") == ("SCOMPLEX",):
            pairs = self._rows(path, np.dtype((">i2", (2,))), first_row, stop_row)
            parts = pairs.astype(np.float32)
            return np.ascontiguousarray(parts).view(np.complex64)[..., 0]
        return self._rows(path, np.dtype(">c8"), first_row, stop_row).astype(np.complex64)

    def read_interferogram_rows(
        self, secondary: str, first_row: int, stop_row: int
    ) -> NDArray[np.complex64]:
        """Return lines of reference * conj(secondary) as native complex64 ``(rows, samples)``."""
        path = self.files[f"diff/{secondary}"]
        return self._rows(path, np.dtype(">c8"), first_row, stop_row).astype(np.complex64)

    def read_geometry_rows(
        self, first_row: int, stop_row: int
    ) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
        """Return lines of height in m, longitude and latitude in degrees, native float32."""
        height, longitude, latitude = (
            self._rows(self.files[name], np.dtype(">f4"), first_row, stop_row).astype(np.float32)
            for name in ("height", "longitude", "latitude")
        )
        return height, longitude, latitude

    def _rows(self, path: Path, dtype: np.dtype[Any], first_row: int, stop: int) -> NDArray[Any]:
        if not 0 <= first_row <= stop <= self.lines:
            raise ValueError(f"rows {first_row}..{stop} exceed {self.lines} lines")
        item = dtype.base.newbyteorder("=").itemsize * int(np.prod(dtype.shape, initial=1))
        with path.open("rb") as stream:
            stream.seek(first_row * self.samples * item)
            count = (stop - first_row) * self.samples
            values = np.fromfile(stream, dtype=dtype, count=count)
        return values.reshape(stop - first_row, self.samples, *dtype.shape)


def read_stamps_tree(root: Path | str) -> StampsStack:
    """Open an existing single-reference tree.

    Parameters
    ----------
    root : Path or str
        Folder with ``rslc``, ``diff0`` and ``geo``.

    Returns
    -------
    StampsStack
        Names, sizes and numbers; pixels are read on request.

    Raises
    ------
    ConfigurationError
        ``C110`` lists everything that is missing or of the wrong size.
    """
    root = Path(root)
    errors = [f for f in validate_stamps_tree(root) if f.severity == "error"]
    if errors:
        shown = "; ".join(f"{f.where}: {f.message}" for f in errors[:10])
        raise ConfigurationError(
            "C110",
            "the StaMPS tree is incomplete",
            where=str(root),
            expected="rslc, diff0 and geo with one raster and baseline per date",
            found=shown + (f" and {len(errors) - 10} more" if len(errors) > 10 else ""),
            remedy="export the missing files again",
        )
    reference, secondaries = _dates(root)
    parameters = parse_parameters(read_text(_one(root, f"*slc/{reference}.*slc.par")))
    slcs = {_SLC.fullmatch(path.name): path for path in root.glob("*slc/*.*slc")}
    files = {f"slc/{match.group(1)}": path for match, path in slcs.items() if match}
    files |= {f"diff/{s}": root / "diff0" / f"{reference}_{s}.diff" for s in secondaries}
    files |= {
        "height": _one(root, "geo/*dem.rdc"),
        "longitude": sorted(root.glob("geo/*.lon"))[0],
        "latitude": sorted(root.glob("geo/*.lat"))[0],
    }
    baselines = {s: _baseline(root / "diff0" / f"{reference}_{s}.base", s) for s in secondaries}
    lines, samples = (int(parameters[key][0]) for key in ("azimuth_lines", "range_samples"))
    return StampsStack(root, reference, secondaries, lines, samples, parameters, baselines, files)


def validate_stamps_tree(root: Path | str) -> list[Finding]:
    """List what StaMPS would stumble over in a tree.

    Parameters
    ----------
    root : Path or str
        Folder of the tree.

    Returns
    -------
    list of Finding
        Errors first; empty for a sound tree. Pixels are not read, only names, sizes and text.
    """
    root = Path(root)
    findings: list[Finding] = []

    def add(
        where: Path | str, message: str, severity: Literal["error", "warning"] = "error"
    ) -> None:
        name = str(where.relative_to(root)) if isinstance(where, Path) else where
        findings.append(Finding(severity, name or ".", message))

    if SHELL_CHARACTERS.search(str(root.absolute())):
        add("", "StaMPS cannot read a path with blanks or shell characters", "warning")
    absent = [name for name in ("diff0", "geo") if not (root / name).is_dir()]
    for name in absent:
        add(name, "folder is missing")
    if "diff0" not in absent and _check_pairs(root, add):
        _check_images(root, add)
    if "geo" not in absent:
        _check_geometry_names(root, add)
    return sorted(findings, key=lambda finding: finding.severity != "error")


_Add = Callable[..., None]


def _check_pairs(root: Path, add: _Add) -> bool:
    """Check names in diff0; return whether the reference date is known."""
    paths = sorted(root.glob("diff0/*.diff"))
    if not paths:
        add("diff0", "no interferogram *.diff")
        return False
    references = set()
    for path in paths:
        match = _PAIR.fullmatch(path.name)
        if not match:
            add(path, "name must be YYYYMMDD_YYYYMMDD.diff")
            continue
        references.add(match.group(1))
        if match.group(1) == match.group(2):
            add(path, "interferogram of the reference with itself makes StaMPS miscount; delete it")
        if path.with_suffix(".base").is_file():
            _check_text(path.with_suffix(".base"), BASELINE_KEYS_READ, add)
        else:
            add(path.with_suffix(".base"), "baseline file is missing")
    for path in sorted(root.glob("diff0/*.base")):
        if _PAIR.fullmatch(f"{path.stem}.diff") and not path.with_suffix(".diff").is_file():
            add(path.with_suffix(".diff"), "interferogram is missing")
    if len(references) != 1:
        add("diff0", f"needs one reference date, found {sorted(references) or 'none'}")
    return len(references) == 1


def _check_images(root: Path, add: _Add) -> None:
    reference, secondaries = _dates(root)
    folders = sorted({path.parent.name for path in root.glob("*slc/*.*slc")})
    if len(folders) != 1:
        add(".", f"needs one folder *slc with images, found {folders or 'none'}")
        return
    slcs = {path.name[:8]: path for path in sorted(root.glob("*slc/*.*slc"))}
    for path in sorted(root.glob("*slc/*.*slc")):
        if not _SLC.fullmatch(path.name):
            add(path, "name must be YYYYMMDD.rslc")
        elif path.name[:8] not in {reference, *secondaries}:
            add(root / "diff0" / f"{reference}_{path.name[:8]}.diff", "interferogram is missing")
    for date in sorted({reference, *secondaries} - set(slcs)):
        add(f"{folders[0]}/{date}.rslc", "image is missing")
    parameter_files = sorted(root.glob(f"*slc/{reference}.*slc.par"))
    if len(parameter_files) != 1:
        add(f"{folders[0]}/{reference}.rslc.par", f"needs one file, found {len(parameter_files)}")
        return
    _check_parameters(root, parameter_files[0], sorted(slcs.values()), add)


def _check_parameters(root: Path, path: Path, slcs: list[Path], add: _Add) -> None:
    if not _check_text(path, KEYS_READ, add):
        return
    parameters = parse_parameters(read_text(path))
    try:
        lines, samples = (int(parameters[key][0]) for key in ("azimuth_lines", "range_samples"))
        spacing = numbers(parameters, "range_pixel_spacing", 1)[0]
        near, center = (numbers(parameters, f"{key}_range_slc", 1)[0] for key in ("near", "center"))
    except (KeyError, IndexError, ValueError) as error:
        add(path, f"unreadable number ({error})")
        return
    if lines * samples > MAXIMUM_PIXELS or min(lines, samples) < 1:
        add(path, f"StaMPS cannot address {lines} x {samples} pixels")
    slc_bytes = 4 if parameters["image_format"] == ("SCOMPLEX",) else 8
    sized = [(path, slc_bytes) for path in slcs]
    sized += [(path, 8) for path in sorted(root.glob("diff0/*.diff"))]
    sized += [(path, 4) for pattern in _GEOMETRY for path in sorted(root.glob(pattern))]
    for raster, item in sized:
        found = raster.stat().st_size
        if found != lines * samples * item:
            add(raster, f"has {found} bytes instead of {lines} x {samples} x {item}")
    if spacing == round(spacing):
        add(path, "range_pixel_spacing is a whole number: look angles will be wrong", "warning")
    if samples > 1 and center == near:
        add(path, "center_range_slc repeats near_range_slc", "warning")


_GEOMETRY = ("geo/*dem.rdc", "geo/*.lon", "geo/*.lat")


def _check_geometry_names(root: Path, add: _Add) -> None:
    for pattern in _GEOMETRY:
        count = len(list(root.glob(pattern)))
        if count == 0:
            add(pattern, "raster is missing")
        elif count > 1 and pattern.endswith("dem.rdc"):
            add(pattern, f"needs one raster, found {count}")
        elif count > 1:
            add(pattern, f"{count} rasters, StaMPS reads the first", "warning")


def _check_text(path: Path, keys: tuple[str, ...], add: _Add) -> bool:
    try:
        text = read_text(path)
    except ConfigurationError as error:
        add(path, error.found or error.cause)
        return False
    faults = key_faults(text, keys)
    for fault in faults:
        add(path, fault)
    if not faults and keys is BASELINE_KEYS_READ:
        try:
            _baseline(path, path.stem[-8:])
        except ValueError as error:
            add(path, str(error))
    return not faults


def _baseline(path: Path, secondary: str) -> StampsBaseline:
    parameters = parse_parameters(read_text(path))
    t, c, n = numbers(parameters, "initial_baseline(TCN)", 3)
    t_rate, c_rate, n_rate = numbers(parameters, "initial_baseline_rate", 3)
    return StampsBaseline(secondary, (t, c, n), (t_rate, c_rate, n_rate))


def _dates(root: Path) -> tuple[str, tuple[str, ...]]:
    names = (path.name for path in sorted(root.glob("diff0/*.diff")))
    matches = [match for match in map(_PAIR.fullmatch, names) if match]
    return matches[0].group(1), tuple(sorted(match.group(2) for match in matches))


def _one(root: Path, pattern: str) -> Path:
    return next(iter(sorted(root.glob(pattern))))
