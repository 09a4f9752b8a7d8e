"""Import of snap2stamps ``project.conf`` files (first and second generation).

The file is a list of ``KEY=VALUE`` lines. What has a counterpart here becomes an option; what has
none (SNAP's executable, graphs, disk policy, downloads) is named in a note. Nothing is dropped
silently. Names of keys come from the slides and from users' published files.
"""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bperp.flows.config_errors import nearest_name
from bperp.flows.config_types import is_windows_path, parse_angle, parse_memory
from bperp.flows.masking import SECRET_NAME
from bperp.stores.errors import ConfigurationError

__all__ = ["ProjectConf", "read_project_conf"]

_MISSPELT = {"NATMIN": "LATMIN", "NATMAX": "LATMAX", "LOGMIN": "LONMIN", "LOGMAX": "LONMAX"}
_IGNORED = {
    "GPTBIN_PATH": "SNAP is not needed",
    "GRAPHSFOLDER": "graphs are not needed",
    "LOGFOLDER": "logs are kept below the root",
    "OVERWRITE": "finished work is recognised by its content",
    "SMARTHDD": "intermediate products are kept small by design",
    "PLOTTING": "pictures are not made by the import",
    "SMOOTH": "interferograms are not filtered",
    "MULTIPROC": "CPU decides the number of workers",
    "AUTODOWNLOAD": "products are not downloaded",
    "BEAMMODE": "the mode is read from the products",
    "TRACK": "the track is read from the products",
    "SAT": "the satellite is read from the products",
    "NPD": "products are not downloaded",
    "TEMP_BASELINE": "choose interferogram.network instead",
}
_AOI_KEYS = ("LONMIN", "LATMIN", "LONMAX", "LATMAX")
_SUBFOLDERS = ("slaves", "secondaries", "master")
_PRODUCT_DATE = re.compile(r"S1[A-D]_\w{2}_SLC.*?_(\d{4})(\d{2})(\d{2})T\d{6}")
_DATE = re.compile(r"(\d{4})-?(\d{2})-?(\d{2})")
_NUMBER_PAIR = re.compile(r"([-+]?[\d.]+(?:[eE][-+]?\d+)?)\s+([-+]?[\d.]+(?:[eE][-+]?\d+)?)")


@dataclass
class ProjectConf:
    """What a ``project.conf`` says, in our terms.

    Attributes
    ----------
    values : dict
        Nested options for ``StackConfig``; incomplete (orbits and often the DEM are missing).
    notes : list of str
        One sentence per key that was ignored, corrected or needs a decision.
    """

    values: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def set(self, name: str, value: Any) -> None:
        """Set an option by its dotted name."""
        *sections, leaf = name.split(".")
        target = self.values
        for section in sections:
            target = target.setdefault(section, {})
        target[leaf] = value


def read_project_conf(path: str | Path) -> ProjectConf:
    """Read a ``project.conf``.

    Parameters
    ----------
    path : path
        File of ``KEY=VALUE`` lines; ``#`` and ``;`` start comments, ``[SECTIONS]`` are skipped.

    Returns
    -------
    ProjectConf
        Values and notes; paths are absolute.

    Raises
    ------
    ConfigurationError
        C101 misspelt key, C102 unusable value, C103 coordinates, C104 file not readable.
    """
    source = Path(path)
    result = ProjectConf()
    keys = _read_keys(source, result)
    reader = _Reader(source, result)
    for key, value in keys.items():
        if key in _AOI_KEYS or key in ("AOI_MODE", "WKT"):
            continue
        if not value:
            result.notes.append(f"{key} is empty and was skipped")
            continue
        _import_key(key, value, keys, reader)
    _import_area(keys, reader)
    _import_memory(keys, reader)
    return result


def _read_keys(path: Path, result: ProjectConf) -> dict[str, str]:
    try:
        content = path.read_bytes()[:1_000_000]
    except OSError as error:
        raise ConfigurationError(
            "C104",
            "the project file cannot be read",
            where=str(path),
            found=error.strerror or type(error).__name__,
            remedy="check the path",
        ) from error
    keys: dict[str, str] = {}
    for line in content.decode("utf-8-sig", errors="replace").splitlines():
        text = line.strip().strip("|").strip()
        if not text or text[0] in "#;[*" or "=" not in text:
            continue
        name, value = text.split("=", 1)
        key = _MISSPELT.get(name.strip().upper(), name.strip().upper())
        if key != name.strip().upper():
            result.notes.append(f"{name.strip()} was read as {key}")
        value = re.split(r"\s[#;]", f" {value}", maxsplit=1)[0].strip().strip("\"'")
        if keys.get(key, value) != value:
            result.notes.append(f"{key} is given twice; the last value is used")
        keys[key] = value
    return keys


