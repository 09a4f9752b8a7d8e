"""Sentinel-1 orbit files: precise (POEORB) and restituted (RESORB) state vectors.

Times of the result are UTC nanoseconds since 1970 on the clock of the image: around a leap second
the TAI tags of the vectors keep them 10 s apart, where their UTC tags would jump.

References
----------
Sentinels POD Service File Format Specification, GMES-GSEG-EOPG-FS-10-0075.
"""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bperp.stores.byte_source import StorageOptions, check_size, display_name, read_file
from bperp.stores.errors import OrbitError, ProductError
from bperp.stores.xml import LIMIT_BYTES, Element, parse_time_ns, parse_xml

__all__ = ["OrbitFile", "parse_orbit", "read_orbit_file"]

DAY_NS = 86_400_000_000_000
SECOND_NS = 1_000_000_000

KINDS = ("AUX_POEORB", "AUX_RESORB", "AUX_PREORB")
_REFETCH = "fetch the orbit file again"
_FEWEST_VECTORS = 4
_JUMP_M = 1.0
_BROKEN_ZIP = (
    zipfile.BadZipFile,
    NotImplementedError,
    RuntimeError,
    ValueError,
    EOFError,
    OSError,
    struct.error,
    zlib.error,
)
_AXES = ("X", "Y", "Z", "VX", "VY", "VZ")


@dataclass(frozen=True, eq=False)
class OrbitFile:
    """State vectors of one orbit file, or of two that were joined.

    Parameters
    ----------
    kind : str
        ``AUX_POEORB``, ``AUX_RESORB``, ``AUX_PREORB``, or ``ANNOTATION`` for the vectors of a
        product's annotation.
    mission : str
        ``S1A`` ...
    validity_start_ns, validity_stop_ns, created_ns : int
        UTC ns since 1970.
    time_ns : ndarray (n,) int64
        UTC ns since 1970, ascending.
    position_m, velocity_m_s : ndarray (n, 3) float64
        Earth fixed.
    sources : tuple of str
        File names.
    flags : tuple of str
        Recorded fallbacks.
    """

    kind: str
    mission: str
    validity_start_ns: int
    validity_stop_ns: int
    created_ns: int
    time_ns: NDArray[np.int64]
    position_m: NDArray[np.float64]
    velocity_m_s: NDArray[np.float64]
    sources: tuple[str, ...]
    flags: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """Names of the files for messages."""
        return " + ".join(self.sources)


def read_orbit_file(
    url: str,
    start_ns: int | None = None,
    stop_ns: int | None = None,
    storage_options: StorageOptions = None,
) -> OrbitFile:
    """Read an ``.EOF`` or ``.EOF.zip`` file.

    Parameters
    ----------
    url : str
        Local path or fsspec URL.
    start_ns, stop_ns : int, optional
        Only vectors within these UTC times (ns since 1970, inclusive); they fix the side of a
        leap second as well. Default: all.
    storage_options : mapping, optional
        For the fsspec file system.

    Raises
    ------
    OrbitError
        O501 no such file, O504 unreadable, truncated or with gaps, O505 frame or units, O506
        jump.
    SecurityError
        X901, X902.
    """
    where = display_name(url)
    try:
        data = read_file(url, LIMIT_BYTES, storage_options)
    except FileNotFoundError as error:
        raise OrbitError(
            "O501", "no such orbit file", where=where, remedy="correct the path"
        ) from error
    if data.startswith(b"PK"):
        data = _unzip(data, where)
    return parse_orbit(data, where, start_ns, stop_ns)


def _unzip(data: bytes, where: str) -> bytes:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = [m for m in archive.infolist() if m.filename.upper().endswith(".EOF")]
            if len(members) != 1:
                raise zipfile.BadZipFile(f"{len(members)} orbit files in the archive")
            check_size(where, members[0].file_size, LIMIT_BYTES)
            return archive.read(members[0])
    except _BROKEN_ZIP as error:
        raise _unreadable(where, str(error)) from error


def _unreadable(where: str, found: str) -> OrbitError:
    return OrbitError(
        "O504",
        "orbit file is truncated or not readable",
        where=where,
        expected="an Earth Explorer file with state vectors every 10 s",
        found=found[:120],
        remedy=_REFETCH,
    )


