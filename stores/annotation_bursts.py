"""Bursts of an annotation: identifiers, valid samples, and checks against time and orbit."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from bperp.stores import burst_ids
from bperp.stores.annotation import Burst, SwathAnnotation
from bperp.stores.errors import ProductError
from bperp.stores.xml import Element, child, integer, integers, number, optional_text, time_ns

__all__ = ["ProductContext", "check_plausible", "complete_bursts"]

# Ranges that hold for every mode of the mission (IW, EW, stripmap, wave), generously.
_PLAUSIBLE = {
    "azimuth_time_interval_s": (1e-4, 1e-2),
    "range_sampling_rate_hz": (1e7, 2e8),
    "slant_range_time_s": (4.5e-3, 8.5e-3),
    "radar_frequency_hz": (5.3e9, 5.5e9),
    "azimuth_steering_rate_rad_s": (-0.1, 0.1),
    "prf_hz": (1000.0, 3500.0),
    "rank": (5, 12),
    "chirp_rate_hz_s": (-5e12, 5e12),
    "range_pixel_spacing_m": (0.5, 20.0),
    "azimuth_pixel_spacing_m": (0.5, 60.0),
    "number_of_lines": (1, 2_000_000),
    "number_of_samples": (1, 200_000),
}
_NODE_TOLERANCE_S = 1.0
_GAP_TO_FLAG_S = 0.5
_BURST_LIMIT = 1000


@dataclass(frozen=True)
class ProductContext:
    """What the manifest knows and the annotation does not.

    Parameters
    ----------
    product_name, ipf_version : str
    start_orbit, stop_orbit : int or None
        Relative orbits at the first and last line; None: from the mission's formula.
    middle_ns : int or None
        Middle of the whole product, UTC ns since 1970; None: middle of the swath.
    """

    product_name: str = ""
    ipf_version: str = ""
    start_orbit: int | None = None
    stop_orbit: int | None = None
    middle_ns: int | None = None


def complete_bursts(
    root: Element, annotation: SwathAnnotation, context: ProductContext
) -> SwathAnnotation:
    """Return the annotation with its bursts and with flags for every fallback.

    Raises
    ------
    ProductError
        D301, D302 unreadable burst, D303 polynomials far from a burst, D304 number in conflict,
        D312 bursts that do not add up to the image.
    """
    annotation, node_orbit = _check_node(annotation, context)
    bursts = _read_bursts(root, annotation, node_orbit)
    annotation = replace(annotation, bursts=bursts)
    gaps = _coverage_flags(annotation)
    return replace(annotation, flags=(*annotation.flags, *_burst_flags(bursts), *gaps))


def check_plausible(annotation: SwathAnnotation) -> None:
    """Raise D312 for values that no mode of the mission can have."""
    for name, (low, high) in _PLAUSIBLE.items():
        value = getattr(annotation, name)
        if not low <= value <= high:
            raise _implausible(annotation, name, f"{low:g} to {high:g}", f"{value:g}")
    limits = {"range": annotation.range_sampling_rate_hz, "azimuth": annotation.prf_hz}
    for name, limit in limits.items():
        bandwidth = getattr(annotation, f"{name}_bandwidth_hz")
        coefficient = getattr(annotation, f"{name}_window_coefficient")
        if not 0.0 < bandwidth <= limit or not 0.0 <= coefficient <= 1.0:
            found = f"{bandwidth:g} Hz, coefficient {coefficient:g}"
            expected = f"up to {limit:g} Hz, coefficient 0 to 1"
            raise _implausible(annotation, f"{name} processing", expected, found)
    duration_s = (annotation.stop_ns - annotation.start_ns) * 1e-9
    if not 0.0 < duration_s < 3600.0:
        raise _implausible(annotation, "stop time", "after the start", f"{duration_s:g} s later")


def _implausible(annotation: SwathAnnotation, name: str, expected: str, found: str) -> ProductError:
    return ProductError(
        "D312",
        f"implausible {name}",
        where=annotation.where,
        expected=expected,
        found=found,
        remedy="fetch the product again, or leave this date out",
    )


def _check_node(
    annotation: SwathAnnotation, context: ProductContext
) -> tuple[SwathAnnotation, int]:
    """Compare the annotated ascending node with the one that the state vectors lead to."""
    vectors, node_ns = annotation.state_vectors, annotation.ascending_node_time_ns
    found_ns = burst_ids.nearest_node_ns(
        node_ns, vectors.time_ns, vectors.position_m, vectors.velocity_m_s
    )
    if found_ns is not None and abs(found_ns - node_ns) > _NODE_TOLERANCE_S * 1e9:
        node_ns = found_ns
        flags = (*annotation.flags, "ascending-node-recomputed")
        annotation = replace(annotation, ascending_node_time_ns=node_ns, flags=flags)
    start = annotation.relative_orbit
    stop = context.stop_orbit or start
    middle_ns = context.middle_ns or (annotation.start_ns + annotation.stop_ns) // 2
    return annotation, burst_ids.node_relative_orbit(start, stop, middle_ns, node_ns)


def _read_bursts(root: Element, annotation: SwathAnnotation, node_orbit: int) -> tuple[Burst, ...]:
    items = child(root, "swathTiming/burstList").findall("burst")
    if not items:
        return (_pseudo_burst(annotation),)
    lines, samples = annotation.lines_per_burst, annotation.samples_per_burst
    fits = lines * len(items) == annotation.number_of_lines
    if not fits or samples != annotation.number_of_samples or len(items) > _BURST_LIMIT:
        expected = f"{annotation.number_of_lines} lines x {annotation.number_of_samples} samples"
        found = f"{len(items)} bursts of {lines} x {samples}"
        raise _implausible(annotation, "burst size", expected, found)
    return tuple(
        _read_burst(item, index, annotation, node_orbit) for index, item in enumerate(items)
    )


def _read_burst(item: Element, index: int, annotation: SwathAnnotation, node_orbit: int) -> Burst:
    sensing_ns = time_ns(item, "sensingTime")
    has_number = optional_text(item, "burstId") is not None
    annotated = integer(item, "burstId") if has_number else None
    computed = None
    if annotation.mode == "IW" and annotation.swath in {"IW1", "IW2", "IW3"}:
        computed, fraction = burst_ids.burst_number(
            annotation.swath, sensing_ns, annotation.ascending_node_time_ns, node_orbit
        )
        _check_number(annotation, index, annotated, computed, fraction)
    chosen = computed if annotated is None else annotated
    source = "annotation" if annotated is not None else "computed"
    return Burst(
        index=index,
        first_line=index * annotation.lines_per_burst,
        lines=annotation.lines_per_burst,
        samples=annotation.samples_per_burst,
        burst_id="" if chosen is None else _identifier(annotation, chosen),
        burst_id_source="none" if chosen is None else source,
        annotated_number=annotated,
        computed_number=computed,
        azimuth_time_ns=time_ns(item, "azimuthTime"),
        sensing_time_ns=sensing_ns,
        azimuth_anx_time_s=number(item, "azimuthAnxTime"),
        byte_offset=integer(item, "byteOffset"),
        first_valid_sample=_valid_samples(item, "firstValidSample"),
        last_valid_sample=_valid_samples(item, "lastValidSample"),
        where=annotation.where,
    )


def _identifier(annotation: SwathAnnotation, chosen: int) -> str:
    # Only IW numbers tell their track; other modes take the scene's.
    track = None if annotation.mode == "IW" else annotation.relative_orbit
    return burst_ids.format_burst_id(chosen, annotation.swath, track)


def _valid_samples(item: Element, path: str) -> NDArray[np.int32]:
    values = integers(item, path, check_count=False)
    if values.size and (values.min() < -1 or values.max() > 2**31 - 1):
        values = np.clip(values, -1, 2**31 - 1)
    samples = values.astype(np.int32)
    samples.setflags(write=False)
    return samples


def _check_number(
    annotation: SwathAnnotation, index: int, annotated: int | None, computed: int, fraction: float
) -> None:
    if annotated is None or annotated == computed:
        return
    raise ProductError(
        "D304",
        f"burst {index} is labelled as another burst",
        where=annotation.where,
        expected=f"{computed} from time since the ascending node (slot position {fraction:.2f})",
        found=f"{annotated} in the annotation",
        remedy="leave this product out and report it to the agency",
    )


def _pseudo_burst(annotation: SwathAnnotation) -> Burst:
    """Return the whole image as one burst (stripmap, wave)."""
    lines, samples = annotation.number_of_lines, annotation.number_of_samples
    anx_s = (annotation.first_line_time_ns - annotation.ascending_node_time_ns) * 1e-9
    return Burst(
        index=0,
        first_line=0,
        lines=lines,
        samples=samples,
        burst_id="",
        burst_id_source="none",
        annotated_number=None,
        computed_number=None,
        azimuth_time_ns=annotation.first_line_time_ns,
        sensing_time_ns=annotation.first_line_time_ns,
        azimuth_anx_time_s=anx_s,
        byte_offset=0,
        first_valid_sample=np.zeros(lines, dtype=np.int32),
        last_valid_sample=np.full(lines, samples - 1, dtype=np.int32),
        where=annotation.where,
    )


def _burst_flags(bursts: tuple[Burst, ...]) -> tuple[str, ...]:
    return ("burst-id-computed",) if any(b.burst_id_source == "computed" for b in bursts) else ()


def _coverage_flags(annotation: SwathAnnotation) -> tuple[str, ...]:
    """Flag polynomial lists that end before the middle of the first or last burst."""
    half_ns = round(annotation.bursts[0].lines * annotation.azimuth_time_interval_s * 0.5e9)
    first = annotation.bursts[0].azimuth_time_ns + half_ns
    last = annotation.bursts[-1].azimuth_time_ns + half_ns
    flags = []
    for name in ("fm_rate", "doppler_centroid_data"):
        times = getattr(annotation, name).azimuth_time_ns
        gap_s = max(int(times[0]) - first, last - int(times[-1]), 0) * 1e-9
        if gap_s > _GAP_TO_FLAG_S:
            flags.append(f"{name.replace('_', '-')}-extrapolated-{gap_s:.2f}-s")
        if annotation.has_bursts and gap_s * 1e9 > 2 * half_ns:
            raise ProductError(
                "D303",
                f"{name} polynomials end more than one burst before the image does",
                where=annotation.where,
                expected=f"a gap of at most {2e-9 * half_ns:.2f} s",
                found=f"{gap_s:.2f} s",
                remedy="leave this date out, or fetch a newer processing of the product",
            )
    return tuple(flags)
