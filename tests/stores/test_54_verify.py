"""Verification finds and names every kind of damage, changes nothing, and withdraws what is bad."""

from __future__ import annotations

import json
import random
import shutil
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bperp.flows.engine import SerialExecutor, StageContext, run_stages
from bperp.flows.selfcheck import DEFAULTS, PATTERN, STAGES, SUM
from bperp.pipeline.stage import ArraySpec, Block, Template
from bperp.stores.block_examination import examine_block
from bperp.stores.cube import CubeStore
from bperp.stores.errors import StorageError
from bperp.stores.receipts import Ledger, Receipt
from bperp.stores.verify import verify_store, withdraw


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("finished") / "run"
    run(root)
    return root


@pytest.fixture
def root(finished, tmp_path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "run"))


def run(root: Path, **options):
    context = StageContext(options={"selfcheck": {**DEFAULTS, **options}})
    return run_stages(STAGES, context, CubeStore(str(root)), SerialExecutor())


def verify(root: Path, **options):
    return verify_store(CubeStore(str(root)), **options)


def codes(root: Path) -> dict[str, str]:
    return {name: fault.code for name, fault in verify(root).faults.items()}


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)


def snapshot(root: Path) -> dict[str, tuple[bytes, int]]:
    files = [path for path in root.rglob("*") if path.is_file()]
    return {str(path): (path.read_bytes(), path.stat().st_mtime_ns) for path in files}


def markers(root: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in root.glob("markers/*")}


# What is found -----------------------------------------------------------------------------------


def test_an_undamaged_store_is_sound(root):
    result = verify(root)
    assert result.is_sound
    assert result.stages == ["selfcheck-pattern", "selfcheck-sum"]
    assert (result.blocks, result.bytes_read) == (12, 2 * 2 * 300 * 500 * 4)
    assert (result.inventory.unfinished, result.inventory.partial, result.inventory.strays) == (
        [],
        [],
        [],
    )


def test_nothing_is_changed(root):
    flip(root / PATTERN / "number/c/0/0/0")
    Path(root / SUM / "sum/c/9").touch()
    before = snapshot(root)
    assert not verify(root).is_sound
    assert snapshot(root) == before


def test_every_damaged_chunk_of_a_task_is_named(root):
    chunks = root / PATTERN / "number/c"
    flip(chunks / "0/1/0")
    (chunks / "0/1/1").unlink()
    (chunks / "0/1/2").write_bytes(b"")
    (chunks / "0/1/3").write_bytes((chunks / "0/1/3").read_bytes()[:-9])
    flip(root / SUM / "date/c/0")
    assert codes(root) == {
        f"{PATTERN}/number/c/0/1/0": "R803",
        f"{PATTERN}/number/c/0/1/1": "R802",
        f"{PATTERN}/number/c/0/1/2": "R803",
        f"{PATTERN}/number/c/0/1/3": "R803",
        f"{SUM}/date/c/0": "R803",
    }
    damage = verify(root).damage
    assert damage["selfcheck-pattern"].keys == {"2020-01-01/128"}
    assert (damage["selfcheck-sum"].keys, damage["selfcheck-sum"].products) == (set(), {SUM})


def test_a_whole_chunk_of_other_data_is_found_within_its_block(root):
    chunks = root / PATTERN / "number/c/1"
    shutil.copy(chunks / "0/1", chunks / "0/0")
    faults = verify(root).faults
    assert set(faults) == {f"{PATTERN}/number/c/1/0/{column}" for column in range(4)}
    assert all("3 more chunks of the same block" in str(fault) for fault in faults.values())


def test_a_whole_coordinate_of_other_data_is_found(root, tmp_path):
    run(tmp_path / "other", dates=["2020-01-01", "2020-02-02"])
    shutil.copy(tmp_path / "other" / PATTERN / "date/c/0", root / PATTERN / "date/c/0")
    assert codes(root) == {f"{PATTERN}/date/c/0": "R803"}


def test_metadata_are_compared_byte_by_byte(root):
    for name in ("zarr.json", "number/zarr.json"):
        path = root / PATTERN / name
        text = path.read_text()
        path.write_text(text.replace("CF-1.11", "CF-1.12").replace("self-check", "self-cheek"))
        assert path.read_text() != text
    (root / SUM / "zarr.json").unlink()
    found = codes(root)
    assert found == {
        f"{PATTERN}/zarr.json": "R803",
        f"{PATTERN}/number/zarr.json": "R803",
        f"{SUM}/zarr.json": "R803",
    }


def test_a_wrong_description_is_never_read_by(root):
    path = root / PATTERN / "number/zarr.json"
    description = json.loads(path.read_text())
    description["shape"] = [10**6, 10**6, 10**6]
    description["chunk_grid"]["configuration"]["chunk_shape"] = [10**6, 10**6, 10**6]
    path.write_text(json.dumps(description))
    assert set(codes(root)) == {f"{PATTERN}/number/zarr.json"}


