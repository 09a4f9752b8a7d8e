"""The demonstration: simulate a stack, process it, show the result next to the truth."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import Any

import numpy as np

from bperp.flows.config import StackConfig, write_config
from bperp.flows.config_types import is_url
from bperp.flows.console import StepCounter
from bperp.flows.progress import Progress
from bperp.flows.root import Root
from bperp.flows.run import run_stack
from bperp.flows.simulation import simulate_stack
from bperp.flows.simulation_options import PRESETS
from bperp.flows.validation import compare_velocity, open_truth
from bperp.pipeline.timeseries import PRODUCT as TIMESERIES
from bperp.stores.cube import CubeStore
from bperp.stores.errors import ConfigurationError
from bperp.stores.objects import local_path


def run_demo(
    out: Path,
    preset: str = "small",
    seed: int = 1,
    progress: Progress | None = None,
    *,
    engine: str = "local",
    workers: int | None = None,
    root: str | None = None,
) -> dict[str, Any]:
    """Simulate, process and validate a stack.

    Parameters
    ----------
    out : Path
        Folder; ``input``, ``stack.yaml``, ``velocity.png`` and ``root`` are made in it. A finished
        simulation and finished steps are kept.
    preset : {"tiny", "small", "psi"}
        Size of the simulated stack.
    seed : int
        Seed of the simulation.
    progress : Progress, optional
        Display.
    engine : {"local", "serial", "prefect"}
        Where the tasks run.
    workers : int, optional
        Number of worker processes.
    root : str, optional
        Folder or URL such as ``s3://bucket/prefix`` for all products instead of ``out/root``;
        credentials and endpoint come from the environment.

    Returns
    -------
    dict
        Paths or URLs ``map``, ``report``, ``stamps``, ``csv``, ``root``, ``truth`` and the
        comparison with the truth.

    Raises
    ------
    ConfigurationError
        C102 unknown preset.
    BperpError
        A root that cannot be reached or whose URL holds credentials, before anything is written.
    """
    if preset not in PRESETS:
        raise ConfigurationError(
            "C102",
            "unknown preset",
            where="--preset",
            expected=", ".join(PRESETS),
            found=preset,
            remedy="choose one of these",
        )
    source = out / "input"
    config = _configuration(out, source, preset, root)
    # Credentials, bucket and endpoint are at fault now or not at all, not after the simulation.
    Root.find(CubeStore(config.root))
    out.mkdir(parents=True, exist_ok=True)
    write_config(config, out / "stack.yaml", overwrite=True)
    started = time.perf_counter()
    if not (source / "truth.zarr").exists():
        options = dataclasses.replace(PRESETS[preset], seed=seed)
        simulate_stack(source, options, StepCounter(progress, "simulate") if progress else None)
    simulated = time.perf_counter()
    summary = run_stack(config, engine=engine, workers=workers, progress=progress)
    picture = out / "velocity.png"
    figures = _compare(Root.open(config.root), source, picture)
    exports = {item["format"]: item["path"] for item in summary["exports"]}
    return {
        "map": str(picture),
        "report": summary["report"],
        "stamps": exports["stamps"],
        "csv": exports["csv"],
        "root": config.root,
        "truth": str(source / "truth.zarr"),
        "configuration": str(out / "stack.yaml"),
        **figures,
        "peak_worker_mb": round(summary["peak_rss_bytes"] / 1e6),
        "simulation_s": round(simulated - started, 1),
        "processing_s": round(time.perf_counter() - simulated, 1),
    }


def _configuration(out: Path, source: Path, preset: str, root: str | None) -> StackConfig:
    """Return the configuration, as ``bperp init`` would write it."""
    place = str((out / "root").resolve()) if root is None else root
    values = {
        "name": f"demo-{preset}",
        "root": place if is_url(place) else str(local_path(place)),
        "slc": [str(source.resolve() / "safe" / "*")],
        "orbits": {"folders": [str(source.resolve() / "orbits")]},
        "dem": {"path": str(source.resolve() / "dem.tif"), "vertical_datum": "ellipsoid"},
        # Twelve dates say little about amplitude and phase: ask for more than the defaults do.
        "amplitude": {"max_amplitude_dispersion": 0.35},
        "scatterers": {"min_phase_stability": 0.9},
        "filter": {"enabled": True},
        "geocode": {"enabled": True},
        "publish": {"enabled": True},
        "export": {"formats": ["stamps", "csv"]},
    }
    return StackConfig.from_values(values)


def _compare(root: Root, source: Path, picture: Path) -> dict[str, Any]:
    """Draw the velocity map next to the truth and return the figures."""
    from bperp.flows.pictures import GriddedMap, picture_velocity_truth

    truth = open_truth(source / "truth.zarr")

    def read(name: str) -> Any:
        return root.source.read(TIMESERIES, name, (slice(None),))

    lon, lat, area = read("longitude"), read("latitude"), read("reference_mask") > 0
    point = (float(lon[area].mean()), float(lat[area].mean()))
    grid = GriddedMap(truth["longitude"].values, truth["latitude"].values,
                      1000 * truth["velocity_los"].values)  # fmt: skip
    zero = float(np.mean(grid.at(lon[area], lat[area])))
    relative = dataclasses.replace(grid, values=grid.values - zero)
    velocity = 1000 * read("velocity_los")
    picture_velocity_truth(picture, lon, lat, velocity, relative, reference_point=point)
    return compare_velocity(root, truth).as_dict()
