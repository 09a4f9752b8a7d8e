"""Killed writes, lost and damaged objects: refused, named, repaired to the same bytes."""

from __future__ import annotations

import re
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
from fault_registry import fault
from root_state import flipped, replace, root_state

import bperp
from bperp.stores.cube import CubeStore
from bperp.stores.errors import StorageError

CHAIN = "import selfcheck_chain; selfcheck_chain.install()\n"
NO_PICTURES = "from bperp.flows import run; run.write_pictures_and_report = lambda *_: {}\n"
KILL = """
import os, signal, sys
seen = 0
def watch(event, arguments):
    global seen
    if event == "os.rename" and "/c/" in str(arguments[1]):
        seen += 1
        if seen == {count}:
            os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(watch)
"""
"""Ends a process when it is about to give a chunk its name: half of the tile is written."""


@pytest.fixture(scope="module")
def clean(forks, tmp_path_factory) -> dict[str, bytes]:
    """What an undisturbed run of the self-check chain leaves."""
    folder = tmp_path_factory.mktemp("clean")
    config = folder / "stack.yaml"
    config.write_text(f"root: {folder}/root\nslc: ['*.zip']\ndem: {{path: dem.tif}}\n")
    assert forks.run("run", config, "--engine", "serial", prepare=CHAIN).code == 0
    return root_state(folder / "root")


def run(forks, stack, prepare: str = "", *options: str):
    return forks.run("run", stack.config, "--engine", "serial", *options, prepare=CHAIN + prepare)


@fault("G01", level="P")
@pytest.mark.parametrize("count", [7, 23, 42])
def test_a_run_killed_while_it_writes_is_incomplete_and_resumes(forks, selfcheck, clean, count):
    assert run(forks, selfcheck, KILL.format(count=count)).code == -signal.SIGKILL
    before = root_state(selfcheck.root)
    with pytest.raises(StorageError, match=r"R801 selfcheck/sum"):
        CubeStore(str(selfcheck.root)).open_dataset("selfcheck/sum")
    document = run(forks, selfcheck, "", "--json").document
    assert 0 < document["tasks_run"] < 12
    after = root_state(selfcheck.root)
    assert after == clean
    kept = [name for name in before if name.startswith("receipts/")]
    assert len(kept) == 12 - document["tasks_run"], "what has a receipt is not computed again"


def damage_delete(path: Path) -> None:
    path.unlink()


def damage_truncate(path: Path) -> None:
    replace(path, path.read_bytes()[:-100])


def damage_empty(path: Path) -> None:
    replace(path, b"")


def damage_flip(path: Path) -> None:
    replace(path, flipped(path.read_bytes()))


def expect_damage_and_repair(forks, stack, damage, code: str) -> None:
    """Damage one chunk: see it named, refused and repaired alone."""
    state = root_state(stack.root)
    product = sorted((stack.root / "bursts").iterdir())[0] / "coregistered"
    chunk = product / "slc/c/2/0/0/0"
    name = str(chunk.relative_to(stack.root))
    damage(chunk)
    wreck = root_state(stack.root)

    found = forks.run("verify", stack.root, "--json")
    assert found.code == 4
    (seen,) = found.document["faults"]
    assert (seen["object"], seen["code"]) == (name, code)
    assert root_state(stack.root) == wreck, "verification changes nothing"
    assert name in forks.run("verify", stack.root).stdout

    data = bperp.open(str(stack.root))[str(product.relative_to(stack.root))].slc
    assert np.asarray(data[1]).shape == data.shape[1:], "what is not damaged can be read"
    with pytest.raises(StorageError, match=code):
        np.asarray(data[2])

    mended = forks.run("repair", stack.root, "--json")
    assert mended.code == 0, mended.stdout + mended.stderr
    key = f"{product.parent.name}/{seen_date(stack, 2)}"
    assert mended.document["recomputed"] == {"coregister": [key]}
    assert forks.run("verify", stack.root).code == 0
    assert root_state(stack.root) == state


def seen_date(stack, index: int) -> str:
    from bperp.flows.root import Root

    return Root.open(str(stack.root)).stack.dates[index]


