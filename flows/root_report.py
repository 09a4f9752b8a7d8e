"""Pictures and report of a root, made from its products and receipts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from bperp.flows.config import StackConfig, differences
from bperp.flows.report import (
    AlignmentRow,
    BurstCell,
    BurstTable,
    CoherenceRow,
    Notice,
    ReportContent,
    ReportPicture,
    Setting,
    StepTiming,
    write_report,
)
from bperp.flows.root import Root
from bperp.flows.step_pictures import draw_step, range_shifts
from bperp.pipeline.interferogram import COHERENCE_BINS
from bperp.pipeline.steps import STAGES
from bperp.stores.objects import local_path

PACKAGES = ("bperp", "numpy", "numba", "scipy", "xarray", "zarr", "dask", "prefect")


def write_pictures_and_report(root: Root, stages: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Draw the pictures of steps that ran or have none yet, and write the report.

    Parameters
    ----------
    root : Root
        A local root.
    stages : sequence of mapping
        Stage summaries of the run; ``current`` stages keep their pictures.

    Returns
    -------
    dict
        ``pictures`` (all files) and ``report`` (path).
    """
    folder = local_path(root.store.root)
    pictures = folder / "pictures"
    ran = {item["name"] for item in stages if item["status"] == "done"}
    drawn = False
    for number, stage in enumerate(STAGES, start=1):
        if stage.name not in root.summaries:
            continue
        if stage.name in ran or not any(pictures.glob(f"{number:02d}-*.png")):
            options = root.config
            drawn |= bool(
                draw_step(stage.name, pictures, root.stack, root.source, root.summaries, options)
            )
    report = folder / "report.html"
    files = sorted(pictures.glob("*.png"))
    if drawn or not report.exists():
        write_report(report, report_content(root, files))
    return {"pictures": [str(path) for path in files], "report": str(report)}


