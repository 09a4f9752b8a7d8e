"""SIGKILL at random moments: the client, a worker, or both. Nothing untrue is seen; it resumes.

Each seed chooses what was there before, who dies, and when. ``BPERP_KILL_SEEDS`` sets how many
seeds there are; a seed that fails once fails again only by chance, so run many.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "faults"))

from fork_server import Child, Ended, ForkServer
from moto_endpoint import Endpoint, exported

from bperp.flows.clusters import LocalWorkers
from bperp.flows.engine import SerialExecutor, StageContext, run_stages
from bperp.flows.selfcheck import DEFAULTS, STAGES
from bperp.stores.cube import CubeStore
from bperp.stores.receipts import Receipt
from bperp.stores.verify import verify_store

pytestmark = [pytest.mark.slow, pytest.mark.cluster]

SEEDS = int(os.environ.get("BPERP_KILL_SEEDS", "20"))
REMOTE_SEEDS = max(1, SEEDS // 4)
WORKERS = 2

FIRST, SECOND, THIRD = "2020-01-01", "2020-01-13", "2020-01-25"
AFTER = {
    **DEFAULTS,
    "dates": [FIRST, SECOND, THIRD],
    "lines": 256,
    "samples": 64,
    "chunk": 64,
    "delay_s": 0.01,
}
"""Two steps of twelve tasks."""
CHANGES = {
    "nothing": None,
    "all dates but the last": {"dates": [FIRST, SECOND]},
    "all dates but one in the middle": {"dates": [FIRST, THIRD]},
    "a date too many": {"dates": [FIRST, SECOND, "2020-01-19", THIRD]},
    "other chunks": {"chunk": 32},
}
"""What was run in the same root before."""
VICTIMS = ("client", "worker", "both")

CLIENT = """
import json, os
from bperp.flows.engine import DaskExecutor, StageContext, run_stages
from bperp.flows.selfcheck import STAGES
from bperp.stores.cube import CubeStore

