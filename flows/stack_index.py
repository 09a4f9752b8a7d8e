"""From the configured products to the stack: what is there, and what goes with what."""

from __future__ import annotations

import posixpath
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import fsspec
import numpy as np

from bperp.flows.config import StackConfig
from bperp.flows.config_types import BoundingBox
from bperp.flows.stack_crop import scene_crop
from bperp.pipeline.burst import BurstImage, OrbitArc, PolynomialList
from bperp.pipeline.geometry import burst_bounds
from bperp.pipeline.reference import choose_reference
from bperp.pipeline.stack import Stack, arrange_scene
from bperp.stores.annotation import Burst, SwathAnnotation
from bperp.stores.annotation import PolynomialList as AnnotatedPolynomials
from bperp.stores.errors import (
    BperpError,
    ConfigurationError,
    OrbitError,
    ProductError,
    StackError,
)
from bperp.stores.orbit_reader import OrbitFile
from bperp.stores.orbit_selection import OrbitCandidate, list_orbits, select_orbit
from bperp.stores.safe import SafeProduct, open_safe

POLYNOMIAL_REACH_S = 4.0
ORBIT_REACH_S = 120.0
MAX_GAP_NS = 60_000_000_000
"""Products of successive orbits that are nearer in time belong to one pass."""
MIDDLE_SWATH = "IW2"


@dataclass(frozen=True)
class StackIndex:
    """The stack and what was decided on the way.

    ``notes`` are sentences for the report: duplicates, dropped bursts, fallbacks.
    """

    stack: Stack
    notes: tuple[str, ...]
    products: tuple[str, ...]


@dataclass
class _Acquisition:
    """All slices of one pass, in any order."""

    date: str
    products: list[SafeProduct] = field(default_factory=list)


def index_stack(config: StackConfig, kept_reference: str | None = None) -> StackIndex:
    """Read all annotations and orbits and arrange the stack.

    Parameters
    ----------
    config : StackConfig
        Validated configuration.
    kept_reference : str, optional
        Reference date of earlier runs: ``auto`` keeps it while the stack holds it. Another one
        would put all dates on another grid.

    Returns
    -------
    StackIndex

    Raises
    ------
    BperpError
        Any fault of products, orbits or their combination; one line each.
    """
    notes: list[str] = []
    acquisitions = _acquisitions(config, notes)
    orbits = list_orbits(config.orbits.folders)
    images: dict[tuple[str, str], BurstImage] = {}
    for acquisition in acquisitions:
        try:
            found = list(_burst_images(config, acquisition, orbits))
        except BperpError as error:
            _skip_or_raise(config, acquisition.date, error, notes)
            continue
        for image in found:
            key = (image.burst_id, image.date)
            twice = key in images
            images[key] = _prefer(images[key], image, notes) if twice else image
    images = _within_area(config, images)
    dates = tuple(sorted({date for _, date in images}))
    if len(dates) < 2:
        raise StackError(
            "S407",
            "too few dates for an interferogram",
            expected="at least 2 dates with the wanted swaths and polarization",
            found=f"{len(dates)}: {', '.join(dates) or 'none'}",
            remedy="add products to slc: or widen dates:, swaths: and aoi:",
        )
    reference = _reference_date(config, images, dates, kept_reference)
    return _arrange(config, images, dates, reference, notes, acquisitions)


def _arrange(
    config: StackConfig,
    images: dict[tuple[str, str], BurstImage],
    dates: tuple[str, ...],
    reference: str,
    notes: list[str],
    acquisitions: Sequence[_Acquisition],
) -> StackIndex:
    bursts = {burst for burst, date in images if date == reference}
    dropped = sorted({burst for burst, _ in images} - bursts)
    if dropped:
        notes.append(f"bursts absent on the reference date are left out: {', '.join(dropped)}")
    kept = {key: image for key, image in images.items() if key[0] in bursts}
    for burst in sorted(bursts):
        holes = [date for date in dates if (burst, date) not in kept]
        if holes:
            notes.append(f"burst {burst} is missing on {', '.join(holes)}")
    azimuth_looks, range_looks = config.interferogram.looks
    references = [kept[burst, reference] for burst in bursts]
    crop = scene_crop(config, references)
    scene = arrange_scene(references, (azimuth_looks, range_looks), crop)
    names = tuple(p.name for acquisition in acquisitions for p in acquisition.products)
    return StackIndex(Stack(reference, dates, kept, scene), tuple(notes), names)


