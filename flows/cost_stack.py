"""Stacks for planning alone: bursts of real size on invented dates, no product behind them.

All dates share one orbit. Sizes, valid samples and timing are those of a Sentinel-1A product (track
52, 2023-09-04, IPF 3.61), so plans have the shapes, tiles and overlaps of real ones.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from bperp.flows.simulation_options import SWATHS, SimulationOptions
from bperp.flows.simulation_radar import (
    BUILT_IN,
    Passage,
    RangePolynomial,
    burst_count,
    place_passage,
)
from bperp.flows.simulation_timing import burst_lines
from bperp.kernels.simulation.orbit import propagate
from bperp.pipeline.burst import BurstImage, OrbitArc, PolynomialList
from bperp.pipeline.stack import Stack, arrange_scene

__all__ = ["ImaginedStack", "imagine_stack"]

_SIZES = {
    "IW1": (1507, 23055, (21, 1488, 171, 20635)),
    "IW2": (1519, 26818, (28, 1493, 157, 24610)),
    "IW3": (1524, 25769, (30, 1495, 140, 23825)),
}
"""Lines, samples and valid rectangle of a burst."""

_HEIGHT_M = 400.0
_NOMINAL_LINES = 1519
_ORBIT_REACH_S, _ORBIT_STEP_S = 120.0, 10.0
_POLYNOMIALS = 5
"""Doppler and FM rate polynomials that the index keeps around a burst."""


@dataclass(frozen=True)
class ImaginedStack:
    """What to imagine: a frame of ``bursts_per_swath`` bursts, every ``repeat_days`` days."""

    dates: int = 61
    repeat_days: int = 6
    first_date: str = "2025-01-05"
    swaths: tuple[str, ...] = SWATHS
    bursts_per_swath: int = 9
    latitude_deg: float = 50.0
    longitude_deg: float = 15.0
    looks: tuple[int, int] = (4, 20)


def imagine_stack(wanted: ImaginedStack) -> Stack:
    """Return a stack that can be planned but not run.

    Parameters
    ----------
    wanted : ImaginedStack
        At least two dates; the middle one is the reference date.

    Returns
    -------
    Stack
        Every burst on every date.
    """
    options = SimulationOptions(
        swaths=wanted.swaths,
        bursts_per_swath=wanted.bursts_per_swath,
        lines_per_burst=_NOMINAL_LINES,
        centre_deg=(wanted.latitude_deg, wanted.longitude_deg),
        orbit_direction="ascending",
    )
    middle = BUILT_IN.swaths[wanted.swaths[len(wanted.swaths) // 2]]
    reach = 0.5 * middle.full_samples * BUILT_IN.sample_spacing_m
    centre_m = 0.5 * 299_792_458.0 * middle.slant_range_time_s + reach
    passage = place_passage(options, centre_m, _HEIGHT_M)
    first_lines, origin_s = burst_lines(options, BUILT_IN, passage)
    first = np.datetime64(wanted.first_date, "D")
    dates = tuple(str(first + k * wanted.repeat_days) for k in range(wanted.dates))
    starts_s = [
        (swath, origin_s + line * BUILT_IN.line_interval_s)
        for swath, lines in zip(wanted.swaths, first_lines, strict=True)
        for line in lines
    ]
    bursts = [_image(swath, dates[0], start_s, passage) for swath, start_s in starts_s]
    images = {(burst.burst_id, date): _on_date(burst, date) for burst in bursts for date in dates}
    reference = dates[len(dates) // 2]
    references = [image for image in images.values() if image.date == reference]
    return Stack(reference, dates, images, arrange_scene(references, wanted.looks))


def _image(swath: str, date: str, start_s: float, passage: Passage) -> BurstImage:
    """Describe a burst that starts so many seconds after the ascending node."""
    radar, constants = BUILT_IN, BUILT_IN.swaths[swath]
    lines, samples, valid = _SIZES[swath]
    middle_s = start_s + 0.5 * _NOMINAL_LINES * radar.line_interval_s
    number = int(np.floor(burst_count(middle_s, passage.track - 1))) + 1
    node_ns = int(np.datetime64(f"{date}T{passage.node_time}", "ns").astype(np.int64))
    name = f"S1A_IW_SLC__1SDV_{date.replace('-', '')}T055647_{date.replace('-', '')}T055714_050174"
    polynomials = _polynomials(constants.doppler, (0.0, 0.0, 0.0))
    return BurstImage(
        burst_id=f"t{passage.track:03d}_{number:06d}_{swath.lower()}",
        swath=swath,
        date=date,
        mission="S1A",
        polarization="VV",
        product=f"{name}_0609E3_DAA1.SAFE",
        url=f"s3://products/{date}/{name}_0609E3_DAA1.SAFE",
        member=f"measurement/s1a-{swath.lower()}-slc-vv-{date}-050174-0609e3-004.tiff",
        first_line=0,
        lines=lines,
        samples=samples,
        valid=valid,
        first_line_time_ns=node_ns + round(start_s * 1e6) * 1000,
        azimuth_time_interval_s=radar.line_interval_s,
        slant_range_time_s=constants.slant_range_time_s,
        range_sampling_rate_hz=radar.sampling_rate_hz,
        radar_frequency_hz=radar.frequency_hz,
        azimuth_steering_rate_rad_s=float(np.radians(constants.steering_rate_deg_s)),
        prf_hz=1.0 / constants.pri_s,
        range_bandwidth_hz=constants.range_bandwidth_hz,
        range_window_coefficient=0.75,
        azimuth_bandwidth_hz=constants.azimuth_band[0],
        azimuth_window_coefficient=constants.azimuth_band[1],
        doppler_centroid=polynomials,
        fm_rate=_polynomials(constants.doppler, (-2300.0, 4.5e5, -7.9e7)),
        orbit=_orbit(start_s, passage),
        ipf_version="003.61",
        content_id=f"{number:016x}",
    )


def _on_date(image: BurstImage, date: str) -> BurstImage:
    """Return the same burst on another date."""
    days = np.datetime64(date, "D") - np.datetime64(image.date, "D")
    name = image.product.replace(image.date.replace("-", ""), date.replace("-", ""))
    return replace(
        image,
        date=date,
        product=name,
        url=f"s3://products/{date}/{name}",
        member=image.member.replace(image.date, date),
        first_line_time_ns=image.first_line_time_ns + int(days.astype(int)) * 86_400_000_000_000,
    )


def _polynomials(
    known: RangePolynomial, coefficients: tuple[float, float, float]
) -> PolynomialList:
    """Return as many polynomials as the index keeps; their values take no part in planning."""
    times = tuple(2.758273 * (k - _POLYNOMIALS // 2) for k in range(_POLYNOMIALS))
    return PolynomialList(
        times, (known.range_time_s,) * _POLYNOMIALS, (coefficients,) * _POLYNOMIALS
    )


def _orbit(start_s: float, passage: Passage) -> OrbitArc:
    times = np.arange(-_ORBIT_REACH_S, _ORBIT_REACH_S + 0.5 * _ORBIT_STEP_S, _ORBIT_STEP_S)
    states = propagate(passage.state, passage.middle_s, start_s + times)
    return OrbitArc(
        "precise",
        tuple(float(t) for t in times),
        tuple((float(x), float(y), float(z)) for x, y, z in states[:, :3]),
        tuple((float(x), float(y), float(z)) for x, y, z in states[:, 3:]),
    )
