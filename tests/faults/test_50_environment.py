"""Clocks, terminals, logs and packages that are not as the program would like them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from fault_registry import fault
from root_state import root_state

from bperp.flows import doctor

CHAIN = "import selfcheck_chain; selfcheck_chain.install()\n"
OTHER_CLOCK = """
import datetime, time
honest, honest_ns = time.time, time.time_ns
time.time = lambda: honest() + {seconds}
time.time_ns = lambda: honest_ns() + {seconds} * 10**9
class Moved(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return cls.fromtimestamp(time.time(), tz)
for module in list(__import__("sys").modules.values()):
    if getattr(module, "__name__", "").startswith("bperp.") and hasattr(module, "datetime"):
        module.datetime = Moved
"""
"""What a program sees whose machine has a wrong clock."""
YEARS = 365 * 86400

ZONES = ["Pacific/Kiritimati", "Etc/GMT+12", "America/St_Johns", "Antarctica/Troll"]


def run(forks, stack, prepare: str = "", **environment: str):
    command = ("run", stack.config, "--engine", "serial", "--json")
    return forks.run(*command, prepare=CHAIN + prepare, environment=environment)


# Clocks ------------------------------------------------------------------------------------------


@fault("G11", level="P")
@pytest.mark.parametrize(
    ("zone", "seconds"), [(ZONES[0], 0), (ZONES[1], 20 * YEARS), (ZONES[2], -30 * YEARS)]
)
def test_results_do_not_depend_on_the_clock(forks, selfcheck, tmp_path, zone, seconds):
    assert run(forks, selfcheck).code == 0
    expected = root_state(selfcheck.root)
    selfcheck.config.write_text(
        selfcheck.config.read_text().replace(str(selfcheck.root), str(tmp_path / "other"))
    )
    done = run(forks, selfcheck, OTHER_CLOCK.format(seconds=seconds), TZ=zone)
    assert done.code == 0, done.stderr
    assert root_state(tmp_path / "other") == expected
    log = json.loads((tmp_path / "other/logs/run-0001.jsonl").read_text().splitlines()[0])
    assert log["time"].endswith("+00:00"), "the log is in UTC wherever it is written"


@fault("G11", level="P")
@pytest.mark.slow
@pytest.mark.parametrize(("zone", "seconds"), [(ZONES[0], 20 * YEARS), (ZONES[3], -2 * YEARS)])
def test_a_finished_stack_is_current_in_every_time_zone(forks, stack, zone, seconds):
    """Ids of tasks hash every time of the stack: none of them is read as local time."""
    command = ("run", stack.config, "--to", "timeseries", "--dry-run", "--json")
    prepare = OTHER_CLOCK.format(seconds=seconds)
    done = forks.run(*command, prepare=prepare, environment={"TZ": zone})
    assert done.code == 0, done.stderr
    assert {stage["status"] for stage in done.document["stages"]} == {"current"}


@fault("G11", level="P")
def test_a_clock_that_jumps_back_does_not_free_a_lock(forks, selfcheck):
    slowly = {"SELFCHECK": '{"delay_s": 0.1}'}
    command = ("run", selfcheck.config, "--engine", "serial", "--json")
    first = forks.start(*command, prepare=CHAIN, environment=slowly)
    while not (selfcheck.root / "run.lock").exists():
        pass
    for seconds in (-30 * YEARS, 30 * YEARS):
        second = run(forks, selfcheck, OTHER_CLOCK.format(seconds=seconds))
        assert (second.code, second.error["code"]) == (4, "R806")
    assert first.wait().code == 0


# Terminals ---------------------------------------------------------------------------------------


@fault("G21", level="P")
@pytest.mark.slow
def test_output_is_plain_lines_without_a_terminal(stack):
    """In a real process: the encoding of the streams is chosen when Python starts."""
    odd = stack.root.with_name("wurzel-\u00e4\u03bb")
    stack.root.rename(odd)
    plain = {"LANG": "C", "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = subprocess.run(
        [sys.executable, "-m", "bperp.flows.cli", "verify", str(odd)],
        capture_output=True,
        check=False,
        env={**os.environ, **plain, "COLUMNS": "20", "TERM": "dumb"},
    )
    assert done.returncode == 0, done.stderr
    for output in (done.stdout, done.stderr):
        output.decode("ascii")
        assert b"\x1b" not in output
        assert b"\r" not in output
    assert done.stdout.decode().rstrip().endswith("is complete and unharmed")


@fault("G21", level="P")
@pytest.mark.parametrize("variable", [{"NO_COLOR": "1"}, {"TERM": "dumb"}, {"COLUMNS": "10"}])
def test_progress_is_plain_lines_without_a_terminal(forks, selfcheck, variable):
    command = ("run", selfcheck.config, "--engine", "serial")
    done = forks.run(*command, prepare=CHAIN, environment=variable)
    assert done.code == 0
    assert "\x1b" not in done.stdout + done.stderr
    assert "selfcheck-sum: done in 0 s" in done.stderr.splitlines()


# Logs --------------------------------------------------------------------------------------------


@fault("G20", level="P")
def test_the_root_logger_is_left_alone(forks, selfcheck):
    look = (
        "import atexit, logging, sys\n"
        "before = (logging.root.level, list(logging.root.handlers))\n"
        "honest = sys.exit\n"
        "def leave(code):\n"
        "    now = (logging.root.level, list(logging.root.handlers))\n"
        "    print('same' if now == before else now, file=sys.stderr)\n"
        "    honest(code)\n"
        "sys.exit = leave\n"
    )
    done = run(forks, selfcheck, look)
    assert done.code == 0
    assert done.stderr.splitlines()[-1] == "same"


@fault("G20", level="P")
def test_the_log_of_a_run_grows_with_its_tasks_and_not_with_debugging(forks, selfcheck):
    debug = "import logging; logging.getLogger().setLevel(logging.DEBUG)\n"
    sizes = []
    for prepare, options in (("", {}), (debug, {}), ("", {"chunk": 64})):
        done = run(forks, selfcheck, prepare, SELFCHECK=json.dumps({"lines": 128 + 64, **options}))
        assert done.code == 0
        assert len(done.stderr) < 20_000
        log = selfcheck.root / done.document["log"]
        sizes.append((done.document["tasks_run"], log.stat().st_size))
    assert [tasks for tasks, _ in sizes] == [8, 0, 12]
    assert sizes[1][1] < 1_000
    per_task = (sizes[2][1] - sizes[1][1]) / 12
    assert per_task < 1_000


# Packages ----------------------------------------------------------------------------------------


@fault("G16", level="P")
@pytest.mark.parametrize(
    ("package", "version"), [("fastapi", "0.163.2"), ("SQLAlchemy", "2.1.9"), ("prefect", "1.4.1")]
)
def test_versions_that_break_the_program_are_diagnosed(tmp_path, monkeypatch, package, version):
    """Metadata of another version found first, as after an unlucky ``pip install``."""
    metadata = tmp_path / f"{package}-{version}.dist-info" / "METADATA"
    metadata.parent.mkdir()
    metadata.write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    diagnosis = doctor.examine(thorough=False)
    (symptom,) = [item for item in diagnosis.symptoms if item.level == "error"]
    assert (symptom.name.lower(), symptom.found) == (package.lower(), version)
    assert re.search(rf"pip install '{package}.*<", symptom.remedy, re.IGNORECASE)
    assert diagnosis.exit_code == 4


@fault("G16", level="U")
def test_the_locks_hold_what_the_program_can_work_with():
    repository = Path(__file__).resolve().parents[2]
    text = (repository / "requirements.lock").read_text(encoding="utf-8")
    pins = {name.lower(): version for name, version in re.findall(r"^([\w.-]+)==(\S+)", text, re.M)}
    assert tuple(map(int, pins["fastapi"].split(".")))[:2] < (0, 151)
    assert tuple(map(int, pins["sqlalchemy"].split(".")))[:2] < (2, 1)
