"""Charts over time: alignment of a stack and displacement of points."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bperp.flows.picture_style import (
    INK,
    LINES,
    PALE,
    as_days,
    date_axis,
    picture,
    say_empty,
    signed,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Dates = Sequence[Any] | NDArray[Any]
"""datetime64 values, ``YYYY-MM-DD`` or ``YYYYMMDD`` text."""


def picture_alignment(
    path: Path | str,
    dates: Dates,
    shifts: ArrayLike,
    sigmas: ArrayLike,
    perpendicular_baseline_m: ArrayLike,
    *,
    reference_date: Any = None,
    title: str = "Alignment of the stack",
    note: str = "",
) -> None:
    """Draw azimuth shift, range shift and perpendicular baseline per date.

    Parameters
    ----------
    path : Path or str
        PNG file.
    dates : sequence of datetime64 or ISO text, length date
        Acquisition dates.
    shifts : array_like of shape (date, 2)
        Azimuth shift in lines and range shift in samples, after the geometric alignment.
    sigmas : array_like of shape (date, 2)
        Standard deviations; not finite = not estimated (hollow marker). The range panel is left
        out when no date has a range estimate.
    perpendicular_baseline_m : array_like of shape (date,)
        Against the reference date, m.
    reference_date : datetime64 or ISO text, optional
        Marked with a dashed line.
    title, note : str
        Heading and second line.
    """
    days = as_days(dates)
    shift, sigma = np.asarray(shifts, dtype=float), np.asarray(sigmas, dtype=float)
    baseline = np.asarray(perpendicular_baseline_m, dtype=float)
    names = ("Azimuth shift (10⁻³ line)", "Range shift (10⁻³ sample)")
    # Where nothing was estimated on any date there is nothing to draw.
    shown = [axis for axis in (0, 1) if axis == 0 or np.isfinite(sigma[:, axis]).any()]
    with picture(path, (9.0, 2.4 * (len(shown) + 1)), title, note) as figure:
        panels = figure.subplots(len(shown) + 1, 1, sharex=True)
        for axes, axis in zip(panels, shown, strict=False):
            _draw_shift(axes, days, 1e3 * shift[:, axis], 1e3 * sigma[:, axis], LINES[axis])
            axes.set_title(names[axis])
        panels[-1].axhline(0.0, color=PALE, linewidth=0.7)
        panels[-1].vlines(days, 0.0, baseline, color=LINES[2], linewidth=1.0, alpha=0.6)
        panels[-1].plot(days, baseline, "o", color=LINES[2], markersize=4.5)
        panels[-1].set_title("Perpendicular baseline (m)")
        for axes in panels:
            axes.grid(visible=True)
            axes.margins(x=0.03, y=0.18)
            _date_limits(axes, days)
            if reference_date is not None:
                axes.axvline(as_days([reference_date])[0], color=INK, lw=0.8, ls=(0, (4, 3)))
        if reference_date is not None:
            _name_reference(panels[0], as_days([reference_date])[0])
        date_axis(panels[-1])


def picture_seams(
    path: Path | str,
    phase_rad: ArrayLike,
    sigma_rad: ArrayLike,
    labels: Sequence[str],
    sideways: Sequence[bool],
    *,
    title: str = "Phase at the burst seams",
    note: str = "",
) -> None:
    """Draw how far the phases of neighbouring bursts disagree, pair by pair.

    Parameters
    ----------
    path : Path or str
        PNG file.
    phase_rad, sigma_rad : array_like of shape (pair, seam)
        Phase difference and standard deviation; not finite = not measured.
    labels : sequence of str, length pair
        Short text per pair.
    sideways : sequence of bool, length seam
        True for seams between swaths, False for those between successive bursts.
    title, note : str
        Heading and second line.
    """
    phase, sigma = np.asarray(phase_rad, dtype=float), np.asarray(sigma_rad, dtype=float)
    known, across = np.isfinite(phase) & np.isfinite(sigma), np.asarray(sideways, dtype=bool)
    # Side by side, so that the bars of a pair do not hide one another.
    place = np.arange(len(labels))[:, np.newaxis] + np.linspace(-0.3, 0.3, phase.shape[1])
    with picture(path, (9.0, 4.2), title, note) as figure:
        axes = figure.subplots()
        axes.axhline(0.0, color=PALE, linewidth=0.7)
        kinds = (("successive bursts", ~across), ("adjoining swaths", across))
        for color, (name, kind) in zip(LINES, kinds, strict=False):
            chosen = known & kind
            if chosen.any():
                axes.errorbar(place[chosen], phase[chosen], sigma[chosen], fmt="o",
                              color=color, markersize=3.5, elinewidth=0.8, label=name)  # fmt: skip
        if not known.any():
            say_empty(axes, "no seam could be measured")
        axes.grid(visible=True, axis="y")
        axes.set_ylabel("phase difference (rad)")
        shown = np.unique(np.linspace(0, len(labels) - 1, min(len(labels), 16)).round().astype(int))
        axes.set_xticks(shown, [labels[k] for k in shown], rotation=30, ha="right", fontsize=8)
        axes.set_xlim(-0.6, len(labels) - 0.4)
        if known.any():
            axes.legend(loc="best", fontsize=8)


def picture_series(
    path: Path | str,
    dates: Dates,
    displacement_mm: ArrayLike,
    sigma_mm: ArrayLike | None = None,
    labels: Sequence[str] | str = "",
    *,
    title: str = "Displacement along the line of sight",
    note: str = "",
) -> None:
    """Draw displacement over time with its straight-line rate.

    Parameters
    ----------
    path : Path or str
        PNG file.
    dates : sequence of datetime64 or ISO text, length date
        Acquisition dates.
    displacement_mm : array_like of shape (date,) or (series, date)
        Positive towards the satellite, mm; NaN = missing.
    sigma_mm : array_like of the same shape, optional
        Standard deviations, mm.
    labels : str or sequence of str
        One name per series; the fitted rate is added.
    title, note : str
        Heading and second line.
    """
    days = as_days(dates)
    years = (days - days[0]).astype(float) / 365.25
    series = np.atleast_2d(np.asarray(displacement_mm, dtype=np.float64))
    sigma = np.broadcast_to(
        np.zeros(()) if sigma_mm is None else np.atleast_2d(np.asarray(sigma_mm, float)),
        series.shape,
    )
    names = [labels] if isinstance(labels, str) else list(labels)
    with picture(path, (9.0, 4.6), title, note) as figure:
        axes = figure.subplots()
        axes.axhline(0.0, color=PALE, linewidth=0.8)
        for number, values in enumerate(series):
            color = LINES[number % len(LINES)]
            name = names[number] if number < len(names) else ""
            _draw_series(axes, days, years, (values, sigma[number]), (name, color))
        axes.set_ylabel("displacement (mm)\n− away      towards satellite +")
        axes.grid(visible=True)
        axes.margins(x=0.03, y=0.1)
        _date_limits(axes, days)
        date_axis(axes)
        if np.isfinite(series).any():
            _legend_above(axes, min(len(series), 3))
        else:
            say_empty(axes)


# Parts of the pictures ---------------------------------------------------------------------------


def _date_limits(axes: Axes, days: NDArray[np.datetime64]) -> None:
    """Show all dates, also those without a value."""
    margin = max(0.03 * float((days.max() - days.min()).astype(float)), 3.0)
    pad = np.timedelta64(round(margin), "D")
    axes.set_xlim(days.min() - pad, days.max() + pad)


def _name_reference(axes: Axes, day: Any) -> None:
    axes.annotate(
        "reference",
        (day, 1.0),
        xycoords=("data", "axes fraction"),
        xytext=(4, -4),
        textcoords="offset points",
        va="top",
        fontsize=8.5,
    )


def _legend_above(axes: Axes, columns: int) -> None:
    options: dict[str, Any] = {"handletextpad": 0.3, "columnspacing": 1.6}
    axes.legend(
        loc="lower right", bbox_to_anchor=(1.01, 0.99), ncols=columns, borderaxespad=0.1, **options
    )


def _draw_shift(
    axes: Axes,
    days: NDArray[Any],
    shift: NDArray[np.float64],
    sigma: NDArray[np.float64],
    color: str,
) -> None:
    known = np.isfinite(sigma) & np.isfinite(shift)
    axes.axhline(0.0, color=PALE, linewidth=0.7)
    axes.errorbar(
        days[known],
        shift[known],
        yerr=sigma[known],
        fmt="o",
        color=color,
        markersize=4.5,
        elinewidth=1.1,
        capsize=2.5,
        label="estimate ± 1σ",
    )
    if (~known).any():
        shown = np.where(np.isfinite(shift), shift, 0.0)[~known]
        options: dict[str, Any] = {"markerfacecolor": "white", "color": color, "markersize": 4.5}
        axes.plot(days[~known], shown, "o", label="geometry only", **options)
        _legend_above(axes, 2)


def _draw_series(
    axes: Axes,
    days: NDArray[Any],
    years: NDArray[np.float64],
    values: tuple[NDArray[np.float64], NDArray[np.float64]],
    style: tuple[str, str],
) -> None:
    (displacement, sigma), (name, color) = values, style
    good = np.isfinite(displacement)
    text = name
    if np.count_nonzero(good) >= 2:
        rate, offset = np.polyfit(years[good], displacement[good], 1)
        text = f"{name}  {signed(float(rate))} mm/yr".strip()
        axes.plot(days[good], offset + rate * years[good], color=color, linewidth=1.2, alpha=0.8)
    error = sigma[good] if np.any(sigma[good] > 0) else None
    axes.errorbar(
        days[good],
        displacement[good],
        yerr=error,
        fmt="o",
        color=color,
        markersize=4.5,
        elinewidth=1.0,
        capsize=2.0,
        label=text or None,
    )