@dataclass
class _Reader:
    """Where the values go and how paths of the old file are understood."""

    source: Path
    result: ProjectConf

    def location(self, key: str, value: str) -> str | None:
        """Return an absolute path, or None with a note if this system cannot reach it."""
        if is_windows_path(value) and os.name != "nt":
            self.result.notes.append(
                f"{key} is a Windows path ({value}) that this system cannot reach; give it anew"
            )
            return None
        expanded = os.path.expanduser(os.path.expandvars(value))  # noqa: PTH111
        return os.path.normpath(self.source.resolve().parent / expanded)

    def error(self, code: str, key: str, cause: str, found: str, remedy: str) -> ConfigurationError:
        where = f"{self.source}: {key}"
        return ConfigurationError(code, cause, where=where, found=found[:80], remedy=remedy)


def _import_area(keys: Mapping[str, str], reader: _Reader) -> None:
    mode = keys.get("AOI_MODE", "BBOX").upper()
    if mode == "WKT" and keys.get("WKT"):
        pairs = [tuple(map(float, pair)) for pair in _NUMBER_PAIR.findall(keys["WKT"])]
        if not pairs:
            raise reader.error("C103", "WKT", "no coordinates", keys["WKT"], "give a POLYGON")
        lon, lat = zip(*pairs, strict=True)
        reader.result.set("aoi", [min(lon), min(lat), max(lon), max(lat)])
        reader.result.notes.append("WKT was replaced by its bounding box")
        return
    if mode not in ("BBOX", "WKT"):
        reader.result.notes.append(f"AOI_MODE={mode} is not supported; set aoi to a bounding box")
        return
    given = [key for key in _AOI_KEYS if keys.get(key)]
    if not given:
        reader.result.notes.append("no area of interest: all bursts will be processed")
        return
    absent = [key for key in _AOI_KEYS if key not in given]
    if absent:
        remedy = f"give {' '.join(_AOI_KEYS)}"
        raise reader.error("C103", absent[0], "the bounding box is incomplete", "nothing", remedy)
    reader.result.set("aoi", [_coordinate(key, keys[key], reader) for key in _AOI_KEYS])


def _coordinate(key: str, text: str, reader: _Reader) -> float:
    try:
        return float(text)
    except ValueError:
        guess = parse_angle(text)
        hint = f"write {key}={guess:g}" if guess is not None else "write decimal degrees"
        raise reader.error("C103", key, "not a number in decimal degrees", text, hint) from None


def _import_key(key: str, value: str, keys: Mapping[str, str], reader: _Reader) -> None:
    notes = reader.result.notes
    if SECRET_NAME.search(key) or key == "ASF_USER":
        notes.append(f"{key} was ignored: remove it, credentials do not belong in a file")
    elif key in _IGNORED:
        notes.append(f"{key} was ignored: {_IGNORED[key]}")
    elif re.fullmatch(r"IW[1-3]|SUBSWATHS?", key):
        _import_swaths(key, value, reader)
    elif key in _IMPORTERS:
        _IMPORTERS[key](key, value, reader)
    else:
        guess = nearest_name(key, [*_AOI_KEYS, *_IMPORTERS, *_IGNORED], 0.75)
        if guess is not None and guess not in keys:
            remedy = f"did you mean {guess}?"
            raise reader.error("C101", key, "unknown key", key, remedy)
        notes.append(f"{key} is unknown and was ignored")


def _import_swaths(key: str, value: str, reader: _Reader) -> None:
    names = [part.upper() for part in re.split(r"[,\s+]+", value) if part]
    swaths = sorted({f"IW{name}" if name in ("1", "2", "3") else name for name in names})
    if not set(swaths) <= {"IW1", "IW2", "IW3"}:
        raise reader.error("C102", key, "not a list of sub-swaths", value, "write IW1=IW2")
    reader.result.set("swaths", swaths)


def _import_root(key: str, value: str, reader: _Reader) -> None:
    folder = reader.location(key, value)
    if folder is None:
        return
    # Products of this program stay apart from what SNAP left in the project folder.
    reader.result.set("root", f"{folder}/bperp")
    reader.result.notes.append(f"root is {folder}/bperp, apart from the files of SNAP")
    if "slc" not in reader.result.values:
        reader.result.set("slc", _patterns([f"{folder}/{name}" for name in _SUBFOLDERS]))


