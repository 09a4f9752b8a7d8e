"""Dates inserted and removed amid others: chunks follow their dates, nothing is computed again."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

from bperp.flows import relocation
from bperp.flows.engine import SerialExecutor, StageContext, plan_stage, run_stages
from bperp.flows.selfcheck import DEFAULTS, PATTERN, PATTERN_STAGE, STAGES
from bperp.stores.axes import GrowingAxes
from bperp.stores.cube import CubeStore
from bperp.stores.errors import StorageError
from bperp.stores.verify import verify_store

DATES = [str(np.datetime64("2020-01-01") + 12 * number) for number in range(8)]
OPTIONS = {**DEFAULTS, "lines": 90, "samples": 70, "chunk": 40}
TILES = 3


def run(root: Path | str, dates: list[str], **options):
    context = StageContext(options={"selfcheck": {**OPTIONS, **options, "dates": dates}})
    return run_stages(STAGES, context, CubeStore(str(root)), SerialExecutor())


def contents(root: Path | str) -> dict[str, bytes]:
    """Markers, metadata and chunks: what two equal roots must agree on."""
    found = [*Path(root).glob("markers/*"), *Path(root).glob("selfcheck/**/*")]
    return {str(path.relative_to(root)): path.read_bytes() for path in found if path.is_file()}


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory):
    """Return what a root made at once for some dates looks like."""
    known: dict[tuple[str, ...], dict[str, bytes]] = {}

    def make(dates: list[str]) -> dict[str, bytes]:
        key = tuple(dates)
        if key not in known:
            root = tmp_path_factory.mktemp("fresh")
            run(root, dates)
            known[key] = contents(root)
        return known[key]

    return make


def test_a_date_in_the_middle_is_all_that_is_computed(tmp_path, fresh):
    run(tmp_path, [DATES[0], DATES[2], DATES[3]])
    summary = run(tmp_path, DATES[:4])
    for stage in summary.stages:
        assert stage.run == TILES
        assert stage.moved == 2 * TILES
        assert {key for key, why in stage.reasons.items() if why == "new"} == {
            f"{DATES[1]}/{first}" for first in (0, 40, 80)
        }
    assert contents(tmp_path) == fresh(DATES[:4])
    assert verify_store(CubeStore(str(tmp_path))).faults == {}


def test_a_removed_date_leaves_no_trace_and_costs_nothing(tmp_path, fresh):
    run(tmp_path, DATES[:5])
    summary = run(tmp_path, [*DATES[:1], *DATES[2:5]])
    assert summary.tasks_run == 0
    assert [stage.moved for stage in summary.stages] == [3 * TILES] * 2
    assert contents(tmp_path) == fresh([*DATES[:1], *DATES[2:5]])


@pytest.mark.parametrize("seed", range(6))
def test_any_history_of_dates_ends_in_the_same_bytes(tmp_path, fresh, seed):
    random = np.random.default_rng(seed)
    known: set[str] = set()
    for _ in range(4):
        dates = sorted(random.choice(DATES, size=random.integers(1, 8), replace=False).tolist())
        summary = run(tmp_path, dates)
        # Only dates that the root does not hold are computed.
        assert summary.stages[0].run == TILES * len(set(dates) - known), (dates, known)
        assert contents(tmp_path) == fresh(dates)
        known = set(dates)


def test_a_damaged_chunk_is_computed_and_not_carried_along(tmp_path, fresh):
    run(tmp_path, DATES[1:4])
    chunk = tmp_path / PATTERN / "number" / "c" / "2" / "0" / "0"
    data = bytearray(chunk.read_bytes())
    data[len(data) // 2] ^= 4
    chunk.write_bytes(bytes(data))
    (tmp_path / PATTERN / "number" / "c" / "0" / "1" / "0").unlink()
    summary = run(tmp_path, DATES[:4])
    assert summary.stages[0].run == TILES + 2
    assert summary.stages[1].run == TILES
    assert contents(tmp_path) == fresh(DATES[:4])


@pytest.mark.parametrize("copies", [0, 1, 5, 11, 17])
def test_moving_that_breaks_off_is_finished_by_the_next_run(tmp_path, fresh, monkeypatch, copies):
    run(tmp_path, [DATES[0], *DATES[3:6]])
    count = itertools.count()
    honest = relocation._copy

    def break_off(*arguments):
        if next(count) >= copies:
            raise KeyboardInterrupt
        honest(*arguments)

    monkeypatch.setattr(relocation, "_copy", break_off)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, DATES[:6])
    monkeypatch.undo()
    assert "selfcheck-pattern.json" not in {path.name for path in tmp_path.glob("markers/*")}
    run(tmp_path, DATES[:6])
    assert contents(tmp_path) == fresh(DATES[:6])


def test_a_position_is_part_of_the_receipt_and_not_of_the_work(tmp_path):
    store = CubeStore(str(tmp_path))

    def plan(dates):
        context = StageContext(options={"selfcheck": {**OPTIONS, "dates": dates}})
        return {order.key: order for order in plan_stage(PATTERN_STAGE, context, store).orders}

    one, other = plan(DATES[1:3]), plan(DATES[:3])
    key = f"{DATES[2]}/40"
    assert one[key].id == other[key].id
    assert (one[key].places, other[key].places) == ({DATES[2]: 1}, {DATES[2]: 2})
    assert one[key].record != other[key].record


def test_a_label_that_a_product_lacks_is_named(tmp_path):
    run(tmp_path, DATES[:2])
    axes = GrowingAxes(CubeStore(str(tmp_path)))
    assert axes.positions(PATTERN, DATES[1::-1]) == [1, 0]
    with pytest.raises(StorageError, match=f"R801 {PATTERN}.*does not hold {DATES[5]}"):
        axes.positions(PATTERN, DATES[4:6][::-1])
