"""Phase-level stack (no images): wrapped phases of persistent scatterers with their truth."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bperp.kernels.simulation.noise import DAYS_PER_YEAR, generator, power_law_surface
from bperp.kernels.simulation.scene import Raster, bowl_and_ramp, interpolate

Array = NDArray[np.float64]

_METRES_PER_DEGREE = 111_320.0
_EVERY_TWELVE_DAYS = tuple(12.0 * k for k in range(30))


class PhaseStackOptions(NamedTuple):
    """What to simulate."""

    scatterers: int = 2000
    days: tuple[float, ...] = _EVERY_TWELVE_DAYS
    """Days since the first date, ascending."""
    reference: int = 0
    """Index of the date with zero baseline and zero displacement."""
    extent_m: tuple[float, float] = (5000.0, 5000.0)
    """Size of the scene towards north and east."""
    centre_deg: tuple[float, float] = (31.2, -8.6)
    wavelength_m: float = 299_792_458.0 / 5.405000454334350e9
    slant_range_m: float = 850_000.0
    incidence_rad: float = 0.6
    baseline_std_m: float = 60.0
    velocity_bowl: tuple[float, float] = (-0.010, 1200.0)
    """Velocity at the centre (m/yr) and standard deviation (m) of a Gaussian bowl."""
    velocity_ramp_per_m: tuple[float, float] = (2e-7, -1e-7)
    own_velocity_std_m_yr: float = 0.0
    dem_error_std_m: float = 5.0
    atmosphere_rms_m: float = 0.0007
    noise_std_rad: tuple[float, float] = (0.1, 0.4)
    """Phase noise; each scatterer has its own between these limits."""
    seed: int = 1


class PhaseStack(NamedTuple):
    """Wrapped phases and truth; ``n`` scatterers, ``m`` dates."""

    phase: NDArray[np.complex64]
    """(n, m) unit modulus, see ``simulate_phases`` for the sign."""
    longitude_deg: Array
    latitude_deg: Array
    x_m: Array
    """(n,) east of the centre."""
    y_m: Array
    """(n,) north of the centre."""
    days: Array
    perpendicular_baseline_m: Array
    """(n, m) relative to the reference date."""
    slant_range_m: Array
    incidence_rad: Array
    velocity_los_m_yr: Array
    """(n,) towards the satellite."""
    dem_error_m: Array
    displacement_m: Array
    """(n, m) towards the satellite since the reference date."""
    atmosphere_m: Array
    """(n, m) slant one-way delay, positive lengthens the path."""
    noise_rad: Array
    """(n, m)"""
    noise_std_rad: Array
    """(n,)"""
    wavelength_m: float


def simulate_phases(options: PhaseStackOptions | None = None) -> PhaseStack:
    """Simulate the flattened single-look phases of persistent scatterers on every date.

    Parameters
    ----------
    options : PhaseStackOptions, optional

    Returns
    -------
    PhaseStack

    Notes
    -----
    ``phase = exp(j (4 pi / lambda (d - a + B e / (R sin(theta))) + noise))`` with displacement
    ``d`` towards the satellite, delay ``a``, perpendicular baseline ``B`` (positive: displaced up
    and towards the look side) and DEM error ``e``. These are SLC phases (``-4 pi R / lambda``)
    after flattening with the DEM; an interferogram is ``phase[:, i] * conj(phase[:, j])``.
    """
    options = options or PhaseStackOptions()
    random = generator(options.seed, 101)
    days = np.asarray(options.days, dtype=np.float64)
    count, dates = options.scatterers, len(days)
    y = random.uniform(-0.5, 0.5, count) * options.extent_m[0]
    x = random.uniform(-0.5, 0.5, count) * options.extent_m[1]
    baseline = random.normal(0.0, options.baseline_std_m, dates)
    baseline -= baseline[options.reference]
    # The look angle changes by about one degree over 15 km, and with it the baseline.
    matrix = baseline * (1.0 + random.normal(0.0, 0.02) * x[:, None] / 5000.0)
    velocity = bowl_and_ramp(x, y, options.velocity_bowl, options.velocity_ramp_per_m)
    velocity = velocity + random.normal(0.0, options.own_velocity_std_m_yr, count)
    height = random.normal(0.0, options.dem_error_std_m, count)
    sigma = random.uniform(*options.noise_std_rad, count)
    noise = random.standard_normal((count, dates)) * sigma[:, None]
    atmosphere = _screens(options, y, x, dates)
    years = (days - days[options.reference]) / DAYS_PER_YEAR
    displacement = velocity[:, None] * years
    distance = options.slant_range_m + x * np.sin(options.incidence_rad)
    lever = (height / (distance * np.sin(options.incidence_rad)))[:, None] * matrix
    turns = 4.0 * np.pi / options.wavelength_m * (displacement - atmosphere + lever) + noise
    latitude = options.centre_deg[0] + y / _METRES_PER_DEGREE
    longitude = options.centre_deg[1] + x / (
        _METRES_PER_DEGREE * np.cos(np.radians(options.centre_deg[0]))
    )
    return PhaseStack(
        np.exp(1j * turns).astype(np.complex64),
        longitude,
        latitude,
        x,
        y,
        days,
        matrix,
        distance,
        np.full(count, options.incidence_rad),
        velocity,
        height,
        displacement,
        atmosphere,
        noise,
        sigma,
        options.wavelength_m,
    )


def _screens(options: PhaseStackOptions, y: Array, x: Array, dates: int) -> Array:
    rows, columns = (int(np.ceil(size / 100.0)) + 2 for size in options.extent_m)
    result = np.zeros((len(y), dates))
    for date in range(dates):
        random = generator(options.seed, 102, date)
        surface = power_law_surface((rows, columns), (100.0, 100.0), 8.0 / 3.0, 0.0, random)
        raster = Raster(
            (options.atmosphere_rms_m * surface).astype(np.float32),
            -0.5 * options.extent_m[0] - 50.0,
            100.0,
            -0.5 * options.extent_m[1] - 50.0,
            100.0,
        )
        result[:, date] = interpolate(raster, y, x)
    return result
