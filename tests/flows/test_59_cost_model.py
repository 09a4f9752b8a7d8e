"""The cost model beside real runs: what it counts is what lies in the store afterwards."""

from __future__ import annotations

import json
import os
import re
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from typer.testing import CliRunner

from bperp.flows import cost_report
from bperp.flows.cli import app
from bperp.flows.config import STEPS, StackConfig
from bperp.flows.console import Console
from bperp.flows.cost_loads import StageLoad, count_loads
from bperp.flows.cost_model import Terms, estimate_cost, extent_of
from bperp.flows.cost_plan import Assumptions
from bperp.flows.cost_reads import READERS
from bperp.flows.cost_report import show_cost
from bperp.flows.cost_stack import ImaginedStack, imagine_stack
from bperp.flows.engine import RunSetup, RunSite, SerialExecutor, TaskOrder, TaskResult, run_stages
from bperp.flows.run import setup_run
from bperp.flows.simulation import SimulationOptions, simulate_stack
from bperp.pipeline.steps import STAGES
from bperp.stores import strict
from bperp.stores.errors import ConfigurationError

CHUNK_KEY = re.compile(r"^(?P<product>.+)/(?P<variable>[^/]+)/c(/\d+)*$")
COORDINATES = {"date", "reference_date", "secondary_date"}
ROOT_OBJECTS = 2  # stack.json and the log of the run


def part_of_frame(dates: int) -> dict[str, StageLoad]:
    stack = imagine_stack(ImaginedStack(dates=dates, bursts_per_swath=2))
    config = StackConfig.from_values({"root": "-", "slc": ["-"], "dem": {"path": "-"}})
    options = {step: config.step_options(step) for step in STEPS}
    return {load.stage: load for load in count_loads(STAGES, stack, options, Assumptions())}


@pytest.fixture(scope="module")
def part() -> dict[str, StageLoad]:
    return part_of_frame(6)


def small_stack(source: Path, root: str, **sections: Any) -> StackConfig:
    return StackConfig.from_values(
        {
            "root": root,
            "slc": [str(source / "safe" / "*.SAFE")],
            "orbits": {"folders": [str(source / "orbits")]},
            "dem": {"path": str(source / "dem.tif"), "vertical_datum": "ellipsoid"},
            # Three dates tell little about stability; a few scatterers are enough.
            "amplitude": {"max_amplitude_dispersion": 0.03},
            "scatterers": {"min_phase_stability": 0.9, "max_percent_random": 100.0},
            **sections,
        }
    )


def planned_loads(setup: RunSetup) -> dict[str, StageLoad]:
    context = setup.context
    loads = count_loads(STAGES, context.stack, context.options, Assumptions())
    return {load.stage: load for load in loads}


class Finished(NamedTuple):
    """A real run with everything switched on, and what was counted while it ran."""

    root: Path
    loads: dict[str, StageLoad]
    reads: Counter[tuple[str, str]]
    """Stage, and whether it read what it writes itself (to compare) or an input."""
    core_s: dict[str, float]


class Watched(SerialExecutor):
    """Tells which stage is at work, and takes its processor time."""

    def __init__(self) -> None:
        super().__init__()
        self.stage = ""
        self.core_s: Counter[str] = Counter()

    def run(self, site: RunSite, orders: Sequence[TaskOrder]) -> Iterator[TaskResult]:
        self.stage = orders[0].stage if orders else ""
        started = time.process_time()
        yield from super().run(site, orders)
        self.core_s[self.stage] += time.process_time() - started
        self.stage = ""


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Finished]:
    folder = tmp_path_factory.mktemp("cost")
    wanted = SimulationOptions(
        seed=3, date_count=3, swaths=("IW1", "IW2"), bursts_per_swath=2,
        lines_per_burst=640, samples=2300, repeat_days=36,
    )  # fmt: skip
    simulate_stack(folder, wanted)
    everything = {step: {"enabled": True} for step in ("filter", "geocode", "publish")}
    setup = setup_run(small_stack(folder, str(folder / "root"), **everything))
    executor, reads = Watched(), Counter[tuple[str, str]]()
    original = strict.StrictStore.get

    async def counted(self: Any, key: str, *rest: Any) -> Any:
        found = CHUNK_KEY.match(key)
        if executor.stage and found and found["variable"] not in COORDINATES:
            reads[executor.stage, found["product"]] += 1
        return await original(self, key, *rest)

    loads = planned_loads(setup)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(strict.StrictStore, "get", counted)
        run_stages(setup.stages, setup.context, setup.store, executor)
    return Finished(folder / "root", loads, reads, dict(executor.core_s))


