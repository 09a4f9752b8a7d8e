"""Radar constants of the simulator: built in, or taken from a real product."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from lxml import etree
from numpy.typing import NDArray

from bperp.flows.simulation_options import SWATHS, SimulationOptions
from bperp.kernels.simulation.orbit import (
    NODAL_PERIOD_S,
    SPEED_OF_LIGHT_M_S,
    OrbitPolynomial,
    evaluate_orbit,
    fit_orbit,
    geodetic_to_ecef,
    intersect_ellipsoid,
)
from bperp.kernels.simulation.passage import place_orbit
from bperp.stores.errors import ConfigurationError

BEAM_CYCLE_S = 2.758273
BEAM_PREAMBLE_S = 2.299849
"""ESA's burst identifiers count cycles of the beam since the preamble of the first orbit."""

Array = NDArray[np.float64]


@dataclass(frozen=True)
class RangePolynomial:
    """``sum_k coefficients[k] * (tau - range_time_s) ** k``."""

    range_time_s: float
    coefficients: tuple[float, ...]

    def at(self, range_time_s: Array) -> Array:
        """Evaluate at two-way range times."""
        return np.asarray(
            np.polynomial.polynomial.polyval(
                range_time_s - self.range_time_s, np.array(self.coefficients)
            )
        )


@dataclass(frozen=True)
class SwathConstants:
    """What differs between the swaths."""

    slant_range_time_s: float
    full_samples: int
    steering_rate_deg_s: float
    pri_s: float
    rank: int
    pulse_length_s: float
    pulse_rate_hz_s: float
    window_start_s: float
    range_bandwidth_hz: float
    azimuth_band: tuple[float, float]
    delay_s: float
    """Of the burst middle after that of IW1."""
    doppler: RangePolynomial
    fm_rate: RangePolynomial | None = None
    """None: derived from the orbit."""


@dataclass(frozen=True)
class Radar:
    """Constants of the instrument and, from a template, where it was."""

    frequency_hz: float
    sampling_rate_hz: float
    line_interval_s: float
    swaths: dict[str, SwathConstants]
    beam_fraction: float
    """Position of the middle of an IW1 burst within the beam cycle, 0 to 1."""
    passage: Passage | None = None

    @property
    def wavelength_m(self) -> float:
        """Wavelength in m."""
        return SPEED_OF_LIGHT_M_S / self.frequency_hz

    @property
    def sample_spacing_m(self) -> float:
        """Slant range spacing of the samples in m."""
        return 0.5 * SPEED_OF_LIGHT_M_S / self.sampling_rate_hz


@dataclass(frozen=True)
class Passage:
    """Where the satellite passes: the orbit that all dates share up to their baselines."""

    middle_s: float
    """Seconds since the ascending node at the middle of the scene."""
    state: Array
    track: int
    orbit_direction: str
    node_time: str


_DOPPLER = RangePolynomial(5.338158824457998e-03, (-10.0, 1.2e4, -1.8e7))

# S1A, track 52, 2023-09-04, IPF 3.61.
BUILT_IN = Radar(
    5.405000454334350e9,
    6.434523812571428e7,
    2.055556299999998e-03,
    {
        "IW1": SwathConstants(
            5.334431164884956e-03,
            23055,
            1.590368784,
            5.823674372819869e-04,
            9,
            5.240481033595628e-05,
            1.078230321255894e12,
            9.684366322887700e-05,
            5.65e7,
            (327.0, 0.70),
            0.0,
            _DOPPLER,
        ),
        "IW2": SwathConstants(
            5.644353088882477e-03,
            26818,
            0.979863325,
            6.888821458346830e-04,
            8,
            6.199592966536363e-05,
            7.792817275120481e11,
            1.367267344403293e-04,
            4.83e7,
            (313.0, 0.75),
            0.958,
            _DOPPLER,
        ),
        "IW3": SwathConstants(
            6.015320711278467e-03,
            25769,
            1.397440818,
            5.931840885257075e-04,
            10,
            5.339056426703426e-05,
            8.014509490705804e11,
            8.653320994976411e-05,
            4.278991840322842e7,
            (314.0, 0.75),
            -0.842,
            _DOPPLER,
        ),
    },
    0.168,
)


def burst_count(middle_s: float, orbits: int) -> float:
    """Return the beam cycles from the preamble to a burst middle (its floor + 1 is the id).

    Parameters
    ----------
    middle_s : float
        Zero-Doppler time of the burst middle, seconds since the ascending node.
    orbits : int
        Complete orbits before: relative (or absolute) orbit number minus one.
    """
    return (middle_s + orbits * NODAL_PERIOD_S - BEAM_PREAMBLE_S) / BEAM_CYCLE_S


def place_passage(options: SimulationOptions, range_m: float, height_m: float) -> Passage:
    """Find the orbit that sees the wanted centre at a slant range."""
    latitude, longitude = np.radians(options.centre_deg)
    middle, state = place_orbit(
        float(latitude), float(longitude), height_m, range_m, options.orbit_direction == "ascending"
    )
    return Passage(middle, state, options.track, options.orbit_direction, options.node_time)


