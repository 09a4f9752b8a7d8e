"""Write the annotation, calibration and noise files of a Sentinel-1 IW SLC image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from lxml import etree

from bperp.stores.safe_records import (
    GridPoint,
    PolynomialRecord,
    SwathRecord,
    image_files,
    stamp,
)

_SPEED_OF_LIGHT_M_S = 299_792_458.0
_SIGMA_NOUGHT = 330.0


@dataclass(frozen=True)
class _Counted:
    """An element with a ``count`` attribute: numbers as text, or repeated children."""

    values: Sequence[Any]
    tag: str = ""


@dataclass(frozen=True)
class _Attributed:
    value: Any
    attributes: Mapping[str, str]


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float | np.floating):
        return f"{float(value):.15e}"
    return str(value)


def _append(parent: etree._Element, tag: str, value: Any) -> None:
    node = etree.SubElement(parent, tag)
    if isinstance(value, _Attributed):
        for name, text in value.attributes.items():
            node.set(name, text)
        node.text = _text(value.value)
    elif isinstance(value, _Counted):
        node.set("count", str(len(value.values)))
        if value.tag:
            for item in value.values:
                _append(node, value.tag, item)
        else:
            node.text = " ".join(_text(item) for item in value.values)
    elif isinstance(value, Mapping):
        for name, item in value.items():
            _append(node, name, item)
    else:
        node.text = _text(value)


def _write(path: Path, tag: str, content: Mapping[str, Any]) -> None:
    root = etree.Element(tag)
    for name, value in content.items():
        _append(root, name, value)
    path.parent.mkdir(parents=True, exist_ok=True)
    tree = etree.ElementTree(root)
    tree.write(path, xml_declaration=True, encoding="UTF-8", pretty_print=True)


def write_annotation(folder: Path, swath: SwathRecord) -> None:
    """Write the annotation, calibration and noise files of one image.

    Parameters
    ----------
    folder : pathlib.Path
        Product folder (``.SAFE``).
    swath : SwathRecord

    References
    ----------
    Sentinel-1 Product Specification, S1-RS-MDA-52-7441 (element names and order).
    """
    files = image_files(folder, swath)
    _write(
        files["annotation"],
        "product",
        {
            "adsHeader": _header(swath),
            "qualityInformation": {"productQualityIndex": 0.0, "qualityDataList": _Counted([])},
            "generalAnnotation": _general(swath),
            "imageAnnotation": _image(swath),
            "dopplerCentroid": {
                "dcEstimateList": _Counted([_doppler(d) for d in swath.doppler], "dcEstimate")
            },
            "antennaPattern": {"antennaPatternList": _Counted([_antenna(swath)], "antennaPattern")},
            "swathTiming": _timing(swath),
            "geolocationGrid": {
                "geolocationGridPointList": _Counted(
                    [_grid_point(p) for p in swath.grid], "geolocationGridPoint"
                )
            },
            "coordinateConversion": {"coordinateConversionList": _Counted([])},
            "swathMerging": {"swathMergeList": _Counted([])},
        },
    )
    _write(files["calibration"], "calibration", _calibration(swath))
    _write(files["noise"], "noise", _noise(swath))


def _header(swath: SwathRecord) -> dict[str, Any]:
    product = swath.product
    return {
        "missionId": product.mission,
        "productType": "SLC",
        "polarisation": product.polarization,
        "mode": "IW",
        "swath": swath.swath,
        "startTime": stamp(swath.start_ns),
        "stopTime": stamp(swath.stop_ns),
        "absoluteOrbitNumber": product.absolute_orbit,
        "missionDataTakeId": product.data_take_id,
        "imageNumber": f"{swath.image_number:03d}",
    }


def _general(swath: SwathRecord) -> dict[str, Any]:
    return {
        "productInformation": {
            "pass": swath.product.orbit_direction.capitalize(),
            "timelinessCategory": "NRT-3h",
            "platformHeading": swath.heading_deg,
            "projection": "Slant Range",
            "rangeSamplingRate": swath.range_sampling_rate_hz,
            "radarFrequency": swath.radar_frequency_hz,
            "azimuthSteeringRate": swath.steering_rate_deg_s,
        },
        "downlinkInformationList": _Counted([_downlink(swath)], "downlinkInformation"),
        "orbitList": _Counted(
            [
                _state(int(time), state)
                for time, state in zip(swath.orbit_times_ns, swath.orbit_states, strict=True)
            ],
            "orbit",
        ),
        "attitudeList": _Counted([]),
        "terrainHeightList": _Counted(
            [
                {"azimuthTime": stamp(burst.azimuth_time_ns), "value": swath.grid[0].height}
                for burst in swath.bursts
            ],
            "terrainHeight",
        ),
        "azimuthFmRateList": _Counted(
            [_fm_rate(swath, r) for r in swath.fm_rates], "azimuthFmRate"
        ),
    }


def _downlink(swath: SwathRecord) -> dict[str, Any]:
    return {
        "swath": swath.swath,
        "azimuthTime": stamp(swath.start_ns),
        "firstLineSensingTime": stamp(swath.bursts[0].sensing_time_ns),
        "lastLineSensingTime": stamp(swath.bursts[-1].sensing_time_ns),
        "prf": 1.0 / swath.pri_s,
        "downlinkValues": {
            "pri": swath.pri_s,
            "rank": swath.rank,
            "rangeDecimation": {
                "decimationFilterBandwidth": 5.659e7,
                "samplingFrequencyAfterDecimation": swath.range_sampling_rate_hz,
                "filterLength": 36,
            },
            "txPulseLength": swath.pulse_length_s,
            "txPulseStartFrequency": -0.5 * swath.pulse_length_s * swath.pulse_rate_hz_s,
            "txPulseRampRate": swath.pulse_rate_hz_s,
            "swstList": _Counted(
                [{"azimuthTime": stamp(swath.start_ns), "value": swath.window_start_s}], "swst"
            ),
        },
    }


def _state(time_ns: int, state: Any) -> dict[str, Any]:
    return {
        "time": stamp(time_ns),
        "frame": "Earth Fixed",
        "position": dict(zip("xyz", (float(v) for v in state[:3]), strict=True)),
        "velocity": dict(zip("xyz", (float(v) for v in state[3:]), strict=True)),
    }


def _fm_rate(swath: SwathRecord, rate: PolynomialRecord) -> dict[str, Any]:
    head = {"azimuthTime": stamp(rate.azimuth_time_ns), "t0": rate.range_time_s}
    if swath.product.has_old_syntax:
        return head | {f"c{k}": value for k, value in enumerate(rate.coefficients)}
    return head | {"azimuthFmRatePolynomial": _Counted(rate.coefficients)}


def _doppler(estimate: PolynomialRecord) -> dict[str, Any]:
    return {
        "azimuthTime": stamp(estimate.azimuth_time_ns),
        "t0": estimate.range_time_s,
        "geometryDcPolynomial": _Counted(estimate.geometry_coefficients),
        "dataDcPolynomial": _Counted(estimate.coefficients),
        "dataDcRmsError": 6.4,
        "dataDcRmsErrorAboveThreshold": False,
        "fineDceAzimuthStartTime": stamp(estimate.azimuth_time_ns - 1_388_653_000),
        "fineDceAzimuthStopTime": stamp(estimate.azimuth_time_ns + 1_388_654_000),
        "fineDceList": _Counted([]),
    }


def _image(swath: SwathRecord) -> dict[str, Any]:
    node = swath.product.ascending_node_ns
    return {
        "imageInformation": {
            "productFirstLineUtcTime": stamp(swath.start_ns),
            "productLastLineUtcTime": stamp(swath.stop_ns),
            "ascendingNodeTime": stamp(node),
            "anchorTime": stamp(swath.start_ns),
            "productComposition": "Slice",
            "sliceNumber": 1,
            "sliceList": _Counted([]),
            "slantRangeTime": swath.slant_range_time_s,
            "pixelValue": "Complex",
            "outputPixels": "16 bit Signed Integer",
            "rangePixelSpacing": 0.5 * _SPEED_OF_LIGHT_M_S / swath.range_sampling_rate_hz,
            "azimuthPixelSpacing": 13.98,
            "azimuthTimeInterval": swath.line_interval_s,
            "azimuthFrequency": 1.0 / swath.line_interval_s,
            "numberOfSamples": swath.samples,
            "numberOfLines": swath.lines,
            "zeroDopMinusAcqTime": 0.0,
            "incidenceAngleMidSwath": swath.grid[len(swath.grid) // 2].incidence_angle,
        },
        "processingInformation": {
            "rawDataAnalysisUsed": True,
            "orbitDataFileUsed": True,
            "antennaElevationPatternApplied": True,
            "antennaAzimuthPatternApplied": True,
            "antennaAzimuthElementPatternApplied": True,
            "dcMethod": "Data Analysis",
            "dcInputData": "Range Compressed",
            "rangeSpreadingLossCompensationApplied": True,
            "detectionPerformed": False,
            "thermalNoiseCorrectionPerformed": False,
            "swathProcParamsList": _Counted([_processing(swath)], "swathProcParams"),
            "ellipsoidName": "WGS84",
            "ellipsoidSemiMajorAxis": 6378137.0,
            "ellipsoidSemiMinorAxis": 6356752.314245,
            "bistaticDelayCorrectionApplied": True,
            "topsFilterConvention": "Only Echo Lines",
            "orbitSource": "Auxiliary",
            "attitudeSource": "Downlink",
        },
    }


def _processing(swath: SwathRecord) -> dict[str, Any]:
    def band(values: tuple[float, float]) -> dict[str, Any]:
        return {
            "windowType": "Hamming",
            "windowCoefficient": values[1],
            "totalBandwidth": values[0],
            "processingBandwidth": values[0],
            "lookBandwidth": values[0],
            "numberOfLooks": 1,
            "lookOverlap": 0.0,
        }

    return {
        "swath": swath.swath,
        "rangeProcessing": band(swath.range_band),
        "azimuthProcessing": band(swath.azimuth_band),
    }


def _antenna(swath: SwathRecord) -> dict[str, Any]:
    row = [p for p in swath.grid if p.line == swath.grid[0].line]
    return {
        "swath": swath.swath,
        "azimuthTime": stamp(swath.start_ns),
        "slantRangeTime": _Counted([p.slant_range_time_s for p in row]),
        "elevationAngle": _Counted([p.elevation_angle for p in row]),
        "elevationPattern": _Counted([v for _ in row for v in (1.0, 0.0)]),
        "incidenceAngle": _Counted([p.incidence_angle for p in row]),
        "terrainHeight": row[0].height,
        "roll": 30.15,
    }


def _timing(swath: SwathRecord) -> dict[str, Any]:
    bursts = []
    for burst in swath.bursts:
        first, stop, left, right = burst.valid
        inside = [first <= line < stop for line in range(swath.lines_per_burst)]
        since_node = (burst.azimuth_time_ns - swath.product.ascending_node_ns) * 1e-9
        content = {
            "azimuthTime": stamp(burst.azimuth_time_ns),
            "azimuthAnxTime": since_node,
            "sensingTime": stamp(burst.sensing_time_ns),
            "byteOffset": burst.byte_offset,
            "firstValidSample": _Counted([left if valid else -1 for valid in inside]),
            "lastValidSample": _Counted([right - 1 if valid else -1 for valid in inside]),
        }
        if swath.product.has_burst_ids:
            absolute = {"absolute": str(burst.absolute_burst_id)}
            content["burstId"] = _Attributed(burst.burst_id, absolute)
        bursts.append(content)
    return {
        "linesPerBurst": swath.lines_per_burst,
        "samplesPerBurst": swath.samples,
        "burstList": _Counted(bursts, "burst"),
    }


def _grid_point(point: GridPoint) -> dict[str, Any]:
    return {
        "azimuthTime": stamp(point.azimuth_time_ns),
        "slantRangeTime": point.slant_range_time_s,
        "line": point.line,
        "pixel": point.pixel,
        "latitude": point.latitude,
        "longitude": point.longitude,
        "height": point.height,
        "incidenceAngle": point.incidence_angle,
        "elevationAngle": point.elevation_angle,
    }


def _knots(swath: SwathRecord, step: int) -> list[int]:
    return [*range(0, swath.samples - 1, step), swath.samples - 1]


def _calibration(swath: SwathRecord) -> dict[str, Any]:
    pixels = _knots(swath, 40)
    lines = [*range(0, swath.lines, 486), swath.lines - 1]

    def constant(value: float) -> _Counted:
        return _Counted([value] * len(pixels))

    vectors = [
        {
            "azimuthTime": stamp(swath.start_ns + round(line * swath.line_interval_s * 1e9)),
            "line": line,
            "pixel": _Counted(pixels),
            "sigmaNought": constant(_SIGMA_NOUGHT),
            "betaNought": constant(237.0),
            "gamma": constant(300.0),
            "dn": constant(237.0),
        }
        for line in lines
    ]
    return {
        "adsHeader": _header(swath),
        "calibrationInformation": {"absoluteCalibrationConstant": 1.0},
        "calibrationVectorList": _Counted(vectors, "calibrationVector"),
    }


def _noise(swath: SwathRecord) -> dict[str, Any]:
    pixels = _knots(swath, 40)
    name = "noiseLut" if swath.product.has_old_syntax else "noiseRangeLut"
    vectors = [
        {
            "azimuthTime": stamp(burst.azimuth_time_ns),
            "line": index * swath.lines_per_burst,
            "pixel": _Counted(pixels),
            name: _Counted([swath.noise_power] * len(pixels)),
        }
        for index, burst in enumerate(swath.bursts)
    ]
    if swath.product.has_old_syntax:
        return {
            "adsHeader": _header(swath),
            "noiseVectorList": _Counted(vectors, "noiseVector"),
        }
    lines = [*range(0, swath.lines - 1, 20), swath.lines - 1]
    azimuth = {
        "swath": swath.swath,
        "firstAzimuthLine": 0,
        "firstRangeSample": 0,
        "lastAzimuthLine": swath.lines - 1,
        "lastRangeSample": swath.samples - 1,
        "line": _Counted(lines),
        "noiseAzimuthLut": _Counted([1.0] * len(lines)),
    }
    return {
        "adsHeader": _header(swath),
        "noiseRangeVectorList": _Counted(vectors, "noiseRangeVector"),
        "noiseAzimuthVectorList": _Counted([azimuth], "noiseAzimuthVector"),
    }