def report_content(root: Root, pictures: Sequence[Path]) -> ReportContent:
    """Collect what the report says from receipts and options."""
    stack = root.stack
    return ReportContent(
        title=str(root.config["name"]),
        subtitle=f"{len(stack.dates)} dates, {len(stack.burst_ids)} bursts, reference date "
        f"{stack.reference_date}",
        summary=_summary(root),
        settings=_settings(root.config),
        bursts=_burst_table(root),
        alignment=_alignment(root),
        coherence=_coherence(root),
        scatterers=_scatterers(root),
        pictures=[ReportPicture(path, _title(path)) for path in pictures],
        notices=_notices(root),
        timings=_timings(root),
        versions=[(name, metadata.version(name)) for name in PACKAGES],
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def _title(path: Path) -> str:
    number, _, name = path.stem.partition("-")
    return f"Step {int(number)}: {name.replace('-', ' ')}"


def _summary(root: Root) -> list[tuple[str, str]]:
    result = [
        ("Dates", f"{root.stack.dates[0]} to {root.stack.dates[-1]}"),
        ("Scene", f"{root.stack.scene.lines} lines x {root.stack.scene.samples} samples"),
    ]
    final = root.summaries.get("timeseries", {}).get("scene")
    if final:
        result.append(("Scatterers", f"{final['connected']} of {final['scatterers']} connected"))
        place = final["reference"]
        result.append(("Reference area", f"{place['latitude']:.5f}, {place['longitude']:.5f}"))
    return result


def _settings(config: Mapping[str, Any]) -> list[Setting]:
    default = StackConfig.from_values({name: config[name] for name in ("root", "slc")} | {
        "dem": {"path": config["dem"]["path"]}
    })  # fmt: skip
    changed = differences(default, StackConfig.from_values(config))
    return [
        Setting(name, str(value), str(changed.get(name, (value, value))[0]))
        for name, value in _flat(config)
    ]


def _flat(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    rows: list[tuple[str, Any]] = []
    for name, value in values.items():
        if isinstance(value, Mapping):
            rows += _flat(value, f"{prefix}{name}.")
        else:
            rows.append((prefix + name, value))
    return rows


def _burst_table(root: Root) -> BurstTable:
    stack = root.stack
    cells = {
        (burst, date): BurstCell("flagged" if image.flags else "used", ", ".join(image.flags))
        for (burst, date), image in stack.images.items()
    }
    return BurstTable(stack.burst_ids, stack.dates, cells)


def _alignment(root: Root) -> list[AlignmentRow]:
    days = np.array(root.stack.dates, "datetime64[D]")
    reference = np.datetime64(root.stack.reference_date, "D")
    rows = []
    for date, day in zip(root.stack.dates, days, strict=True):
        item = root.summaries.get("alignment", {}).get(date)
        if item is None:
            continue
        sigma = item["azimuth_shift_sigma_lines"]
        ranges = range_shifts(item)
        rows.append(
            AlignmentRow(
                date=date,
                azimuth_shift_lines=item["azimuth_shift_lines"],
                azimuth_sigma_lines=float("inf") if sigma is None else sigma,
                range_shift_samples=_mean(samples for samples, _ in ranges),
                range_sigma_samples=max(sigma for _, sigma in ranges),
                perpendicular_baseline_m=_mean(item["perpendicular_baseline_m"].values()),
                temporal_baseline_days=float((day - reference).astype(int)),
                note=", ".join(item["flags"]),
            )
        )
    return rows


def _mean(values: Any) -> float:
    return float(np.mean(list(values)))


def _coherence(root: Root) -> list[CoherenceRow]:
    tiles = root.summaries.get("interferogram", {}).values()
    if not tiles:
        return []
    counts = np.sum([tile["coherence_histogram"] for tile in tiles], axis=0)
    first, second = (
        np.asarray(root.source.read("scene/interferogram", name, (slice(None),)), "datetime64[D]")
        for name in ("reference_date", "secondary_date")
    )
    centres = (np.arange(COHERENCE_BINS) + 0.5) / COHERENCE_BINS
    rows = []
    for index, row in enumerate(counts):
        total = max(1, int(row.sum()))
        median = centres[int(np.searchsorted(np.cumsum(row), 0.5 * total))]
        rows.append(
            CoherenceRow(
                f"{first[index]} / {second[index]}",
                float(row @ centres) / total,
                float(median),
                float(row[centres > 0.5].sum()) / total,
            )
        )
    return rows


def _scatterers(root: Root) -> list[tuple[str, str]]:
    tiles = root.summaries.get("scatterers", {}).values()
    rows = [("Candidates", str(sum(tile["candidates"] for tile in tiles)))] if tiles else []
    final = root.summaries.get("timeseries", {}).get("scene")
    if final:
        rows += [
            ("Threshold on phase noise", f"{final['phase_noise_threshold']:.2f}"),
            ("Selected", str(final["scatterers"])),
            ("Connected", str(final["connected"])),
            ("Components of the network", str(final["components"])),
            ("Corrected arcs", f"{100 * final['corrected_share']:.2f} %"),
        ]
    return rows


def _notices(root: Root) -> list[Notice]:
    notices = [Notice("warning", text) for text in root.notes]
    for date, item in root.summaries.get("alignment", {}).items():
        notices += [Notice("degraded", f"{date}: {flag}") for flag in item["flags"]]
    for key, item in root.summaries.get("coregister", {}).items():
        if item["clipped"]:
            text = f"{key}: {item['clipped']} values did not fit int16 and were clipped"
            notices.append(Notice("warning", text))
    return notices


def _timings(root: Root) -> list[StepTiming]:
    return [
        StepTiming(
            step=stage.name,
            seconds=sum(receipt.seconds for receipt in receipts.values()),
            tasks=len(receipts),
            bytes_processed=sum(receipt.bytes_written for receipt in receipts.values()),
            peak_worker_bytes=max(receipt.peak_rss_bytes for receipt in receipts.values()),
        )
        for stage in STAGES
        if (receipts := root.receipts.get(stage.name))
    ]