def files_below(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


@pytest.mark.slow
def test_tasks_and_objects_are_those_of_a_real_run(finished: Finished) -> None:
    for name, load in finished.loads.items():
        receipts = files_below(finished.root / "receipts" / name)
        assert len(receipts) == load.tasks, name
        assert load.tasks > 0, f"{name} was to take part"
    expected = sum(load.objects for load in finished.loads.values()) + ROOT_OBJECTS
    assert len(files_below(finished.root)) == expected


@pytest.mark.slow
def test_chunks_read_are_those_of_a_real_run(finished: Finished) -> None:
    found: Counter[str] = Counter()
    for (stage, product), count in finished.reads.items():
        # What a stage reads of its own products is the comparison after writing.
        markers = json.loads((finished.root / "markers" / f"{stage}.json").read_text())
        if product not in markers["products"]:
            found[stage] += count
    expected = {name: load.reads for name, load in finished.loads.items() if load.reads}
    exact = set(expected) - {"geocode", "publish"}
    assert {name: found[name] for name in exact} == {name: expected[name] for name in exact}
    # Where map cells lie in the radar image is not planned.
    for name in ("geocode", "publish"):
        assert found[name] == pytest.approx(expected[name], rel=0.3), name


@pytest.mark.slow
def test_bytes_are_close_to_those_of_a_real_run(finished: Finished) -> None:
    stored = sum(path.stat().st_size for path in files_below(finished.root))
    parts = [
        load.data_bytes + load.metadata_bytes + load.receipt_bytes
        for load in finished.loads.values()
    ]
    assert sum(parts) == pytest.approx(stored, rel=0.25)
    receipts = sum(path.stat().st_size for path in files_below(finished.root / "receipts"))
    assert sum(load.receipt_bytes for load in finished.loads.values()) == pytest.approx(
        receipts, rel=0.25
    )
    metadata = [p for p in files_below(finished.root) if p.name == "zarr.json"]
    known = sum(load.metadata_bytes for load in finished.loads.values())
    assert known == pytest.approx(sum(p.stat().st_size for p in metadata), rel=0.05)


@pytest.mark.slow
def test_core_seconds_are_within_a_factor_of_three(finished: Finished) -> None:
    # One-off costs (imports, compiled code from disk) weigh on a small stack.
    predicted = sum(load.core_s for load in finished.loads.values())
    assert 1 / 3 < sum(finished.core_s.values()) / predicted < 3, finished.core_s


@pytest.mark.slow
def test_requests_are_those_of_an_object_store(tmp_path: Path, moto_url: str) -> None:
    from fault_proxy import fault_proxy
    from moto_endpoint import Endpoint, exported

    simulate_stack(tmp_path, SimulationOptions(seed=5, date_count=3))
    bucket = Endpoint(moto_url, "").with_bucket()
    with fault_proxy(moto_url) as proxy, exported(bucket.through(proxy.url).environment):
        setup = setup_run(small_stack(tmp_path, f"{bucket.root}/stack"))
        run_stages(setup.stages, setup.context, setup.store, SerialExecutor())
        methods = Counter(method for method, _, status in proxy.requests if status != 412)
    terms = Terms().changed({"workers": 1})
    cost = estimate_cost(list(planned_loads(setup).values()), extent_of("frame", None), terms)
    # Besides the stages: the record of the stack, the log, the lock, and the probe of the store.
    assert cost.total("puts") == pytest.approx(methods["PUT"], rel=0.05)
    assert cost.total("gets") == pytest.approx(methods["GET"], rel=0.15)


def test_full_bursts_have_the_tasks_and_chunks_of_their_size(part: dict[str, StageLoad]) -> None:
    # Three swaths of two bursts; 512 x 2048 pixels in a chunk, 1507 to 1524 lines per burst.
    chunks = sum(2 * 3 * -(-samples // 2048) for samples in (23055, 26818, 25769))
    assert part["ingest"].tasks == part["coregister"].tasks == 6 * 6
    assert part["ingest"].data_objects == part["coregister"].data_objects == 6 * chunks
    assert part["geometry"].data_objects == 9 * chunks  # six images and three components
    assert part["ingest"].raw_bytes == pytest.approx(4 * part["ingest"].pixels, rel=0.1)
    assert part["filter"].tasks == part["geocode"].tasks == 0


def test_loads_grow_with_dates_as_the_work_does(part: dict[str, StageLoad]) -> None:
    twice = part_of_frame(12)
    for name in ("ingest", "coregister", "amplitude", "scatterers"):
        assert twice[name].pixels == 2 * part[name].pixels
    assert twice["geometry"] == part["geometry"]
    assert twice["interferogram"].pixels / part["interferogram"].pixels == pytest.approx(
        (11 + 1) / (5 + 1)
    )
    # What a task reads must not grow with the number of dates but by these dates.
    for name in ("coregister", "interferogram", "scatterers"):
        assert twice[name].reads / part[name].reads < 2.4, name


def test_every_stage_has_a_rule_for_what_it_reads() -> None:
    assert set(READERS) == {stage.name for stage in STAGES}


def test_an_imagined_stack_looks_like_a_real_frame() -> None:
    stack = imagine_stack(ImaginedStack(dates=3))
    assert len(stack.burst_ids) == 27
    assert all(re.fullmatch(r"t\d{3}_\d{6}_iw[123]", burst) for burst in stack.burst_ids)
    # Some hundred lines are shared by neighbours of a swath, nine bursts make 170 km.
    heights = [o.rectangle[1] - o.rectangle[0] for o in stack.overlaps()]
    assert len(heights) == 24
    assert all(100 < height < 200 for height in heights)
    line_m = 13.9
    assert 160e3 < stack.scene.lines * line_m < 190e3


def test_prices_and_assumptions_can_be_set(part: dict[str, StageLoad]) -> None:
    loads, extent = list(part.values()), extent_of("frame", 10.0)
    plain = estimate_cost(loads, extent, Terms())
    dear = estimate_cost(loads, extent, Terms().changed({"get_1000": 0.004, "months": 2}))
    assert dear.dollars()["gets"] == pytest.approx(10 * plain.dollars()["gets"])
    assert dear.dollars()["storage"] == pytest.approx(2 * plain.dollars()["storage"])
    assert plain.total("tasks") == 10 * sum(load.tasks for load in loads)
    with pytest.raises(ConfigurationError, match=r"C102 .*storage_gb_month"):
        Terms().changed({"gold": 1.0})


def test_what_limits_is_said(part: dict[str, StageLoad]) -> None:
    loads, extent = [part["coregister"]], extent_of("frame", None)

    def limit(**settings: float) -> str:
        return estimate_cost(loads, extent, Terms().changed(settings)).stages[0].limit

    assert limit(network_mb_s=1.0) == "network"
    assert limit(network_mb_s=1e6, request_s=0.0) == "cores"
    assert limit(network_mb_s=1e6, request_s=5.0) == "requests"
    assert limit(workers=100_000) in ("one task", "scheduler", "requests per prefix")
    assert limit(workers=100_000, order_ms=1e4) == "scheduler"
    assert limit(workers=100_000, order_ms=0.0, puts_per_s=1.0) == "requests per prefix"


def test_europe_is_some_hundred_frames() -> None:
    assert extent_of("frame", None).frames == 1
    assert 10 < extent_of("country", None).frames < 40
    assert 200 < extent_of("europe", None).frames < 400
    assert extent_of("europe", 7.0).frames == 7


def test_the_verb_estimates_a_preset(monkeypatch: pytest.MonkeyPatch) -> None:
    small = partial(replace, bursts_per_swath=2)
    monkeypatch.setattr(cost_report, "imagine_stack", lambda wanted: imagine_stack(small(wanted)))
    arguments = ["cost", "--dates", "2", "--preset", "europe", "--set", "core_hour=1", "--json"]
    found = CliRunner().invoke(app, arguments)
    assert found.exit_code == 0, found.output
    document = json.loads(found.stdout)
    frames, stages = document["extent"]["frames"], document["stages_of_a_frame"]
    assert frames > 200
    total = document["total"]
    assert total["tasks"] == round(frames * sum(stage["tasks"] for stage in stages))
    workers = document["terms"]["machine"]["workers"]
    assert total["dollars"]["workers"] == pytest.approx(total["wall_hours"] * workers)
    assert "timeseries" in document["too_large"]


def test_people_get_a_table(part: dict[str, StageLoad], capsys: Any) -> None:
    cost = estimate_cost(list(part.values()), extent_of("frame", None), Terms())
    show_cost(Console("cost"), cost)
    shown = capsys.readouterr().out
    assert re.search(r"coregister +36 ", shown)
    assert re.search(r"dollars: total +\d", shown)
    assert "filter" not in shown, "steps that are off are left out"


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--preset", "moon"], "europe"),
        (["--set", "core_hour=cheap"], "name=number"),
        (["--set", "gold=1"], "core_hour"),
        (["stack.yaml", "--dates", "5"], "configuration file"),
    ],
)
def test_the_verb_refuses_what_it_cannot_estimate(arguments: list[str], named: str) -> None:
    refused = CliRunner().invoke(app, ["cost", *arguments])
    assert refused.exit_code == 2
    assert named in refused.output


@pytest.fixture
def benchmarks() -> Iterator[None]:
    """Make the stub stages importable, here and in workers, which inherit ``sys.path``."""
    folder = str(Path(__file__).resolve().parents[1] / "benchmarks")
    sys.path.insert(0, folder)
    yield
    sys.path.remove(folder)


@pytest.mark.slow
@pytest.mark.cluster
@pytest.mark.usefixtures("benchmarks")
def test_client_and_scheduler_take_at_most_five_milliseconds_per_task(tmp_path: Path) -> None:
    from stub_run import run_stub
    from stub_stages import StubOptions

    alone = run_stub(tmp_path / "alone", StubOptions(tasks=750))
    assert (alone.tasks, alone.wrong) == (1500, 0)
    assert alone.client_cpu_ms <= 5.0, alone
    # The client keeps an order, a result line in the log, and what Dask remembers of a task.
    assert alone.client_growth_bytes / alone.tasks < 20_000, alone
    assert alone.again_s < 0.2 * alone.wall_s, alone
    grouped = run_stub(tmp_path / "grouped", StubOptions(tasks=750, group=30))
    assert (grouped.tasks, grouped.wrong) == (1500, 0)
    assert grouped.client_cpu_ms < 0.5 * alone.client_cpu_ms, grouped


def idle_cores(seconds: float = 1.0) -> float:
    """Return how many of this machine's cores nobody uses, over some time."""

    def ticks() -> tuple[int, int]:
        fields = [int(n) for n in Path("/proc/stat").read_text().splitlines()[0].split()[1:]]
        return sum(fields[3:5]), sum(fields)

    idle, total = ticks()
    time.sleep(seconds)
    later = ticks()
    return (os.cpu_count() or 1) * (later[0] - idle) / max(1, later[1] - total)


@pytest.mark.benchmark  # virtual cores that share one real core give less, however idle they look
@pytest.mark.cluster
@pytest.mark.skipif(not Path("/proc/stat").exists(), reason="tells idle cores on Linux only")
@pytest.mark.usefixtures("benchmarks")
def test_two_workers_take_little_more_than_half_the_time(tmp_path: Path) -> None:
    from stub_run import OpenExecutor, run_stub_stages
    from stub_stages import StubOptions

    before = idle_cores()
    if before < 1.8:
        pytest.skip(f"needs two idle cores, {before:.1f} are: load {os.getloadavg()[0]:.1f}")
    executors = {workers: OpenExecutor(workers, 1_000_000_000) for workers in (1, 2)}
    walls: dict[int, list[float]] = {1: [], 2: []}
    try:
        for trial in range(4):
            for workers in (1, 2) if trial % 2 else (2, 1):
                root = tmp_path / f"{trial}-{workers}"
                begin = time.perf_counter()
                run_stub_stages(root, executors[workers], StubOptions(tasks=40, work=120))
                walls[workers].append(time.perf_counter() - begin)
    finally:
        for executor in executors.values():
            executor.end()
    # The first trial starts the workers.
    ratio = min(walls[1][1:]) / min(walls[2][1:])
    after = idle_cores()
    if ratio < 1.7 and after < 1.8:
        pytest.skip(f"others took the cores meanwhile: {after:.1f} are idle, ratio {ratio:.2f}")
    assert ratio >= 1.7, walls
