"""Verification finds every kind of damage, and repair takes back exactly what is damaged."""

from __future__ import annotations

from pathlib import Path

import pytest

from bperp.flows.engine import SerialExecutor, StageContext, run_stages
from bperp.flows.selfcheck import DEFAULTS, PATTERN, STAGES, SUM
from bperp.stores.cube import CubeStore
from bperp.stores.verify import verify_store


@pytest.fixture
def store(tmp_path: Path) -> CubeStore:
    cube = CubeStore(str(tmp_path / "run"))
    run(cube)
    return cube


def run(store: CubeStore):
    fresh = CubeStore(store.root)
    context = StageContext(options={"selfcheck": DEFAULTS})
    return run_stages(STAGES, context, fresh, SerialExecutor())


def chunk(store: CubeStore, product: str, name: str, index: str) -> Path:
    return Path(store.root) / product / name / "c" / index


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 4
    path.write_bytes(bytes(data))


def test_an_undamaged_store_verifies(store):
    result = verify_store(store)
    assert (result.blocks, result.faults) == (12, {})


def test_each_damage_is_found_and_named(store):
    flip(chunk(store, PATTERN, "number", "0/1/2"))
    chunk(store, SUM, "sum", "1/0/0").unlink()
    flip(chunk(store, SUM, "date", "0"))
    chunk(store, PATTERN, "number", "1/0/0").write_bytes(
        chunk(store, PATTERN, "number", "1/0/1").read_bytes()  # a valid chunk, but of other data
    )
    faults = {name: fault.code for name, fault in verify_store(store).faults.items()}
    assert faults == {
        "selfcheck-pattern/2020-01-01/128": "R803",
        "selfcheck-pattern/2020-01-13/0": "R803",
        "selfcheck-sum/2020-01-13/0": "R802",
        SUM: "R803",
    }


def test_repair_and_run_restores_the_store_bit_for_bit(store):
    before = {p: p.read_bytes() for p in Path(store.root).glob("markers/*")}
    flip(chunk(store, PATTERN, "number", "0/1/2"))
    flip(chunk(store, SUM, "date", "0"))
    verify_store(CubeStore(store.root), repair=True)
    assert {p.name for p in Path(store.root).glob("markers/*")} == set()
    summary = run(store)
    assert {stage.name: list(stage.reasons) for stage in summary.stages} == {
        "selfcheck-pattern": ["2020-01-01/128"],
        "selfcheck-sum": [],
    }
    assert verify_store(CubeStore(store.root)).faults == {}
    assert before == {p: p.read_bytes() for p in Path(store.root).glob("markers/*")}


def test_a_removed_product_or_receipt_is_found(store):
    store.remove(SUM)
    next(Path(store.root).glob("receipts/selfcheck-pattern/2020-01-01/0.*")).unlink()
    faults = verify_store(CubeStore(store.root)).faults
    assert faults["selfcheck-pattern/2020-01-01/0"].code == "R801"
    assert {fault.code for fault in faults.values()} == {"R801"}
    verify_store(CubeStore(store.root), repair=True)
    assert run(store).tasks_run == 7
    assert verify_store(CubeStore(store.root)).faults == {}