@pytest.mark.parametrize("seed", range(40))
def test_a_random_flip_of_anything_vouched_for_is_found(root, seed):
    chance = random.Random(seed)
    files = sorted(p for p in root.rglob("*") if p.is_file() and "logs" not in p.parts)
    path = chance.choice(files)
    data = bytearray(path.read_bytes())
    data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    path.write_bytes(data)
    name = str(path.relative_to(root))
    result = verify(root)
    if "receipts" in path.parts:
        return  # what a receipt says about the run (host, seconds) is vouched for by nobody
    assert not result.is_sound, name
    assert name in result.faults or name.startswith("markers/"), (name, list(result.faults))


def test_lost_and_unreadable_receipts_are_found(root):
    next(root.glob("receipts/selfcheck-pattern/2020-01-01/0.*")).unlink()
    next(root.glob("receipts/selfcheck-sum/2020-01-13/128.*")).write_bytes(b'{"id": ')
    assert codes(root) == {
        "receipts/selfcheck-pattern/2020-01-01/0": "R801",
        "receipts/selfcheck-sum/2020-01-13/128": "R801",
    }


def test_a_receipt_with_other_numbers_contradicts_data_and_marker(root):
    path = next(root.glob("receipts/selfcheck-pattern/2020-01-01/0.*"))
    receipt = Receipt.from_dict(json.loads(path.read_text()))
    block = replace(receipt.blocks[0], sha256="ab" * 32)
    forged = replace(receipt, blocks=(block, *receipt.blocks[1:]))
    path.write_text(json.dumps(forged.as_dict()))
    assert set(codes(root)) == {
        "markers/selfcheck-pattern.json",
        *(f"{PATTERN}/number/c/0/0/{column}" for column in range(4)),
    }


@pytest.mark.parametrize("part", ["blocks", "summary"])
def test_a_receipt_that_was_damaged_is_as_good_as_lost(root, part):
    path = next(root.glob("receipts/selfcheck-pattern/2020-01-01/0.*"))
    record = json.loads(path.read_text())
    if part == "blocks":
        record["blocks"][0]["sha256"] = "ab" * 32
    else:
        record["summary"]["total"] += 1
    path.write_text(json.dumps(record))
    assert codes(root) == {"receipts/selfcheck-pattern/2020-01-01/0": "R801"}


def test_a_marker_that_cannot_be_read_is_found(root):
    path = root / "markers/selfcheck-sum.json"
    path.write_bytes(path.read_bytes()[:100])
    result = verify(root)
    assert set(result.faults) == {"markers/selfcheck-sum.json"}
    assert result.inventory.unfinished == [SUM]


# Information -------------------------------------------------------------------------------------


def test_what_lies_about_is_told_and_does_no_harm(root):
    (root / PATTERN / "number/c/0/0/.0.ab.partial").touch()
    (root / "markers/.x.json.ab.partial").touch()
    for stray in ("number/c/7/0/0", "number/c/0/0", "number/c/x", "old/zarr.json", "notes.txt"):
        path = root / PATTERN / stray
        path = path.parent / f"{path.name}" if not path.is_dir() else path / "y"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (root / "selfcheck/lost/c").mkdir(parents=True)
    (root / "selfcheck/lost/c/0").touch()
    result = verify(root)
    assert result.is_sound
    assert result.inventory.partial == [
        "markers/.x.json.ab.partial",
        f"{PATTERN}/number/c/0/0/.0.ab.partial",
    ]
    assert result.inventory.strays == sorted(
        [
            f"{PATTERN}/notes.txt",
            f"{PATTERN}/number/c/0/0/y",
            f"{PATTERN}/number/c/7/0/0",
            f"{PATTERN}/number/c/x",
            f"{PATTERN}/old/zarr.json",
            "selfcheck/lost/c/0",
        ]
    )


def test_an_unfinished_product_is_no_damage_but_the_store_is_not_complete(root):
    (root / "markers/selfcheck-sum.json").unlink()
    result = verify(root)
    assert (result.faults, result.inventory.unfinished) == ({}, [SUM])
    assert not result.is_sound


def test_an_empty_folder_is_not_sound(tmp_path):
    assert not verify(tmp_path).is_sound


# How it is done ----------------------------------------------------------------------------------


def test_blocks_are_read_by_several_threads_and_counted(root):
    seen, threads = [], set()

    class Watching(CubeStore):
        def read_raw(self, product, variable, key):
            threads.add(threading.current_thread().name)
            return super().read_raw(product, variable, key)

    class Watcher:
        def stage_started(self, stage, total, done, pixels):
            seen.append((stage, total, pixels))

        def task_finished(self, stage, pixels, bytes_written):
            seen[-1] = (*seen[-1][:3], bytes_written + (seen[-1][3:] or (0,))[0])

        def stage_finished(self, stage, seconds):
            assert seconds > 0

    verify_store(Watching(str(root)), readers=3, watcher=Watcher())
    assert threads <= {f"verify_{number}" for number in range(3)}
    assert len(threads) > 1
    assert seen == [
        (stage, 6, 2 * 300 * 500, 2 * 300 * 500 * 4)
        for stage in ("selfcheck-pattern", "selfcheck-sum")
    ]


