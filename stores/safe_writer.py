"""Write Sentinel-1 IW SLC products: manifest, checksums, name, folder or archive.

A product is written in three steps: ``annotate_product`` writes the small files and an empty
measurement per image, ``write_burst_samples`` fills the pixels, ``seal_product`` adds the manifest
with sizes and checksums, gives the folder its final name and, on request, packs it.
"""

from __future__ import annotations

import binascii
import hashlib
import shutil
import zipfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from lxml import etree

from bperp.stores.measurement_writer import (
    BYTES_PER_SAMPLE,
    create_measurement,
    write_burst_samples,
)
from bperp.stores.safe_annotation_writer import write_annotation
from bperp.stores.safe_records import (
    BurstRecord,
    GridPoint,
    PolynomialRecord,
    ProductRecord,
    SwathRecord,
    compact_stamp,
    image_files,
    image_name,
    stamp,
)

__all__ = [
    "BurstRecord",
    "GridPoint",
    "PolynomialRecord",
    "ProductRecord",
    "SwathRecord",
    "annotate_product",
    "image_files",
    "product_name",
    "seal_product",
    "write_burst_samples",
]

_SAFE = "http://www.esa.int/safe/sentinel-1.0"
_NAMESPACES = {
    "xsi": "http://www.w3.org/2001/XMLSchema-instance",
    "gml": "http://www.opengis.net/gml",
    "xfdu": "urn:ccsds:schema:xfdu:1",
    "safe": _SAFE,
    "s1": f"{_SAFE}/sentinel-1",
    "s1sar": f"{_SAFE}/sentinel-1/sar",
    "s1sarl1": f"{_SAFE}/sentinel-1/sar/level-1",
}
_NUMBERS = {"S1A": ("2014-016A", "A"), "S1B": ("2016-025A", "B"), "S1C": ("2024-235A", "C")}


def annotate_product(folder: Path, swaths: Sequence[SwathRecord]) -> list[SwathRecord]:
    """Write the annotation files and empty measurements of a product.

    Parameters
    ----------
    folder : pathlib.Path
        Product folder under a preliminary name; created.
    swaths : sequence of SwathRecord
        Images; the byte offsets of their bursts are filled in here.

    Returns
    -------
    list of SwathRecord
        The same with the byte offsets of the files.
    """
    written = []
    for swath in swaths:
        measurement = image_files(folder, swath)["measurement"]
        measurement.parent.mkdir(parents=True, exist_ok=True)
        ties = np.array(
            [[p.pixel, p.line, 0.0, p.longitude, p.latitude, p.height] for p in swath.grid]
        )
        offset = create_measurement(
            measurement,
            (swath.lines, swath.samples),
            ties,
            f"Sentinel-1 IPF {swath.product.ipf_version}",
            stamp(swath.start_ns, "s").replace("-", ":").replace("T", " "),
        )
        size = swath.lines_per_burst * swath.samples * BYTES_PER_SAMPLE
        bursts = tuple(
            replace(burst, byte_offset=offset + index * size)
            for index, burst in enumerate(swath.bursts)
        )
        written.append(replace(swath, bursts=bursts))
        write_annotation(folder, written[-1])
    return written


def product_name(product: ProductRecord, checksum: int) -> str:
    """Return the name of a product, e.g. ``S1A_IW_SLC__1SSV_<start>_<stop>_..._6814.SAFE``."""
    letters = {"VV": "SV", "HH": "SH"}[product.polarization]
    return (
        f"{product.mission}_IW_SLC__1S{letters}_{compact_stamp(product.start_ns)}_"
        f"{compact_stamp(product.stop_ns)}_{product.absolute_orbit:06d}_"
        f"{product.data_take_id:06X}_{checksum:04X}.SAFE"
    )


