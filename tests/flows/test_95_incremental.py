"""A stack that grows, shrinks and changes: exactly what depends on a change is computed again."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from bperp.flows.add import add_products
from bperp.flows.config import StackConfig, load_config, write_config
from bperp.flows.engine import RunSummary, Selection, SerialExecutor, run_stages
from bperp.flows.root import Root
from bperp.flows.run import run_stack, setup_run, stack_status
from bperp.flows.simulation import simulate_stack
from bperp.flows.simulation_options import PRESETS
from bperp.pipeline.steps import LAST_STEP_BY_DATE, STAGES
from bperp.stores.cube import CubeStore
from bperp.stores.errors import ConfigurationError, StackError
from bperp.stores.verify import verify_store

pytestmark = pytest.mark.slow

NAMES = [stage.name for stage in STAGES]
BY_DATE = NAMES[: NAMES.index(LAST_STEP_BY_DATE) + 1]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SAFE products, orbits and elevations of six dates."""
    folder = tmp_path_factory.mktemp("inputs")
    simulate_stack(folder, dataclasses.replace(PRESETS["tiny"], seed=8))
    return folder


@pytest.fixture(scope="module")
def products(inputs: Path) -> list[Path]:
    """Products in the order of their dates."""
    return sorted((inputs / "safe").iterdir(), key=lambda path: path.name.split("_")[5])


def configuration(inputs: Path, root: Path, slc: list[Path], **changes: Any) -> StackConfig:
    values = {
        "root": str(root),
        "slc": [str(path) for path in slc],
        "orbits": {"folders": [str(inputs / "orbits")]},
        "dem": {"path": str(inputs / "dem.tif")},
        "interferogram": {"network": "nearest", "neighbours": 2, "looks": [4, 16]},
        "filter": {"enabled": True},
        "geocode": {"enabled": True},
    }
    return StackConfig.from_values(values | changes)


def run(config: StackConfig, *, last: str = LAST_STEP_BY_DATE, **changes: Any) -> dict[str, Any]:
    return run_stack(config, last=last, engine="serial", **changes)


def ran(summary: dict[str, Any]) -> dict[str, int]:
    return {stage["name"]: stage["run"] for stage in summary["stages"] if stage["run"]}


def planned(summary: dict[str, Any]) -> dict[str, set[str]]:
    found = {stage["name"]: set(stage["reasons"]) for stage in summary["stages"]}
    return {name: keys for name, keys in found.items() if keys}


def markers(root: str, names: list[str] = BY_DATE) -> dict[str, bytes]:
    return {name: Path(root, "markers", f"{name}.json").read_bytes() for name in names}


def receipts(root: str) -> dict[str, bytes]:
    return {
        str(path.relative_to(root)): path.read_bytes()
        for name in NAMES
        for path in Path(root, "receipts", name).rglob("*.json")
    }


@pytest.fixture(scope="module")
def whole(inputs: Path, products: list[Path], tmp_path_factory: pytest.TempPathFactory) -> str:
    """All six dates at once, with the reference date that five of them give."""
    config = configuration(inputs, tmp_path_factory.mktemp("whole") / "root", products)
    run(config.model_copy(update={"reference_date": reference(inputs, products[:5])}))
    return config.root


def reference(inputs: Path, slc: list[Path]) -> str:
    from bperp.flows.stack_index import index_stack

    return index_stack(configuration(inputs, inputs / "none", slc)).stack.reference_date


@pytest.fixture
def five(
    inputs: Path, products: list[Path], tmp_path: Path, made_of_five: Path
) -> tuple[Path, StackConfig]:
    """A copy of a root of five dates, and its configuration file."""
    shutil.copytree(made_of_five, tmp_path / "root")
    config = configuration(inputs, tmp_path / "root", products[:5])
    write_config(config, tmp_path / "stack.yaml")
    return tmp_path / "stack.yaml", config