def expand_urls(patterns: Iterable[str]) -> list[str]:
    """Expand globs of local paths or URLs, sorted, each product once.

    Raises
    ------
    ConfigurationError
        C104 if a pattern matches nothing.
    """
    urls: list[str] = []
    for pattern in patterns:
        filesystem, path = fsspec.core.url_to_fs(pattern)
        matches = sorted(filesystem.glob(path)) if any(c in path for c in "*?[") else [path]
        matches = [match for match in matches if filesystem.exists(match)]
        if not matches:
            raise ConfigurationError(
                "C104",
                "no product matches",
                where=f"slc: {pattern}",
                expected="SAFE folders or zips",
                found="nothing",
                remedy="correct the path or the pattern",
            )
        urls.extend(filesystem.unstrip_protocol(match) for match in matches)
    return list(dict.fromkeys(urls))


def _skip_or_raise(config: StackConfig, date: str, error: BperpError, notes: list[str]) -> None:
    """Leave a bad date out with a note, if that is the policy and it is not the reference."""
    if config.on_bad_date == "stop" or date == config.reference_date:
        raise error
    notes.append(f"{date} is left out: {error}")


def _acquisitions(config: StackConfig, notes: list[str]) -> list[_Acquisition]:
    """Group the products into passes and apply the date options."""
    passes: dict[tuple[str, int], list[SafeProduct]] = defaultdict(list)
    for url in expand_urls(config.slc):
        try:
            product = open_safe(url)
        except BperpError as error:
            _skip_or_raise(config, posixpath.basename(url), error, notes)
            continue
        passes[product.mission, product.absolute_orbit].append(product)
    groups = _joined_at_the_node(passes)
    _require_one_track(groups)
    found = [_Acquisition(_iso_date(min(p.start_ns for p in group)), group) for group in groups]
    kept = [item for item in found if config.dates.selects(item.date)]
    return sorted(kept, key=lambda item: item.date)


def _iso_date(time_ns: int) -> str:
    return str(np.datetime64(time_ns, "ns").astype("datetime64[D]"))


def _joined_at_the_node(
    passes: Mapping[tuple[str, int], list[SafeProduct]],
) -> list[list[SafeProduct]]:
    """Return the products of each pass; orbit numbers change at the ascending node, amid a pass."""
    groups: list[list[SafeProduct]] = []
    for key in sorted(passes):
        mission, orbit = key
        products = sorted(passes[key], key=lambda product: product.start_ns)
        before = passes.get((mission, orbit - 1), [])
        gap_ns = products[0].start_ns - max((p.stop_ns for p in before), default=-MAX_GAP_NS)
        if groups and before and gap_ns < MAX_GAP_NS:
            groups[-1].extend(products)
        else:
            groups.append(products)
    return groups


def _require_one_track(groups: Sequence[Sequence[SafeProduct]]) -> None:
    """Refuse passes of different tracks; a pass belongs to the track on which it starts."""
    starts = [group[0] for group in groups]
    tracks = Counter((p.relative_orbit, p.orbit_direction) for p in starts)
    if len(tracks) > 1:
        (rare, _) = min(tracks.items(), key=lambda item: item[1])
        odd = next(p for p in starts if (p.relative_orbit, p.orbit_direction) == rare)
        raise StackError(
            "S403",
            "products of different tracks cannot form a stack",
            where=odd.name,
            expected="one relative orbit and direction",
            found=", ".join(f"{track} {direction}" for track, direction in sorted(tracks)),
            remedy="keep one track per stack in slc:",
        )