def seal_product(folder: Path, swaths: Sequence[SwathRecord], *, archive: bool = False) -> Path:
    """Add the manifest and give the product its final name; one of that name is replaced.

    Parameters
    ----------
    folder : pathlib.Path
        Complete product under its preliminary name.
    swaths : sequence of SwathRecord
    archive : bool, default False
        Replace the folder by a ``.zip`` of it, with fixed time stamps.

    Returns
    -------
    pathlib.Path
        The ``.SAFE`` folder or the ``.zip``.
    """
    manifest = _manifest(folder, swaths)
    (folder / "manifest.safe").write_bytes(manifest)
    name = product_name(swaths[0].product, binascii.crc_hqx(manifest, 0xFFFF))
    final = folder.with_name(name)
    if final.exists():
        shutil.rmtree(final)
    folder.rename(final)
    return _pack(final) if archive else final


def _pack(folder: Path) -> Path:
    target = folder.with_suffix(".zip")
    with zipfile.ZipFile(target, "w") as package:
        for path in sorted(p for p in folder.rglob("*") if p.is_file()):
            entry = zipfile.ZipInfo(str(path.relative_to(folder.parent)), (2015, 1, 1, 0, 0, 0))
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.file_size = path.stat().st_size
            with path.open("rb") as source, package.open(entry, "w") as sink:
                shutil.copyfileobj(source, sink, 1 << 20)
    shutil.rmtree(folder)
    return target


def _qualified(tag: str) -> str:
    prefix, _, name = tag.rpartition(":")
    return f"{{{_NAMESPACES[prefix]}}}{name}" if prefix else name


def _node(
    parent: etree._Element, tag: str, text: str | None = None, **attributes: str
) -> etree._Element:
    node = etree.SubElement(parent, _qualified(tag), attributes)
    node.text = text
    return node


def _identifier(kind: str, swath: SwathRecord) -> str:
    return kind + image_name(swath).replace("-", "")


def _manifest(folder: Path, swaths: Sequence[SwathRecord]) -> bytes:
    root = etree.Element(
        _qualified("xfdu:XFDU"),
        {"version": "esa/safe/sentinel-1.0/sentinel-1/sar/level-1/slc/standard/iwdp"},
        nsmap=_NAMESPACES,
    )
    _information_map(root, swaths)
    metadata = _node(root, "metadataSection")
    product = swaths[0].product
    _processing(_wrap(metadata, "processing"), product)
    _platform(_wrap(metadata, "platform"), product, [swath.swath for swath in swaths])
    _orbit(_wrap(metadata, "measurementOrbitReference"), product)
    _general(_wrap(metadata, "generalProductInformation"), product)
    period = _node(_wrap(metadata, "acquisitionPeriod"), "safe:acquisitionPeriod")
    _node(period, "safe:startTime", stamp(product.start_ns))
    _node(period, "safe:stopTime", stamp(product.stop_ns))
    frames = _node(_wrap(metadata, "measurementFrameSet"), "safe:frameSet")
    footprint = _node(_node(frames, "safe:frame"), "safe:footPrint")
    footprint.set("srsName", "http://www.opengis.net/gml/srs/epsg.xml#4326")
    corners = " ".join(f"{lat:.6f},{lon:.6f}" for lat, lon in product.footprint_deg)
    _node(footprint, "gml:coordinates", corners)
    objects = _node(root, "dataObjectSection")
    for swath in swaths:
        for kind, path in image_files(folder, swath).items():
            _data_object(objects, folder, path, (kind, swath))
    content: bytes = etree.tostring(root, xml_declaration=True, encoding="UTF-8", pretty_print=True)
    return content


_KINDS = {
    "annotation": ("product", "s1Level1ProductSchema"),
    "noise": ("noise", "s1Level1NoiseSchema"),
    "calibration": ("calibration", "s1Level1CalibrationSchema"),
    "measurement": ("", "s1Level1MeasurementSchema"),
}


def _information_map(root: etree._Element, swaths: Sequence[SwathRecord]) -> None:
    unit = _node(
        _node(root, "informationPackageMap"),
        "xfdu:contentUnit",
        unitType="SAFE Archive Information Package",
        textInfo="Sentinel-1 IW Level-1 SLC Product",
        dmdID="acquisitionPeriod platform generalProductInformation measurementOrbitReference "
        "measurementFrameSet",
        pdiID="processing",
    )
    for swath in swaths:
        for kind, (prefix, schema) in _KINDS.items():
            label = "Measurement Data Unit" if kind == "measurement" else "Metadata Unit"
            part = _node(unit, "xfdu:contentUnit", unitType=label, repID=schema)
            _node(part, "dataObjectPointer", dataObjectID=_identifier(prefix, swath))


