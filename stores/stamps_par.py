"""The text files of a StaMPS input tree: ``.par``, ``.base`` and ``.diff_par``.

StaMPS splits a whole file on white space, looks for tokens that start with a key and takes the
token after the only match; its shell script greps a line and prints field 2. Hence every value is
separated from its key by a tab, every key that is read starts exactly one token, and no free text
enters a file.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, time
from pathlib import Path

from bperp.stores.errors import ConfigurationError
from bperp.stores.stamps_scene import (
    WGS84_SEMI_MAJOR_M,
    WGS84_SEMI_MINOR_M,
    StampsBaseline,
    StampsScene,
    StateVectors,
    check_date,
)

KEYS_READ = (
    "azimuth_lines",
    "range_samples",
    "image_format",
    "heading:",
    "radar_frequency:",
    "sensor:",
    "range_pixel_spacing",
    "near_range_slc",
    "center_range_slc",
    "sar_to_earth_center",
    "earth_radius_below_sensor",
    "prf",
)
"""What mt_prep and step 1 look for in the reference's ``.rslc.par``."""

BASELINE_KEYS_READ = ("initial_baseline(TCN)", "initial_baseline_rate")
MAXIMUM_TEXT_BYTES = 4_000_000

_Line = tuple[str, str]


def image_parameters(scene: StampsScene, image_format: str) -> str:
    """Return the ``.par`` text of a raster of the reference date.

    Parameters
    ----------
    scene : StampsScene
        Grid and sensor.
    image_format : str
        ``FCOMPLEX`` or ``FLOAT``.

    Returns
    -------
    str
        Lines ``key:<tab>value unit`` in the order that SNAP uses.

    Notes
    -----
    ``prf`` is the number of lines per second, not the pulse rate: StaMPS divides line numbers by
    it to get seconds for the baseline rate.
    """
    second = _second_of_day(scene)
    end = second + (scene.lines - 1) * scene.azimuth_time_interval_s
    head = [
        *_identity(scene.reference_date, scene.sensor),
        ("start_time", f"{second:.9f} s"),
        ("center_time", f"{second + scene.center_time_s:.9f} s"),
        ("end_time", f"{end:.9f} s"),
    ]
    orbit = _orbit_lines(scene.state_vectors, second) if scene.state_vectors else []
    return _text([*head, *_grid_lines(scene, image_format), *orbit])


def secondary_parameters(scene: StampsScene, date: str, sensor: str, image_format: str) -> str:
    """Return the ``.par`` text of a coregistered secondary.

    Its date and sensor are its own; its grid is the reference's. A resampled image has no line
    times and orbit of its own, so these keys are left out. StaMPS never reads this file.
    """
    return _text([*_identity(date, sensor), *_grid_lines(scene, image_format)])


def baseline_text(baseline: StampsBaseline) -> str:
    """Return the ``.base`` text; the precision entries repeat the initial ones."""
    metres = " ".join(f"{value:.7f}" for value in baseline.tcn_m) + " m m m"
    rates = " ".join(f"{value:.9f}" for value in baseline.tcn_rate_m_s) + " m/s m/s m/s"
    return _text(
        [
            ("initial_baseline(TCN)", metres),
            ("initial_baseline_rate", rates),
            ("precision_baseline(TCN)", metres),
            ("precision_baseline_rate", rates),
            ("unwrap_phase_constant", "0.00000 radians"),
        ]
    )


def difference_parameters(scene: StampsScene) -> str:
    """Return the ``geo/M.diff_par`` text: both grids are the same, all offsets are zero."""
    grids = [
        line
        for number in (1, 2)
        for line in (
            (f"range_samp_{number}", str(scene.samples)),
            (f"az_samp_{number}", str(scene.lines)),
            (f"first_nonzero_range_pixel_{number}", "0"),
            (f"number_of_nonzero_range_pixels_{number}", str(scene.samples)),
            (f"range_pixel_spacing_{number}", repr(float(scene.range_pixel_spacing_m))),
            (f"az_pixel_spacing_{number}", repr(float(scene.azimuth_pixel_spacing_m))),
        )
    ]
    polynomials = [
        ("range_offset_polynomial", "0.0 0.0 0.0 0.0 0.0 0.0"),
        ("azimuth_offset_polynomial", "0.0 0.0 0.0 0.0 0.0 0.0"),
    ]
    offsets = [("initial_range_offset", "0.0"), ("initial_azimuth_offset", "0.0")]
    return _text([("title", scene.reference_date), *offsets, *grids, *polynomials])


def read_text(path: Path) -> str:
    """Return a text file of the tree.

    Raises
    ------
    ConfigurationError
        ``C110`` when the file is absent, too large to be one, or not text.
    """
    try:
        if path.stat().st_size > MAXIMUM_TEXT_BYTES:
            raise ValueError(f"larger than {MAXIMUM_TEXT_BYTES} bytes")
        return path.read_text(encoding="latin-1")
    except (OSError, ValueError) as error:
        raise ConfigurationError(
            "C110",
            "a text file of the StaMPS tree cannot be read",
            where=str(path),
            found=str(error),
            remedy="export this tree again",
        ) from error