def _import_source(key: str, value: str, reader: _Reader) -> None:
    folder = reader.location(key, value)
    if folder is not None:
        reader.result.set("slc", _patterns([folder]))


def _patterns(folders: list[str]) -> list[str]:
    """Return the patterns that match something here, or the first as a start."""
    patterns = [f"{folder}/**/S1*{end}" for folder in folders for end in (".zip", ".SAFE")]
    matching = [p for p in patterns if next(glob.iglob(p, recursive=True), None)]  # noqa: PTH207
    return matching or patterns[:1]


def _import_reference(key: str, value: str, reader: _Reader) -> None:
    match = _PRODUCT_DATE.search(value) or _DATE.fullmatch(re.split(r"[\\/]", value)[-1])
    if match is None:
        reader.result.notes.append(f"{key} names no date ({value}); reference_date stays auto")
        return
    reader.result.set("reference_date", "-".join(match.groups()))


def _import_selection(key: str, value: str, reader: _Reader) -> None:
    if value.upper() != "MANUAL":
        reader.result.notes.append(f"{key}={value}: reference_date is chosen here (auto)")


def _import_dem(key: str, value: str, reader: _Reader) -> None:
    if value.upper() in ("NONE", "NO", "N"):
        return
    path = reader.location(key, value)
    if path is not None:
        reader.result.set("dem.path", path)
        reader.result.notes.append("EXTDEM: state dem.vertical_datum unless the file does")


def _import_date(key: str, value: str, reader: _Reader) -> None:
    match = _DATE.match(value)
    if match is None:
        raise reader.error("C102", key, "not a date", value, "write 2020-01-31")
    reader.result.set("dates.first" if key == "START" else "dates.last", "-".join(match.groups()))


def _import_polarization(key: str, value: str, reader: _Reader) -> None:
    if value.upper() not in ("VV", "VH", "HH", "HV"):
        raise reader.error("C102", key, "not one polarization", value, "write VV, VH, HH or HV")
    reader.result.set("polarization", value.upper())


def _import_sensor(key: str, value: str, reader: _Reader) -> None:
    if not value.upper().startswith("S1"):
        remedy = "Sentinel-1 only in this release"
        raise reader.error("C102", key, "the sensor is not supported", value, remedy)


def _import_looks(key: str, value: str, reader: _Reader) -> None:
    looks = list(reader.result.values.get("interferogram", {}).get("looks", [4, 20]))
    looks[0 if key == "AZLOOK" else 1] = _count(key, value, reader)
    reader.result.set("interferogram.looks", looks)


def _import_workers(key: str, value: str, reader: _Reader) -> None:
    reader.result.set("compute.workers", _count(key, value, reader))


def _import_memory(keys: Mapping[str, str], reader: _Reader) -> None:
    value = keys.get("CACHE", "")
    if not value:
        return
    try:
        total = parse_memory(value if not value.isdigit() else f"{value}G")
    except ValueError as error:
        remedy = "write e.g. CACHE=16G"
        raise reader.error("C102", "CACHE", "not a memory size", value, remedy) from error
    workers = reader.result.values.get("compute", {}).get("workers", 1)
    share = max(1_000_000_000, total // workers)
    reader.result.set("compute.memory_per_worker", f"{share // 1_000_000}MB")
    reader.result.notes.append(
        f"CACHE={value} shared by {workers} workers gives {share / 1e9:.3g} GB each"
    )


def _count(key: str, value: str, reader: _Reader) -> int:
    if not value.isdecimal() or int(value) < 1:
        raise reader.error("C102", key, "not a positive whole number", value, f"write {key}=4")
    return int(value)


_IMPORTERS: Mapping[str, Callable[[str, str, _Reader], None]] = {
    "PROJECTFOLDER": _import_root,
    "SOURCEFOLDER": _import_source,
    "DATAFOLDER": _import_source,
    "MASTER": _import_reference,
    "MASTERFOLDER": _import_reference,
    "MASTERSEL": _import_selection,
    "EXTDEM": _import_dem,
    "START": _import_date,
    "END": _import_date,
    "POLARISATION": _import_polarization,
    "POLARIZATION": _import_polarization,
    "SENSOR": _import_sensor,
    "RGLOOK": _import_looks,
    "AZLOOK": _import_looks,
    "CPU": _import_workers,
    "CACHE": lambda key, value, reader: None,  # shared out at the end, when CPU is known
}