def _burst_images(
    config: StackConfig, acquisition: _Acquisition, orbits: Sequence[OrbitCandidate]
) -> Iterable[BurstImage]:
    start = min(product.start_ns for product in acquisition.products)
    stop = max(product.stop_ns for product in acquisition.products)
    orbit: OrbitFile | None = None
    for product in acquisition.products:
        swaths = _swaths(config, product)
        annotations = {name: product.annotation(name, config.polarization) for name in swaths}
        mid_swath_s = _mid_swath_range_time_s(product, annotations, config.polarization)
        for annotation in annotations.values():
            if orbit is None:
                orbit = select_orbit(
                    orbits,
                    annotation.mission,
                    start,
                    stop,
                    policy=config.orbits.policy,
                    annotation=annotation.state_vectors,
                )
            for burst in annotation.bursts:
                yield _burst_image(product, annotation, burst, orbit, acquisition.date, mid_swath_s)


def _mid_swath_range_time_s(
    product: SafeProduct, annotations: Mapping[str, SwathAnnotation], polarization: str
) -> float | None:
    """Return the two-way time of the middle of IW2, to which the processor refers its times.

    None when the product lacks a legible annotation of that swath: bursts of other swaths remain
    usable without the correction that needs it.
    """
    annotation = annotations.get(MIDDLE_SWATH)
    if annotation is None:
        try:
            annotation = product.annotation(MIDDLE_SWATH, polarization)
        except (ProductError, OrbitError):
            return None
    half_s = 0.5 * (annotation.samples_per_burst - 1) / annotation.range_sampling_rate_hz
    return annotation.slant_range_time_s + half_s


def _swaths(config: StackConfig, product: SafeProduct) -> list[str]:
    present = [swath for swath, pol in product.swaths() if pol == config.polarization]
    if not present:
        raise StackError(
            "S404",
            f"the product has no {config.polarization} channel",
            where=product.name,
            expected=config.polarization,
            found=", ".join(sorted({pol for _, pol in product.swaths()})) or "no annotation",
            remedy="choose another polarization: or leave the product out",
        )
    if config.swaths == "auto":
        return sorted(present)
    return sorted(set(present) & set(config.swaths))


def _burst_image(
    product: SafeProduct,
    annotation: SwathAnnotation,
    burst: Burst,
    orbit: OrbitFile,
    date: str,
    mid_swath_range_time_s: float | None,
) -> BurstImage:
    first_ns = burst.azimuth_time_ns
    duration = burst.lines * annotation.azimuth_time_interval_s
    reach = (-POLYNOMIAL_REACH_S, duration + POLYNOMIAL_REACH_S)
    member = product.measurement(annotation.swath, annotation.polarization)
    flags = dict.fromkeys((*orbit.flags, *annotation.flags, *product.flags))
    return BurstImage(
        burst_id=burst.burst_id,
        swath=annotation.swath,
        date=date,
        mission=annotation.mission,
        polarization=annotation.polarization,
        product=product.name,
        url=product.url,
        member=member or "",
        first_line=burst.first_line,
        lines=burst.lines,
        samples=burst.samples,
        valid=burst.valid_rectangle(),
        first_line_time_ns=int(first_ns),
        azimuth_time_interval_s=annotation.azimuth_time_interval_s,
        slant_range_time_s=annotation.slant_range_time_s,
        range_sampling_rate_hz=annotation.range_sampling_rate_hz,
        radar_frequency_hz=annotation.radar_frequency_hz,
        azimuth_steering_rate_rad_s=annotation.azimuth_steering_rate_rad_s,
        prf_hz=annotation.prf_hz,
        range_bandwidth_hz=annotation.range_bandwidth_hz,
        range_window_coefficient=annotation.range_window_coefficient,
        azimuth_bandwidth_hz=annotation.azimuth_bandwidth_hz,
        azimuth_window_coefficient=annotation.azimuth_window_coefficient,
        doppler_centroid=_polynomials(annotation.doppler_centroid, first_ns, reach),
        fm_rate=_polynomials(annotation.fm_rate, first_ns, reach),
        orbit=_orbit_arc(orbit, first_ns, duration),
        ipf_version=annotation.ipf_version,
        content_id=product.content_id()[:16],
        flags=tuple(flags),
        rank=annotation.rank,
        chirp_rate_hz_s=annotation.chirp_rate_hz_s,
        mid_swath_range_time_s=mid_swath_range_time_s,
        bistatic_delay_corrected=annotation.bistatic_delay_corrected,
    )