def test_a_large_block_is_read_row_by_row(tmp_path):
    largest = []

    class Watching(CubeStore):
        def read_raw(self, product, variable, key):
            data = super().read_raw(product, variable, key)
            largest.append(data.nbytes)
            return data

    store = Watching(str(tmp_path))
    spec = ArraySpec("x", ("date", "azimuth", "range"), (1, 80, 48), (1, 16, 16), "float32")
    store.create(Template("scene/x", (spec,)))
    numbers = np.arange(80 * 48, dtype=np.float32).reshape(1, 80, 48)
    record = store.write_block(Block("scene/x", "x", (0, 0, 0), numbers))
    assert examine_block(store, record) == ({}, numbers.nbytes)
    assert largest == [16 * 48 * 4] * 5


def test_a_part_can_be_verified(root):
    flip(root / PATTERN / "number/c/0/1/2")
    result = verify(root, only=["selfcheck-sum"])
    assert (result.stages, result.faults, result.inventory) == (["selfcheck-sum"], {}, None)


def test_a_stage_that_a_run_takes_back_meanwhile_is_not_called_damaged(root):
    flip(root / PATTERN / "number/c/0/1/2")

    class Watcher:
        def stage_started(self, stage, total, done, pixels):
            Ledger(CubeStore(str(root)).objects).remove_marker("selfcheck-pattern")

        def task_finished(self, stage, pixels, bytes_written):
            pass

        def stage_finished(self, stage, seconds):
            pass

    result = verify(root, watcher=Watcher())
    assert (result.faults, result.unsettled) == ({}, ["selfcheck-pattern"])
    assert not result.is_sound


def test_faults_of_access_are_no_damage(root, monkeypatch):
    def deny(self, product, variable, key):
        raise StorageError("R807", "not permitted", where=product, remedy="ask")

    monkeypatch.setattr(CubeStore, "read_raw", deny)
    with pytest.raises(StorageError, match="R807"):
        verify(root)


def test_a_disk_that_cannot_read_is_damage(root, monkeypatch):
    honest = CubeStore.read_raw

    def fail(self, product, variable, key):
        if product == PATTERN and (key[1].start, key[2].stop) == (0, 128):
            raise OSError(5, "Input/output error")
        if product == PATTERN and key[1].start == 0 and key[2].stop == 500 and key[0].start == 0:
            raise OSError(5, "Input/output error")
        return honest(self, product, variable, key)

    monkeypatch.setattr(CubeStore, "read_raw", fail)
    found = codes(root)
    assert f"{PATTERN}/number/c/0/0/0" in found
    assert set(found.values()) == {"R803"}


# Withdrawing -------------------------------------------------------------------------------------


def withdraw_all(root: Path) -> None:
    store = CubeStore(str(root))
    for damage in verify(root).damage.values():
        withdraw(store, damage)


def test_what_is_withdrawn_is_computed_again_and_nothing_else(root):
    before = markers(root)
    flip(root / PATTERN / "number/c/0/1/2")
    flip(root / SUM / "date/c/0")
    withdraw_all(root)
    assert markers(root) == {}
    summary = run(root)
    assert {stage.name: list(stage.reasons) for stage in summary.stages} == {
        "selfcheck-pattern": ["2020-01-01/128"],
        "selfcheck-sum": [],
    }
    assert verify(root).is_sound
    assert markers(root) == before


def test_the_marker_of_an_undamaged_stage_stays(root):
    before = markers(root)
    (root / PATTERN / "number/c/1/0/0").unlink()
    withdraw_all(root)
    assert markers(root) == {"selfcheck-sum.json": before["selfcheck-sum.json"]}


def test_a_removed_product_and_a_lost_receipt_come_back(root):
    before = markers(root)
    CubeStore(str(root)).remove(SUM)
    next(root.glob("receipts/selfcheck-pattern/2020-01-01/0.*")).unlink()
    withdraw_all(root)
    assert run(root).tasks_run == 7
    assert verify(root).is_sound
    assert markers(root) == before


def test_a_lost_hole_comes_back(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "flows"))
    import fault_stages

    def run_with_hole():
        options = {"keys": ["a", "b", "c"], "fault": {"b": "no-task"}}
        context = StageContext(options={"faults": options})
        store = CubeStore(str(tmp_path))
        return run_stages((fault_stages.STAGE,), context, store, SerialExecutor())

    run_with_hole()
    before = markers(tmp_path)
    (tmp_path / "scene/faults/x/c/1/0").unlink()
    assert codes(tmp_path) == {"scene/faults/x/c/1/0": "R802"}
    withdraw_all(tmp_path)
    assert run_with_hole().tasks_run == 0
    assert verify(tmp_path).is_sound
    assert markers(tmp_path) == before