order = json.loads(os.environ["ORDER"])
context = StageContext(options={"selfcheck": order["options"]})
executor = DaskExecutor(address=order["address"])
run_stages(STAGES, context, CubeStore(order["root"]), executor)
"""


@dataclass
class Bench:
    """Everything that the seeds share."""

    forks: ForkServer
    cluster: LocalWorkers
    folder: Path
    clean: dict[int, dict[str, bytes]]
    """State of an undisturbed run, by the number of its lines."""
    seconds: float = 1.0

    def start(self, root: str, lines: int) -> Child:
        """Start a client that runs everything that is missing in a root."""
        options, address = {**AFTER, "lines": lines}, str(self.cluster.endpoint)
        order = {"root": root, "options": options, "address": address}
        return self.forks.start(prepare=CLIENT, environment={"ORDER": json.dumps(order)})


LOCAL_LINES, REMOTE_LINES = 256, 128


@pytest.fixture(scope="module")
def endpoint(moto_url: str) -> Iterator[Endpoint]:
    place = Endpoint(moto_url, "").with_bucket()
    with exported(place.environment):
        yield place


@pytest.fixture(scope="module")
def bench(endpoint: Endpoint, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    # Workers and clients inherit the way to the endpoint, so it comes first.
    folder = tmp_path_factory.mktemp("kills")
    clean = {}
    for lines in (LOCAL_LINES, REMOTE_LINES):
        run(str(folder / f"{lines}"), {"lines": lines})
        clean[lines] = state(str(folder / f"{lines}"))
    with contextlib.ExitStack() as stack:
        cluster = LocalWorkers(WORKERS, 1_000_000_000)
        stack.callback(cluster.close)
        forks = ForkServer()
        stack.callback(forks.close)
        bench = Bench(forks, cluster, folder, clean)
        assert bench.start(str(folder / "warm"), LOCAL_LINES).wait().code == 0
        started = time.monotonic()
        assert bench.start(str(folder / "timed"), LOCAL_LINES).wait().code == 0
        bench.seconds = time.monotonic() - started
        assert state(str(folder / "timed")) == clean[LOCAL_LINES]
        yield bench


def run(root: str, changes: Mapping[str, object]) -> int:
    context = StageContext(options={"selfcheck": {**AFTER, **changes}})
    return run_stages(STAGES, context, CubeStore(root), SerialExecutor()).tasks_run


def state(root: str) -> dict[str, bytes]:
    """Return every object but the logs; of receipts what two runs must agree on."""
    objects = CubeStore(root).objects
    names = [name for name in objects.names("") if not name.startswith("logs/")]
    with ThreadPoolExecutor(8) as pool:
        found = dict(zip(names, pool.map(objects.read, names), strict=True))
    for name in [name for name in found if name.startswith("receipts/")]:
        found[name] = Receipt.from_dict(json.loads(found[name])).outcome()
    return found


def workers() -> list[psutil.Process]:
    """Return the processes that nannies have started; the scheduler is in this process."""
    children = psutil.Process().children()
    return [child for child in children if "spawn_main" in " ".join(child.cmdline())]


def wait_until_whole(bench: Bench) -> None:
    deadline = time.monotonic() + 60
    while not workers() and time.monotonic() < deadline:
        bench.cluster.mend()
        time.sleep(0.05)


def kill(victim: str, child: Child, chance: random.Random) -> None:
    targets = [child.pid] if victim in {"client", "both"} else []
    if victim in {"worker", "both"}:
        targets += [process.pid for process in chance.sample(workers(), 1)]
    chance.shuffle(targets)
    for pid in targets:
        # A worker may be on its way out already.
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def kill_sometime(
    bench: Bench, start: Callable[[], Child], receipts: Callable[[], int], chance: random.Random
) -> tuple[str, Ended]:
    """Run, and kill after a number of receipts or after a time, whichever the chance chose."""
    wait_until_whole(bench)
    victim, there, child = chance.choice(VICTIMS), receipts(), start()
    if chance.random() < 0.5:
        wanted, deadline = there + chance.randrange(1, 20), time.monotonic() + 2 * bench.seconds
        while receipts() < wanted and time.monotonic() < deadline:
            time.sleep(0.003)
    else:
        time.sleep(chance.uniform(0.0, bench.seconds))
    kill(victim, child, chance)
    # The owner of a cluster starts the workers again whose nanny has given up.
    return victim, child.wait(120, meanwhile=bench.cluster.mend)


def judge(root: str, lines: int, clean: dict[str, bytes], victim: str, ended: Ended) -> None:
    """Nothing untrue may be vouched for; the run must resume to the clean state."""
    if victim == "worker":
        assert ended.code == 0, ended.stderr
    else:
        # The client may have finished before the signal came.
        assert ended.code in (0, -signal.SIGKILL), ended.stderr
    assert verify_store(CubeStore(root)).faults == {}
    left = run(root, {"lines": lines})
    assert left == 0 or ended.code != 0
    assert state(root) == clean
    assert verify_store(CubeStore(root)).is_sound


@pytest.mark.parametrize("seed", range(SEEDS))
def test_a_kill_at_a_random_moment_is_survived(bench: Bench, tmp_path: Path, seed: int) -> None:
    chance, root, lines = random.Random(seed), tmp_path / "run", LOCAL_LINES
    before = CHANGES[chance.choice(list(CHANGES))]
    if before is not None:
        run(str(root), {"lines": lines, **before})

    def receipts() -> int:
        return sum(len(files) for _, _, files in os.walk(root / "receipts"))

    victim, ended = kill_sometime(bench, lambda: bench.start(str(root), lines), receipts, chance)
    judge(str(root), lines, bench.clean[lines], victim, ended)


@pytest.mark.parametrize("seed", range(1000, 1000 + REMOTE_SEEDS))
def test_a_kill_is_survived_on_an_object_store(bench: Bench, endpoint: Endpoint, seed: int) -> None:
    chance, root, lines = random.Random(seed), f"{endpoint.root}/{seed}", REMOTE_LINES
    before = CHANGES[chance.choice(list(CHANGES))]
    if before is not None:
        run(root, {"lines": lines, **before})
    objects = CubeStore(root).objects

    def receipts() -> int:
        return len(objects.names("receipts"))

    victim, ended = kill_sometime(bench, lambda: bench.start(root, lines), receipts, chance)
    judge(root, lines, bench.clean[lines], victim, ended)