def parse_orbit(
    data: bytes, where: str, start_ns: int | None = None, stop_ns: int | None = None
) -> OrbitFile:
    """Parse the text of an orbit file; see ``read_orbit_file``."""
    if not data.strip():
        raise _unreadable(where, "an empty file")
    try:
        root = parse_xml(data, where)
    except ProductError as error:
        raise _unreadable(where, f"{error.cause}: {error.found}") from error
    space = root.tag.partition("}")[0] + "}" if root.tag.startswith("{") else ""
    header = _Header(root, space, where)
    items = list(root.iter(f"{space}OSV"))
    times, flags = _times(items, space, where, start_ns, stop_ns)
    keep = _window(times, start_ns, stop_ns)
    chosen = [items[i] for i in keep]
    states = _states(chosen, space, where)
    orbit = OrbitFile(
        kind=header.kind,
        mission=header.mission,
        validity_start_ns=header.validity_start_ns,
        validity_stop_ns=header.validity_stop_ns,
        created_ns=header.created_ns,
        time_ns=times[keep],
        position_m=states[:, :3].copy(),
        velocity_m_s=states[:, 3:].copy(),
        sources=(where,),
        flags=flags + _quality_flags(root, items, chosen, space),
    )
    _check_vectors(orbit)
    return orbit


class _Header:
    """Fields of the Earth Explorer header."""

    def __init__(self, root: Element, space: str, where: str) -> None:
        def get(name: str) -> str:
            found = next(root.iter(f"{space}{name}"), None)
            value = (found.text or "").strip() if found is not None else ""
            if not value:
                raise _unreadable(where, f"no {name}")
            return value

        def instant(name: str) -> int:
            value = parse_time_ns(get(name))
            if value is None:
                raise _unreadable(where, f"{name} {get(name)[:40]!r}")
            return value

        self.kind, mission = get("File_Type").upper(), get("Mission")
        if self.kind not in KINDS:
            raise _unreadable(where, f"file type {self.kind[:40]!r}")
        self.mission = f"S1{mission[-1:].upper()}"
        self.validity_start_ns = instant("Validity_Start")
        self.validity_stop_ns = instant("Validity_Stop")
        self.created_ns = instant("Creation_Date")
        frame = get("Ref_Frame").upper()
        if frame != "EARTH_FIXED":
            raise _wrong_frame(where, f"Ref_Frame {frame[:40]}")


def _wrong_frame(where: str, found: str) -> OrbitError:
    return OrbitError(
        "O505",
        "state vectors are not Earth fixed in metres",
        where=where,
        expected="Ref_Frame EARTH_FIXED, radius near 7.07e6 m, speed near 7.6e3 m/s",
        found=found,
        remedy="use an orbit file of the POD service",
    )


def _times(
    items: list[Element], space: str, where: str, start_ns: int | None, stop_ns: int | None
) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """Return times on the UTC clock of the window, also across a leap second."""
    utc = np.array([_stamp(item, f"{space}UTC", where) for item in items], dtype=np.int64)
    if not utc.size:
        raise _unreadable(where, "no state vectors")
    if items[0].find(f"{space}TAI") is None:
        return utc, ()
    edges = [0, utc.size - 1]
    offsets = [_stamp(items[i], f"{space}TAI", where) - int(utc[i]) for i in edges]
    if offsets[0] == offsets[1]:
        return utc, ()
    tai = np.array([_stamp(item, f"{space}TAI", where) for item in items], dtype=np.int64)
    middle = (int(utc[0]) if start_ns is None else start_ns) // 2
    middle += (int(utc[-1]) if stop_ns is None else stop_ns) // 2
    # Labels of the leap second itself, 23:59:60, count on into the first second of the next day.
    first = int(np.argmax(tai - utc == offsets[1]))
    is_after = middle >= int(utc[first]) // DAY_NS * DAY_NS + SECOND_NS
    return tai - offsets[int(is_after)], ("leap-second",)


def _stamp(item: Element, tag: str, where: str) -> int:
    value = parse_time_ns((item.findtext(tag) or "").strip())
    if value is None:
        raise _unreadable(where, f"time tag {item.findtext(tag)!r}")
    return value


