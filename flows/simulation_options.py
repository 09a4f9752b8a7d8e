"""Options of the simulator with their defaults and units, and the ready-made presets."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from bperp.stores.errors import ConfigurationError

SWATHS = ("IW1", "IW2", "IW3")
_FIRST_ORBIT = {"S1A": 73, "S1B": 27, "S1C": 172}


@dataclass(frozen=True)
class SimulationOptions:
    """What to simulate; every field has a default.

    Random quantities are drawn from generators keyed by ``seed`` and by what they belong to: the
    same options give the same bytes for any number of workers, and a longer stack starts with the
    bytes of a shorter one.
    """

    # Acquisitions
    dates: tuple[str, ...] = ()
    """``YYYY-MM-DD``, ascending; empty: ``date_count`` dates every ``repeat_days``."""
    date_count: int = 6
    first_date: str = "2023-01-05"
    repeat_days: int = 12
    reference_index: int = 0
    """Date without baseline, misregistration and displacement."""
    node_time: str = "05:56:47"
    """UTC time of day of the ascending node (each date differs by up to half a second)."""
    mission: str = "S1A"
    polarization: str = "VV"
    track: int = 52
    orbit_direction: str = "descending"
    ipf_version: str = "003.61"
    """Below 002.43: old polynomial syntax, noise list and no burst identifiers."""
    template: Path | None = None
    """A real SAFE folder whose orbit, radar constants and polynomials are used."""

    # Image
    centre_deg: tuple[float, float] = (31.3, -8.4)
    """Latitude and longitude; moved along the track to the nearest burst position (< 10 km)."""
    swaths: tuple[str, ...] = ("IW1",)
    bursts_per_swath: int = 2
    lines_per_burst: int = 400
    samples: int = 256
    overlap_lines: int | None = None
    """Valid lines shared by neighbouring bursts; None: real burst spacing if the bursts are long
    enough, else 80. Bursts closer than the real spacing are limited to two per swath, because the
    burst identifiers follow from time."""
    swath_overlap_samples: int = 100
    """Valid samples shared by neighbouring swaths."""
    invalid_lines: tuple[int, int] = (20, 17)
    invalid_samples: tuple[int, int] = (12, 20)
    burst_jitter_lines: int = 1
    burst_sync_std_lines: float = 1.5

    # Ground
    base_height_m: float = 400.0
    relief_m: float = 300.0
    """Highest minus lowest terrain."""
    relief_exponent: float = 3.0
    """The power spectrum of the terrain falls as wavenumber to the minus this."""
    relief_smoothing_m: float = 120.0
    dem_posting_deg: float = 1.0 / 3600.0
    dem_margin_m: float = 2000.0
    scatterers_per_pixel: float = 1.0
    clutter_amplitude: float = 100.0
    """Root mean square digital number of distributed ground including thermal noise."""
    signal_to_noise_db: float = 15.0
    coherence_initial: float = 0.6
    coherence_long_term: float = 0.15
    coherence_decay_days: float = 40.0
    coherence_seasonal_loss: float = 0.0
    coherence_worst_day_of_year: float = 200.0
    persistent_per_km2: float = 60.0
    signal_to_clutter_db: tuple[float, float] = (17.0, 5.0)
    """Mean and standard deviation; amplitude dispersion is about ``1 / sqrt(2 * ratio)``."""
    signal_to_clutter_limits_db: tuple[float, float] = (3.0, 35.0)
    dem_error_std_m: float = 5.0

    # Motion, towards the satellite
    bowl_velocity_m_yr: float = -0.012
    bowl_radius_m: float = 1500.0
    """Standard deviation of the Gaussian bowl."""
    ramp_m_yr_per_km: tuple[float, float] = (0.0003, -0.0002)
    """Gradient towards east and north."""
    own_velocity_std_m_yr: float = 0.0005

    # Atmosphere (slant, one way)
    turbulence_rms_m: float = 0.003
    stratified_std_per_km: float = 0.004
    """m of delay per km of height."""

    # Orbits and timing
    baseline_std_m: float = 60.0
    parallel_baseline_std_m: float = 15.0
    baselines_m: tuple[float, ...] = ()
    """Perpendicular baselines of all dates, instead of random ones."""
    annotation_orbit_error_m: float = 0.05
    azimuth_misregistration_std_lines: float = 0.005
    range_misregistration_std_samples: float = 0.01
    azimuth_misregistration_lines: tuple[float, ...] = ()
    range_misregistration_samples: tuple[float, ...] = ()
    doppler_noise_hz: float = 1.0
    """Error of each annotated data Doppler estimate."""

    # Run
    archive: bool = False
    """Write ``.zip`` files instead of folders."""
    seed: int = 1
    workers: int = 2

    def date_list(self) -> list[np.datetime64]:
        """Return the dates of acquisition."""
        if self.dates:
            return [np.datetime64(date, "D") for date in self.dates]
        first = np.datetime64(self.first_date, "D")
        return [first + k * self.repeat_days for k in range(self.date_count)]

    def as_json(self) -> str:
        """Return the options as JSON text, without what cannot change the result."""
        fields = dataclasses.asdict(self)
        fields.pop("workers")
        fields["template"] = None if self.template is None else self.template.name
        return json.dumps(fields, sort_keys=True)

    def first_absolute_orbit(self) -> int:
        """Return the first absolute orbit of the mission that lies on the track."""
        return _FIRST_ORBIT[self.mission] + self.track - 1

    def check(self) -> None:
        """Refuse options outside their range.

        Raises
        ------
        ConfigurationError
            C102 with the option, its range and its value.
        """
        dates = self.date_list()
        rules: list[tuple[str, object, str, bool]] = [
            ("dates", len(dates), "at least one, ascending", _ascending(dates)),
            (
                "reference_index",
                self.reference_index,
                f"0..{len(dates) - 1}",
                self._has_reference(),
            ),
            ("mission", self.mission, "S1A, S1B or S1C", self.mission in _FIRST_ORBIT),
            ("polarization", self.polarization, "VV or HH", self.polarization in ("VV", "HH")),
            ("track", self.track, "1..175", 1 <= self.track <= 175),
            (
                "orbit_direction",
                self.orbit_direction,
                "ascending or descending",
                self.orbit_direction in ("ascending", "descending"),
            ),
            ("swaths", self.swaths, "some of IW1, IW2, IW3 in order", _ordered(self.swaths)),
            ("bursts_per_swath", self.bursts_per_swath, ">= 1", self.bursts_per_swath >= 1),
            (
                "lines_per_burst",
                self.lines_per_burst,
                "100..2000",
                100 <= self.lines_per_burst <= 2000,
            ),
            ("samples", self.samples, "64..30000", 64 <= self.samples <= 30000),
            ("workers", self.workers, ">= 1", self.workers >= 1),
            (
                "coherence_long_term",
                self.coherence_long_term,
                "0 <= long_term <= initial <= 1",
                0.0 <= self.coherence_long_term <= self.coherence_initial <= 1.0,
            ),
            ("persistent_per_km2", self.persistent_per_km2, "> 0", self.persistent_per_km2 > 0.0),
            (
                "scatterers_per_pixel",
                self.scatterers_per_pixel,
                ">= 1",
                self.scatterers_per_pixel >= 1,
            ),
        ]
        for name in (
            "baselines_m",
            "azimuth_misregistration_lines",
            "range_misregistration_samples",
        ):
            given = len(getattr(self, name))
            rules.append((name, given, f"0 or {len(dates)} values", given in (0, len(dates))))
        for name, found, expected, good in rules:
            if not good:
                raise ConfigurationError(
                    "C102",
                    "the simulator cannot work with this option",
                    where=name,
                    expected=expected,
                    found=str(found),
                    remedy="change the option",
                )

    def _has_reference(self) -> bool:
        return 0 <= self.reference_index < len(self.date_list())


def _ascending(dates: list[np.datetime64]) -> bool:
    return len(dates) > 0 and all(a < b for a, b in pairwise(dates))


def _ordered(swaths: tuple[str, ...]) -> bool:
    known = [SWATHS.index(swath) for swath in swaths if swath in SWATHS]
    return len(known) == len(swaths) > 0 and known == sorted(set(known))


PRESETS: dict[str, SimulationOptions] = {
    "tiny": SimulationOptions(),
    "small": SimulationOptions(
        date_count=12,
        repeat_days=36,
        coherence_long_term=0.1,
        swaths=("IW1", "IW2"),
        lines_per_burst=1501,
        samples=1024,
        relief_m=600.0,
        bowl_radius_m=2500.0,
        bowl_velocity_m_yr=-0.020,
        turbulence_rms_m=0.0015,
        stratified_std_per_km=0.002,
    ),
    "psi": SimulationOptions(
        date_count=30,
        repeat_days=36,
        first_date="2021-01-03",
        lines_per_burst=500,
        samples=512,
        bowl_velocity_m_yr=-0.010,
        bowl_radius_m=1200.0,
        persistent_per_km2=120.0,
        turbulence_rms_m=0.0007,
        stratified_std_per_km=0.001,
    ),
}
"""tiny: made in seconds; small: the demonstration; psi: three years for accuracy tests."""
