"""The run as a Prefect flow, through a real server."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bperp.flows import prefect_server
from bperp.flows.engine import SerialExecutor, StageContext, run_stages
from bperp.flows.selfcheck import DEFAULTS, STAGES
from bperp.stores.cube import CubeStore
from bperp.stores.errors import StorageError
from bperp.stores.receipts import Ledger

PROGRAM = Path(__file__).parent / "prefect_program.py"


@pytest.fixture
def no_prefect_settings(monkeypatch, tmp_path):
    for name in list(os.environ):
        if name.startswith("PREFECT_") or name == "DO_NOT_TRACK":
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


def test_the_settings_keep_prefect_quiet_and_patient(no_prefect_settings, monkeypatch):
    monkeypatch.setenv("PREFECT_SERVER_ANALYTICS_ENABLED", "true")
    prefect_server.prepare_environment()
    assert os.environ["PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS"] == "300"
    assert os.environ["DO_NOT_TRACK"] == "1"
    assert os.environ["PREFECT_SERVER_ANALYTICS_ENABLED"] == "true", "the user's choice counts"


def test_a_users_own_server_is_recognised(no_prefect_settings, monkeypatch, tmp_path):
    assert not prefect_server.has_profile()
    profile = tmp_path / "home" / ".prefect" / "profiles.toml"
    profile.parent.mkdir(parents=True)
    profile.touch()
    assert prefect_server.has_profile()
    profile.unlink()
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:4200/api")
    assert prefect_server.has_profile()


def test_a_server_that_does_not_start_is_r815(no_prefect_settings, monkeypatch, tmp_path):
    fake = tmp_path / "python"
    fake.write_text("#!/bin/sh\necho min_items is not a keyword\nexit 1\n")
    fake.chmod(0o755)
    monkeypatch.setattr(prefect_server.sys, "executable", str(fake))
    with pytest.raises(StorageError, match=r"R815.*min_items"), prefect_server.temporary_server():
        pass


def test_the_server_ends_with_its_parent():
    command = [sys.executable, "-m", "bperp.flows.prefect_server", "1"]
    started = time.monotonic()
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    assert done.returncode == 0
    assert time.monotonic() - started < 20


@pytest.mark.slow
@pytest.mark.prefect
@pytest.mark.cluster
def test_the_flow_runs_on_a_real_server(no_prefect_settings, monkeypatch, tmp_path):
    monkeypatch.setenv("PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS", "1")
    done = subprocess.run(
        [sys.executable, str(PROGRAM), str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found.pop("scheduled") > 0
    assert found == {
        "first": 12,
        "names": [
            f"selfcheck-{s}: {date}" for s in ("pattern", "sum") for date in DEFAULTS["dates"]
        ],
        "second": 0,
        "direct": 12,
        "step": "C101",
        "data": "D306",
        "entrypoint": "bperp-stack",
    }
    plain = str(tmp_path / "plain")
    context = StageContext(options={"selfcheck": DEFAULTS})
    run_stages(STAGES, context, CubeStore(plain), SerialExecutor())
    for name in ("flow", "direct"):
        markers = Ledger(CubeStore(str(tmp_path / name)).objects).markers()
        assert markers == Ledger(CubeStore(plain).objects).markers()
    # A failed batch may be shown with its traceback; the server's own shutdown may not.
    assert "CancelledError" not in done.stderr
    assert "Error logging to API" not in done.stderr
    assert "Task was destroyed" not in done.stderr