def geometric_fm_rate(
    orbit: OrbitPolynomial,
    time_s: float,
    wavelength_m: float,
    swath: SwathConstants,
    ground: tuple[float, float, float],
) -> RangePolynomial:
    """Derive the azimuth FM rate of ground targets from the orbit.

    ``ka = -2 / (lambda R) (V.V - (X - P).A)``: the second derivative of range at zero Doppler.

    Parameters
    ----------
    orbit : OrbitPolynomial
    time_s : float
        Zero-Doppler time.
    wavelength_m : float
    swath : SwathConstants
    ground : (latitude, longitude, height)
        A point near the scene in rad and m.

    Returns
    -------
    RangePolynomial
        Quadratic over the full swath, Hz/s.
    """
    delay = np.linspace(0.0, 3.6e-4, 9)
    distance = 0.5 * SPEED_OF_LIGHT_M_S * (swath.slant_range_time_s + delay)
    time = np.full_like(distance, time_s)
    height = np.full_like(distance, ground[2])
    place = intersect_ellipsoid(orbit, time, distance, height, np.array(ground[:2]))
    position, velocity, acceleration = evaluate_orbit(orbit, time)
    sight = geodetic_to_ecef(place[0], place[1], height) - position
    curvature = np.sum(velocity**2, axis=-1) - np.sum(sight * acceleration, axis=-1)
    rate = -2.0 * curvature / (wavelength_m * distance)
    fitted = np.polynomial.Polynomial.fit(delay, rate, 2).convert().coef
    return RangePolynomial(swath.slant_range_time_s, tuple(float(c) for c in fitted))


def read_template(folder: Path, polarization: str) -> Radar:
    """Read constants and orbit from a real product.

    Parameters
    ----------
    folder : pathlib.Path
        ``.SAFE`` folder with at least the annotation of IW1.
    polarization : str

    Returns
    -------
    Radar
        Swaths that are missing keep the built-in constants.

    Raises
    ------
    ConfigurationError
        C102 if there is no annotation of IW1.
    """
    roots = {}
    for swath in SWATHS:
        pattern = f"annotation/s1?-{swath.lower()}-slc-{polarization.lower()}-*.xml"
        for path in sorted(folder.glob(pattern)):
            roots[swath] = etree.parse(path).getroot()
    if "IW1" not in roots:
        raise ConfigurationError(
            "C102",
            "the template has no IW1 annotation",
            where=str(folder),
            expected=f"annotation/s1?-iw1-slc-{polarization.lower()}-*.xml",
            found="nothing",
            remedy="give an IW SLC product folder or leave the template out",
        )
    first = roots["IW1"]
    node = np.datetime64(_text(first, ".//ascendingNodeTime"), "ns")
    bursts = {name: _middles(root, node) for name, root in roots.items()}
    chosen = (len(bursts["IW1"]) - 1) // 2
    start = bursts["IW1"][chosen]
    swaths = dict(BUILT_IN.swaths)
    for name, root in roots.items():
        delay = bursts[name][min(chosen, len(bursts[name]) - 1)] - start
        swaths[name] = _constants(root, delay)
    passage = _passage(first, node, start + 0.5 * BEAM_CYCLE_S)
    fraction = burst_count(start, passage.track - 1) % 1.0
    return Radar(
        float(_text(first, ".//radarFrequency")),
        float(_text(first, ".//rangeSamplingRate")),
        float(_text(first, ".//azimuthTimeInterval")),
        swaths,
        fraction,
        passage,
    )


def _text(root: etree._Element, path: str) -> str:
    text = root.findtext(path)
    if text is None:
        raise ConfigurationError(
            "C102", "the template lacks an element", where=path, remedy="give a complete product"
        )
    return text


def _middles(root: etree._Element, node: np.datetime64) -> list[float]:
    half = (
        0.5 * float(_text(root, ".//linesPerBurst")) * float(_text(root, ".//azimuthTimeInterval"))
    )
    times = [
        np.datetime64(_text(burst, "azimuthTime"), "ns") for burst in root.iterfind(".//burst")
    ]
    return [(time - node).astype(np.int64) * 1e-9 + half for time in times]


def _constants(root: etree._Element, delay_s: float) -> SwathConstants:
    def number(path: str) -> float:
        return float(_text(root, path))

    estimates = root.findall(".//dcEstimate")
    rates = root.findall(".//azimuthFmRate")
    doppler = estimates[len(estimates) // 2]
    rate = rates[len(rates) // 2]
    values = rate.findtext("azimuthFmRatePolynomial")
    coefficients = values.split() if values else [_text(rate, f"c{k}") for k in range(3)]
    return SwathConstants(
        number(".//slantRangeTime"),
        int(number(".//numberOfSamples")),
        number(".//azimuthSteeringRate"),
        number(".//pri"),
        int(number(".//rank")),
        number(".//txPulseLength"),
        number(".//txPulseRampRate"),
        number(".//swst/value"),
        number(".//rangeProcessing/processingBandwidth"),
        (
            number(".//azimuthProcessing/processingBandwidth"),
            number(".//azimuthProcessing/windowCoefficient"),
        ),
        delay_s,
        RangePolynomial(
            float(_text(doppler, "t0")),
            tuple(float(c) for c in _text(doppler, "dataDcPolynomial").split()),
        ),
        RangePolynomial(float(_text(rate, "t0")), tuple(float(c) for c in coefficients)),
    )


def _passage(root: etree._Element, node: np.datetime64, middle_s: float) -> Passage:
    times, states = [], []
    for vector in root.iterfind(".//orbit"):
        time = np.datetime64(_text(vector, "time"), "ns")
        times.append(float((time - node).astype(np.int64)) * 1e-9)
        states.append(
            [float(_text(vector, f"{k}/{a}")) for k in ("position", "velocity") for a in "xyz"]
        )
    orbit = fit_orbit(np.array(times), np.array(states))
    position, velocity, _ = evaluate_orbit(orbit, np.array([middle_s]))
    mission, absolute = _text(root, ".//missionId"), int(_text(root, ".//absoluteOrbitNumber"))
    first = {"S1A": 73, "S1B": 27, "S1C": 172}[mission]
    return Passage(
        middle_s,
        np.concatenate([position[0], velocity[0]]),
        (absolute - first) % 175 + 1,
        _text(root, ".//pass").lower(),
        str(node)[11:19],
    )
