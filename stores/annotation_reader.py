"""Read the annotation XML of one swath and polarization into ``SwathAnnotation``."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from bperp.stores import burst_ids
from bperp.stores.annotation import (
    GeolocationGrid,
    PolynomialList,
    StateVectors,
    SwathAnnotation,
)
from bperp.stores.annotation_bursts import ProductContext, check_plausible, complete_bursts
from bperp.stores.errors import OrbitError, ProductError
from bperp.stores.xml import (
    Element,
    boolean,
    child,
    file_of,
    integer,
    number,
    numbers,
    optional_text,
    parse_xml,
    text,
    time_ns,
)

__all__ = ["ProductContext", "parse_annotation", "track_from_vectors"]

T = TypeVar("T", int, float)

_GEOLOCATION = {
    "slant_range_time_s": "slantRangeTime",
    "latitude_deg": "latitude",
    "longitude_deg": "longitude",
    "height_m": "height",
    "incidence_deg": "incidenceAngle",
    "elevation_deg": "elevationAngle",
}


def parse_annotation(
    data: bytes, where: str, context: ProductContext | None = None
) -> SwathAnnotation:
    """Parse the annotation of one swath and polarization.

    Parameters
    ----------
    data : bytes
        The XML document.
    where : str
        Name of the file for error messages.
    context : ProductContext, optional
        Facts from the manifest; without them the relative orbit follows from the formula.

    Raises
    ------
    ProductError
        D301 malformed, D302 missing element, D303 polynomials far from a burst, D304 burst number
        in conflict, D305 unknown mission, D312 implausible value.
    OrbitError
        O505 for state vectors that are not Earth fixed in metres.
    SecurityError
        X901, X902.
    """
    root = parse_xml(data, where)
    context = context or ProductContext()
    annotation = _read_swath(root, context)
    check_plausible(annotation)
    return complete_bursts(root, annotation, context)


def track_from_vectors(data: bytes, where: str, start_ns: int) -> int | None:
    """Return the relative orbit on whose ground track a product lies at its start, or None.

    It comes from the annotated state vectors and ascending node alone, to judge between a
    manifest and the formula of its mission.
    """
    root = parse_xml(data, where)
    vectors = _read_state_vectors(root)
    annotated = time_ns(root, "imageAnnotation/imageInformation/ascendingNodeTime")
    first = (vectors.time_ns[0], vectors.position_m[0], vectors.velocity_m_s[0])
    node = burst_ids.nearest_node_ns(
        annotated, vectors.time_ns, vectors.position_m, vectors.velocity_m_s
    )
    if node is None:
        return None
    track = burst_ids.track_of_node(burst_ids.node_longitude_deg(node, int(first[0]), *first[1:]))
    orbits = math.floor((start_ns - node) * 1e-9 / burst_ids.ORBIT_PERIOD_S)
    return None if track is None else (track + orbits - 1) % burst_ids.ORBITS_PER_CYCLE + 1


def _read_swath(root: Element, context: ProductContext) -> SwathAnnotation:
    header = child(root, "adsHeader")
    product = child(root, "generalAnnotation/productInformation")
    image = child(root, "imageAnnotation/imageInformation")
    processing = child(root, "imageAnnotation/processingInformation")
    swath, mission = text(header, "swath"), text(header, "missionId")
    downlink = _of_swath(root, "generalAnnotation/downlinkInformationList", swath)
    windows = _of_swath(root, "imageAnnotation/processingInformation/swathProcParamsList", swath)
    absolute_orbit = integer(header, "absoluteOrbitNumber")
    bistatic = "bistaticDelayCorrectionApplied"
    has_bistatic = optional_text(processing, bistatic) is not None
    formula_orbit = burst_ids.relative_orbit(mission, absolute_orbit, file_of(root))
    return SwathAnnotation(
        where=file_of(root),
        product_name=context.product_name,
        mission=mission,
        mode=text(header, "mode"),
        swath=swath,
        polarization=text(header, "polarisation"),
        ipf_version=context.ipf_version,
        absolute_orbit=absolute_orbit,
        relative_orbit=formula_orbit if context.start_orbit is None else context.start_orbit,
        orbit_direction=_choice(product, "pass", ("ascending", "descending")),
        start_ns=time_ns(header, "startTime"),
        stop_ns=time_ns(header, "stopTime"),
        ascending_node_time_ns=time_ns(image, "ascendingNodeTime"),
        lines_per_burst=integer(root, "swathTiming/linesPerBurst"),
        samples_per_burst=integer(root, "swathTiming/samplesPerBurst"),
        number_of_lines=integer(image, "numberOfLines"),
        number_of_samples=integer(image, "numberOfSamples"),
        first_line_time_ns=time_ns(image, "productFirstLineUtcTime"),
        azimuth_time_interval_s=number(image, "azimuthTimeInterval"),
        range_sampling_rate_hz=number(product, "rangeSamplingRate"),
        slant_range_time_s=number(image, "slantRangeTime"),
        radar_frequency_hz=number(product, "radarFrequency"),
        azimuth_steering_rate_rad_s=math.radians(number(product, "azimuthSteeringRate")),
        prf_hz=number(downlink, "prf"),
        rank=integer(downlink, "downlinkValues/rank"),
        chirp_rate_hz_s=number(downlink, "downlinkValues/txPulseRampRate"),
        platform_heading_deg=number(product, "platformHeading"),
        range_pixel_spacing_m=number(image, "rangePixelSpacing"),
        azimuth_pixel_spacing_m=number(image, "azimuthPixelSpacing"),
        incidence_mid_swath_deg=number(image, "incidenceAngleMidSwath"),
        range_bandwidth_hz=number(windows, "rangeProcessing/processingBandwidth"),
        range_window_type=text(windows, "rangeProcessing/windowType"),
        range_window_coefficient=number(windows, "rangeProcessing/windowCoefficient"),
        azimuth_bandwidth_hz=number(windows, "azimuthProcessing/processingBandwidth"),
        azimuth_window_type=text(windows, "azimuthProcessing/windowType"),
        azimuth_window_coefficient=number(windows, "azimuthProcessing/windowCoefficient"),
        doppler_centroid_method=text(processing, "dcMethod"),
        bistatic_delay_corrected=boolean(processing, bistatic) if has_bistatic else None,
        fm_rate=_read_fm_rate(root),
        doppler_centroid_data=_read_doppler(root, "dataDcPolynomial"),
        doppler_centroid_geometry=_read_doppler(root, "geometryDcPolynomial"),
        state_vectors=_read_state_vectors(root),
        geolocation_grid=_read_geolocation(root),
        bursts=(),
    )


def _choice(element: Element, path: str, choices: Sequence[str]) -> str:
    value = text(element, path).lower()
    if value not in choices:
        raise ProductError(
            "D301",
            f"malformed value of {path}",
            where=file_of(element),
            expected=" or ".join(choices),
            found=repr(value[:40]),
            remedy="fetch the product again",
        )
    return value


def _of_swath(root: Element, path: str, swath: str) -> Element:
    """Return the list item of the swath (detected products list several)."""
    items = list(child(root, path))
    for item in items:
        if optional_text(item, "swath") in {swath, None}:
            return item
    return child(root, f"{path}/*[swath='{swath}']" if swath.isalnum() else f"{path}/missing")


def _column(items: Sequence[Element], path: str, get: Callable[[Element, str], T]) -> list[T]:
    return [get(item, path) for item in items]


def _int64(values: Sequence[int]) -> NDArray[np.int64]:
    array = np.array(values, dtype=np.int64)
    array.setflags(write=False)
    return array


def _float64(values: object) -> NDArray[np.float64]:
    array = np.array(values, dtype=np.float64)
    array.setflags(write=False)
    return array


def _items(root: Element, path: str, tag: str) -> list[Element]:
    items = child(root, path).findall(tag)
    if not items:
        child(root, f"{path}/{tag}")
    return items


def _read_fm_rate(root: Element) -> PolynomialList:
    items = _items(root, "generalAnnotation/azimuthFmRateList", "azimuthFmRate")
    rows = []
    for item in items:
        # Until IPF 2.4x each coefficient had an element of its own.
        if item.find("azimuthFmRatePolynomial") is None:
            rows.append(np.array([number(item, name) for name in ("c0", "c1", "c2")]))
        else:
            rows.append(numbers(item, "azimuthFmRatePolynomial"))
    return _polynomials(items, rows)


def _read_doppler(root: Element, name: str) -> PolynomialList:
    items = _items(root, "dopplerCentroid/dcEstimateList", "dcEstimate")
    return _polynomials(items, [numbers(item, name) for item in items])


def _polynomials(items: list[Element], rows: list[NDArray[np.float64]]) -> PolynomialList:
    if len({row.size for row in rows}) != 1:
        raise ProductError(
            "D301",
            "polynomials of one list differ in length",
            where=file_of(items[0]),
            found=", ".join(sorted({str(row.size) for row in rows})),
            remedy="fetch the product again",
        )
    times = _column(items, "azimuthTime", time_ns)
    order = np.argsort(np.array(times), kind="stable")
    return PolynomialList(
        azimuth_time_ns=_int64([times[i] for i in order]),
        range_time_s=_float64(np.array(_column(items, "t0", number))[order]),
        coefficients=_float64(np.stack(rows)[order]),
    )


def _read_state_vectors(root: Element) -> StateVectors:
    items = _items(root, "generalAnnotation/orbitList", "orbit")
    times = _column(items, "time", time_ns)
    position = [[number(item, f"position/{axis}") for axis in "xyz"] for item in items]
    velocity = [[number(item, f"velocity/{axis}") for axis in "xyz"] for item in items]
    vectors = StateVectors(_int64(times), _float64(position), _float64(velocity))
    frames = {text(item, "frame") for item in items}
    radius = np.linalg.norm(vectors.position_m, axis=1)
    speed = np.linalg.norm(vectors.velocity_m_s, axis=1)
    inside = (radius > 6.9e6) & (radius < 7.3e6) & (speed > 7.0e3) & (speed < 8.2e3)
    if frames != {"Earth Fixed"} or not inside.all() or (np.diff(vectors.time_ns) <= 0).any():
        raise OrbitError(
            "O505",
            "annotated state vectors are not Earth fixed, in metres and in order of time",
            where=file_of(root),
            expected="frame 'Earth Fixed', radius near 7.07e6 m, speed near 7.6e3 m/s",
            found=f"{', '.join(sorted(frames))}, {radius[0]:.4g} m, {speed[0]:.4g} m/s",
            remedy="fetch the product again",
        )
    return vectors


def _read_geolocation(root: Element) -> GeolocationGrid:
    items = _items(root, "geolocationGrid/geolocationGridPointList", "geolocationGridPoint")
    line, pixel = _column(items, "line", integer), _column(items, "pixel", integer)
    columns = len(set(pixel))
    rows = len(items) // columns
    lines = np.array(line, dtype=np.int64).reshape(-1)
    regular = rows * columns == len(items) and bool(
        (lines.reshape(rows, columns) == lines.reshape(rows, columns)[:, :1]).all()
    )
    if not regular:
        raise ProductError(
            "D301",
            "geolocation grid is not rectangular",
            where=file_of(root),
            found=f"{len(items)} points in {len(set(line))} lines and {columns} columns",
            remedy="fetch the product again",
        )
    shape = (rows, columns)
    fields = {
        name: _float64(np.reshape(_column(items, path, number), shape))
        for name, path in _GEOLOCATION.items()
    }
    return GeolocationGrid(
        azimuth_time_ns=_int64(_column(items, "azimuthTime", time_ns)).reshape(shape),
        line=_int64(line).reshape(shape),
        pixel=_int64(pixel).reshape(shape),
        **fields,
    )
