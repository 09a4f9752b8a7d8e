"""A Prefect server that does not come, and a database of it that is broken."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from fault_registry import fault
from root_state import root_state

pytestmark = [pytest.mark.slow, pytest.mark.prefect]

CHAIN = "import selfcheck_chain; selfcheck_chain.install()\n"


def surroundings(home: Path, **more: str) -> dict[str, str | None]:
    """Return an environment without the settings of this machine's user."""
    own = {name: None for name in os.environ if name.startswith("PREFECT_")}
    return {**own, "HOME": str(home), "DO_NOT_TRACK": "1", **more}


def run(forks, stack, engine: str, prepare: str = "", **options):
    command = ("run", stack.config, "--engine", engine, "--workers", "1", "--json")
    return forks.run(*command, prepare=CHAIN + prepare, **options)


@fault("G15", level="P")
def test_a_server_that_takes_too_long_is_given_up_and_the_run_goes_without(
    forks, selfcheck, tmp_path
):
    sleeper = tmp_path / "python"
    sleeper.write_text("#!/bin/sh\nexec sleep 60\n")
    sleeper.chmod(0o755)
    prepare = f"import sys; sys.executable = {str(sleeper)!r}\n"
    patience = {"PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "1"}
    started = time.monotonic()
    failed = run(
        forks, selfcheck, "prefect", prepare, environment=surroundings(tmp_path, **patience)
    )
    assert (failed.code, failed.error["code"]) == (4, "R815")
    assert time.monotonic() - started < 60
    assert "--engine" in failed.error["remedy"]
    assert not selfcheck.root.exists(), "nothing was begun"
    assert run(forks, selfcheck, "serial").code == 0


@fault("G17", level="P")
@pytest.mark.cluster
def test_a_broken_database_of_the_user_does_not_matter(forks, selfcheck, tmp_path):
    """The exit code is that of the work, and the database is left as it was."""
    database = tmp_path / ".prefect" / "prefect.db"
    database.parent.mkdir()
    database.write_bytes(b"this is no database" * 1000)
    before = database.read_bytes()
    options = {"environment": surroundings(tmp_path), "seconds": 300.0}
    done = run(forks, selfcheck, "prefect", **options)
    assert done.code == 0, done.stdout + done.stderr
    assert done.document["tasks_run"] == 12
    assert "Traceback" not in done.stderr
    assert database.read_bytes() == before
    state = root_state(selfcheck.root)
    selfcheck.config.write_text(
        selfcheck.config.read_text().replace(str(selfcheck.root), str(tmp_path / "other"))
    )
    assert run(forks, selfcheck, "serial").code == 0
    assert root_state(tmp_path / "other") == state
