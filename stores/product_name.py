"""Names of Sentinel-1 products, checked against their manifests."""

from __future__ import annotations

import re
from dataclasses import dataclass

from bperp.stores.archive import Archive, display_name
from bperp.stores.burst_ids import relative_orbit
from bperp.stores.errors import ProductError
from bperp.stores.manifest import Manifest
from bperp.stores.xml import parse_time_ns

__all__ = ["ProductName", "check_name", "check_supported", "find_name", "parse_name"]

_NAME = re.compile(
    r"(?P<mission>S1[A-Z])_(?P<mode>IW|EW|WV|S[1-6]|RF|EN|N[1-6]|Z[1-6I]|AI)_"
    r"(?P<type>SLC|GRD|RAW|OCN|ETA)(?P<resolution>[FHM_])_"
    r"(?P<level>[012A_])(?P<product_class>[SANCX_])(?P<polarization>[DS][HV]|HH|VV|HV|VH)_"
    r"(?P<start>\d{8}T\d{6})_(?P<stop>\d{8}T\d{6})_"
    r"(?P<orbit>\d{6})_(?P<datatake>[0-9A-F]{6})_(?P<unique>[0-9A-F]{4})",
    re.ASCII,
)
_BURST = re.compile(r"S1_\d{6}_[A-Z]{2}\d_\d{8}T\d{6}_[HV]{2}_[0-9A-F]{4}-BURST", re.ASCII)
_POLARIZATIONS = {
    "DV": ("VV", "VH"),
    "DH": ("HH", "HV"),
    "SV": ("VV",),
    "SH": ("HH",),
}
_SUPPORTED = "Sentinel-1 IW SLC in SAFE format"


@dataclass(frozen=True)
class ProductName:
    """Fields of a product name.

    ``start_ns`` and ``stop_ns`` are UTC ns since 1970, whole seconds; ``datatake`` is the number
    that the name writes in hexadecimal; ``unique_id`` is empty when the product was renamed and
    the fields come from the manifest.
    """

    text: str
    mission: str
    mode: str
    product_type: str
    polarization_code: str
    start_ns: int
    stop_ns: int
    absolute_orbit: int
    datatake: int
    unique_id: str

    def __str__(self) -> str:
        return self.text


def parse_name(name: str) -> ProductName | None:
    """Return the fields of a product name, with or without suffix, or None when it is none."""
    match = _NAME.match(name.upper())
    if match is None:
        return None
    times = [_compact_time_ns(match[key]) for key in ("start", "stop")]
    if times[0] is None or times[1] is None:
        return None
    return ProductName(
        text=match[0],
        mission=match["mission"],
        mode=match["mode"],
        product_type=match["type"],
        polarization_code=match["polarization"],
        start_ns=times[0],
        stop_ns=times[1],
        absolute_orbit=int(match["orbit"]),
        datatake=int(match["datatake"], 16),
        unique_id=match["unique"],
    )


def _compact_time_ns(value: str) -> int | None:
    day, clock = value.split("T")
    return parse_time_ns(f"{day[:4]}-{day[4:6]}-{day[6:]}T{clock[:2]}:{clock[2:4]}:{clock[4:]}")


def _unsupported(code: str, cause: str, where: str, found: str, remedy: str) -> ProductError:
    return ProductError(code, cause, where=where, expected=_SUPPORTED, found=found, remedy=remedy)


def check_supported(url: str) -> None:
    """Refuse by name what this reader is not for: D209, D210, D212, D305."""
    label = display_name(url)
    upper = label.upper()
    if _BURST.match(upper) or upper.endswith((".TIFF", ".TIF", ".XML")):
        remedy = "fetch the full SAFE product that holds the burst"
        raise _unsupported("D210", "extracted burst or single file", label, label, remedy)
    if upper.endswith(".ZARR") or upper.endswith("_COG.SAFE") or ".ZARR.ZIP" in upper:
        remedy = "fetch the same product in SAFE format"
        raise _unsupported("D212", "format is not yet supported", label, "EOPF or COG", remedy)
    name = parse_name(label)
    if name is not None:
        _check_type(name.mission, name.mode, name.product_type, label)


def _check_type(mission: str, mode: str, product_type: str, label: str) -> None:
    if (mode, product_type) != ("IW", "SLC"):
        raise _unsupported(
            "D209",
            "product type is not supported",
            label,
            f"{mode} {product_type}",
            "search for IW SLC of the same orbit and date",
        )
    relative_orbit(mission, 1000, label)


def find_name(
    url: str, archive: Archive, manifest: Manifest
) -> tuple[ProductName, tuple[str, ...]]:
    """Return the product's name from its folder, zip or manifest, with flags.

    Raises
    ------
    ProductError
        D208 when the archive and the folder in it are named after different products.
    """
    labels = (display_name(archive.root), archive.label)
    names = [name for name in map(parse_name, labels) if name is not None]
    if len({name.text for name in names}) > 1:
        raise ProductError(
            "D208",
            "archive and the folder in it are named after different products",
            where=display_name(url),
            expected=names[0].text,
            found=names[1].text,
            remedy="give the archive its own name back",
        )
    if names:
        return names[0], ()
    return _from_manifest(manifest, archive.label), ("name-from-manifest",)


def _from_manifest(manifest: Manifest, label: str) -> ProductName:
    return ProductName(
        text=re.sub(r"\.(SAFE|ZIP)$", "", label, flags=re.IGNORECASE),
        mission=manifest.mission,
        mode=manifest.mode,
        product_type=manifest.product_type,
        polarization_code=next(
            (code for code, of in _POLARIZATIONS.items() if set(of) == set(manifest.polarizations)),
            manifest.polarizations[0] if manifest.polarizations else "",
        ),
        start_ns=manifest.start_ns,
        stop_ns=manifest.stop_ns,
        absolute_orbit=manifest.absolute_orbits[0],
        datatake=manifest.datatake,
        unique_id="",
    )


def check_name(
    name: ProductName, manifest: Manifest, label: str, *, trust_manifest: bool
) -> tuple[str, ...]:
    """Compare name and manifest; return flags.

    Raises
    ------
    ProductError
        D208 when they disagree and the manifest is not trusted, D209 when the manifest describes
        another kind of product, D305 for an unknown mission.
    """
    _check_type(manifest.mission, manifest.mode, manifest.product_type, label)
    declared = set(_POLARIZATIONS.get(name.polarization_code, (name.polarization_code,)))
    comparisons = {
        "mission": (manifest.mission, name.mission),
        "mode": (manifest.mode, name.mode),
        "type": (manifest.product_type, name.product_type),
        "orbit": (manifest.absolute_orbits[0], name.absolute_orbit),
        "datatake": (manifest.datatake, name.datatake),
        "polarizations": (sorted(manifest.polarizations), sorted(declared)),
    }
    conflicts = {key: pair for key, pair in comparisons.items() if pair[0] != pair[1]}
    for key in ("start_ns", "stop_ns"):
        # Names are cut to whole seconds, some versions round.
        if abs(getattr(manifest, key) - getattr(name, key)) > 2 * 10**9:
            conflicts[key.removesuffix("_ns")] = (getattr(manifest, key), getattr(name, key))
    if conflicts and not trust_manifest:
        raise ProductError(
            "D208",
            "name and manifest disagree",
            where=label,
            expected=", ".join(
                f"{key} {pair[0]} in the manifest" for key, pair in conflicts.items()
            ),
            found=", ".join(f"{key} {pair[1]} in the name" for key, pair in conflicts.items()),
            remedy="give the product its own name back, or trust the manifest",
        )
    return ("manifest-trusted-over-name",) if conflicts else ()
