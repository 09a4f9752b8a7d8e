"""Pre-flight: find in seconds what would stop a run after hours."""

from __future__ import annotations

import glob
import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from bperp.flows.config import StackConfig
from bperp.flows.config_types import is_url
from bperp.flows.disk_estimate import DiskEstimate, estimate_disk
from bperp.flows.machine import (
    available_memory_bytes,
    existing_parent,
    free_disk_bytes,
    usable_processors,
)
from bperp.stores import errors
from bperp.stores.errors import BperpError
from bperp.stores.objects import open_objects, require_exclusive_create, without_credentials
from bperp.stores.stamps import stamps_tree_bytes

if TYPE_CHECKING:
    from bperp.flows.check_elevation import Uncovered
    from bperp.flows.stack_index import StackIndex
    from bperp.pipeline.burst import BurstImage
    from bperp.stores.elevation import ElevationModel

__all__ = ["CheckReport", "DiskEstimate", "Finding", "check_stack", "estimate_disk"]

Level = Literal["ok", "warning", "error"]
if TYPE_CHECKING:
    Coverage = Callable[[ElevationModel, BurstImage], Uncovered | None]
_FEW_DATES = 15
EXIT_CODES = {
    letter: kind.exit_code
    for kind in (
        errors.ConfigurationError,
        errors.ProductError,
        errors.StackError,
        errors.OrbitError,
        errors.ElevationError,
        errors.NumericsError,
        errors.StorageError,
        errors.SecurityError,
    )
    for letter in kind.letters
} | dict.fromkeys(("R810", "R814", "R820"), errors.NetworkError.exit_code)
"""By the letter of the code, and by code for the network's part of the letter R."""


@dataclass(frozen=True)
class Finding:
    """One thing that was checked.

    ``code`` is empty for level ok; ``where`` names the option, file or date.
    """

    level: Level
    code: str
    where: str
    message: str
    remedy: str = ""


@dataclass(frozen=True)
class CheckReport:
    """Findings and the tables of the stack.

    Attributes
    ----------
    findings : tuple of Finding
        In the order in which they were made.
    dates : tuple of dict
        One row per date: mission, IPF version, orbit, bursts present, flags.
    bursts : tuple of dict
        One row per burst: swath, dates present, dates missing.
    summary : dict
        Reference date, counts, size of the scene, disk estimate in bytes by step.
    """

    findings: tuple[Finding, ...]
    dates: tuple[dict[str, Any], ...] = ()
    bursts: tuple[dict[str, Any], ...] = ()
    summary: dict[str, Any] = field(default_factory=dict)

    @property
    def exit_code(self) -> int:
        """0 without errors, else the exit code of the first error's family."""
        first = next((item for item in self.findings if item.level == "error"), None)
        if first is None:
            return 0
        return EXIT_CODES.get(first.code, EXIT_CODES[first.code[0]])

    def as_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        return {
            "findings": [asdict(item) for item in self.findings],
            "dates": list(self.dates),
            "bursts": list(self.bursts),
            "summary": self.summary,
        }


def check_stack(
    config: StackConfig,
    *,
    index: Callable[[StackConfig], StackIndex] | None = None,
    coverage: Coverage | None = None,
) -> CheckReport:
    """Check everything that can be known before pixels are read.

    Parameters
    ----------
    config : StackConfig
        Validated configuration.
    index : callable, optional
        Replaces ``bperp.flows.stack_index.index_stack``.
    coverage : callable, optional
        Replaces ``bperp.flows.check_elevation.uncovered_points``.

    Returns
    -------
    CheckReport
        Expected faults become findings; the function raises only for bugs.
    """
    findings = [*_products(config), *_orbits(config), *_root(config), *_memory(config)]
    model, faults = _elevation(config)
    findings += faults
    # Without products the index could only repeat the same fault.
    if any(item.level == "error" and item.where.startswith("slc") for item in findings):
        return CheckReport(tuple(findings))
    try:
        found = (index or _index_stack)(config)
    except BperpError as error:
        findings.append(_from_error(error))
        return CheckReport(tuple(findings))
    findings += _stack(found)
    if model is not None:
        findings.append(_coverage(config, model, found, coverage or _uncovered_points))
    estimate = estimate_disk(config, found)
    findings += _disk(config, found, estimate)
    return CheckReport(
        tuple(findings), _date_rows(found), _burst_rows(found), _summary(config, found, estimate)
    )


