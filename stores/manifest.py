"""Facts from the manifest of a SAFE product."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from bperp.stores.errors import ProductError
from bperp.stores.xml import Element, integer, optional_text, parse_xml, text, time_ns

__all__ = ["Manifest", "parse_manifest"]


@dataclass(frozen=True)
class Manifest:
    """What ``manifest.safe`` says.

    Parameters
    ----------
    mission, mode, product_type, ipf_version, orbit_direction : str
    polarizations : tuple of str
    start_ns, stop_ns : int
        UTC ns since 1970.
    absolute_orbits, relative_orbits : tuple of int
        At the first and last line.
    datatake : int
    files : mapping
        Lower-case member -> (size in bytes or None, MD5 or "").
    """

    mission: str
    mode: str
    product_type: str
    ipf_version: str
    orbit_direction: str
    polarizations: tuple[str, ...]
    start_ns: int
    stop_ns: int
    absolute_orbits: tuple[int, int]
    relative_orbits: tuple[int, int]
    datatake: int
    files: Mapping[str, tuple[int | None, str]]


def parse_manifest(data: bytes, where: str) -> Manifest:
    """Parse ``manifest.safe``.

    Namespaces and nesting differ between processor versions, so elements are found by local name
    below the section that holds them.

    Raises
    ------
    ProductError
        D301 malformed, D302 missing element.
    SecurityError
        X901, X902.
    """
    root = parse_xml(data, where)
    platform = _section(root, "platform")
    period = _section(root, "acquisitionPeriod")
    general = _section(root, "standAloneProductInformation")
    orbits = _section(root, "orbitReference")
    return Manifest(
        mission=f"S1{text(_section(platform, 'number'), '.').upper()}",
        mode=text(_section(platform, "mode"), ".").upper(),
        product_type=text(_section(general, "productType"), ".").upper(),
        ipf_version=_ipf_version(root, where),
        orbit_direction=text(_section(orbits, "pass"), ".").lower(),
        polarizations=tuple(
            text(item, ".").upper() for item in _all(general, "transmitterReceiverPolarisation")
        ),
        start_ns=time_ns(_section(period, "startTime"), "."),
        stop_ns=time_ns(_section(period, "stopTime"), "."),
        absolute_orbits=_orbit_pair(orbits, "orbitNumber"),
        relative_orbits=_orbit_pair(orbits, "relativeOrbitNumber"),
        datatake=integer(_section(general, "missionDataTakeID"), "."),
        files=_files(root),
    )


def _all(element: Element, name: str) -> list[Element]:
    return list(element.iter(f"{{*}}{name}"))


def _section(element: Element, name: str) -> Element:
    found = next(element.iter(f"{{*}}{name}"), None)
    if found is None:
        text(element, name)  # raises D302 with file and path
        raise AssertionError(name)
    return found


def _orbit_pair(orbits: Element, name: str) -> tuple[int, int]:
    values = {item.get("type", "start"): integer(item, ".") for item in _all(orbits, name)}
    if "start" not in values:
        text(orbits, name)
    return values["start"], values.get("stop", values["start"])


def _ipf_version(root: Element, where: str) -> str:
    for software in _all(root, "software"):
        if "IPF" in (software.get("name") or "") and software.get("version"):
            return str(software.get("version"))
    raise ProductError(
        "D302",
        "manifest does not name the processor version",
        where=where,
        expected="software name='Sentinel-1 IPF' version='...'",
        found="none",
        remedy="fetch the product again",
    )


def _files(root: Element) -> dict[str, tuple[int | None, str]]:
    files: dict[str, tuple[int | None, str]] = {}
    for stream in _all(root, "byteStream"):
        location = next(stream.iter("{*}fileLocation"), None)
        href = (location.get("href") or "") if location is not None else ""
        checksum = next(stream.iter("{*}checksum"), None)
        is_md5 = checksum is not None and (checksum.get("checksumName") or "").upper() == "MD5"
        digest = optional_text(checksum, ".") if checksum is not None and is_md5 else None
        size = stream.get("size") or ""
        known = int(size) if re.fullmatch(r"\d{1,18}", size, re.ASCII) else None
        files[re.sub(r"^\./", "", href).lower()] = (known, (digest or "").lower())
    return files
