"""What a run shows: right figures, few lines, valid JSON, no control characters where unwanted."""

from __future__ import annotations

import io
import json

import pytest

from bperp.flows.progress import (
    JsonProgress,
    NullProgress,
    PlainProgress,
    RichProgress,
    duration_text,
    open_progress,
)
from bperp.flows.runlog import RunLog
from bperp.stores.objects import open_objects


class Clock:
    """Seconds under the test's control."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def play(progress, clock=None, tasks: int = 100) -> None:
    """One stage of which half was done before; each task is 1 Mpx and 2 MB in 0.5 s."""
    progress.stage_started("ingest", 2 * tasks, tasks, tasks * 1_000_000)
    for _ in range(tasks):
        if clock is not None:
            clock.now += 0.5
        progress.task_finished("ingest", 1_000_000, 2_000_000)
    progress.stage_finished("ingest", 0.5 * tasks)
    progress.note("exports follow")
    progress.close()
    progress.close()


def test_json_lines_hold_the_figures():
    stream, clock = io.StringIO(), Clock()
    play(JsonProgress(stream, clock), clock)
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert lines[0] == {
        "event": "stage_started",
        "stage": "ingest",
        "total": 200,
        "done": 100,
        "pixels": 100_000_000,
    }
    # After 25 of 100 tasks: 12.5 s gone, 2 Mpx/s, 4 MB/s, 37.5 s left.
    assert lines[25] == {
        "event": "task_finished",
        "stage": "ingest",
        "done": 125,
        "total": 200,
        "megabytes_per_s": 4.0,
        "megapixels_per_s": 2.0,
        "seconds_left": 37.5,
    }
    assert lines[-2]["event"] == "stage_finished"
    assert lines[-1] == {"event": "note", "text": "exports follow"}


def test_the_time_left_works_without_pixels():
    stream, clock = io.StringIO(), Clock()
    progress = JsonProgress(stream, clock)
    progress.stage_started("export", 10, 0, 0)
    clock.now += 4.0
    progress.task_finished("export", 0, 0)
    assert json.loads(stream.getvalue().splitlines()[-1])["seconds_left"] == 36.0


def test_plain_lines_are_few_and_plain():
    stream, clock = io.StringIO(), Clock()
    play(PlainProgress(stream, 5.0, clock), clock)
    lines = stream.getvalue().splitlines()
    assert lines[0] == "ingest: 100 of 200 tasks to do"
    assert lines[1] == "ingest: 110/200, 4.0 MB/s, 2.0 Mpx/s, 45 s left"
    assert lines[-2:] == ["ingest: done in 50 s", "exports follow"]
    assert len(lines) == 1 + 10 + 2
    assert "\x1b" not in stream.getvalue()


def test_bars_are_drawn_on_a_terminal():
    stream = Terminal()
    play(RichProgress(stream), tasks=3)
    assert "ingest" in stream.getvalue()
    assert "6/6" in stream.getvalue()
    assert "exports follow" in stream.getvalue()


def test_bars_end_when_a_stage_fails():
    progress = RichProgress(Terminal())
    progress.stage_started("ingest", 3, 0, 0)
    progress.close()
    progress.close()


@pytest.mark.parametrize(
    ("mode", "stream", "kind"),
    [
        ("auto", Terminal(), RichProgress),
        ("auto", io.StringIO(), PlainProgress),
        ("plain", Terminal(), PlainProgress),
        ("json", io.StringIO(), JsonProgress),
        ("none", Terminal(), NullProgress),
    ],
)
def test_the_mode_chooses_the_display(mode, stream, kind):
    progress = open_progress(mode, stream)
    assert type(progress) is kind
    play(progress, tasks=1)


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (59.4, "59 s"), (185, "3:05"), (7209, "2:00:09")]
)
def test_durations_read_well(seconds, text):
    assert duration_text(seconds) == text


@pytest.mark.parametrize("kind", ["local", "memory"])
def test_logs_are_numbered_and_hold_one_event_per_line(tmp_path, kind):
    objects = open_objects(str(tmp_path) if kind == "local" else f"memory://{tmp_path.name}")
    for number in (1, 2):
        log = RunLog(objects)
        log.event("task_finished", key="a\nb", value=float("nan"))
        log.event("run_finished")
        log.flush()
        assert log.name == f"logs/run-{number:04d}.jsonl"
        lines = [json.loads(line) for line in objects.read(log.name).splitlines()]
        assert [line["event"] for line in lines] == ["task_finished", "run_finished"]
        assert (lines[0]["key"], lines[0]["value"]) == ("a\nb", None)
        assert lines[0]["time"].endswith("+00:00")
    objects.remove_tree("")
