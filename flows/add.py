"""A further date for an existing root: only what the date needs is computed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import fsspec

from bperp.flows.config import StackConfig, load_config
from bperp.flows.elevation_contents import elevation_contents
from bperp.flows.progress import Progress
from bperp.flows.root import Root
from bperp.flows.run import changed_options, run_stack
from bperp.flows.stack_index import expand_urls, index_stack
from bperp.flows.status import steps_behind
from bperp.flows.yaml_edit import append_items
from bperp.pipeline.steps import LAST_STEP_BY_DATE
from bperp.stores.cube import CubeStore
from bperp.stores.errors import ConfigurationError

__all__ = ["add_products"]

_NO_MATTER = (
    "slc",
    "root",
    "name",
    "compute.",
    "export.",
    "orbits.folders",
    "dem.path",
    "dem.geoid",
)
"""Options that may differ from those of the last run: products depend on contents, not places."""


def add_products(
    path: Path,
    products: Sequence[str],
    *,
    last: str | None = None,
    dry_run: bool = False,
    engine: str = "local",
    workers: int | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Add products to a configuration and process the dates that they bring.

    Parameters
    ----------
    path : Path
        ``stack.yaml``; products that its patterns do not match are appended to ``slc``.
    products : sequence of str
        SAFE folders, zips or URLs. Products that belong to the stack already change nothing.
    last : str, optional
        Last step to run; default the last one that works date by date. Steps over the whole stack
        keep their results for the dates they were made from.
    dry_run : bool
        Only tell what would run and why; neither the configuration nor the root change.
    engine, workers, progress
        As for ``run_stack``.

    Returns
    -------
    dict
        Summary of the run with ``added`` (dates), ``old_dates_recomputed`` (tasks that do not
        belong to them and are no tile of the whole scene) and ``behind`` (steps that do not know
        all dates yet).

    Raises
    ------
    ConfigurationError
        C105 when options differ from those of the last run: the old dates would change as well.
    BperpError
        Faults of the products and of the run.
    """
    config = load_config(path)
    store = CubeStore(config.root)
    before = _require_same_options(config, store)
    urls = _urls(products)
    known = set(expand_urls(config.slc))
    new = [url for url in urls if url not in known]
    extended = config.model_copy(update={"slc": (*config.slc, *new)})
    index = index_stack(extended, before.stack.reference_date if before else None)
    if new and not dry_run:
        append_items(path, "slc", [_as_written(url) for url in new])
    dates = set(before.stack.dates) if before else set()
    added = [date for date in index.stack.dates if date not in dates]
    summary = run_stack(
        extended,
        last=last or LAST_STEP_BY_DATE,
        dry_run=dry_run,
        engine=engine,
        workers=workers,
        progress=progress,
    )
    left = {} if dry_run else steps_behind(Root.open(config.root))
    return {
        "added": added,
        "notes": list(index.notes),
        "old_dates_recomputed": _tasks_of_old_dates(summary, added, dates),
        "behind": sorted(left),
        **summary,
    }


def _require_same_options(config: StackConfig, store: CubeStore) -> Root | None:
    """Return the root as the last run left it; refuse options that would change old dates."""
    root = Root.find(store)
    if root is None:
        return None
    changed = {
        name: values
        for name, values in changed_options(config).items()
        if not name.startswith(_NO_MATTER)
    }
    contents = elevation_contents(config)
    if root.elevation and contents != root.elevation:
        changed["dem"] = (root.elevation["geometry"], contents["geometry"])
    if changed:
        found = "; ".join(f"{name}: {old!r} -> {new!r}" for name, (old, new) in changed.items())
        raise ConfigurationError(
            "C105",
            "options differ from those of the last run, so the old dates would change too",
            where=config.root,
            found=found,
            remedy="restore them, or run 'bperp run' (first with --dry-run) before adding dates",
        )
    return root


def _urls(products: Sequence[str]) -> list[str]:
    return expand_urls([item if "://" in item else str(Path(item).absolute()) for item in products])


def _as_written(url: str) -> str:
    """Return a local product as a path, as people write it."""
    filesystem, path = fsspec.core.url_to_fs(url)
    return path if "file" in filesystem.protocol else url


def _tasks_of_old_dates(summary: dict[str, Any], added: Sequence[str], dates: set[str]) -> int:
    """Count the tasks of a run that belong to dates of before: none unless their inputs changed."""
    return sum(
        1
        for stage in summary["stages"]
        for key in stage["reasons"]
        if any(date in key for date in dates) and not any(date in key for date in added)
    )
