"""Calibration and thermal noise tables of one swath and polarization.

References
----------
Sentinel-1 Product Specification, S1-RS-MDA-52-7441, issue 3, sections 6.4 and 6.5.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bperp.stores.errors import ProductError
from bperp.stores.xml import (
    Element,
    child,
    file_of,
    integer,
    integers,
    number,
    numbers,
    parse_xml,
    text,
    time_ns,
)

__all__ = [
    "AzimuthNoise",
    "CalibrationTable",
    "CalibrationVector",
    "NoiseTable",
    "NoiseVector",
    "parse_calibration",
    "parse_noise",
]


@dataclass(frozen=True, eq=False)
class CalibrationVector:
    """Calibration along one line: sigma0 = DN^2 / sigma_nought^2, at columns ``pixel`` (n,)."""

    azimuth_time_ns: int
    line: int
    pixel: NDArray[np.int64]
    sigma_nought: NDArray[np.float64]
    beta_nought: NDArray[np.float64]
    gamma: NDArray[np.float64]


@dataclass(frozen=True)
class CalibrationTable:
    """Calibration vectors in order of line, and the absolute constant."""

    swath: str
    polarization: str
    absolute_constant: float
    vectors: tuple[CalibrationVector, ...]


@dataclass(frozen=True, eq=False)
class NoiseVector:
    """Noise power along one line, in DN^2 before calibration, at columns ``pixel`` (n,)."""

    azimuth_time_ns: int
    line: int
    pixel: NDArray[np.int64]
    noise: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class AzimuthNoise:
    """Dimensionless factor along azimuth at lines ``line`` (n,) (TOPS scalloping)."""

    line: NDArray[np.int64]
    noise: NDArray[np.float64]


@dataclass(frozen=True)
class NoiseTable:
    """Noise vectors along range and, since IPF 2.9, factors along azimuth."""

    swath: str
    polarization: str
    range_vectors: tuple[NoiseVector, ...]
    azimuth_vectors: tuple[AzimuthNoise, ...]


def parse_calibration(data: bytes, where: str) -> CalibrationTable:
    """Parse a calibration annotation.

    Parameters
    ----------
    data : bytes
        The XML document.
    where : str
        Name of the file for error messages.

    Raises
    ------
    ProductError
        D301, D302.
    SecurityError
        X901, X902.
    """
    root = parse_xml(data, where)
    vectors = [_read_calibration(item) for item in _items(root, "calibrationVectorList", where)]
    return CalibrationTable(
        swath=text(root, "adsHeader/swath"),
        polarization=text(root, "adsHeader/polarisation"),
        absolute_constant=number(root, "calibrationInformation/absoluteCalibrationConstant"),
        vectors=tuple(sorted(vectors, key=lambda vector: vector.line)),
    )


def parse_noise(data: bytes, where: str) -> NoiseTable:
    """Parse a noise annotation, before and after IPF 2.9 (same errors as calibration)."""
    root = parse_xml(data, where)
    if root.find("noiseRangeVectorList") is not None:
        name, lookup = "noiseRangeVectorList", "noiseRangeLut"
    else:
        name, lookup = "noiseVectorList", "noiseLut"
    vectors = [_read_noise(item, lookup) for item in _items(root, name, where)]
    azimuth = root.find("noiseAzimuthVectorList")
    return NoiseTable(
        swath=text(root, "adsHeader/swath"),
        polarization=text(root, "adsHeader/polarisation"),
        range_vectors=tuple(sorted(vectors, key=lambda vector: vector.line)),
        azimuth_vectors=tuple(_read_azimuth(item) for item in azimuth)
        if azimuth is not None
        else (),
    )


def _items(root: Element, path: str, where: str) -> list[Element]:
    items = list(child(root, path))
    if not items:
        raise ProductError(
            "D302",
            f"no vectors in {path}",
            where=where,
            expected="at least one",
            remedy="fetch the product again",
        )
    return items


def _read_calibration(item: Element) -> CalibrationVector:
    vector = CalibrationVector(
        azimuth_time_ns=time_ns(item, "azimuthTime"),
        line=integer(item, "line"),
        pixel=integers(item, "pixel"),
        sigma_nought=numbers(item, "sigmaNought"),
        beta_nought=numbers(item, "betaNought"),
        gamma=numbers(item, "gamma"),
    )
    lookups = (vector.sigma_nought, vector.beta_nought, vector.gamma)
    _check_lengths(item, vector.pixel, *lookups)
    if any((lookup <= 0.0).any() for lookup in lookups):
        raise ProductError(
            "D312",
            "implausible calibration",
            where=file_of(item),
            expected="positive factors",
            found="zero or negative",
            remedy="fetch the product again",
        )
    return vector


def _read_noise(item: Element, lookup: str) -> NoiseVector:
    pixel, noise = integers(item, "pixel"), numbers(item, lookup)
    _check_lengths(item, pixel, noise)
    return NoiseVector(time_ns(item, "azimuthTime"), integer(item, "line"), pixel, noise)


def _read_azimuth(item: Element) -> AzimuthNoise:
    line, noise = integers(item, "line"), numbers(item, "noiseAzimuthLut")
    _check_lengths(item, line, noise)
    return AzimuthNoise(line, noise)


def _check_lengths(
    item: Element, position: NDArray[np.int64], *lookups: NDArray[np.float64]
) -> None:
    if any(lookup.size != position.size for lookup in lookups) or (np.diff(position) <= 0).any():
        raise ProductError(
            "D301",
            "look-up table without one increasing position per value",
            where=file_of(item),
            expected=f"{position.size} values at increasing positions",
            found=", ".join(str(lookup.size) for lookup in lookups),
            remedy="fetch the product again",
        )
