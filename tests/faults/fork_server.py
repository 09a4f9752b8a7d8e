"""Processes that start in a few milliseconds: children of one that has imported everything.

A test of what happens to a process needs a real one: to be killed, to run under another user, with
another clock or terminal. Importing bperp takes seconds, a fork of a process that has done so takes
none. ``ForkServer`` starts such a process; each request forks a child of it, in a session of its
own, with files for its output. Requests and answers are lines of JSON.

The server ends with the process that started it: it reads its standard input, which then closes.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent
FAULT_STAGES = FOLDER.parent / "flows"


@dataclass(frozen=True)
class Ended:
    """A process that has ended: exit code, or minus the number of the signal, and its output."""

    code: int
    stdout: str
    stderr: str

    @property
    def document(self) -> dict[str, Any]:
        """The JSON document on standard output."""
        return json.loads(self.stdout)

    @property
    def error(self) -> dict[str, Any]:
        """The error in the JSON document."""
        return self.document["error"]


class Child:
    """A running process of a ``ForkServer``."""

    def __init__(self, server: ForkServer, pid: int, folder: Path) -> None:
        self.server, self.pid, self.folder = server, pid, folder

    def signal(self, number: int) -> None:
        """Send a signal to the process alone."""
        os.kill(self.pid, number)

    def wait(self, seconds: float = 60.0, meanwhile: Callable[[], object] | None = None) -> Ended:
        """Wait for the end; a process that is still there then is killed, and the test fails.

        ``meanwhile`` is called now and then.
        """
        deadline, code = time.monotonic() + seconds, None
        while code is None and time.monotonic() < deadline:
            code = self.server.ask(wait=self.pid, seconds=0.2 if meanwhile else seconds)["code"]
            if meanwhile is not None:
                meanwhile()
        if code is None:
            self.signal(signal.SIGKILL)
            self.server.ask(wait=self.pid, seconds=10)
        output = [(self.folder / name).read_text(errors="replace") for name in ("out", "err")]
        assert code is not None, f"still running after {seconds} s: {output}"
        return Ended(code, *output)


class ForkServer:
    """Starts children of a process that has imported bperp."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"},
        )
        self._folder = tempfile.TemporaryDirectory(prefix="bperp-forks-")
        self._count = 0
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "ready\n"

    def ask(self, **request: Any) -> dict[str, Any]:
        """Send a request and return the answer."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def start(
        self,
        *arguments: str | Path,
        prepare: str = "",
        environment: Mapping[str, str | None] | None = None,
    ) -> Child:
        """Start ``bperp ARGUMENTS``, or with no arguments just ``prepare``.

        ``prepare`` is Python text that the child executes first; ``None`` removes a variable.
        """
        self._count += 1
        folder = Path(self._folder.name) / str(self._count)
        folder.mkdir()
        folder.chmod(0o777)
        answer = self.ask(
            arguments=[str(item) for item in arguments],
            prepare=prepare,
            environment=dict(environment or {}),
            folder=str(folder),
        )
        return Child(self, answer["pid"], folder)

    def run(self, *arguments: str | Path, seconds: float = 60.0, **options: Any) -> Ended:
        """Start a command and wait for its end."""
        return self.start(*arguments, **options).wait(seconds)

    def close(self) -> None:
        """End the server; its children have ended."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(30)
        self._process.stdout.close()
        self._folder.cleanup()


def main() -> None:
    """Serve requests until standard input closes."""
    sys.path[:0] = [str(FOLDER), str(FAULT_STAGES)]
    import_everything()
    answers = os.fdopen(os.dup(1), "w")
    print("ready", file=answers, flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        if "wait" in request:
            answer = {"code": wait(request["wait"], request["seconds"])}
        else:
            answer = {"pid": fork(request)}
        print(json.dumps(answer), file=answers, flush=True)


def import_everything() -> None:
    """Import what commands need, without starting a thread: threads do not survive a fork."""
    import distributed  # noqa: F401
    import fault_stages  # noqa: F401
    import s3fs  # noqa: F401
    import zarr  # noqa: F401

    import bperp.flows.check
    import bperp.flows.cli_verbs
    import bperp.flows.repair
    import bperp.flows.run
    import bperp.flows.selfcheck
    import bperp.flows.soundness
    import bperp.stores.dataset  # noqa: F401


def fork(request: Mapping[str, Any]) -> int:
    """Fork a child that does what is asked."""
    child = os.fork()
    if child:
        return child
    code = 70
    try:
        os.setsid()
        become(request)
        code = perform(request["prepare"], request["arguments"])
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def become(request: Mapping[str, Any]) -> None:
    """Take output files and environment of a command of its own."""
    folder = Path(request["folder"])
    for number, name in ((0, os.devnull), (1, folder / "out"), (2, folder / "err")):
        descriptor = os.open(name, os.O_RDWR | os.O_CREAT)
        os.dup2(descriptor, number)
        os.close(descriptor)
    for name, value in request["environment"].items():
        os.environ.pop(name, None)
        if value is not None:
            os.environ[name] = value
    time.tzset()


def perform(prepare: str, arguments: Sequence[str]) -> int:
    """Execute the preparation and the command line; return the exit code."""
    exec(compile(prepare, "prepare", "exec"), {"__name__": "prepare"})
    if not arguments:
        return 0
    from bperp.flows.cli import main as bperp

    sys.argv = ["bperp", *arguments]
    bperp()
    return 0


def wait(pid: int, seconds: float) -> int | None:
    """Return how a child ended, as ``subprocess`` does; ``None`` when it still runs."""
    deadline = time.monotonic() + seconds
    while True:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > deadline:
            return None
        time.sleep(0.005)


if __name__ == "__main__":
    main()
