"""What the fault tests share: quick processes, a finished root, and how to compare roots."""

from __future__ import annotations

import dataclasses
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))

from fork_server import ForkServer


@pytest.fixture(scope="session")
def forks() -> Iterator[ForkServer]:
    """Processes of bperp that start without importing it."""
    server = ForkServer()
    yield server
    server.close()


@pytest.fixture(scope="session")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SAFE products, orbits and elevations of six dates."""
    from bperp.flows.simulation import simulate_stack
    from bperp.flows.simulation_options import PRESETS

    folder = tmp_path_factory.mktemp("inputs")
    simulate_stack(folder, dataclasses.replace(PRESETS["tiny"], seed=5))
    return folder


@dataclasses.dataclass(frozen=True)
class Stack:
    """A configuration file and its root."""

    config: Path
    root: Path


@pytest.fixture(scope="session")
def finished(inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``root``, run to the end once, and ``stack.yaml``; not to be changed."""
    from bperp.flows.config import write_config
    from bperp.flows.engine import SerialExecutor, run_stages
    from bperp.flows.run import setup_run

    folder = tmp_path_factory.mktemp("finished")
    config = configuration(inputs, folder / "root")
    write_config(config, folder / "stack.yaml")
    setup = setup_run(config)
    run_stages(setup.stages, setup.context, setup.store, SerialExecutor())
    return folder


def configuration(inputs: Path, root: Path):
    """Return the configuration of a stack that runs in one process."""
    from bperp.flows.config import StackConfig

    return StackConfig.from_values(
        {
            "root": str(root),
            "slc": [str(inputs / "safe" / "*.SAFE")],
            "orbits": {"folders": [str(inputs / "orbits")]},
            "dem": {"path": str(inputs / "dem.tif")},
            "scatterers": {"min_phase_stability": 0.9},
            "export": {"formats": []},
            "compute": {"engine": "serial"},
        }
    )


@pytest.fixture
def stack(finished: Path, tmp_path: Path) -> Stack:
    """A copy of the finished root by hard links: replace files, never change them in place."""
    shutil.copytree(finished / "root", tmp_path / "root", copy_function=os.link)
    for name in ("root/stack.json", "stack.yaml"):
        text = (finished / name).read_text().replace(str(finished), str(tmp_path))
        (tmp_path / name).unlink(missing_ok=True)
        (tmp_path / name).write_text(text)
    return Stack(tmp_path / "stack.yaml", tmp_path / "root")


@pytest.fixture
def selfcheck(tmp_path: Path) -> Stack:
    """A configuration for the self-check chain; nothing was run yet."""
    root = tmp_path / "root"
    config = tmp_path / "stack.yaml"
    config.write_text(f"root: {root}\nslc: ['*.zip']\ndem: {{path: dem.tif}}\n")
    return Stack(config, root)