def _uncovered_points(model: ElevationModel, image: BurstImage) -> Uncovered | None:
    from bperp.flows.check_elevation import uncovered_points

    return uncovered_points(model, image)


def _index_stack(config: StackConfig) -> StackIndex:
    from bperp.flows.stack_index import index_stack

    return index_stack(config)


def _from_error(error: BperpError) -> Finding:
    details = [error.cause]
    if error.expected is not None:
        details.append(f"expected {error.expected}")
    if error.found is not None:
        details.append(f"found {error.found}")
    return Finding("error", error.code, error.where or "", "; ".join(details), error.remedy)


def _products(config: StackConfig) -> Iterator[Finding]:
    for number, pattern in enumerate(config.slc):
        where = f"slc[{number}]"
        if is_url(pattern):
            yield Finding("ok", "", where, f"{pattern} is looked up with the stack")
            continue
        matches = glob.glob(pattern, recursive=True)  # noqa: PTH207 (patterns are text)
        if matches:
            yield Finding("ok", "", where, f"{len(matches)} products match {pattern}")
        else:
            remedy = "correct the path or pattern; relative ones refer to the folder of the file"
            yield Finding("error", "C104", where, f"nothing matches {pattern}", remedy)


def _orbits(config: StackConfig) -> Iterator[Finding]:
    needed = config.orbits.policy != "allow_predicted"
    count = 0
    for number, folder in enumerate(config.orbits.folders):
        where = f"orbits.folders[{number}]"
        if is_url(folder):
            count += 1
            continue
        if not Path(folder).is_dir():
            yield Finding("error", "C104", where, f"no such folder: {folder}", "correct the path")
            continue
        files = sum(1 for _ in Path(folder).glob("*.EOF"))
        count += files
        yield Finding("ok", "", where, f"{files} orbit files in {folder}")
    if count == 0:
        level: Level = "error" if needed else "warning"
        remedy = "fetch POEORB or RESORB files, or set orbits.policy: allow_predicted"
        message = "no orbit files: only the predicted vectors of the annotation are at hand"
        yield Finding(level, "O501", "orbits.folders", message, remedy)


def _elevation(config: StackConfig) -> tuple[ElevationModel | None, list[Finding]]:
    """Open the elevation model: file, reference system, datum, geoid."""
    findings = []
    for where, path in (("dem.path", config.dem.path), ("dem.geoid", config.dem.geoid)):
        if path is not None and not is_url(path) and not Path(path).exists():
            message = f"no such file: {path}"
            findings.append(Finding("error", "C104", where, message, "correct the path"))
    if findings:
        return None, findings
    from bperp.flows.check_elevation import open_elevation

    try:
        model = open_elevation(config)
    except BperpError as error:
        return None, [_from_error(error)]
    return model, [Finding("ok", "", "dem.path", f"heights above {model.datum}")]


def _coverage(
    config: StackConfig, model: ElevationModel, found: StackIndex, coverage: Coverage
) -> Finding:
    """Ask whether the elevation model lies under every burst."""
    for burst in found.stack.burst_ids:
        hole = coverage(model, found.stack.reference(burst))
        if hole is None:
            continue
        message = (
            f"{hole.points} of {hole.of} points of burst {burst} have no height, e.g. "
            f"lat {hole.latitude_deg:.4f}, lon {hole.longitude_deg:.4f}"
        )
        if config.geometry.missing_elevation == "sea":
            return Finding("warning", "E605", "dem.path", f"{message}: sea level is assumed")
        remedy = "give a larger elevation model, or geometry.missing_elevation: sea at a coast"
        return Finding("error", "E605", "dem.path", message, remedy)
    return Finding("ok", "", "dem.path", "the elevation model lies under all bursts")


def _root(config: StackConfig) -> Iterator[Finding]:
    if is_url(config.root):
        yield _object_root(config.root)
        return
    folder = existing_parent(Path(config.root))
    if not folder.is_dir():
        yield Finding("error", "R807", "root", f"{folder} is not a folder", "choose another root")
    elif not os.access(folder, os.W_OK | os.X_OK):
        remedy = "choose another root or change the permissions"
        yield Finding("error", "R807", "root", f"{folder} is not writable", remedy)
    else:
        yield Finding("ok", "", "root", f"{config.root} can be written")