@fault("G02", level="P")
@pytest.mark.slow
def test_a_deleted_chunk_is_named_refused_and_repaired(forks, stack):
    expect_damage_and_repair(forks, stack, damage_delete, "R802")


@fault("G03", level="P")
@pytest.mark.slow
@pytest.mark.parametrize("damage", [damage_truncate, damage_empty])
def test_a_truncated_chunk_is_named_refused_and_repaired(forks, stack, damage):
    expect_damage_and_repair(forks, stack, damage, "R803")


@fault("G04", level="P")
@pytest.mark.slow
def test_a_flipped_bit_is_named_refused_and_repaired(forks, stack):
    expect_damage_and_repair(forks, stack, damage_flip, "R803")


@fault("G04", level="P")
@pytest.mark.slow
def test_a_step_that_reads_a_damaged_chunk_is_refused_and_resumes_after_repair(forks, stack):
    state = root_state(stack.root)
    burst = sorted((stack.root / "bursts").iterdir())[0]
    damage_flip(burst / "coregistered/slc/c/2/0/0/0")
    (stack.root / "markers/amplitude.json").unlink()
    shutil.rmtree(stack.root / "receipts/amplitude")
    run = ("run", stack.config, "--only", "amplitude", "--json")
    failed = forks.run(*run, prepare=NO_PICTURES)
    assert (failed.code, failed.error["code"], failed.error["exit_code"]) == (4, "R803", 4)
    assert failed.error["where"] == f"bursts/{burst.name}/coregistered/slc"
    assert "repair" in failed.error["remedy"]
    assert forks.run("repair", stack.root).code == 0
    assert forks.run(*run, prepare=NO_PICTURES).code == 0
    assert root_state(stack.root) == state


@fault("G05", level="P")
def test_left_over_partial_files_are_ignored_and_cleaned(forks, selfcheck, clean):
    assert run(forks, selfcheck).code == 0
    left = [
        selfcheck.root / "selfcheck/pattern/number/c/0/0/0.abc.partial",
        selfcheck.root / "receipts/selfcheck-sum/.x.json.abc.partial",
        selfcheck.root / "markers/.y.json.abc.partial",
    ]
    for path in left:
        path.write_bytes(b"half")
    assert run(forks, selfcheck, "", "--json").document["tasks_run"] == 0
    assert list(bperp.open(str(selfcheck.root))["selfcheck/pattern"].data_vars) == ["number"]
    options = {"environment": {"SELFCHECK": '{"dates": ["2020-01-01"]}'}, "prepare": CHAIN}
    assert forks.run("run", selfcheck.config, "--engine", "serial", **options).code == 0
    assert run(forks, selfcheck).code == 0
    assert not left[0].exists(), "a run cleans the products that it works on"
    assert root_state(selfcheck.root) == clean


# More of repair ----------------------------------------------------------------------------------


@fault("G02", level="P")
@pytest.mark.slow
def test_damage_of_many_kinds_is_repaired_at_once_and_only_where_it_is(forks, stack):
    state = root_state(stack.root)
    first, second = sorted((stack.root / "bursts").iterdir())
    damage_flip(first / "slc/slc/c/1/0/0/0")
    damage_delete(second / "coregistered/slc/c/3/0/0/0")
    damage_empty(first / "slc/zarr.json")
    damage_flip(second / "slc/date/c/0")
    replace(stack.root / "scene/timeseries/zarr.json", b"{}")
    (stack.root / "markers/seams.json").unlink()
    replace(stack.root / "markers/alignment.json", b'{"stage": "alignment"')
    untouched = {
        path: path.stat().st_mtime_ns
        for name in ("scatterers", "geometry", "interferogram", "timeseries")
        for path in [stack.root / f"markers/{name}.json"]
    }
    assert forks.run("verify", stack.root).code == 4
    mended = forks.run("repair", stack.config, "--json")
    assert mended.code == 0, mended.stdout + mended.stderr
    dates = [seen_date(stack, 1), seen_date(stack, 3)]
    assert mended.document["recomputed"] == {
        "ingest": [f"{first.name}/{dates[0]}"],
        "coregister": [f"{second.name}/{dates[1]}"],
    }
    assert sorted(mended.document["restored"]) == [
        f"bursts/{first.name}/slc/zarr.json",
        f"bursts/{second.name}/slc/date/c/0",
        "scene/timeseries/zarr.json",
    ]
    for path, changed in untouched.items():
        assert path.stat().st_mtime_ns == changed, path
    # A step that had never been finished is none of repair's business.
    assert not (stack.root / "markers/seams.json").exists()
    assert forks.run("verify", stack.root, "--json").document["unfinished"] != []
    options = ("--to", "timeseries", "--json")
    assert forks.run("run", stack.config, *options, prepare=NO_PICTURES).document["tasks_run"] == 0
    assert root_state(stack.root) == state


