"""Sentinel-1 SAFE products: names, manifests and members, in folders or zip archives.

References
----------
Sentinel-1 Product Specification, S1-RS-MDA-52-7441, issue 3; SentiWiki "SAR naming convention".
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

from bperp.stores.annotation import SwathAnnotation
from bperp.stores.annotation_bursts import ProductContext
from bperp.stores.annotation_reader import parse_annotation, track_from_vectors
from bperp.stores.archive import Archive, StorageOptions, open_archive
from bperp.stores.burst_ids import ORBITS_PER_CYCLE, relative_orbit
from bperp.stores.calibration import CalibrationTable, NoiseTable, parse_calibration, parse_noise
from bperp.stores.errors import ProductError
from bperp.stores.manifest import Manifest, parse_manifest
from bperp.stores.product_name import ProductName, check_name, check_supported, find_name
from bperp.stores.xml import LIMIT_BYTES

__all__ = ["SafeProduct", "open_safe"]

_MEMBER = re.compile(
    r"(?P<folder>annotation|annotation/calibration|annotation/rfi|measurement)/"
    r"(?P<kind>calibration-|noise-|rfi-|)s1[a-z]-(?P<swath>[a-z0-9]+)-slc-(?P<pol>[hv]{2})-"
    r"\d{8}t\d{6}-\d{8}t\d{6}-\d{6}-[0-9a-f]{6}-\d{3}(-cog)?\.(?P<suffix>xml|tiff?)",
    re.IGNORECASE | re.ASCII,
)
_KINDS = {
    ("annotation", "", "xml"): "annotation",
    ("annotation/calibration", "calibration-", "xml"): "calibration",
    ("annotation/calibration", "noise-", "xml"): "noise",
    ("annotation/rfi", "rfi-", "xml"): "rfi",
    ("measurement", "", "tif"): "measurement",
}
_Key = tuple[str, str, str]


@dataclass(frozen=True)
class SafeProduct:
    """One IW SLC product; open it with ``open_safe``.

    Parameters
    ----------
    url : str
        As given.
    name : str
        Name without suffix.
    fields : ProductName
        Fields of the name: mission, mode, type, polarization code, times, orbit, data take,
        unique identifier.
    manifest : Manifest
        Facts from ``manifest.safe``.
    archive : Archive
        Where the members are.
    index : mapping
        (kind, swath, polarization) -> member.
    relative_orbits : tuple of int
        Tracks at the first and last line, from the manifest unless a flag says otherwise.
    flags : tuple of str
        Recorded fallbacks and absences, e.g. ``noise-missing:IW1-VV``.
    """

    url: str
    name: str
    fields: ProductName
    manifest: Manifest
    archive: Archive
    index: Mapping[_Key, str]
    relative_orbits: tuple[int, int]
    flags: tuple[str, ...]

    @property
    def mission(self) -> str:
        """Mission, e.g. ``S1A``."""
        return self.manifest.mission

    @property
    def ipf_version(self) -> str:
        """Version of the processor, e.g. ``003.61``."""
        return self.manifest.ipf_version

    @property
    def absolute_orbit(self) -> int:
        """Absolute orbit at the first line."""
        return self.manifest.absolute_orbits[0]

    @property
    def relative_orbit(self) -> int:
        """Relative orbit (track) at the first line."""
        return self.relative_orbits[0]

    @property
    def orbit_direction(self) -> str:
        """``ascending`` or ``descending``."""
        return self.manifest.orbit_direction

    @property
    def start_ns(self) -> int:
        """First zero-Doppler time, UTC ns since 1970."""
        return self.manifest.start_ns

    @property
    def stop_ns(self) -> int:
        """Last zero-Doppler time, UTC ns since 1970."""
        return self.manifest.stop_ns

    def swaths(self) -> tuple[tuple[str, str], ...]:
        """Return the available (swath, polarization) pairs, sorted."""
        return tuple(sorted(key[1:] for key in self.index if key[0] == "annotation"))

    def member(self, kind: str, swath: str, polarization: str) -> str | None:
        """Return the member of a kind (``annotation``, ``noise`` ...), or None."""
        return self.index.get((kind, swath.upper(), polarization.upper()))

    def measurement(self, swath: str, polarization: str) -> str | None:
        """Return the member with the pixels, or None: metadata are usable without it."""
        return self.member("measurement", swath, polarization)

    def annotation(self, swath: str, polarization: str) -> SwathAnnotation:
        """Read the annotation of a swath and polarization.

        Raises
        ------
        ProductError
            D205 when there is none, D208 when it belongs to another product, and what
            ``parse_annotation`` raises.
        """
        member = self.member("annotation", swath, polarization)
        if member is None:
            raise self._absent(swath, polarization)
        manifest = self.manifest
        context = ProductContext(
            product_name=self.name,
            ipf_version=manifest.ipf_version,
            start_orbit=self.relative_orbits[0],
            stop_orbit=self.relative_orbits[1],
            middle_ns=(manifest.start_ns + manifest.stop_ns) // 2,
        )
        where = f"{self.archive.label}/{member}"
        annotation = parse_annotation(self.archive.read(member, LIMIT_BYTES), where, context)
        self._check_header(annotation, swath.upper(), polarization.upper())
        return annotation

    def calibration(self, swath: str, polarization: str) -> CalibrationTable | None:
        """Read the calibration table, or return None when the product has none (flagged)."""
        member = self.member("calibration", swath, polarization)
        if member is None:
            return None
        data = self.archive.read(member, LIMIT_BYTES)
        return parse_calibration(data, f"{self.archive.label}/{member}")

    def noise(self, swath: str, polarization: str) -> NoiseTable | None:
        """Read the noise table, or return None when the product has none (flagged)."""
        member = self.member("noise", swath, polarization)
        if member is None:
            return None
        data = self.archive.read(member, LIMIT_BYTES)
        return parse_noise(data, f"{self.archive.label}/{member}")

    def content_id(self) -> str:
        """Return a digest that changes when the product's content does.

        It comes from the manifest's checksums and the sizes of the members, so it costs no
        reading, and is the same for a folder and a zip of one product.
        """
        sizes = self.archive.members()
        files = [
            (member.lower(), sizes[member], *self.manifest.files.get(member.lower(), (None, "")))
            for member in sorted(self.index.values())
        ]
        record = json.dumps([self.name, self.ipf_version, files], sort_keys=True)
        return hashlib.sha256(record.encode()).hexdigest()

    def verify(self, members: tuple[str, ...] | None = None) -> None:
        """Compare members with the checksums of archive and manifest (reads them whole).

        Raises
        ------
        ProductError
            D202 at the first member that differs.
        """
        sizes = self.archive.members()
        for member in members or tuple(sorted(self.index.values())):
            size, checksum = self.manifest.files.get(member.lower(), (None, ""))
            found = self.archive.md5(member)
            if size not in {None, sizes[member]} or checksum not in {"", found}:
                raise ProductError(
                    "D202",
                    "member differs from the manifest",
                    where=f"{self.archive.label}/{member}",
                    expected=f"{size} bytes, MD5 {checksum}",
                    found=f"{sizes[member]} bytes, MD5 {found}",
                    remedy="fetch the product again",
                )

    def _absent(self, swath: str, polarization: str) -> ProductError:
        available = ", ".join(f"{s} {p}" for s, p in self.swaths()) or "none"
        wanted = f"-{swath.lower()}-slc-{polarization.lower()}-"
        declared = any(
            name.startswith("annotation/s1") and wanted in name for name in self.manifest.files
        )
        cause = "is declared in the manifest but missing" if declared else "is not in this product"
        return ProductError(
            "D205",
            f"annotation of {swath} {polarization} {cause}",
            where=self.archive.label,
            expected=f"available: {available}",
            found="no file",
            remedy="fetch the product again"
            if declared
            else "choose another swath or polarization",
        )

    def _check_header(self, annotation: SwathAnnotation, swath: str, polarization: str) -> None:
        expected = (self.mission, swath, polarization)
        found = (annotation.mission, annotation.swath, annotation.polarization)
        outside = not self.start_ns - 10**10 <= annotation.start_ns <= self.stop_ns + 10**10
        if expected != found or outside:
            raise ProductError(
                "D208",
                "annotation belongs to another product or swath",
                where=annotation.where,
                expected=" ".join(expected),
                found=" ".join(found) + (" at another time" if outside else ""),
                remedy="fetch the product again",
            )


def open_safe(
    url: str, storage_options: StorageOptions = None, *, trust_manifest: bool = False
) -> SafeProduct:
    """Open a Sentinel-1 IW SLC product without reading pixels.

    Parameters
    ----------
    url : str
        SAFE folder, its ``manifest.safe``, or a zip (read in place); a local path or any fsspec
        URL.
    storage_options : mapping, optional
        For the fsspec file system.
    trust_manifest : bool, default False
        Let the manifest win when the product's name says otherwise (flagged).

    Raises
    ------
    ProductError
        D201 incomplete zip, D203 no zip, D204 no manifest, D205 no annotation, D207 two files for
        one swath, D208 name against manifest, D209 other product types, D210 extracted bursts,
        D212 formats not yet supported, D301 and D302 for the manifest, D305 unknown mission.
    SecurityError
        X901, X902, X903.
    StorageError
        R807 without permission.
    """
    check_supported(url)
    archive = open_archive(url, storage_options)
    members = archive.members()
    manifest_member = next(name for name in members if name.lower() == "manifest.safe")
    where = f"{archive.label}/{manifest_member}"
    manifest = parse_manifest(archive.read(manifest_member, LIMIT_BYTES), where)
    fields, flags = find_name(url, archive, manifest)
    flags += check_name(fields, manifest, archive.label, trust_manifest=trust_manifest)
    index = _index_members(members, archive.label)
    orbits = manifest.relative_orbits
    product = SafeProduct(url, fields.text, fields, manifest, archive, index, orbits, flags)
    if not product.swaths():
        raise ProductError(
            "D205",
            "product has no annotation",
            where=archive.label,
            expected="annotation/s1?-iw?-slc-*.xml",
            found=f"{len(members)} other members",
            remedy="fetch the product again",
        )
    orbits, orbit_flags = _resolve_orbits(product)
    flags += orbit_flags + _absences(product)
    return replace(product, relative_orbits=orbits, flags=flags)


def _resolve_orbits(product: SafeProduct) -> tuple[tuple[int, int], tuple[str, ...]]:
    """Let the ground track judge when the manifest contradicts the mission's formula."""
    start, stop = product.manifest.relative_orbits
    formula = relative_orbit(product.mission, product.absolute_orbit)
    if formula == start:
        return (start, stop), ()
    member = product.index["annotation", *product.swaths()[0]]
    where = f"{product.archive.label}/{member}"
    data = product.archive.read(member, LIMIT_BYTES)
    found = track_from_vectors(data, where, product.start_ns)
    if found is None or found == start:
        return (start, stop), (f"relative-orbit-formula-says:{formula}",)
    stop = (stop + found - start - 1) % ORBITS_PER_CYCLE + 1
    return (found, stop), (f"relative-orbit-manifest-says:{start}",)


def _index_members(members: Mapping[str, int], label: str) -> dict[_Key, str]:
    index: dict[_Key, str] = {}
    for member in sorted(members):
        match = _MEMBER.fullmatch(member)
        if match is None:
            continue
        shape = (match["folder"].lower(), match["kind"].lower(), match["suffix"].lower()[:3])
        kind = _KINDS.get(shape)
        if kind is None:
            continue
        key = (kind, match["swath"].upper(), match["pol"].upper())
        if key in index:
            raise ProductError(
                "D207",
                f"two {kind} files for {key[1]} {key[2]}",
                where=label,
                expected="one product per folder",
                found=f"{index[key]} and {member}",
                remedy="separate the products",
            )
        index[key] = member
    return index


def _absences(product: SafeProduct) -> tuple[str, ...]:
    return tuple(
        f"{kind}-missing:{swath}-{polarization}"
        for swath, polarization in product.swaths()
        for kind in ("calibration", "noise", "measurement")
        if product.member(kind, swath, polarization) is None
    )
