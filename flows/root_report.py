"""Pictures and report of a root, made from its products and receipts."""

from __future__ import annotations

import json
import tempfile
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
    report_html,
)
from bperp.flows.root import Root
from bperp.flows.step_pictures import draw_step, range_shifts
from bperp.pipeline.interferogram import COHERENCE_BINS
from bperp.pipeline.steps import STAGES
from bperp.stores.canonical import canonical_json, digest
from bperp.stores.objects import ObjectStore, without_credentials

REPORT = "report.html"
RECORD = "receipts/report.json"
"""What the pictures and the report were made from."""

PACKAGES = ("bperp", "numpy", "numba", "scipy", "xarray", "zarr", "dask", "prefect")


def write_pictures_and_report(root: Root) -> dict[str, Any]:
    """Draw the pictures of steps that changed or lost them; write the report if it changed.

    Everything is drawn in a temporary folder and put into the root as objects: pictures first, then
    the report, then the record of what they were made from. A run that was killed in between is
    thus made good by the next one.

    Parameters
    ----------
    root : Root
        A root, local or in an object store.

    Returns
    -------
    dict
        ``pictures`` (all of them) and ``report``: paths, or URLs in an object store.
    """
    objects = root.store.objects
    known: dict[str, Any] = json.loads(objects.read(RECORD) or b'{"steps": {}}')
    with tempfile.TemporaryDirectory(prefix="bperp-report-") as place:
        folder = Path(place)
        steps = _draw_steps(root, folder, known["steps"], set(objects.names("pictures")))
        pictures = [name for step in steps.values() for name in step["pictures"]]
        said = digest({"steps": steps, "config": root.config, "notes": list(root.notes)})
        if known.get("report") != said or objects.modified(REPORT) is None:
            for name in pictures:
                _fetch(objects, name, folder)
            files = sorted(folder / Path(name).name for name in pictures)
            objects.write(REPORT, report_html(report_content(root, files)).encode())
            for step in known["steps"].values():
                for name in set(step["pictures"]).difference(pictures):
                    objects.remove(name)
            objects.write(RECORD, canonical_json({"steps": steps, "report": said}))
    return {
        "pictures": [f"{objects.url}/{name}" for name in sorted(pictures)],
        "report": f"{objects.url}/{REPORT}",
    }


def _draw_steps(
    root: Root, folder: Path, known: Mapping[str, Any], present: set[str]
) -> dict[str, dict[str, Any]]:
    """Return, by step, what its pictures were made from and their names; draw what is missing."""
    markers = root.ledger.markers()
    steps: dict[str, dict[str, Any]] = {}
    for stage in STAGES:
        if stage.name not in markers:
            continue
        made_from = digest(dict(markers[stage.name].receipts))
        before = known.get(stage.name, {})
        if before.get("made_from") == made_from and present.issuperset(before["pictures"]):
            steps[stage.name] = before
            continue
        options = root.config
        files = draw_step(stage.name, folder, root.stack, root.source, root.summaries, options)
        for file in files:
            root.store.objects.write(f"pictures/{file.name}", file.read_bytes())
        names = [f"pictures/{file.name}" for file in files]
        steps[stage.name] = {"made_from": made_from, "pictures": names}
    return steps


def _fetch(objects: ObjectStore, name: str, folder: Path) -> None:
    """Get a picture of an earlier run; one that is gone becomes a sentence of the report."""
    file = folder / Path(name).name
    data = None if file.exists() else objects.read(name)
    if data is not None:
        file.write_bytes(data)


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
        Setting(name, _shown(value), _shown(changed.get(name, (value, value))[0]))
        for name, value in _flat(config)
    ]


def _shown(value: Any) -> str:
    return without_credentials(value) if isinstance(value, str) else str(value)


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
    counts: dict[str, Any] = {}
    for tile in tiles:
        for pair, histogram in tile.get("coherence_histogram", {}).items():
            counts[pair] = counts.get(pair, 0) + np.array(histogram)
    centres = (np.arange(COHERENCE_BINS) + 0.5) / COHERENCE_BINS
    rows = []
    for pair, row in sorted(counts.items()):
        total = max(1, int(row.sum()))
        median = centres[int(np.searchsorted(np.cumsum(row), 0.5 * total))]
        rows.append(
            CoherenceRow(
                pair.replace("_", " / "),
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