def _polynomials(
    annotated: AnnotatedPolynomials, first_ns: int, reach: tuple[float, float]
) -> PolynomialList:
    """Keep the polynomials around a burst and one more on either side."""
    time = (annotated.azimuth_time_ns - first_ns) * 1e-9
    inside = np.flatnonzero((time >= reach[0]) & (time <= reach[1]))
    first = max(0, (int(inside[0]) if inside.size else int(np.argmin(np.abs(time)))) - 1)
    last = (int(inside[-1]) if inside.size else int(np.argmin(np.abs(time)))) + 2
    part = slice(first, last)
    return PolynomialList(
        tuple(float(t) for t in time[part]),
        tuple(float(t) for t in annotated.range_time_s[part]),
        tuple(tuple(float(c) for c in row) for row in annotated.coefficients[part]),
    )


def _orbit_arc(orbit: OrbitFile, first_ns: int, duration: float) -> OrbitArc:
    time = (orbit.time_ns - first_ns) * 1e-9
    near = np.flatnonzero((time >= -ORBIT_REACH_S) & (time <= duration + ORBIT_REACH_S))
    return OrbitArc(
        orbit.kind,
        tuple(float(t) for t in time[near]),
        tuple(_triple(row) for row in orbit.position_m[near]),
        tuple(_triple(row) for row in orbit.velocity_m_s[near]),
    )


def _triple(row: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> tuple[float, float, float]:
    return float(row[0]), float(row[1]), float(row[2])


def _prefer(old: BurstImage, new: BurstImage, notes: list[str]) -> BurstImage:
    """Choose between two copies of a burst-date: later IPF, then more valid pixels, then name."""

    def rank(image: BurstImage) -> tuple[tuple[int, ...], int, str]:
        version = tuple(int(part) for part in image.ipf_version.split(".") if part.isdigit())
        top, bottom, left, right = image.valid
        return version, (bottom - top) * (right - left), image.product

    best, other = (new, old) if rank(new) > rank(old) else (old, new)
    notes.append(
        f"burst {best.burst_id} of {best.date} comes twice: {best.product} (IPF "
        f"{best.ipf_version}) is used, {other.product} (IPF {other.ipf_version}) is not"
    )
    return best


def _within_area(
    config: StackConfig, images: dict[tuple[str, str], BurstImage]
) -> dict[tuple[str, str], BurstImage]:
    if config.aoi is None:
        return images
    area = config.aoi
    kept: set[str] = set()
    for burst in {burst for burst, _ in images}:
        image = next(item for (name, _), item in images.items() if name == burst)
        south, west, north, east = burst_bounds(image)
        if area.lat_max >= south and area.lat_min <= north and _meets(area, west, east):
            kept.add(burst)
    if not kept:
        raise StackError(
            "S412",
            "the area of interest touches no burst",
            where="aoi",
            expected="an area inside the products' footprints",
            found=f"lon {area.lon_min}..{area.lon_max}, lat {area.lat_min}..{area.lat_max}",
            remedy="correct aoi: (order: lon_min, lat_min, lon_max, lat_max) or remove it",
        )
    return {key: image for key, image in images.items() if key[0] in kept}


def _meets(area: BoundingBox, west: float, east: float) -> bool:
    """Tell whether longitudes overlap, whatever turn of the Earth they are counted in."""
    area_east = area.lon_max + (360 if area.crosses_antimeridian else 0)
    return any(area_east + turn >= west and area.lon_min + turn <= east for turn in (-360, 0, 360))


def _reference_date(
    config: StackConfig,
    images: dict[tuple[str, str], BurstImage],
    dates: tuple[str, ...],
    kept: str | None,
) -> str:
    if config.reference_date == "auto":
        return kept if kept in dates else choose_reference(images, dates)
    wanted = str(config.reference_date)
    if wanted not in dates:
        raise StackError(
            "S405",
            "the reference date is not in the stack",
            where="reference_date",
            expected=f"one of {', '.join(dates[:3])}, ...",
            found=wanted,
            remedy="choose one of the dates or auto",
        )
    return wanted
