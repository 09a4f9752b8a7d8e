"""What the command line prints: one JSON document, or tables and lines for people.

Results go to stdout, progress and errors to stderr. Without a terminal there are no colours, bars
or cursor movements. Everything printed is free of credentials and control characters.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TextIO, cast

from bperp.flows.masking import mask_secrets
from bperp.flows.progress import Mode, Progress, open_progress
from bperp.stores.errors import BperpError, StorageError

__all__ = [
    "Console",
    "Outcome",
    "StepCounter",
    "as_json_value",
    "is_terminal",
    "plain_table",
    "storage_fault",
]

INTERNAL, INTERRUPTED = 1, 130
_DISK_FULL = ("ENOSPC", "EDQUOT", "EFBIG")
_NOT_WRITABLE = ("EACCES", "EPERM", "EROFS")


@dataclass(frozen=True)
class Outcome:
    """What a verb has to say.

    Attributes
    ----------
    payload : mapping
        Content of the JSON document.
    text : callable
        Prints the same for people.
    exit_code : int
        Exit code of the process.
    """

    payload: Mapping[str, Any]
    text: Callable[[Console], None]
    exit_code: int = 0


class Console:
    """Printer of one verb.

    Parameters
    ----------
    verb : str
        Name of the verb, part of the JSON document.
    as_json : bool
        One JSON document on stdout, JSON lines on stderr.
    debug : bool
        Print tracebacks on stderr.
    """

    def __init__(self, verb: str, *, as_json: bool = False, debug: bool = False) -> None:
        self.verb, self.as_json, self.debug = verb, as_json, debug
        self._close: list[Callable[[], None]] = []

    def progress(self) -> Progress:
        """Return the progress display that fits the output; it is closed before results appear."""
        mode = "json" if self.as_json else "rich" if is_terminal(sys.stderr) else "plain"
        display = open_progress(cast("Mode", mode), sys.stderr)
        self._close.append(display.close)
        return display

    def line(self, text: str = "") -> None:
        """Print a line of the result."""
        print(_clean(text))

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Print a table: drawn on a terminal, aligned columns otherwise."""
        cells = [[_clean(_cell(value)) for value in row] for row in rows]
        if not is_terminal(sys.stdout):
            self.line(plain_table(title, columns, cells))
            return
        from rich.console import Console as Terminal
        from rich.table import Table
        from rich.text import Text

        drawn = Table(*columns, title=title, title_justify="left")
        for row in cells:
            drawn.add_row(*map(Text, row))
        Terminal().print(drawn)

    def finish(self, outcome: Outcome) -> int:
        """Print the result of a verb and return its exit code."""
        self._close_progress()
        if self.as_json:
            status = "ok" if outcome.exit_code == 0 else "failed"
            self._document({"status": status, "exit_code": outcome.exit_code, **outcome.payload})
        else:
            outcome.text(self)
        sys.stdout.flush()
        return outcome.exit_code

    def fault(self, error: BperpError) -> int:
        """Print an expected fault as one line (or JSON) and return its exit code."""
        self._trace()
        fields = {name: _text_or_none(value) for name, value in error.as_dict().items()}
        fields["exit_code"] = error.exit_code
        self._fail(f"error {error}", fields, error.exit_code)
        return error.exit_code

    def interrupted(self) -> int:
        """Report Ctrl-C or a termination signal."""
        cause = "interrupted; run the same command again to resume"
        self._fail(cause, {"code": None, "cause": cause}, INTERRUPTED)
        return INTERRUPTED

    def internal(self, error: BaseException) -> int:
        """Report a bug in one line and keep the traceback in a private file."""
        self._trace()
        cause = f"{type(error).__name__}: {error}".rstrip(": ")
        log = _write_log(self.verb, error)
        fields = {"code": None, "cause": mask_secrets(cause), "log": log}
        self._fail(f"internal error {cause}; please report it with {log}", fields, INTERNAL)
        return INTERNAL

    def _close_progress(self) -> None:
        while self._close:
            self._close.pop()()

    def _fail(self, line: str, fields: Mapping[str, Any], exit_code: int) -> None:
        self._close_progress()
        if self.as_json:
            self._document({"status": "error", "exit_code": exit_code, "error": fields})
        else:
            print(_clean(" ".join(line.split())), file=sys.stderr, flush=True)

    def _document(self, values: Mapping[str, Any]) -> None:
        document = as_json_value({"verb": self.verb, **values})
        print(json.dumps(document, indent=2, allow_nan=False), flush=True)

    def _trace(self) -> None:
        if self.debug:
            print(mask_secrets(traceback.format_exc()), file=sys.stderr)


