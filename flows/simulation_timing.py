"""When and where the bursts of a simulated stack begin."""

from __future__ import annotations

import numpy as np

from bperp.flows.simulation_options import SimulationOptions
from bperp.flows.simulation_radar import BEAM_CYCLE_S, Passage, Radar, burst_count
from bperp.stores.errors import ConfigurationError

_DEFAULT_OVERLAP_LINES = 80
_CROP_SAMPLES = 200
"""Where a second swath is cropped: just inside the valid samples of a real one."""


def near_range_times(options: SimulationOptions, radar: Radar) -> tuple[float, ...]:
    """Crop the swaths so that neighbours overlap.

    Parameters
    ----------
    options : SimulationOptions
    radar : Radar

    Returns
    -------
    tuple of float
        Two-way time of the first sample of each swath in s, all on one grid of samples.
    """
    rate = radar.sampling_rate_hz
    first = radar.swaths[options.swaths[0]]
    start = first.slant_range_time_s
    if len(options.swaths) == 1:
        return (start + (first.full_samples - options.samples) // 2 / rate,)
    overlap = options.swath_overlap_samples + sum(options.invalid_samples)
    step = (options.samples - overlap) / rate
    second = radar.swaths[options.swaths[1]].slant_range_time_s + _CROP_SAMPLES / rate
    start += round((second - step - start) * rate) / rate
    return tuple(start + k * step for k in range(len(options.swaths)))


def burst_lines(
    options: SimulationOptions, radar: Radar, passage: Passage
) -> tuple[tuple[tuple[int, ...], ...], float]:
    """Place the bursts on the cycle of the beam, so that their identifiers follow from time.

    Parameters
    ----------
    options : SimulationOptions
    radar : Radar
    passage : Passage
        The bursts are put around its middle, less than half a beam cycle away.

    Returns
    -------
    first_lines : tuple per swath of tuple per burst of int
        Nominal first lines.
    origin_s : float
        Time of line zero, seconds since the ascending node.

    Raises
    ------
    ConfigurationError
        C102 for more short bursts than there are identifiers.
    """
    interval, count = radar.line_interval_s, options.bursts_per_swath
    valid = options.lines_per_burst - sum(options.invalid_lines)
    real = options.overlap_lines is None and valid * interval > BEAM_CYCLE_S
    overlap = _DEFAULT_OVERLAP_LINES if options.overlap_lines is None else options.overlap_lines
    spacing = BEAM_CYCLE_S if real else (valid - overlap) * interval
    lead = radar.swaths[options.swaths[0]].delay_s
    delays = np.array([radar.swaths[name].delay_s - lead for name in options.swaths])
    place = (radar.beam_fraction + lead / BEAM_CYCLE_S) % 1.0
    if not real:
        delays = np.abs(delays) * spacing / BEAM_CYCLE_S
        _refuse_many_short(count, spacing, float(delays.max()))
        # The identifier changes half-way between the last first and the first second burst.
        ahead = 0.5 * (float(delays.max()) + spacing) if count == 2 else 0.5 * BEAM_CYCLE_S
        place = 1.0 - ahead / BEAM_CYCLE_S
    wanted = passage.middle_s - 0.5 * (count - 1) * spacing
    cycles = burst_count(wanted, passage.track - 1)
    first = wanted + (round(cycles - place) + place - cycles) * BEAM_CYCLE_S
    middles = first + delays[:, None] + spacing * np.arange(count)[None, :]
    starts = middles - 0.5 * options.lines_per_burst * interval
    origin = float(starts.min())
    lines = np.rint((starts - origin) / interval).astype(int)
    return tuple(tuple(int(n) for n in row) for row in lines), origin


def _refuse_many_short(count: int, spacing_s: float, delay_s: float) -> None:
    if count > 2 or spacing_s <= delay_s:
        raise ConfigurationError(
            "C102",
            "bursts that follow faster than the beam cycle would share burst identifiers",
            where="bursts_per_swath",
            expected="at most 2 short bursts, or 1380 lines and more per burst",
            found=f"{count} bursts every {spacing_s:.3f} s",
            remedy="use fewer bursts or lines_per_burst=1501 with overlap_lines=None",
        )


def annotated_times(
    first_lines: tuple[int, ...],
    node_ns: int,
    start_s: float,
    line_interval_s: float,
    jitter: tuple[int, np.random.Generator],
) -> tuple[int, ...]:
    """Return the annotated times of the bursts of a swath on one date.

    Parameters
    ----------
    first_lines : tuple of int
        Nominal first lines.
    node_ns : int
        Ascending node, UTC nanoseconds since 1970.
    start_s : float
        Time of line zero on this date, seconds since the node.
    line_interval_s : float
    jitter : (int, numpy.random.Generator)
        Bursts begin up to so many lines early or late.

    Returns
    -------
    tuple of int
        Nanoseconds since 1970, whole microseconds as in the annotation.
    """
    reach, random = jitter
    offsets = random.integers(-reach, reach + 1, len(first_lines))
    return tuple(
        node_ns + round((start_s + (first + int(offset)) * line_interval_s) * 1e6) * 1000
        for first, offset in zip(first_lines, offsets, strict=True)
    )


def absolute_orbit(options: SimulationOptions, passage: Passage, date: np.datetime64) -> int:
    """Return an absolute orbit number that lies on the track, near the true one of that date."""
    # Cycles are counted from the first days of S1A; only the remainder of 175 must be right.
    cycles = round(float((date - np.datetime64("2014-04-15")).astype(int)) / 12.0)
    first = options.first_absolute_orbit() - options.track + passage.track
    return max(first, first + 175 * cycles)
