"""The tiny self-check chain in place of the processor's, for whole commands in milliseconds.

``install()`` in a process makes ``bperp run stack.yaml`` run the two stages of
``bperp.flows.selfcheck``, or with the variable ``FAULTS`` the one of ``fault_stages``, through the
same engine, executors and console. Options come from the variables ``SELFCHECK`` and ``FAULTS`` as
JSON.
"""

from __future__ import annotations

import json
import os
from typing import Any

from bperp.flows import run as run_module
from bperp.flows import selfcheck
from bperp.flows.config import StackConfig
from bperp.flows.engine import RunSetup, Selection, StageContext
from bperp.flows.progress import Progress
from bperp.stores.cube import CubeStore

MEMORY_BYTES = 1_000_000_000


def install() -> None:
    """Replace the chain in this process."""
    run_module.run_stack = run_stack


def setup(root: str, workers: int | None = None) -> RunSetup:
    """Return the chain for a root with the options of the environment."""
    options: dict[str, Any] = {"selfcheck": {**selfcheck.DEFAULTS, **_options("SELFCHECK")}}
    stages = selfcheck.STAGES
    if "FAULTS" in os.environ:
        import fault_stages

        stages, options = (fault_stages.STAGE,), {"faults": _options("FAULTS")}
    context = StageContext(options=options)
    return RunSetup(stages, context, CubeStore(root), workers, MEMORY_BYTES)


def _options(name: str) -> dict[str, Any]:
    return json.loads(os.environ.get(name, "{}"))


def run_stack(
    config: StackConfig,
    *,
    dry_run: bool = False,
    engine: str = "local",
    workers: int | None = None,
    progress: Progress | None = None,
    **_selection: Any,
) -> dict[str, Any]:
    """Stand in for ``bperp.flows.run.run_stack``."""
    chain = setup(config.root, workers)
    return run_module._run_stages(chain, Selection(), engine, progress, dry_run=dry_run)
