"""Repair computes what is damaged and nothing else, or refuses and changes nothing."""

from __future__ import annotations

import contextlib
import json
import random
import shutil
from pathlib import Path

import pytest

from bperp.flows.engine import RunSetup, SerialExecutor, StageContext, run_stages
from bperp.flows.repair import repair_store
from bperp.flows.selfcheck import DEFAULTS, PATTERN, STAGES, SUM
from bperp.stores.cube import CubeStore
from bperp.stores.errors import StorageError
from bperp.stores.locks import run_lock
from bperp.stores.receipts import Ledger, Receipt
from bperp.stores.verify import verify_store


def context(**options) -> StageContext:
    return StageContext(options={"selfcheck": {**DEFAULTS, **options}})


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("finished") / "run"
    run_stages(STAGES, context(), CubeStore(str(root)), SerialExecutor())
    return root


@pytest.fixture
def root(finished, tmp_path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "run"))


def repair(root, progress=None, **options):
    setup = RunSetup(STAGES, context(**options), CubeStore(str(root)))
    return repair_store(setup, SerialExecutor(), progress)


def state(root) -> dict[str, bytes]:
    objects = CubeStore(str(root)).objects
    found = {name: objects.read(name) or b"" for name in objects.names("")}
    kept = {name: data for name, data in found.items() if not name.startswith("logs/")}
    for name in [name for name in kept if name.startswith("receipts/")]:
        kept[name] = Receipt.from_dict(json.loads(kept[name])).outcome()
    return kept