def _object_root(root: str) -> Finding:
    """Ask an object store what the run will ask of it: one small object is made and removed."""
    from bperp.flows.root import RECORD

    try:
        objects = open_objects(root)
        # Most faults show in reading already, and then there is nothing to be cleared away.
        objects.read(RECORD)
        require_exclusive_create(objects)
    except BperpError as error:
        return replace(_from_error(error), where=f"root {without_credentials(root)}")
    return Finding("ok", "", "root", f"{objects.url} can be written; conditional writes are kept")


def _memory(config: StackConfig) -> Iterator[Finding]:
    available, share = available_memory_bytes(), config.compute.memory_per_worker_bytes
    if available is None:
        return
    fitting = available // share
    wanted = config.compute.workers
    workers = max(1, min(usable_processors(), fitting)) if wanted == "auto" else wanted
    facts = f"{workers} workers of {share / 1e9:.3g} GB; {available / 1e9:.3g} GB available"
    if workers > fitting:
        remedy = f"set compute.workers: {max(1, fitting)} or less, or lower memory_per_worker"
        yield Finding("error", "R805", "compute", facts, remedy)
    else:
        yield Finding("ok", "", "compute", facts)


def _stack(found: StackIndex) -> Iterator[Finding]:
    stack = found.stack
    message = f"{len(stack.burst_ids)} bursts on {len(stack.dates)} dates"
    yield Finding("ok", "", "stack", message)
    if len(stack.dates) < _FEW_DATES:
        message = f"{len(stack.dates)} dates are few for persistent scatterers"
        yield Finding("warning", "S407", "stack", message, f"use {_FEW_DATES} dates or more")
    for note in found.notes:
        yield Finding("warning", "S401", "stack", note)


def _temporary(found: StackIndex) -> Finding:
    """Ask for room for the tree, which is made in a temporary folder before it is uploaded."""
    stack = found.stack
    needed = stamps_tree_bytes(stack.scene.lines, stack.scene.samples, len(stack.dates) - 1)
    folder = Path(tempfile.gettempdir())
    free = free_disk_bytes(folder)
    facts = f"{needed / 1e9:.3g} GB needed in the temporary folder {folder}, {free / 1e9:.3g} free"
    if needed > free:
        remedy = "set TMPDIR to a folder with more room, or export with --out instead"
        return Finding("error", "R804", "export.formats", facts, remedy)
    return Finding("ok", "", "export.formats", facts)


def _disk(config: StackConfig, found: StackIndex, estimate: DiskEstimate) -> Iterator[Finding]:
    if is_url(config.root):
        if "stamps" in config.export.formats:
            yield _temporary(found)
        return
    free = free_disk_bytes(Path(config.root))
    facts = f"{estimate.total / 1e9:.3g} GB needed, {free / 1e9:.3g} GB free"
    if estimate.total > free:
        remedy = "free space, choose another root, or fewer bursts (aoi) or dates"
        yield Finding("error", "R804", "root", facts, remedy)
    else:
        yield Finding("ok", "", "root", facts)


def _date_rows(found: StackIndex) -> tuple[dict[str, Any], ...]:
    stack = found.stack
    rows = []
    for date in stack.dates:
        images = [image for (_, day), image in stack.images.items() if day == date]
        rows.append(
            {
                "date": date,
                "is_reference": date == stack.reference_date,
                "mission": " ".join(sorted({image.mission for image in images})),
                "ipf_version": " ".join(sorted({image.ipf_version for image in images})),
                "orbit": " ".join(sorted({image.orbit.kind for image in images})),
                "bursts": len(images),
                "flags": sorted({flag for image in images for flag in image.flags}),
            }
        )
    return tuple(rows)


def _burst_rows(found: StackIndex) -> tuple[dict[str, Any], ...]:
    stack = found.stack
    rows = []
    for burst in stack.burst_ids:
        present = [date for date in stack.dates if (burst, date) in stack.images]
        rows.append(
            {
                "burst_id": burst,
                "swath": stack.reference(burst).swath,
                "present": present,
                "missing": [date for date in stack.dates if date not in present],
            }
        )
    return tuple(rows)


def _summary(config: StackConfig, found: StackIndex, estimate: DiskEstimate) -> dict[str, Any]:
    stack = found.stack
    return {
        "name": config.name,
        "root": config.root,
        "reference_date": stack.reference_date,
        "dates": len(stack.dates),
        "bursts": len(stack.burst_ids),
        "burst_dates": len(stack.images),
        "scene": [stack.scene.lines, stack.scene.samples],
        "disk_bytes": dict(estimate.by_step),
        "disk_total_bytes": estimate.total,
    }
