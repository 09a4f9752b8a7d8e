"""What a person or a program sees of a run: bars, plain lines, JSON lines, or nothing."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import IO, Any, Literal, Protocol

Mode = Literal["auto", "rich", "plain", "json", "none"]


class Progress(Protocol):
    """Told by the engine; never asked."""

    def stage_started(self, stage: str, total: int, done: int, pixels: int) -> None:
        """Tell that a stage begins with ``done`` of ``total`` tasks done and ``pixels`` to do."""
        ...

    def task_finished(self, stage: str, pixels: int, bytes_written: int) -> None:
        """Tell that one task is done."""
        ...

    def stage_finished(self, stage: str, seconds: float) -> None:
        """Tell that all tasks of a stage are done and its marker is written."""
        ...

    def note(self, text: str) -> None:
        """Show one line of text."""
        ...

    def close(self) -> None:
        """Leave the terminal as it was; safe to call twice."""
        ...


@dataclass
class _Tally:
    """Counts of one stage and the rates that follow from them."""

    total: int
    done: int
    pixels_left: int
    clock: Callable[[], float]
    started: float = 0.0
    run: int = 0
    pixels: int = 0
    bytes_written: int = 0

    def __post_init__(self) -> None:
        self.started = self.clock()

    def add(self, pixels: int, bytes_written: int) -> None:
        self.done += 1
        self.run += 1
        self.pixels += pixels
        self.bytes_written += bytes_written

    def figures(self) -> dict[str, Any]:
        """Return megabytes and megapixels per second and the seconds that are left."""
        seconds = max(self.clock() - self.started, 1e-6)
        # Pixels foretell better than tasks, whose sizes differ; but not every stage counts pixels.
        share = self.pixels / self.pixels_left if self.pixels_left else 0.0
        share = share or self.run / max(self.total - self.done + self.run, 1)
        left = seconds * (1.0 - share) / share if share else None
        return {
            "done": self.done,
            "total": self.total,
            "megabytes_per_s": round(self.bytes_written / seconds / 1e6, 2),
            "megapixels_per_s": round(self.pixels / seconds / 1e6, 2),
            "seconds_left": None if left is None else round(max(left, 0.0), 1),
        }

    def text(self) -> str:
        """Return the figures for people."""
        figures = self.figures()
        left = figures["seconds_left"]
        return (
            f"{figures['megabytes_per_s']:.1f} MB/s, {figures['megapixels_per_s']:.1f} Mpx/s, "
            f"{duration_text(left) if left is not None else '?'} left"
        )


def duration_text(seconds: float) -> str:
    """Return a duration such as ``7 s``, ``3:05`` or ``2:00:09``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    hours, minutes = divmod(whole // 60, 60)
    clock = f"{minutes:02d}:{whole % 60:02d}" if hours else f"{minutes}:{whole % 60:02d}"
    return f"{hours}:{clock}" if hours else clock


class NullProgress:
    """Show nothing."""

    def stage_started(self, stage: str, total: int, done: int, pixels: int) -> None:
        """Do nothing."""

    def task_finished(self, stage: str, pixels: int, bytes_written: int) -> None:
        """Do nothing."""

    def stage_finished(self, stage: str, seconds: float) -> None:
        """Do nothing."""

    def note(self, text: str) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""


class PlainProgress:
    """Lines without control characters, for logs and narrow terminals.

    Parameters
    ----------
    stream : text stream
        Usually standard error.
    interval_s : float, default 5
        At most one line per so many seconds and stage, besides the first and the last.
    clock : callable, default time.monotonic
        Seconds from any origin.
    """

    def __init__(
        self,
        stream: IO[str],
        interval_s: float = 5.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.stream, self.interval_s, self.clock = stream, interval_s, clock
        self._tallies: dict[str, _Tally] = {}
        self._last = 0.0

    def stage_started(self, stage: str, total: int, done: int, pixels: int) -> None:
        """Tell that a stage begins."""
        self._tallies[stage] = _Tally(total, done, pixels, self.clock)
        self._last = self.clock()
        self._line(f"{stage}: {total - done} of {total} tasks to do")

    def task_finished(self, stage: str, pixels: int, bytes_written: int) -> None:
        """Tell how far the stage is, now and then."""
        tally = self._tallies[stage]
        tally.add(pixels, bytes_written)
        if self.clock() - self._last >= self.interval_s:
            self._last = self.clock()
            self._line(f"{stage}: {tally.done}/{tally.total}, {tally.text()}")

    def stage_finished(self, stage: str, seconds: float) -> None:
        """Tell that a stage is done."""
        self._line(f"{stage}: done in {duration_text(seconds)}")

    def note(self, text: str) -> None:
        """Show one line of text."""
        self._line(text)

    def close(self) -> None:
        """Flush the stream."""
        self.stream.flush()

    def _line(self, text: str) -> None:
        self.stream.write(text + "\n")
        self.stream.flush()


class JsonProgress:
    """One JSON object per line, for programs.

    Parameters
    ----------
    stream : text stream
        Usually standard output with ``--json``.
    clock : callable, default time.monotonic
        Seconds from any origin.
    """

    def __init__(self, stream: IO[str], clock: Callable[[], float] = time.monotonic) -> None:
        self.stream, self.clock = stream, clock
        self._tallies: dict[str, _Tally] = {}

    def stage_started(self, stage: str, total: int, done: int, pixels: int) -> None:
        """Write ``stage_started``."""
        self._tallies[stage] = _Tally(total, done, pixels, self.clock)
        self._line("stage_started", stage=stage, total=total, done=done, pixels=pixels)

    def task_finished(self, stage: str, pixels: int, bytes_written: int) -> None:
        """Write ``task_finished`` with the rates."""
        self._tallies[stage].add(pixels, bytes_written)
        self._line("task_finished", stage=stage, **self._tallies[stage].figures())

    def stage_finished(self, stage: str, seconds: float) -> None:
        """Write ``stage_finished``."""
        self._line("stage_finished", stage=stage, seconds=round(seconds, 3))

    def note(self, text: str) -> None:
        """Write ``note``."""
        self._line("note", text=text)

    def close(self) -> None:
        """Flush the stream."""
        self.stream.flush()

    def _line(self, event: str, **fields: Any) -> None:
        self.stream.write(json.dumps({"event": event, **fields}) + "\n")
        self.stream.flush()


@dataclass
class RichProgress:
    """Bars on a terminal: stage, done of total, rates, time left.

    Parameters
    ----------
    stream : text stream
        A terminal.
    """

    stream: IO[str]
    _bars: Any = None
    _tasks: dict[str, Any] = field(default_factory=dict)
    _tallies: dict[str, _Tally] = field(default_factory=dict)

    def stage_started(self, stage: str, total: int, done: int, pixels: int) -> None:
        """Add a bar."""
        if self._bars is None:
            self._bars = _start_bars(self.stream)
        self._tallies[stage] = _Tally(total, done, pixels, time.monotonic)
        self._tasks[stage] = self._bars.add_task(stage, total=total, completed=done, rates="")

    def task_finished(self, stage: str, pixels: int, bytes_written: int) -> None:
        """Move the bar."""
        tally = self._tallies[stage]
        tally.add(pixels, bytes_written)
        self._bars.update(self._tasks[stage], completed=tally.done, rates=tally.text())

    def stage_finished(self, stage: str, seconds: float) -> None:
        """Fill the bar."""
        total = self._tallies[stage].total
        rates = f"done in {duration_text(seconds)}"
        self._bars.update(self._tasks[stage], total=max(total, 1), completed=max(total, 1))
        self._bars.update(self._tasks[stage], rates=rates)

    def note(self, text: str) -> None:
        """Show one line above the bars."""
        if self._bars is not None:
            self._bars.console.print(text, markup=False, highlight=False)
        else:
            self.stream.write(text + "\n")

    def close(self) -> None:
        """Stop redrawing and give the cursor back."""
        if self._bars is not None:
            self._bars.stop()
            self._bars = None


def open_progress(mode: Mode = "auto", stream: IO[str] | None = None) -> Progress:
    """Return the display for a run.

    Parameters
    ----------
    mode : {"auto", "rich", "plain", "json", "none"}
        ``auto`` gives bars on a terminal and plain lines elsewhere.
    stream : text stream, optional
        Default standard error, for JSON standard output.

    Returns
    -------
    Progress
        To be closed after the run.
    """
    if mode == "none":
        return NullProgress()
    if mode == "json":
        return JsonProgress(stream or sys.stdout)
    target = stream or sys.stderr
    if mode == "rich" or (mode == "auto" and target.isatty()):
        return RichProgress(target)
    return PlainProgress(target)


def _start_bars(stream: IO[str]) -> Any:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
    from rich.progress import Progress as Bars

    bars = Bars(
        TextColumn("{task.description:<14}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rates]}"),
        console=Console(file=stream),
    )
    bars.start()
    return bars
