"""One HTML file that says what was done, with which settings, how well, and how fast.

The file is complete in itself: it can be mailed, archived and opened without a network.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from bperp.flows.report_page import (
    Markup,
    element,
    escape,
    join,
    page,
    picture_element,
    redact_value,
    table,
)

BurstState = Literal["used", "hole", "rejected", "flagged"]


@dataclass(frozen=True)
class Setting:
    """One setting as text; it is marked when it differs from the default."""

    name: str
    value: str
    default: str
    meaning: str = ""


@dataclass(frozen=True)
class BurstCell:
    """What became of one burst on one date; ``note`` gives the reason or the flags."""

    state: BurstState
    note: str = ""


@dataclass(frozen=True)
class BurstTable:
    """Bursts x dates; a date without a cell for a burst is a hole."""

    bursts: Sequence[str]
    dates: Sequence[str]
    cells: Mapping[tuple[str, str], BurstCell]
    """Keyed by ``(burst, date)``."""


@dataclass(frozen=True)
class AlignmentRow:
    """Alignment of one date; a sigma that is not finite means geometry only."""

    date: str
    azimuth_shift_lines: float
    azimuth_sigma_lines: float
    range_shift_samples: float
    range_sigma_samples: float
    perpendicular_baseline_m: float
    temporal_baseline_days: float
    note: str = ""


@dataclass(frozen=True)
class CoherenceRow:
    """Coherence of one pair over the valid area, 0 to 1."""

    pair: str
    mean: float
    median: float
    share_above_half: float
    """Share of the area with coherence above 0.5, 0 to 1."""


@dataclass(frozen=True)
class Notice:
    """A warning or a degraded flag; ``severity`` is ``error``, ``warning`` or ``degraded``."""

    severity: Literal["error", "warning", "degraded"]
    text: str
    code: str = ""


@dataclass(frozen=True)
class StepTiming:
    """Time and work of one step; ``peak_worker_bytes`` is the largest resident size measured."""

    step: str
    seconds: float
    tasks: int
    bytes_processed: int = 0
    pixels: int = 0
    peak_worker_bytes: int = 0
    predicted_worker_bytes: int = 0


@dataclass(frozen=True)
class ReportPicture:
    """A PNG file to embed."""

    path: Path | str
    title: str
    caption: str = ""


@dataclass(frozen=True)
class ReportContent:
    """Everything that a report shows; sections without content are left out.

    Parameters
    ----------
    title, subtitle : str
        Heading, e.g. the name of the stack, and the line below it.
    summary : sequence of (str, str)
        Label and value of the most important numbers.
    settings : sequence of Setting
        All settings; those that differ from their default come first and are marked.
    bursts : BurstTable, optional
        Which burst was used on which date.
    alignment : sequence of AlignmentRow
        One row per date.
    coherence : sequence of CoherenceRow
        One row per pair.
    scatterers : sequence of (str, str)
        Label and value of the statistics of the persistent scatterers.
    pictures : sequence of ReportPicture
        Shown in this order.
    notices : sequence of Notice
        Shown on top; an empty sequence says that there were none.
    timings : sequence of StepTiming
        One row per step.
    versions : sequence of (str, str)
        Package or product, and its version.
    created : str
        Time of the report, ISO 8601 UTC.
    """

    title: str
    subtitle: str = ""
    summary: Sequence[tuple[str, str]] = ()
    settings: Sequence[Setting] = ()
    bursts: BurstTable | None = None
    alignment: Sequence[AlignmentRow] = ()
    coherence: Sequence[CoherenceRow] = ()
    scatterers: Sequence[tuple[str, str]] = ()
    pictures: Sequence[ReportPicture] = ()
    notices: Sequence[Notice] = ()
    timings: Sequence[StepTiming] = ()
    versions: Sequence[tuple[str, str]] = field(default_factory=tuple)
    created: str = ""


def report_html(content: ReportContent) -> str:
    """Return a report as one self-contained HTML text.

    Parameters
    ----------
    content : ReportContent
        Plain data; every text is escaped, passwords and tokens in it are masked. A picture that
        cannot be read becomes a sentence.

    Returns
    -------
    str
        The whole document; encode it as UTF-8.
    """
    pictures = join(picture_element(p.path, p.title, p.caption) for p in content.pictures)
    sections = [
        ("pictures", "Pictures", pictures),
        ("bursts", "Bursts and dates", _bursts(content.bursts)),
        ("alignment", "Alignment", _alignment(content.alignment)),
        ("coherence", "Coherence", _coherence(content.coherence)),
        ("scatterers", "Scatterers", _pairs(content.scatterers, ("statistic", "value"))),
        ("settings", "Settings", _settings(content.settings)),
        ("timings", "Time and memory", _timings(content.timings)),
        ("versions", "Versions", _pairs(content.versions, ("software", "version"))),
    ]
    head = join([_cards(content.summary), _notices(content.notices)])
    foot = f"Written by bperp {content.created}".strip()
    return page(content.title, content.subtitle, head, sections, foot)


# Sections ----------------------------------------------------------------------------------------


def _cards(summary: Sequence[tuple[str, str]]) -> Markup:
    if not summary:
        return Markup("")
    cards = (
        f"<li><b>{escape(value)}</b><span>{escape(name)}</span></li>" for name, value in summary
    )
    return Markup(f'<ul class="cards">{"".join(cards)}</ul>')


def _notices(notices: Sequence[Notice]) -> Markup:
    if not notices:
        return element("p", "No warnings and no degraded inputs.", kind="notice good")
    order = {"error": 0, "warning": 1, "degraded": 2}
    parts = []
    for notice in sorted(notices, key=lambda notice: order[notice.severity]):
        kind = "notice bad" if notice.severity == "error" else "notice"
        label = " ".join(filter(None, [notice.severity.capitalize(), notice.code]))
        parts.append(Markup(f'<p class="{kind}"><b>{escape(label)}</b> {escape(notice.text)}</p>'))
    return join(parts)


_SYMBOLS: dict[BurstState, tuple[str, str]] = {
    "used": ("●", "good"),
    "flagged": ("▲", "warn"),
    "rejected": ("✕", "bad"),
    "hole": ("·", "pale"),
}


def _bursts(bursts: BurstTable | None) -> Markup:
    if bursts is None or not bursts.bursts or not bursts.dates:
        return Markup("")
    hole = BurstCell("hole", "no data")
    rows, notes = [], []
    for date in bursts.dates:
        cells = [bursts.cells.get((burst, date), hole) for burst in bursts.bursts]
        rows.append([date, *(_burst_cell(cell) for cell in cells)])
        notes += [
            f"{date} {burst}: {cell.note}"
            for burst, cell in zip(bursts.bursts, cells, strict=True)
            if cell.note and cell.state in {"flagged", "rejected"}
        ]
    states = [bursts.cells.get((b, d), hole).state for b in bursts.bursts for d in bursts.dates]
    counts = ", ".join(f"{_SYMBOLS[state][0]} {state} {states.count(state)}" for state in _SYMBOLS)
    markup = range(1, len(bursts.bursts) + 1)
    grid = table(["date", *bursts.bursts], rows, caption=counts, safe=list(markup), style="grid")
    items = "".join(f"<li>{escape(note)}</li>" for note in notes)
    return join([grid, Markup(f"<ul>{items}</ul>")] if items else [grid])


def _burst_cell(cell: BurstCell) -> Markup:
    symbol, kind = _SYMBOLS[cell.state]
    label = f"{cell.state}: {cell.note}" if cell.note else cell.state
    text = escape(label)
    return Markup(
        f'<span class="{kind}" role="img" aria-label="{text}" title="{text}">{symbol}</span>'
    )


def _alignment(rows: Sequence[AlignmentRow]) -> Markup:
    if not rows:
        return Markup("")
    header = ["date", "azimuth shift (10⁻³ line)", "σ"]
    # Without any range estimate the columns would be a row of zeros that looks like a result.
    with_range = any(math.isfinite(row.range_sigma_samples) for row in rows)
    header += ["range shift (10⁻³ sample)", "σ"] if with_range else []
    header += ["perpendicular baseline (m)", "days", "note"]
    body = []
    for row in rows:
        cells = [
            row.date,
            _number(1e3 * row.azimuth_shift_lines, 2, sign=True),
            _number(1e3 * row.azimuth_sigma_lines, 2),
        ]
        if with_range:
            cells.append(_number(1e3 * row.range_shift_samples, 1, sign=True))
            cells.append(_number(1e3 * row.range_sigma_samples, 1))
        cells += [
            _number(row.perpendicular_baseline_m, 1, sign=True),
            _number(row.temporal_baseline_days, 0, sign=True),
            row.note or ("" if math.isfinite(row.azimuth_sigma_lines) else "geometry only"),
        ]
        body.append(cells)
    caption = "Shifts after the geometric alignment, against the reference date"
    return table(header, body, caption=caption, numeric=range(1, len(header) - 1))


def _coherence(rows: Sequence[CoherenceRow]) -> Markup:
    body = [
        [row.pair, _meter(row.mean), _number(row.median, 2), _percent(row.share_above_half)]
        for row in rows
    ]
    header = ["pair", "mean", "median", "area above 0.5"]
    return table(header, body, numeric=(2, 3), safe=(1,)) if rows else Markup("")


def _meter(value: float) -> Markup:
    if not math.isfinite(value):
        return Markup("–")
    shown = min(max(value, 0.0), 1.0)
    return Markup(f'<meter min="0" max="1" value="{shown:.3f}">{value:.2f}</meter> {value:.2f}')


def _settings(settings: Sequence[Setting]) -> Markup:
    if not settings:
        return Markup("")
    ordered = sorted(settings, key=lambda setting: setting.value == setting.default)
    changed = sum(setting.value != setting.default for setting in settings)
    body = [
        [
            setting.name,
            redact_value(setting.name, setting.value),
            redact_value(setting.name, setting.default),
            setting.meaning,
        ]
        for setting in ordered
    ]
    kinds = ["changed" if setting.value != setting.default else "" for setting in ordered]
    caption = f"{changed} of {len(settings)} settings differ from their defaults"
    return table(["setting", "value", "default", "meaning"], body, caption=caption, kinds=kinds)


def _timings(timings: Sequence[StepTiming]) -> Markup:
    if not timings:
        return Markup("")
    body = [
        [
            step.step,
            str(step.tasks),
            _duration(step.seconds),
            _rate(step.bytes_processed / 1e6, step.seconds),
            _rate(step.pixels / 1e6, step.seconds),
            _megabytes(step.peak_worker_bytes),
            _megabytes(step.predicted_worker_bytes),
        ]
        for step in timings
    ]
    total = sum(step.seconds for step in timings)
    peak = max(step.peak_worker_bytes for step in timings)
    tasks = str(sum(step.tasks for step in timings))
    body.append(["all steps", tasks, _duration(total), "", "", _megabytes(peak), ""])
    header = ["step", "tasks", "time", "MB/s", "Mpx/s", "peak worker (MB)", "predicted (MB)"]
    return table(header, body, numeric=range(1, 7))


def _pairs(rows: Sequence[tuple[str, str]], header: tuple[str, str]) -> Markup:
    return table(header, rows) if rows else Markup("")


# Numbers -----------------------------------------------------------------------------------------


def _number(value: float, decimals: int, *, sign: bool = False) -> str:
    if not math.isfinite(value):
        return "–"
    text = f"{value:{'+' if sign else ''}.{decimals}f}"
    if float(text) == 0.0:
        text = text.lstrip("+-")
    return text.replace("-", "−")


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %" if math.isfinite(share) else "–"


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def _rate(amount_millions: float, seconds: float) -> str:
    return f"{amount_millions / seconds:.1f}" if amount_millions > 0 and seconds > 0 else "–"


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.0f}" if size else "–"