def _window(
    times: NDArray[np.int64], start_ns: int | None, stop_ns: int | None
) -> NDArray[np.int64]:
    inside = np.ones(times.size, dtype=bool)
    if start_ns is not None:
        inside &= times >= start_ns
    if stop_ns is not None:
        inside &= times <= stop_ns
    return np.flatnonzero(inside)


def _states(items: list[Element], space: str, where: str) -> NDArray[np.float64]:
    rows = []
    for item in items:
        fields = {field.tag.removeprefix(space): field for field in item}
        try:
            rows.append([float(fields[axis].text or "") for axis in _AXES])
        except (KeyError, ValueError) as error:
            stamp = item.findtext(f"{space}UTC")
            raise _unreadable(where, f"state vector of {stamp}: {error}") from error
        if fields["X"].get("unit", "m") != "m" or fields["VX"].get("unit", "m/s") != "m/s":
            raise _wrong_frame(where, f"unit {fields['X'].get('unit')}")
    return np.array(rows, dtype=np.float64).reshape(-1, 6)


def _quality_flags(
    root: Element, items: list[Element], chosen: list[Element], space: str
) -> tuple[str, ...]:
    flags = []
    declared = next(root.iter(f"{space}List_of_OSVs"), root).get("count")
    if declared is not None and declared.strip() != str(len(items)):
        flags.append(f"orbit-vectors:{len(items)}-of-{declared.strip()[:8]}")
    quality = {(item.findtext(f"{space}Quality") or "NOMINAL").strip() for item in chosen}
    if quality - {"NOMINAL"}:
        flags.append("orbit-quality-not-nominal")
    return tuple(flags)


def _check_vectors(orbit: OrbitFile) -> None:
    time, where = orbit.time_ns, orbit.label
    if time.size < _FEWEST_VECTORS:
        raise _unreadable(where, f"{time.size} state vectors in the time of interest")
    steps = np.diff(time)
    if (steps <= 0).any():
        raise _unreadable(where, "state vectors that are not in order of time")
    if steps.max() > 1.5 * np.median(steps):
        raise _unreadable(where, f"a gap of {steps.max() * 1e-9:.0f} s between state vectors")
    check_states(orbit.position_m, orbit.velocity_m_s, where)
    jump = _largest_jump_m(orbit)
    if jump > _JUMP_M:
        raise OrbitError(
            "O506",
            "state vectors jump (manoeuvre or damage)",
            where=where,
            expected=f"positions and velocities that agree within {_JUMP_M:g} m",
            found=f"{jump:.3g} m",
            remedy="use another orbit file, or leave this date out",
        )


def check_states(
    position_m: NDArray[np.float64], velocity_m_s: NDArray[np.float64], where: str
) -> None:
    """Raise O505 unless state vectors (n, 3) have the size of this mission's orbit."""
    radius = np.linalg.norm(position_m, axis=1)
    speed = np.linalg.norm(velocity_m_s, axis=1)
    good = (radius > 6.9e6) & (radius < 7.3e6) & (speed > 7.0e3) & (speed < 8.2e3)
    if not good.all():
        bad = int(np.argmin(good))
        raise _wrong_frame(where, f"radius {radius[bad]:.4g} m, speed {speed[bad]:.4g} m/s")


def _largest_jump_m(orbit: OrbitFile) -> float:
    """Compare every vector with the cubic Hermite curve through its neighbours.

    Neighbours 20 s apart leave 4 mm on an undisturbed orbit.
    """
    t = (orbit.time_ns - orbit.time_ns[0]) * 1e-9
    left, right = slice(None, -2), slice(2, None)
    span = (t[right] - t[left])[:, None]
    u = (t[1:-1] - t[left])[:, None] / span
    p, v = orbit.position_m, orbit.velocity_m_s
    predicted = (
        (1 + 2 * u) * (1 - u) ** 2 * p[left]
        + u * (1 - u) ** 2 * span * v[left]
        + u**2 * (3 - 2 * u) * p[right]
        - u**2 * (1 - u) * span * v[right]
    )
    difference: NDArray[np.float64] = np.linalg.norm(predicted - p[1:-1], axis=1)
    return float(difference.max())