def parse_parameters(text: str) -> dict[str, tuple[str, ...]]:
    """Return ``key -> values`` of the lines ``key: value ...``; later repetitions are ignored."""
    parameters: dict[str, tuple[str, ...]] = {}
    for line in text.splitlines():
        key, colon, rest = line.partition(":")
        if colon and key.strip():
            parameters.setdefault(key.strip(), tuple(rest.split()))
    return parameters


def key_faults(text: str, keys: Iterable[str]) -> list[str]:
    """Return one sentence for every key that StaMPS would not read from this text.

    Parameters
    ----------
    text : str
        A whole ``.par`` or ``.base`` file.
    keys : iterable of str
        Prefixes as StaMPS looks for them.

    Returns
    -------
    list of str
        Empty when every key starts exactly one token and a value follows.
    """
    tokens = text.split()
    faults = []
    for key in keys:
        hits = [index for index, token in enumerate(tokens) if token.startswith(key)]
        if not hits:
            faults.append(f"key {key!r} is missing")
        elif len(hits) > 1:
            faults.append(f"key {key!r} starts {len(hits)} words, StaMPS accepts exactly one")
        elif not tokens[hits[0]].endswith(":"):
            faults.append(f"no blank between key {key!r} and its value")
        elif hits[0] + 1 == len(tokens):
            faults.append(f"key {key!r} has no value")
    return faults


def numbers(parameters: Mapping[str, tuple[str, ...]], key: str, count: int) -> tuple[float, ...]:
    """Return the first ``count`` values of a key as finite numbers; ValueError otherwise."""
    values = tuple(float(word) for word in parameters.get(key, ())[:count])
    if len(values) != count or any(value - value != 0.0 for value in values):
        raise ValueError(f"key {key!r} needs {count} finite numbers")
    return values


def _identity(date: str, sensor: str) -> list[_Line]:
    return [
        ("title", date),
        ("sensor", sensor),
        ("date", f"{date[:4]} {date[4:6]} {date[6:]}"),
    ]


def _grid_lines(scene: StampsScene, image_format: str) -> list[_Line]:
    center_range = 0.5 * (scene.near_range_m + scene.far_range_m)
    return [
        ("azimuth_line_time", f"{float(scene.azimuth_time_interval_s)!r} s"),
        ("range_samples", str(scene.samples)),
        ("azimuth_lines", str(scene.lines)),
        ("range_looks", "1"),
        ("azimuth_looks", "1"),
        ("image_format", image_format),
        ("image_geometry", "SLANT_RANGE"),
        ("center_latitude", f"{scene.center_latitude_deg:.7f} degrees"),
        ("center_longitude", f"{scene.center_longitude_deg:.7f} degrees"),
        ("heading", f"{scene.heading_deg:.7f} degrees"),
        ("range_pixel_spacing", f"{float(scene.range_pixel_spacing_m)!r} m"),
        ("azimuth_pixel_spacing", f"{float(scene.azimuth_pixel_spacing_m)!r} m"),
        ("radar_frequency", f"{float(scene.radar_frequency_hz)!r} Hz"),
        ("prf", f"{scene.line_frequency_hz!r} Hz"),
        ("azimuth_proc_bandwidth", f"{float(scene.azimuth_bandwidth_hz)!r} Hz"),
        ("sar_to_earth_center", f"{scene.sar_to_earth_center_m:.4f} m"),
        ("earth_radius_below_sensor", f"{scene.earth_radius_below_sensor_m:.4f} m"),
        ("earth_semi_major_axis", f"{WGS84_SEMI_MAJOR_M:.4f} m"),
        ("earth_semi_minor_axis", f"{WGS84_SEMI_MINOR_M:.4f} m"),
        ("near_range_slc", f"{scene.near_range_m:.6f} m"),
        ("center_range_slc", f"{center_range:.6f} m"),
        ("far_range_slc", f"{scene.far_range_m:.6f} m"),
    ]


def _orbit_lines(state_vectors: StateVectors, first_line_second: float) -> list[_Line]:
    interval_s = state_vectors.interval_s
    if interval_s is None:  # the format has no place for single times, and StaMPS reads none
        return []
    lines = [
        ("number_of_state_vectors", str(len(state_vectors.time_s))),
        ("time_of_first_state_vector", f"{first_line_second + state_vectors.time_s[0]:.6f} s"),
        ("state_vector_interval", f"{interval_s:.6f} s"),
    ]
    pairs = zip(state_vectors.position_m, state_vectors.velocity_m_s, strict=True)
    for number, (position, velocity) in enumerate(pairs, start=1):
        metres = " ".join(f"{value:.4f}" for value in position)
        speeds = " ".join(f"{value:.6f}" for value in velocity)
        lines.append((f"state_vector_position_{number}", f"{metres} m m m"))
        lines.append((f"state_vector_velocity_{number}", f"{speeds} m/s m/s m/s"))
    return lines


def _second_of_day(scene: StampsScene) -> float:
    # Counted from the day that names the files, so that a pass across midnight stays monotonic.
    midnight = datetime.combine(check_date(scene.reference_date), time(), tzinfo=UTC)
    return (scene.first_line_time_ns - int(midnight.timestamp()) * 10**9) / 1e9


def _text(lines: Iterable[_Line]) -> str:
    return "".join(f"{key}:\t{value}\n" for key, value in lines)
