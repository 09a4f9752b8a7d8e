"""A run from its configuration: index the products, run the stages, export, draw, report."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bperp.flows.config import STEPS, StackConfig, load_config
from bperp.flows.engine import (
    ElevationSettings,
    Executor,
    RunSetup,
    RunSummary,
    Selection,
    SerialExecutor,
    StageContext,
    plan_stage,
    run_stages,
)
from bperp.flows.planning import UpstreamPendingError
from bperp.flows.progress import NullProgress, Progress
from bperp.flows.root import ROOT_FILE, Root, write_root_record
from bperp.flows.stack_index import index_stack
from bperp.pipeline.steps import STAGES
from bperp.stores.cube import CubeStore
from bperp.stores.errors import ConfigurationError
from bperp.stores.receipts import Ledger

__all__ = ["prepare", "run_stack", "setup_run", "stack_status"]

OPTION_STEPS = ("geometry", "alignment", "coregister", "interferogram", "amplitude", "scatterers",
                "timeseries")  # fmt: skip


def prepare(config_path: str) -> RunSetup:
    """Read ``stack.yaml``, index its products and return what the engine needs.

    Raises
    ------
    BperpError
        Faults of configuration, products and orbits.
    """
    return setup_run(load_config(Path(config_path)))


def setup_run(config: StackConfig, workers: int | None = None) -> RunSetup:
    """Index the products of a configuration; ``workers`` overrides ``compute.workers``."""
    index = index_stack(config)
    store = CubeStore(config.root)
    dem = config.dem
    elevation = ElevationSettings(dem.path, dem.vertical_datum, dem.geoid)
    context = StageContext(index.stack, step_options(config), elevation)
    write_root_record(store, config, index)
    number = workers or (None if config.compute.workers == "auto" else config.compute.workers)
    limit = config.compute.memory_per_worker_bytes
    return RunSetup(STAGES, context, store, number, limit)


def step_options(config: StackConfig) -> dict[str, dict[str, Any]]:
    """Return the options that each step's numbers depend on, as JSON values."""
    return {step: config.step_options(step) for step in OPTION_STEPS}
