"""Burst images for the tests of the stages: a circular orbit with real radar constants."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest

from bperp.pipeline.burst import BurstImage, OrbitArc, PolynomialList

LINE_TIME_S = 2.0555563e-3
SAMPLING_HZ = 64.34523812571428e6
FIRST_LINE_NS = 1_672_531_200_000_000_000


def _polar_orbit(west_m: float, up_m: float) -> OrbitArc:
    """Return a circular polar orbit over longitude 0, heading north, displaced as asked."""
    radius = 6378137.0 + 700e3 + up_m
    rate = math.sqrt(3.986004418e14 / (6378137.0 + 700e3) ** 3)
    times = tuple(10.0 * k for k in range(-6, 8))
    place = [(radius * math.cos(rate * t), -west_m, radius * math.sin(rate * t)) for t in times]
    speed = [
        (-radius * rate * math.sin(rate * t), 0.0, radius * rate * math.cos(rate * t))
        for t in times
    ]
    return OrbitArc("AUX_POEORB", times, tuple(place), tuple(speed))


@pytest.fixture(scope="session")
def make_burst() -> Callable[..., BurstImage]:
    """Return a factory of IW1-like bursts; any field can be changed, ``west_m`` moves the orbit."""

    def make(*, west_m: float = 0.0, up_m: float = 0.0, **changes: object) -> BurstImage:
        constant = PolynomialList((0.0, 1.0), (5.3e-3, 5.3e-3), ((-10.0,), (-10.0,)))
        fields: dict[str, object] = {
            "burst_id": "t001_000001_iw1",
            "swath": "IW1",
            "date": "2023-01-01",
            "mission": "S1A",
            "polarization": "VV",
            "product": "S1A_TEST",
            "url": "file:///nowhere",
            "member": "measurement/x.tiff",
            "first_line": 0,
            "lines": 200,
            "samples": 300,
            "valid": (10, 190, 5, 290),
            "first_line_time_ns": FIRST_LINE_NS,
            "azimuth_time_interval_s": LINE_TIME_S,
            "slant_range_time_s": 5.343e-3,
            "range_sampling_rate_hz": SAMPLING_HZ,
            "radar_frequency_hz": 5.40500045e9,
            "azimuth_steering_rate_rad_s": math.radians(1.590368784),
            "prf_hz": 1717.129,
            "range_bandwidth_hz": 56.5e6,
            "range_window_coefficient": 0.75,
            "azimuth_bandwidth_hz": 327.0,
            "azimuth_window_coefficient": 0.70,
            "doppler_centroid": constant,
            "fm_rate": PolynomialList((0.0, 1.0), (5.3e-3, 5.3e-3), ((-2320.0,), (-2320.0,))),
            "orbit": _polar_orbit(west_m, up_m),
            "ipf_version": "003.61",
            "rank": 9,
            "chirp_rate_hz_s": 1.07823e12,
            "mid_swath_range_time_s": 5.8527e-3,
            "bistatic_delay_corrected": True,
        }
        fields.update(changes)
        return BurstImage(**fields)  # type: ignore[arg-type]

    return make
