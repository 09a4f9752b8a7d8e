"""Program that test_54_prefect.py runs: everything through one real Prefect server.

Usage: ``prefect_program.py FOLDER``. Prints one JSON document.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from bperp.flows import run as run_module
from bperp.flows.prefect_flow import prefect_api, run_with_prefect, stack_flow

sys.path.insert(0, str(Path(__file__).parent))
import fault_stages
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import DeploymentScheduleCreate
from prefect.client.schemas.filters import FlowRunFilter
from prefect.client.schemas.schedules import IntervalSchedule
from prefect.flows import load_flow_from_entrypoint

from bperp.flows.engine import RunSetup, StageContext
from bperp.flows.selfcheck import DEFAULTS, STAGES
from bperp.stores.cube import CubeStore
from bperp.stores.errors import BperpError

MEMORY = 1_000_000_000


def selfcheck_setup(config: str) -> RunSetup:
    context = StageContext(options={"selfcheck": DEFAULTS})
    return RunSetup(STAGES, context, CubeStore(config), 2, MEMORY)


def fault_setup(folder: str) -> RunSetup:
    options = {"keys": ["a1", "b1"], "fault": {"b1": "data"}}
    context = StageContext(options={"faults": options})
    return RunSetup((fault_stages.STAGE,), context, CubeStore(folder), 1, MEMORY)


def fault(function) -> str:
    try:
        function()
    except BperpError as error:
        return error.code
    return "no fault"


def scheduled_runs() -> int:
    """Deploy the flow with a schedule and wait until the server has made runs of it."""
    with get_client(sync_client=True) as client:
        deployment = client.create_deployment(
            flow_id=client.create_flow(stack_flow),
            name="nightly",
            schedules=[DeploymentScheduleCreate(schedule=IntervalSchedule(interval=3600))],
            parameters={"config": "stack.yaml"},
            entrypoint="bperp.flows.prefect_flow:stack_flow",
        )
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            where = FlowRunFilter(deployment_id={"any_": [deployment]})
            runs = client.read_flow_runs(flow_run_filter=where)
            if runs:
                return len(runs)
            time.sleep(0.5)
    return 0


def task_runs() -> list[str]:
    with get_client(sync_client=True) as client:
        return sorted(run.name for run in client.read_task_runs())


def main() -> None:
    folder = Path(sys.argv[1])
    run_module.prepare = selfcheck_setup
    found = {}
    with prefect_api():
        first = stack_flow(str(folder / "flow"), progress="none")
        found["first"], found["names"] = first["tasks_run"], task_runs()
        found["second"] = stack_flow(str(folder / "flow"), progress="none")["tasks_run"]
        found["direct"] = run_with_prefect(selfcheck_setup(str(folder / "direct"))).tasks_run
        found["step"] = fault(lambda: stack_flow(str(folder / "flow"), first="sumo"))
        found["data"] = fault(lambda: run_with_prefect(fault_setup(str(folder / "fault"))))
        found["scheduled"] = scheduled_runs()
        loaded = load_flow_from_entrypoint("bperp.flows.prefect_flow:stack_flow")
        found["entrypoint"] = loaded.name
    print(json.dumps(found))


if __name__ == "__main__":
    main()