@pytest.fixture(scope="module")
def made_of_five(
    inputs: Path, products: list[Path], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    root = tmp_path_factory.mktemp("five") / "root"
    run_stack(configuration(inputs, root, products[:5]), last="timeseries", engine="serial")
    return root


def test_an_added_date_gives_the_bytes_of_a_whole_run(
    five: tuple[Path, StackConfig], products: list[Path], whole: str
) -> None:
    path, config = five
    old, before = receipts(config.root), stack_status(config.root)
    dry = add_products(path, [str(products[5])], dry_run=True, engine="serial")
    assert load_config(path) == config
    assert receipts(config.root) == old
    summary = add_products(path, [str(products[5])], engine="serial")
    (date,) = summary["added"]
    assert dry["added"] == [date]
    assert planned(dry) == planned(summary)
    assert all(date in key for keys in planned(summary).values() for key in keys)
    assert summary["old_dates_recomputed"] == dry["old_dates_recomputed"] == 0
    # Receipts of old dates, and with them the digests of their blocks, are the same files.
    assert old.items() <= receipts(config.root).items()
    assert markers(config.root) == markers(whole)
    assert stack_status(config.root)["reference_date"] == before["reference_date"]
    # Steps over all dates keep what they have, and say so.
    assert summary["behind"] == ["amplitude", "scatterers", "timeseries"]
    steps = stack_status(config.root)["steps"]
    assert {name for name, step in steps.items() if step["behind"]} == set(summary["behind"])
    assert steps["timeseries"]["finished"]
    assert str(products[5]) in load_config(path).slc
    assert verify_store(CubeStore(config.root)).faults == {}


def test_adding_twice_does_nothing(five: tuple[Path, StackConfig], products: list[Path]) -> None:
    path, config = five
    text = path.read_text()
    summary = add_products(path, [str(products[3])], engine="serial")
    assert (summary["added"], ran(summary)) == ([], {})
    assert path.read_text() == text
    assert load_config(path) == config


def test_a_date_in_the_middle_moves_the_others(
    inputs: Path, products: list[Path], tmp_path: Path, whole: str
) -> None:
    config = configuration(inputs, tmp_path / "root", [*products[:4], products[5]])
    config = config.model_copy(update={"reference_date": reference(inputs, products[:5])})
    run(config)
    write_config(config, tmp_path / "stack.yaml")
    summary = add_products(tmp_path / "stack.yaml", [str(products[4])], engine="serial")
    # What uses the date between was measured against others before: the last date changes too,
    # but its pixels and those of all others are not read again.
    assert ran(summary)["ingest"] == 2
    moved = {stage["name"]: stage["moved"] for stage in summary["stages"]}
    assert moved["ingest"] == 2
    assert markers(config.root) == markers(whole)
    assert verify_store(CubeStore(config.root)).faults == {}


def test_a_removed_date_takes_only_what_was_made_with_it(
    five: tuple[Path, StackConfig], inputs: Path, products: list[Path]
) -> None:
    _, config = five
    date = Root.open(config.root).stack.dates[4]
    summary = run(config.model_copy(update={"slc": config.slc[:4]}))
    assert ran(summary) == {}
    assert stack_status(config.root)["dates"][-1] < date
    fresh = configuration(inputs, Path(config.root).parent / "fresh", products[:4])
    kept = Root.open(config.root).stack.reference_date
    run(fresh.model_copy(update={"reference_date": kept}))
    assert markers(config.root) == markers(fresh.root)


def test_products_that_move_are_the_same_products(
    five: tuple[Path, StackConfig], inputs: Path, products: list[Path], tmp_path: Path
) -> None:
    _, config = five
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(inputs, elsewhere)
    moved = configuration(
        elsewhere, Path(config.root), [elsewhere / "safe" / path.name for path in products[:5]]
    )
    assert ran(run(moved, last="timeseries")) == {}


def test_other_heights_under_the_same_name_are_noticed(
    five: tuple[Path, StackConfig], inputs: Path, tmp_path: Path
) -> None:
    _, config = five
    dem = tmp_path / "dem.tif"
    shutil.copy(inputs / "dem.tif", dem)
    changed = config.model_copy(update={"dem": config.dem.model_copy(update={"path": str(dem)})})
    assert planned(run(changed, dry_run=True)) == {}
    data = bytearray(dem.read_bytes())
    data[len(data) // 2] ^= 1
    dem.write_bytes(bytes(data))
    assert "geometry" in planned(run(changed, dry_run=True))
    assert "ingest" not in planned(run(changed, dry_run=True))


def test_a_better_orbit_changes_its_date_and_what_is_measured_against_it(
    inputs: Path, products: list[Path], tmp_path: Path
) -> None:
    orbits = tmp_path / "orbits"
    shutil.copytree(inputs / "orbits", orbits)
    dates = [path.name.split("_")[5][:8] for path in products[:5]]
    (precise,) = orbits.glob(f"*_V{dates[4]}T*.EOF")
    hidden = tmp_path / precise.name
    precise.rename(hidden)
    restituted = orbits / precise.name.replace("AUX_POEORB", "AUX_RESORB")
    restituted.write_text(hidden.read_text().replace("AUX_POEORB", "AUX_RESORB"))
    config = configuration(
        inputs,
        tmp_path / "root",
        products[:5],
        orbits={"folders": [str(orbits)]},
        reference_date=_iso(dates[2]),
    )
    run(config)
    flags = stack_status(config.root)["flags"]
    assert flags == {_iso(dates[4]): ["orbit-restituted"]}
    hidden.rename(precise)
    summary = run(config, dry_run=True)
    keys = {key for found in planned(summary).values() for key in found}
    # The date is the last one: nothing was measured against it.
    assert keys
    assert all(_iso(dates[4]) in key for key in keys)
    assert "ingest" not in planned(summary)
    run(config)
    assert stack_status(config.root)["flags"] == {}


def _iso(day: str) -> str:
    return f"{day[:4]}-{day[4:6]}-{day[6:]}"


def test_changed_options_stop_an_addition(
    five: tuple[Path, StackConfig], products: list[Path]
) -> None:
    path, config = five
    changed = config.model_copy(
        update={"coregister": config.coregister.model_copy(update={"range_taps": 8})}
    )
    write_config(changed, path, overwrite=True)
    with pytest.raises(ConfigurationError, match=r"C105.*coregister.range_taps: 'auto' -> 8"):
        add_products(path, [str(products[5])], engine="serial")
    assert load_config(path) == changed


def test_a_product_of_another_track_is_refused_before_anything_changes(
    five: tuple[Path, StackConfig], products: list[Path], tmp_path: Path
) -> None:
    path, _ = five
    strange = tmp_path / products[5].name
    shutil.copytree(products[5], strange)
    manifest = strange / "manifest.safe"
    text = manifest.read_text()
    assert "<s1:pass>DESCENDING" in text
    manifest.write_text(text.replace("<s1:pass>DESCENDING", "<s1:pass>ASCENDING"))
    before = path.read_text()
    with pytest.raises(StackError, match="S403"):
        add_products(path, [str(strange)], engine="serial")
    assert path.read_text() == before


def test_a_further_date_costs_a_thirtieth(tmp_path: Path) -> None:
    """One date on top of 30: tasks and core-seconds below 5 % of those of the 30."""
    options = dataclasses.replace(
        PRESETS["tiny"], seed=9, date_count=31, lines_per_burst=300, samples=320
    )
    simulate_stack(tmp_path / "inputs", options)
    slc = sorted((tmp_path / "inputs" / "safe").iterdir(), key=lambda p: p.name.split("_")[5])
    config = configuration(tmp_path / "inputs", tmp_path / "root", slc[:30])
    batch = compute(config)
    old = receipts(config.root)
    costs = []
    for number in range(3):
        shutil.copytree(tmp_path / "root", tmp_path / f"root-{number}")
        more = configuration(tmp_path / "inputs", tmp_path / f"root-{number}", slc)
        added = compute(more)
        now = receipts(more.root)
        assert old.items() <= now.items()
        costs.append(sum(json.loads(now[path])["cpu_seconds"] for path in now.keys() - old.keys()))
    tasks = added.tasks_run / batch.tasks_run
    # The least of three: whatever else the machine does only adds.
    seconds = min(costs) / sum(json.loads(text)["cpu_seconds"] for text in old.values())
    print(
        f"\nadding one date to 30: {added.tasks_run} of {batch.tasks_run} tasks "
        f"({100 * tasks:.2f} %), {100 * seconds:.2f} % of the core-seconds"
    )
    assert tasks < 0.05
    assert seconds < 0.05


def compute(config: StackConfig) -> RunSummary:
    """Run the steps that work date by date, without pictures and report."""
    setup = setup_run(config)
    selection = Selection(last=LAST_STEP_BY_DATE)
    return run_stages(
        setup.stages, setup.context, setup.store, SerialExecutor(), selection=selection
    )