def _wrap(parent: etree._Element, name: str) -> etree._Element:
    category = "PDI" if name == "processing" else "DMD"
    classification = "PROVENANCE" if name == "processing" else "DESCRIPTION"
    entry = _node(
        parent, "metadataObject", ID=name, classification=classification, category=category
    )
    wrap = _node(entry, "metadataWrap", mimeType="text/xml", vocabularyName="SAFE")
    return _node(wrap, "xmlData")


def _processing(parent: etree._Element, product: ProductRecord) -> None:
    start, stop = stamp(product.start_ns + 10**12), stamp(product.start_ns + 2 * 10**12)
    step = _node(parent, "safe:processing", name="SLC Post Processing", start=start, stop=stop)
    facility = _node(
        step,
        "safe:facility",
        country="",
        name="bperp",
        organisation="bperp",
        site="simulator",
    )
    _node(facility, "safe:software", name="Sentinel-1 IPF", version=product.ipf_version)


def _platform(parent: etree._Element, product: ProductRecord, swaths: Sequence[str]) -> None:
    platform = _node(parent, "safe:platform")
    satellite, letter = _NUMBERS.get(product.mission, ("", product.mission[-1]))
    _node(platform, "safe:nssdcIdentifier", satellite)
    _node(platform, "safe:familyName", "SENTINEL-1")
    _node(platform, "safe:number", letter)
    instrument = _node(platform, "safe:instrument")
    _node(instrument, "safe:familyName", "Synthetic Aperture Radar", abbreviation="SAR")
    mode = _node(_node(instrument, "safe:extension"), "s1sarl1:instrumentMode")
    _node(mode, "s1sarl1:mode", "IW")
    for swath in swaths:
        _node(mode, "s1sarl1:swath", swath)


def _orbit(parent: etree._Element, product: ProductRecord) -> None:
    reference = _node(parent, "safe:orbitReference")
    for name, number in (
        ("orbitNumber", product.absolute_orbit),
        ("relativeOrbitNumber", product.relative_orbit),
    ):
        for end in ("start", "stop"):
            _node(reference, f"safe:{name}", str(number), type=end)
    _node(reference, "safe:cycleNumber", str(product.absolute_orbit // 175))
    _node(reference, "safe:phaseIdentifier", "1")
    properties = _node(_node(reference, "safe:extension"), "s1:orbitProperties")
    _node(properties, "s1:pass", product.orbit_direction.upper())
    _node(properties, "s1:ascendingNodeTime", stamp(product.ascending_node_ns))


def _general(parent: etree._Element, product: ProductRecord) -> None:
    general = _node(parent, "s1sarl1:standAloneProductInformation")
    for name, value in {
        "instrumentConfigurationID": "7",
        "missionDataTakeID": str(product.data_take_id),
        "transmitterReceiverPolarisation": product.polarization,
        "productClass": "S",
        "productClassDescription": "SAR Standard L1 Product",
        "productComposition": "Slice",
        "productType": "SLC",
        "productTimelinessCategory": "NRT-3h",
        "sliceProductFlag": "false",
    }.items():
        _node(general, f"s1sarl1:{name}", value)


def _data_object(
    parent: etree._Element, folder: Path, path: Path, image: tuple[str, SwathRecord]
) -> None:
    prefix, schema = _KINDS[image[0]]
    entry = _node(parent, "dataObject", ID=_identifier(prefix, image[1]), repID=schema)
    mime = "text/xml" if path.suffix == ".xml" else "application/octet-stream"
    stream = _node(entry, "byteStream", mimeType=mime, size=str(path.stat().st_size))
    href = f"./{path.relative_to(folder).as_posix()}"
    _node(stream, "fileLocation", locatorType="URL", href=href)
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False))
    _node(stream, "checksum", digest.hexdigest(), checksumName="MD5")