class StepCounter:
    """Feed a display from a function that counts: ``counter(done, total, text)``.

    Parameters
    ----------
    display : Progress
        Bars, lines or JSON lines.
    step : str
        Name of the work.
    """

    def __init__(self, display: Progress, step: str) -> None:
        self._display, self._step = display, step
        self._done, self._started = 0, 0.0

    def __call__(self, done: int, total: int, text: str = "") -> None:
        """Report that ``done`` of ``total`` units are finished."""
        if not self._started:
            self._started = time.perf_counter()
            self._display.stage_started(self._step, total, 0, 0)
        for _ in range(done - self._done):
            self._display.task_finished(self._step, 0, 0)
        self._done = max(self._done, done)
        if done >= total:
            self._display.stage_finished(self._step, time.perf_counter() - self._started)


def storage_fault(error: OSError | MemoryError) -> StorageError | None:
    """Return the typed error of a full disk, missing permission or memory; None for others."""
    if isinstance(error, MemoryError):
        return StorageError(
            "R805",
            "the process ran out of memory",
            remedy="use fewer workers (compute.workers) or a machine with more memory",
        )
    import errno

    name = errno.errorcode.get(error.errno or 0, "")
    where = None if error.filename is None else str(error.filename)
    if name in _DISK_FULL:
        return StorageError("R804", "the disk is full", where=where, remedy="free space and resume")
    if name in _NOT_WRITABLE:
        cause = "access is not permitted"
        return StorageError("R807", cause, where=where, remedy="check owner and permissions")
    return None


def is_terminal(stream: TextIO) -> bool:
    """Tell whether a stream may get colours and moving bars."""
    if "NO_COLOR" in os.environ or os.environ.get("TERM") == "dumb":
        return False
    return stream.isatty()


def plain_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return an aligned table without drawing characters."""
    lines = [list(columns), *(list(row) for row in rows)]
    widths = [max(len(line[index]) for line in lines) for index in range(len(columns))]
    text = [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    ]
    return "\n".join([f"{title}:", *(f"  {line}" for line in text)])


def as_json_value(value: Any) -> Any:
    """Return plain JSON values: dataclasses and arrays unfolded, NaN as null, secrets masked."""
    if hasattr(value, "as_dict"):
        value = value.as_dict()
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = dataclasses.asdict(value)
    elif hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, Mapping):
        return {str(key): as_json_value(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [as_json_value(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, bool | int):
        return value
    return mask_secrets(str(value))


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _text_or_none(value: Any) -> Any:
    return mask_secrets(value) if isinstance(value, str) else value


def _clean(text: str) -> str:
    """Mask credentials and replace what could steer a terminal."""
    masked = mask_secrets(text)
    return "".join(c if c.isprintable() or c == "\n" else "?" for c in masked)


def _write_log(verb: str, error: BaseException) -> str:
    text = mask_secrets("".join(traceback.format_exception(error)))
    try:
        # mkstemp makes the file private to the user.
        handle, path = tempfile.mkstemp(prefix=f"bperp-{verb}-", suffix=".log", text=True)
        with os.fdopen(handle, "w", encoding="utf-8", errors="replace") as stream:
            stream.write(text)
    except OSError:
        return "--debug (no log could be written)"
    return path
