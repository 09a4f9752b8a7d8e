"""The engine in one process: what runs, why, in which order things become visible."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bperp.flows import selfcheck
from bperp.flows.engine import (
    RunSite,
    Selection,
    SerialExecutor,
    StageContext,
    TaskFailedError,
    TaskSource,
    UpstreamPendingError,
    plan_stage,
    run_stages,
)
from bperp.flows.planning import PlannedStage
from bperp.flows.selfcheck import DEFAULTS, PATTERN, PATTERN_STAGE, STAGES, SUM, SUM_STAGE
from bperp.pipeline.stage import Plan, Stage
from bperp.stores.cube import CubeStore, open_root
from bperp.stores.errors import ConfigurationError, NetworkError, ProductError, StorageError
from bperp.stores.locks import LOCK_NAME, run_lock
from bperp.stores.receipts import Ledger

DATES = ["2020-01-01", "2020-01-13", "2020-01-25"]


@pytest.fixture
def root(tmp_path: Path) -> str:
    return str(tmp_path / "run")


@pytest.fixture
def faults(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    import fault_stages

    return fault_stages.STAGE


def run(root, selection=None, *, dry_run=False, stages=STAGES, executor=None, **options):
    context = StageContext(
        options={"selfcheck": {**DEFAULTS, "samples": 130, **options}, "faults": options}
    )
    return run_stages(
        stages,
        context,
        CubeStore(root),
        executor or SerialExecutor(),
        None,
        selection,
        dry_run=dry_run,
    )


def statuses(summary):
    return {stage.name.removeprefix("selfcheck-"): stage.status for stage in summary.stages}


def files(root, *patterns):
    found = [path for pattern in patterns for path in Path(root).glob(pattern) if path.is_file()]
    return {str(path.relative_to(root)): path.read_bytes() for path in found}


def digests(root):
    """Everything that two equal runs must agree on: markers, data, metadata."""
    return files(root, "markers/*", "selfcheck/**/*")


# What comes out ----------------------------------------------------------------------------------


def test_a_run_gives_the_numbers_of_the_formula(root):
    assert run(root).tasks_run == 12
    data = open_root(root)[PATTERN].number.values
    d, y, x = np.ogrid[:2, :300, :130]
    np.testing.assert_array_equal(data, (7919 * y + 104729 * x + 15485863 * d) % 65521)
    sums = open_root(root)[SUM]["sum"].values
    inner = data[:, :-2].astype(int) + data[:, 1:-1] + data[:, 2:]
    np.testing.assert_array_equal(sums[:, 1:-1], inner)


def test_a_second_run_does_nothing(root):
    run(root)
    before = files(root, "receipts/**/*", "markers/*", "selfcheck/**/*")
    summary = run(root)
    assert summary.tasks_run == 0
    assert statuses(summary) == {"pattern": "current", "sum": "current"}
    assert files(root, "receipts/**/*", "markers/*", "selfcheck/**/*") == before


def test_the_run_is_recorded(root):
    summary = run(root)
    events = [json.loads(line) for line in Path(root, summary.log).read_text().splitlines()]
    assert [event["event"] for event in events[:2]] == ["run_started", "stage_started"]
    assert events[-1]["event"] == "run_finished"
    assert sum(event["event"] == "task_finished" for event in events) == 12
    assert run(root).log == "logs/run-0002.jsonl"
    stage = summary.stages[0]
    assert stage.bytes_written == 2 * 300 * 130 * 4
    assert stage.pixels == 2 * 300 * 130
    assert stage.predicted_memory_bytes == 64 * 128 * 130
    assert stage.peak_rss_bytes > 2e7
    json.dumps(summary.as_dict())


def test_the_log_holds_no_secrets(tmp_path):
    root = f"memory://user:hunter2@{tmp_path.name}"
    store = CubeStore(root, {"token": "sesame"})
    context = StageContext(options={"selfcheck": DEFAULTS})
    summary = run_stages(STAGES, context, store, SerialExecutor())
    everything = b"".join(
        store.objects.read(name) or b"" for name in store.objects.names("") if "/c/" not in name
    )
    assert summary.tasks_run == 12
    assert b"run_finished" in everything
    assert b"hunter2" not in everything
    assert b"sesame" not in everything


# Dry run and reasons -----------------------------------------------------------------------------


def test_a_dry_run_tells_and_writes_nothing(root):
    summary = run(root, dry_run=True)
    assert statuses(summary) == {"pattern": "planned", "sum": "planned"}
    assert set(summary.stages[0].reasons.values()) == {"new"}
    assert not Path(root).exists()


def test_reasons_tell_new_from_changed(root, monkeypatch):
    run(root)
    newer = replace(PATTERN_STAGE, version="next", path="bperp.flows.selfcheck:NEWER")
    monkeypatch.setattr(selfcheck, "NEWER", newer, raising=False)
    summary = run(root, dry_run=True, stages=(newer, SUM_STAGE), dates=DATES)
    pattern, sums = summary.stages
    assert pattern.reasons["2020-01-01/0"] == "options, version or inputs changed"
    assert pattern.reasons["2020-01-25/0"] == "new"
    # The sums depend on the pattern's receipts, so they change with it.
    assert sums.reasons["2020-01-01/0"] == "options, version or inputs changed"
    assert pattern.stale == 6


def test_a_dry_run_says_what_it_waits_for(root, monkeypatch):
    def plan(context):
        context.receipts("selfcheck-pattern")
        return Plan((), ())

    greedy = Stage("greedy", "1", "bperp.flows.selfcheck:GREEDY", plan, SUM_STAGE.compute)
    monkeypatch.setattr(selfcheck, "GREEDY", greedy, raising=False)
    summary = run(root, dry_run=True, stages=(PATTERN_STAGE, greedy))
    assert summary.stages[1].status == "waiting"
    assert summary.stages[1].waiting_for == "selfcheck-pattern"
    assert run(root, stages=(PATTERN_STAGE, greedy)).stages[1].status == "done"


def test_receipts_of_finished_stages_reach_the_planning(root, monkeypatch):
    seen = {}

    def plan(context):
        seen.update(context.receipts("selfcheck-pattern"))
        return Plan((), ())

    nosy = Stage("nosy", "1", "bperp.flows.selfcheck:NOSY", plan, SUM_STAGE.compute)
    monkeypatch.setattr(selfcheck, "NOSY", nosy, raising=False)
    run(root, stages=(PATTERN_STAGE, nosy))
    total = open_root(root)[PATTERN].number[0, :128].values.sum()
    assert seen["2020-01-01/0"]["summary"] == {"total": int(total)}


# Change and resume -------------------------------------------------------------------------------


def test_a_further_date_touches_only_what_it_needs(root):
    run(root, dates=DATES[:2])
    old = files(root, "receipts/**/*", "selfcheck/*/*/c/0/**/*", "selfcheck/*/*/c/1/**/*")
    summary = run(root, dates=DATES)
    assert [set(stage.reasons) for stage in summary.stages] == [
        {f"2020-01-25/{first}" for first in (0, 128, 256)}
    ] * 2
    now = files(root, "receipts/**/*", "selfcheck/*/*/c/0/**/*", "selfcheck/*/*/c/1/**/*")
    assert old.items() <= now.items()
    fresh = f"{root}-fresh"
    run(fresh, dates=DATES)
    assert digests(root) == digests(fresh)


def test_a_date_in_the_middle_moves_the_later_ones(root):
    run(root, dates=[DATES[0], DATES[2]])
    run(root, dates=DATES)
    fresh = f"{root}-fresh"
    run(fresh, dates=DATES)
    assert digests(root) == digests(fresh)


def test_going_back_to_old_options_never_trusts_overwritten_chunks(root):
    run(root, dates=[DATES[0], DATES[2]])
    first = digests(root)
    run(root, dates=DATES)
    summary = run(root, dates=[DATES[0], DATES[2]])
    # The later date had been moved, so it is moved back; its old receipt is not trusted again.
    assert all(stage.moved for stage in summary.stages)
    assert digests(root) == first


@pytest.mark.parametrize("change", [{"chunk": 64}, {"lines": 290}])
def test_another_layout_starts_afresh(root, change):
    run(root)
    summary = run(root, **change)
    assert any("layout" in reason for reason in summary.stages[0].reasons.values())
    fresh = f"{root}-fresh"
    run(fresh, **change)
    assert digests(root) == digests(fresh)


def test_a_deleted_product_is_made_again(root):
    run(root)
    before = digests(root)
    CubeStore(root).remove(PATTERN)
    summary = run(root)
    assert set(summary.stages[0].reasons.values()) == {f"{PATTERN} is gone"}
    assert summary.stages[1].status == "current"
    assert digests(root) == before


def test_an_error_leaves_a_store_that_resumes(root, faults, monkeypatch):
    with pytest.raises(ProductError, match=r"D306.*S1A.SAFE"):
        run(root, stages=(faults,), keys=["a", "b", "c"], fault={"b": "data"})
    store = CubeStore(root)
    assert list(Ledger(store.objects).recorded("faults")) == ["a"]
    assert Ledger(store.objects).markers() == {}
    assert LOCK_NAME not in store.objects.names("")
    log = [json.loads(line) for line in Path(root, "logs/run-0001.jsonl").read_text().splitlines()]
    assert log[-1]["error"]["code"] == "D306"
    assert log[-1]["error"]["exit_code"] == 3
    summary = run(root, stages=(faults,), keys=["a", "b", "c"])
    assert set(summary.stages[0].reasons) == {"b", "c"}


def test_a_bug_is_reported_with_the_task(root, faults):
    with pytest.raises(TaskFailedError, match=r"faults/a: ZeroDivisionError") as caught:
        run(root, stages=(faults,), keys=["a"], fault={"a": "bug"})
    assert "_go_wrong" in caught.value.details


@pytest.mark.parametrize("kind", ["network-once", "disk-once"])
def test_a_passing_fault_is_tried_again(root, faults, tmp_path, kind):
    flag = {"flag": str(tmp_path)}
    assert run(root, stages=(faults,), keys=["a"], fault={"a": kind}, **flag).tasks_run == 1


def test_a_lasting_network_fault_ends_the_run(root, faults):
    with pytest.raises(NetworkError, match="R810"):
        run(root, stages=(faults,), keys=["a"], fault={"a": "network"})


def test_out_of_memory_has_a_code(root, faults):
    with pytest.raises(StorageError, match=r"R805.*faults/a"):
        run(root, stages=(faults,), keys=["a"], fault={"a": "memory"})


# Rules for stages --------------------------------------------------------------------------------


def test_chunks_without_a_task_are_refused_unless_a_whole_date_is_missing(root, faults):
    with pytest.raises(ValueError, match=r"no task wrote to chunk \(1, 1\) of scene/faults/x"):
        run(root, stages=(faults,), keys=["a", "b"], fault={"b": "gap"})


def test_a_hole_is_filled_and_stays_a_hole_after_a_change(root, faults):
    run(root, stages=(faults,), keys=["a", "b", "c"])
    summary = run(root, stages=(faults,), keys=["a", "b", "c"], fault={"b": "no-task"})
    assert summary.stages[0].holes == 2
    data = open_root(root)["scene/faults"].x.values
    np.testing.assert_array_equal(data[[0, 2]], [[0] * 8, [2] * 8])
    assert np.isnan(data[1]).all()
    assert run(root, stages=(faults,), keys=["a", "b", "c"], fault={"b": "no-task"}).tasks_run == 0


def test_writing_a_chunk_twice_is_refused(root, faults):
    with pytest.raises(ValueError, match="two tasks wrote"):
        run(root, stages=(faults,), keys=["a"], fault={"a": "twice"})


def test_writing_to_an_undeclared_product_is_refused(root, faults):
    with pytest.raises(TaskFailedError, match="not among its outputs"):
        run(root, stages=(faults,), keys=["a"], fault={"a": "strange"})


def test_reading_an_undeclared_product_is_refused(root, faults):
    run(root)
    with pytest.raises(StorageError, match=r"R801.*selfcheck/pattern"):
        run(root, stages=(faults,), keys=["a"], fault={"a": "peek"})


def test_a_task_that_gives_other_bytes_is_a_hard_error(root, faults):
    from bperp.flows.worker import run_task

    options = {"faults": {"keys": ["a"], "fault": {"a": "random"}}}
    store = CubeStore(root)
    plan = plan_stage(faults, StageContext(options=options), store)
    store.create(plan.templates[0])
    run_task(RunSite(root).as_json(), plan.orders[0].as_json())
    with pytest.raises(StorageError, match="R812"):
        run_task(RunSite(root).as_json(), plan.orders[0].as_json())


def test_a_worker_of_another_run_stops(root, faults):
    from bperp.flows.worker import run_task

    store = CubeStore(root)
    plan = plan_stage(faults, StageContext(options={"faults": {"keys": ["a"]}}), store)
    store.create(plan.templates[0])
    with run_lock(store.objects) as owner:
        orphan = RunSite(root, token="of an earlier run")
        with pytest.raises(StorageError, match="R806"):
            run_task(orphan.as_json(), plan.orders[0].as_json())
        run_task(RunSite(root, token=owner.token).as_json(), plan.orders[0].as_json())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"key": "2020-01-01/128"}, "unique"),
        ({"outputs": ("scene/other",)}, "planned products"),
        ({"stage": "other"}, "planned products"),
        ({"parameters": {"when": Path("x")}}, "JSON"),
        ({"inputs": ("selfcheck-pattern/none",)}, "not planned"),
    ],
)
def test_contradictory_plans_are_refused(root, monkeypatch, change, message):
    def plan(context):
        good = PATTERN_STAGE.plan(context)
        return Plan(good.templates, (replace(good.tasks[0], **change), *good.tasks[1:]))

    bad = replace(PATTERN_STAGE, plan=plan, path="bperp.flows.selfcheck:BAD")
    monkeypatch.setattr(selfcheck, "BAD", bad, raising=False)
    context = StageContext(options={"selfcheck": DEFAULTS})
    context.remember("selfcheck-pattern", PlannedStage({}, {}, {}, finished=True))
    with pytest.raises(ValueError, match=message):
        plan_stage(bad, context, CubeStore(root))


def test_a_stage_must_be_found_under_its_path(root):
    for path in ("bperp.flows.selfcheck:SUM_STAGE", "bperp.flows.selfcheck:DEFAULTS"):
        lost = replace(PATTERN_STAGE, path=path)
        with pytest.raises(ValueError, match="path"):
            plan_stage(lost, StageContext(options={"selfcheck": DEFAULTS}), CubeStore(root))


# Selection ---------------------------------------------------------------------------------------


def test_a_selection_needs_its_upstream(root):
    with pytest.raises(UpstreamPendingError, match=r"C109.*selfcheck-pattern"):
        run(root, Selection(first="selfcheck-sum"))
    assert statuses(run(root, Selection(last="selfcheck-pattern"))) == {"pattern": "done"}
    assert list(open_root(root)) == [PATTERN]
    assert statuses(run(root, Selection(only=("selfcheck-sum",)))) == {"sum": "done"}


def test_a_selection_does_not_build_on_outdated_results(root):
    run(root)
    with pytest.raises(UpstreamPendingError, match="C109"):
        run(root, Selection(first="selfcheck-sum"), dates=DATES)


@pytest.mark.parametrize(
    ("selection", "code"),
    [
        (Selection(first="selfcheck-patern"), "C101"),
        (Selection(only=("nothing",)), "C101"),
        (Selection("selfcheck-sum", "selfcheck-pattern"), "C102"),
    ],
)
def test_a_wrong_selection_is_explained(root, selection, code):
    with pytest.raises(ConfigurationError, match=code) as caught:
        run(root, selection)
    assert "selfcheck-pattern" in str(caught.value)


# Visibility --------------------------------------------------------------------------------------


def test_products_become_visible_last_and_vanish_first(root):
    seen = []

    class Watching(SerialExecutor):
        def run(self, site, orders):
            for result in super().run(site, orders):
                seen.append(sorted(Ledger(CubeStore(root).objects).markers()))
                yield result

    run(root, executor=Watching())
    assert seen == [[]] * 6 + [["selfcheck-pattern"]] * 6
    seen.clear()
    run(root, executor=Watching(), dates=DATES)
    assert seen == [["selfcheck-sum"]] * 3 + [["selfcheck-pattern"]] * 3


def test_sources_read_only_what_they_may(root):
    run(root)
    source = TaskSource(CubeStore(root), frozenset({PATTERN}))
    assert source.read(PATTERN, "number", (slice(0, 1),)).shape == (1, 300, 130)
    with pytest.raises(StorageError, match=rf"R801 {SUM}"):
        source.read(SUM, "sum", ())
    with pytest.raises(ValueError, match="elevation"):
        source.elevation(0, 0, 1, 1)


# Resources ---------------------------------------------------------------------------------------


def test_too_little_memory_is_refused_with_numbers_before_anything_changes(root, faults):
    run(root, stages=(faults,), keys=["a"])
    before = files(root, "markers/*", "receipts/**/*")
    with pytest.raises(StorageError, match=r"R805.*2667 MB.*2000 MB per worker") as caught:
        run(
            root,
            stages=(faults,),
            keys=["a", "b"],
            memory_bytes=2_000_000_000,
            executor=SerialExecutor(memory_limit_bytes=2_000_000_000),
        )
    assert caught.value.exit_code == 4
    assert files(root, "markers/*", "receipts/**/*") == before


def test_a_disk_that_is_too_small_is_refused_before_anything_changes(root, monkeypatch):
    from bperp.flows import staging

    usage = type("usage", (), {"free": 1000})
    monkeypatch.setattr(staging.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(StorageError, match=r"R804.*selfcheck-pattern"):
        run(root)
    assert files(root, "selfcheck/**/*") == {}


def test_a_locked_store_is_refused(root):
    store = CubeStore(root)
    with run_lock(store.objects), pytest.raises(StorageError, match="R806"):
        run(root)
    assert run(root).tasks_run == 12


def test_the_selfcheck_cleans_up(tmp_path):
    report = selfcheck.run_selfcheck(str(tmp_path), SerialExecutor())
    assert (report["tasks"], report["blocks"], report["wrong"]) == (12, 12, 0)
    assert list(tmp_path.iterdir()) == []


def test_the_engine_works_on_a_store_that_is_no_folder(tmp_path):
    root = f"memory://{tmp_path.name}"
    assert run(root).tasks_run == 12
    assert run(root).tasks_run == 0
    assert run(root, dates=DATES).tasks_run == 6
    assert open_root(root)[SUM]["sum"].shape == (3, 300, 130)
    CubeStore(root).objects.remove_tree("")
