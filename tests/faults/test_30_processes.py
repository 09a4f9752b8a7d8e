"""Two runs at once, signals, processes that die."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest
from fault_registry import fault
from root_state import root_state

CHAIN = "import selfcheck_chain; selfcheck_chain.install()\n"
SLOWLY = {"SELFCHECK": '{"delay_s": 0.1}'}
"""Twelve tasks of 0.1 s: long enough to be met in the middle."""


def start(forks, stack, *options: str):
    command = ("run", stack.config, "--engine", "serial", "--json", *options)
    return forks.start(*command, prepare=CHAIN, environment=SLOWLY)


def wait_for_receipts(root: Path, count: int) -> None:
    deadline = time.monotonic() + 60
    while len(list(root.glob("receipts/**/*.json"))) < count:
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture(scope="module")
def clean(forks, tmp_path_factory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("clean")
    config = folder / "stack.yaml"
    config.write_text(f"root: {folder}/root\nslc: ['*.zip']\ndem: {{path: dem.tif}}\n")
    done = forks.run("run", config, "--engine", "serial", prepare=CHAIN, environment=SLOWLY)
    assert done.code == 0
    return root_state(folder / "root")


def finish(forks, stack, clean) -> None:
    """Resume, and compare with an undisturbed run."""
    done = start(forks, stack).wait()
    assert done.code == 0, done.stdout
    assert 0 < done.document["tasks_run"] < 12
    assert root_state(stack.root) == clean


@fault("G08", level="P")
def test_the_second_run_is_told_who_holds_the_store_and_a_dead_owner_does_not(
    forks, selfcheck, clean
):
    first = start(forks, selfcheck)
    wait_for_receipts(selfcheck.root, 1)
    second = start(forks, selfcheck).wait()
    assert (second.code, second.error["code"]) == (4, "R806")
    assert f"process {first.pid} " in second.error["found"]
    first.signal(signal.SIGKILL)
    assert first.wait().code == -signal.SIGKILL
    assert (selfcheck.root / "run.lock").exists()
    finish(forks, selfcheck, clean)
    assert not list(selfcheck.root.glob("run.lock*"))


@fault("G08", level="P")
def test_of_two_runs_that_start_together_one_works(forks, selfcheck, clean):
    both = [start(forks, selfcheck) for _ in range(2)]
    ended = sorted([child.wait() for child in both], key=lambda end: end.code)
    assert [end.code for end in ended] == [0, 4]
    assert ended[1].error["code"] == "R806"
    assert root_state(selfcheck.root) == clean


@fault("G09", level="P")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_a_run_soon_and_it_resumes(forks, selfcheck, clean, number):
    child = start(forks, selfcheck)
    wait_for_receipts(selfcheck.root, 2)
    sent = time.monotonic()
    child.signal(number)
    ended = child.wait(10)
    assert time.monotonic() - sent < 10
    if number == signal.SIGHUP:
        # The terminal has gone: nobody reads a message, so the process just ends.
        assert ended.code == -signal.SIGHUP
    else:
        assert ended.code == 130
        assert ended.document["exit_code"] == 130
        assert "resume" in ended.error["cause"]
        assert "Traceback" not in ended.stderr
        assert not (selfcheck.root / "run.lock").exists()
    finish(forks, selfcheck, clean)


@fault("G09", level="P")
@pytest.mark.slow
def test_a_signal_ends_a_verification_soon(forks, finished):
    slowly = (
        "import time\n"
        "from bperp.stores.cube import CubeStore\n"
        "honest = CubeStore.read_raw\n"
        "def read(*arguments):\n"
        "    time.sleep(0.05)\n"
        "    return honest(*arguments)\n"
        "CubeStore.read_raw = read\n"
    )
    before = root_state(finished / "root")
    child = forks.start("verify", finished / "root", "--json", prepare=slowly)
    time.sleep(0.5)
    child.signal(signal.SIGTERM)
    ended = child.wait(10)
    assert (ended.code, ended.document["exit_code"]) == (130, 130)
    assert root_state(finished / "root") == before


@fault("G10", level="P")
def test_a_worker_of_a_run_that_lost_its_lock_stops(forks, selfcheck):
    """A run that was cut off from its store while another took over must not go on writing."""
    child = start(forks, selfcheck)
    wait_for_receipts(selfcheck.root, 2)
    child.signal(signal.SIGSTOP)
    (selfcheck.root / "run.lock").unlink()
    other = start(forks, selfcheck)
    wait_for_receipts(selfcheck.root, 5)
    child.signal(signal.SIGCONT)
    lost = child.wait()
    assert (lost.code, lost.error["code"]) == (4, "R806")
    assert other.wait().code == 0
    assert (selfcheck.root / "markers/selfcheck-sum.json").exists()