@fault("G02", level="P")
@pytest.mark.slow
def test_repair_needs_no_inputs_unless_the_damage_does(forks, stack, inputs, tmp_path):
    moved = inputs.with_name("moved")
    inputs.rename(moved)
    try:
        state = root_state(stack.root)
        burst = sorted((stack.root / "bursts").iterdir())[0]
        damage_flip(burst / "coregistered/slc/c/2/0/0/0")
        assert forks.run("repair", stack.root).code == 0
        assert root_state(stack.root) == state
        damage_flip(burst / "slc/slc/c/2/0/0/0")
        wreck = root_state(stack.root)
        failed = forks.run("repair", stack.root, "--json")
        assert failed.code == 3
        assert failed.error["code"] == "D204"
        assert ".SAFE" in failed.error["where"]
        assert root_state(stack.root) == wreck, "nothing is withdrawn that cannot be made again"
        products = bperp.open(str(stack.root))
        np.asarray(products[f"bursts/{burst.name}/slc"].slc[0])
        np.asarray(products["scene/timeseries"].displacement)
    finally:
        moved.rename(inputs)
    assert forks.run("repair", stack.root).code == 0
    assert root_state(stack.root) == state


@fault("G02", level="P")
@pytest.mark.slow
def test_inputs_that_were_replaced_do_not_repair(forks, stack, inputs, tmp_path):
    """Other pixels under the name of the product: the step is taken back, readers are refused."""
    burst = sorted((stack.root / "bursts").iterdir())[0]
    damage_flip(burst / "slc/slc/c/2/0/0/0")
    date = seen_date(stack, 2).replace("-", "")
    (product,) = [path for path in (inputs / "safe").iterdir() if f"_{date}T" in path.name]
    (measurement,) = (product / "measurement").iterdir()
    honest = measurement.read_bytes()
    try:
        data = bytearray(honest)
        data[len(data) // 5 : len(data) // 4] = bytes(len(data) // 4 - len(data) // 5)
        measurement.write_bytes(data)
        failed = forks.run("repair", stack.root, "--json")
    finally:
        measurement.write_bytes(honest)
    assert (failed.code, failed.error["code"]) == (4, "R812")
    assert not (stack.root / "markers/ingest.json").exists()
    assert (stack.root / "markers/coregister.json").exists()
    with pytest.raises(StorageError, match="R801"):
        CubeStore(str(stack.root)).open_dataset(f"bursts/{burst.name}/slc")


@fault("G14", level="P")
@pytest.mark.slow
def test_repair_refuses_a_root_that_records_other_options(forks, stack):
    record = stack.root / "stack.json"
    text = record.read_text()
    changed = re.sub(r'"max_amplitude_dispersion":[0-9.]+', '"max_amplitude_dispersion":0.2', text)
    assert changed != text
    replace(record, changed.encode())
    damage_flip(next(path for path in (stack.root / "scene/scatterers/line/c").iterdir()))
    wreck = root_state(stack.root)
    failed = forks.run("repair", stack.root, "--json")
    assert (failed.code, failed.error["code"]) == (4, "R808")
    assert "bperp run" in failed.error["remedy"]
    assert root_state(stack.root) == wreck