def flip(store: CubeStore, name: str) -> None:
    data = bytearray(store.objects.read(name) or b"")
    data[len(data) // 2] ^= 4
    store.objects.write(name, bytes(data))


def test_an_undamaged_store_is_left_alone(root):
    before = state(root)
    done = repair(root)
    assert (done.damaged, done.recomputed, done.restored, done.removed) == ([], {}, [], [])
    assert state(root) == before


def test_exactly_the_damaged_tasks_are_computed_again(root):
    before = state(root)
    store = CubeStore(str(root))
    flip(store, f"{PATTERN}/number/c/0/1/2")
    store.objects.remove(f"{PATTERN}/number/c/1/2/0")
    flip(store, f"{SUM}/sum/c/1/0/1")
    next(root.glob("receipts/selfcheck-sum/2020-01-01/128.*")).unlink()
    done = repair(root)
    assert done.recomputed == {
        "selfcheck-pattern": ["2020-01-01/128", "2020-01-13/256"],
        "selfcheck-sum": ["2020-01-01/128", "2020-01-13/0"],
    }
    assert done.tasks_run == 4
    assert len(done.damaged) == 4
    assert state(root) == before


@pytest.mark.parametrize("kind", ["memory", pytest.param("s3", marks=pytest.mark.slow)])
def test_a_store_that_is_no_folder_is_repaired(tmp_path, request, kind):
    in_memory = f"memory://{tmp_path.name}"
    root = in_memory if kind == "memory" else request.getfixturevalue("s3").root
    store = CubeStore(root)
    run_stages(STAGES, context(), store, SerialExecutor())
    before = state(root)
    flip(store, f"{SUM}/sum/c/1/0/1")
    flip(store, f"{SUM}/date/c/0")
    assert repair(root).recomputed == {"selfcheck-sum": ["2020-01-13/0"]}
    assert state(root) == before
    store.objects.remove_tree("")


def test_descriptions_and_coordinates_cost_no_task(root):
    before = state(root)
    store = CubeStore(str(root))
    for name in (f"{PATTERN}/zarr.json", f"{PATTERN}/number/zarr.json", f"{SUM}/date/c/0"):
        flip(store, name)
    store.objects.remove(f"{SUM}/zarr.json")
    done = repair(root)
    assert (done.recomputed, len(done.restored)) == ({}, 4)
    assert state(root) == before


def test_a_description_and_a_chunk_below_it_are_both_repaired(root):
    before = state(root)
    store = CubeStore(str(root))
    store.objects.write(f"{PATTERN}/number/zarr.json", b"{}")
    flip(store, f"{PATTERN}/number/c/0/1/2")
    done = repair(root)
    assert done.recomputed == {"selfcheck-pattern": ["2020-01-01/128"]}
    assert state(root) == before


def test_a_description_without_a_recorded_hash_is_made_again_with_its_product(root):
    """As a root has it that was made before markers held these hashes."""
    before = state(root)
    path = root / "markers/selfcheck-sum.json"
    marker = json.loads(path.read_text())
    for entry in marker["products"].values():
        del entry["metadata"]
    path.write_text(json.dumps(marker, sort_keys=True, separators=(",", ":")))
    (root / SUM / "zarr.json").write_text("{}")
    done = repair(root)
    assert len(done.recomputed["selfcheck-sum"]) == 6
    assert state(root) == before


@pytest.mark.parametrize("damage", ['{"stage": "selfcheck-pat', "of another step"])
def test_a_lost_marker_may_hide_damage(root, damage):
    before = state(root)
    other = (root / "markers/selfcheck-sum.json").read_text()
    marker = root / "markers/selfcheck-pattern.json"
    marker.write_text(other if damage == "of another step" else damage)
    flip(CubeStore(str(root)), f"{PATTERN}/number/c/0/1/2")
    done = repair(root)
    assert done.recomputed == {"selfcheck-pattern": ["2020-01-01/128"]}
    assert state(root) == before


def test_left_over_files_are_removed(root):
    left = root / PATTERN / "number/c/0/0/.0.ab.partial"
    left.touch()
    assert repair(root).removed == [str(left.relative_to(root))]
    assert not left.exists()


def test_a_store_in_use_is_not_repaired(root):
    store = CubeStore(str(root))
    flip(store, f"{PATTERN}/number/c/0/1/2")
    before = state(root)
    with run_lock(store.objects), pytest.raises(StorageError, match="R806"):
        repair(root)
    assert state(root) == before


@pytest.mark.parametrize("options", [{"samples": 400}, {"dates": ["2020-01-01"]}])
def test_other_options_than_those_of_the_products_are_refused(root, options):
    flip(CubeStore(str(root)), f"{PATTERN}/number/c/0/1/2")
    before = state(root)
    with pytest.raises(StorageError, match=r"R808 selfcheck-pattern"):
        repair(root, **options)
    assert state(root) == before


def test_results_that_differ_are_taken_back(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    import fault_stages

    options = {"faults": {"keys": ["a", "b"], "fault": {"b": "random"}}}
    store = CubeStore(str(tmp_path))
    stages = (fault_stages.STAGE,)
    run_stages(stages, StageContext(options=options), store, SerialExecutor())
    flip(store, "scene/faults/x/c/1/0")
    with pytest.raises(StorageError, match=r"R812 faults"):
        repair_store(RunSetup(stages, StageContext(options=options), store), SerialExecutor())
    ledger = Ledger(store.objects)
    assert ledger.markers() == {}
    assert list(ledger.recorded("faults")) == ["a"]


def test_damage_of_an_unknown_step_is_reported(root):
    flip(CubeStore(str(root)), f"{SUM}/sum/c/1/0/1")
    setup = RunSetup(STAGES[:1], context(), CubeStore(str(root)))
    with pytest.raises(StorageError, match=rf"R803 {SUM}/sum"):
        repair_store(setup, SerialExecutor())
    assert (root / "markers/selfcheck-sum.json").exists()


def test_verification_is_shown_apart_from_the_run(root):
    seen = []

    class Display:
        def stage_started(self, stage, total, done, pixels):
            seen.append((stage, total - done))

        def task_finished(self, stage, pixels, bytes_written):
            pass

        def stage_finished(self, stage, seconds):
            pass

        def note(self, text):
            pass

        def close(self):
            seen.append("closed")

    flip(CubeStore(str(root)), f"{PATTERN}/number/c/0/1/2")
    repair(root, Display())
    assert seen == [
        ("verify selfcheck-pattern", 6),
        ("verify selfcheck-sum", 6),
        ("selfcheck-pattern", 1),
        ("verify selfcheck-pattern", 6),
        "closed",
    ]
    assert verify_store(CubeStore(str(root))).is_sound


@pytest.mark.parametrize("seed", range(20))
def test_whatever_is_damaged_comes_back(root, seed):
    """Several objects at once: turned bits, cut, emptied, overwritten, deleted, exchanged."""
    before, chance = state(root), random.Random(seed)
    paths = sorted(p for p in root.rglob("*") if p.is_file() and "logs" not in p.parts)
    files = {path: path.read_bytes() for path in paths}
    for path in chance.sample(paths, chance.randrange(1, 5)):
        data = files[path]
        place = chance.randrange(len(data))
        turned = bytearray(data)
        turned[place] ^= 1 << chance.randrange(8)
        kinds = [data[:place], b"", b"{}", None, files[chance.choice(paths)]]
        # A turned bit in the notes of a receipt harms nobody, one in its summary nobody notices.
        kinds += [] if "receipts" in path.parts else [bytes(turned)] * 2
        new = chance.choice(kinds)
        path.unlink()
        if new is not None:
            path.write_bytes(new)
    repair_or_run(root)
    assert verify_store(CubeStore(str(root))).is_sound
    assert state(root) == before


def repair_or_run(root) -> None:
    """Do what the messages say until all is well: repair, and run what is not finished."""
    for _ in range(4):
        with contextlib.suppress(StorageError):
            repair(root)
            if verify_store(CubeStore(str(root))).is_sound:
                return
        with contextlib.suppress(StorageError):
            run_stages(STAGES, context(), CubeStore(str(root)), SerialExecutor())
