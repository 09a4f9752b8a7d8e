"""Write orbit files in the Earth Explorer format of the Sentinel-1 precise orbits (POEORB)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from lxml import etree
from numpy.typing import NDArray

# Leap seconds (TAI - UTC) by the first UTC day they hold, IERS Bulletin C.
_LEAP_SECONDS = (("2012-07-01", 35), ("2015-07-01", 36), ("2017-01-01", 37))
_UT1_MINUS_UTC_NS = -5_365_000


def tai_minus_utc_s(time_ns: int) -> int:
    """Return TAI - UTC in s at an integer UTC nanosecond since 1970 (from July 2012 on)."""
    day = np.datetime64(time_ns, "ns")
    return [leap for first, leap in _LEAP_SECONDS if day >= np.datetime64(first)][-1]


def _stamp(time_ns: int, unit: str) -> str:
    return str(np.datetime_as_string(np.datetime64(time_ns, "ns"), unit=unit))  # type: ignore[call-overload]


def orbit_file_name(mission: str, first_ns: int, last_ns: int, created_ns: int) -> str:
    """Return the name of a POEORB file, without folder."""
    parts = [
        _stamp(time, "s").replace("-", "").replace(":", "")
        for time in (created_ns, first_ns, last_ns)
    ]
    return f"{mission}_OPER_AUX_POEORB_OPOD_{parts[0]}_V{parts[1]}_{parts[2]}.EOF"


def write_orbit_file(
    folder: Path,
    mission: str,
    times_ns: NDArray[np.int64],
    states: NDArray[np.float64],
    absolute_orbit: int,
) -> Path:
    """Write state vectors as a precise orbit file.

    Parameters
    ----------
    folder : pathlib.Path
        Existing folder.
    mission : str
        ``S1A`` to ``S1D``.
    times_ns : (n,) int64
        UTC nanoseconds since 1970, ascending, every 10 s.
    states : (n, 6) float64
        Earth-fixed position in m and velocity in m/s; written with micrometres.
    absolute_orbit : int

    Returns
    -------
    pathlib.Path
        The file. Its validity is what its vectors cover, not the 26 h of an operational file. The
        creation date is 20 days after the last vector, as for operational files.
    """
    first, last = int(times_ns[0]), int(times_ns[-1])
    created = last + 20 * 86_400 * 1_000_000_000
    path = folder / orbit_file_name(mission, first, last, created)
    root = etree.Element("Earth_Explorer_File")
    header = etree.SubElement(root, "Earth_Explorer_Header")
    fixed = etree.SubElement(header, "Fixed_Header")
    _texts(
        fixed,
        {
            "File_Name": path.stem,
            "File_Description": "Precise Orbit Ephemerides (POE) Orbit File",
            "Notes": "simulated",
            "Mission": f"Sentinel-{mission[1:]}",
            "File_Class": "OPER",
            "File_Type": "AUX_POEORB",
        },
    )
    validity = etree.SubElement(fixed, "Validity_Period")
    _texts(
        validity,
        {
            "Validity_Start": f"UTC={_stamp(first, 's')}",
            "Validity_Stop": f"UTC={_stamp(last, 's')}",
        },
    )
    _texts(fixed, {"File_Version": "0001"})
    source = etree.SubElement(fixed, "Source")
    _texts(
        source,
        {
            "System": "OPOD",
            "Creator": "bperp",
            "Creator_Version": "1.0.0",
            "Creation_Date": f"UTC={_stamp(created, 's')}",
        },
    )
    variable = etree.SubElement(header, "Variable_Header")
    _texts(variable, {"Ref_Frame": "EARTH_FIXED", "Time_Reference": "UTC"})
    block = etree.SubElement(root, "Data_Block", {"type": "xml"})
    vectors = etree.SubElement(block, "List_of_OSVs", {"count": str(len(times_ns))})
    for time, state in zip(times_ns, states, strict=True):
        _vector(vectors, int(time), state, absolute_orbit)
    etree.ElementTree(root).write(path, xml_declaration=True, encoding="UTF-8", pretty_print=True)
    return path


def _texts(parent: etree._Element, values: dict[str, str]) -> None:
    for tag, text in values.items():
        etree.SubElement(parent, tag).text = text


def _vector(
    parent: etree._Element, time_ns: int, state: NDArray[np.float64], absolute_orbit: int
) -> None:
    vector = etree.SubElement(parent, "OSV")
    tai = time_ns + tai_minus_utc_s(time_ns) * 1_000_000_000
    _texts(
        vector,
        {
            "TAI": f"TAI={_stamp(tai, 'us')}",
            "UTC": f"UTC={_stamp(time_ns, 'us')}",
            "UT1": f"UT1={_stamp(time_ns + _UT1_MINUS_UTC_NS, 'us')}",
            "Absolute_Orbit": f"+{absolute_orbit:05d}",
        },
    )
    for tag, value in zip(("X", "Y", "Z", "VX", "VY", "VZ"), state, strict=True):
        unit = "m/s" if tag.startswith("V") else "m"
        etree.SubElement(vector, tag, {"unit": unit}).text = f"{value:.6f}"
    etree.SubElement(vector, "Quality").text = "NOMINAL"
