"""Runs in an object store behind a bad network: nothing changes but time."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from fault_proxy import FaultProxy, Rates, fault_proxy
from moto_endpoint import KEY, SECRET, Endpoint, exported

from bperp.flows import retrying
from bperp.flows.engine import (
    DaskExecutor,
    RunSite,
    RunSummary,
    SerialExecutor,
    StageContext,
    TaskFailedError,
    run_stages,
)
from bperp.flows.selfcheck import DEFAULTS, STAGES
from bperp.flows.worker import TaskResult
from bperp.stores import locks, patience
from bperp.stores.cube import CubeStore
from bperp.stores.errors import BperpError, NetworkError, StorageError
from bperp.stores.locks import LOCK_NAME, LockOwner
from bperp.stores.storage_faults import LastingFaultError
from bperp.stores.verify import verify_store

TASKS = 8
TOKEN = "FwoGZXIvYXdzEFakeSessionToken0123456789"
Objects = dict[str, bytes]


def run(root: str, executor: object = None, **options: object) -> RunSummary:
    context = StageContext(
        options={"selfcheck": {**DEFAULTS, "lines": 200, "samples": 130, **options}}
    )
    return run_stages(STAGES, context, CubeStore(root), executor or SerialExecutor())


def stored(s3: Endpoint, prefix: str) -> Objects:
    """Return what lies below a prefix, seen from outside bperp and around the proxy."""
    with s3.session() as client:
        listed = client.get_paginator("list_objects_v2").paginate(Bucket=s3.bucket, Prefix=prefix)
        keys = [entry["Key"] for page in listed for entry in page.get("Contents", ())]
        return {
            key.removeprefix(prefix): client.get_object(Bucket=s3.bucket, Key=key)["Body"].read()
            for key in keys
        }


def vouched(objects: Objects) -> Objects:
    """Return what two equal runs must agree on: markers, data, metadata."""
    return {k: v for k, v in objects.items() if k.startswith(("markers/", "selfcheck/"))}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Objects:
    root = tmp_path_factory.mktemp("undisturbed")
    run(str(root))
    files = [path for path in root.rglob("*") if path.is_file()]
    return vouched({str(path.relative_to(root)): path.read_bytes() for path in files})


@pytest.fixture(params=["obstore", pytest.param("fsspec", marks=pytest.mark.slow)])
def library(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("BPERP_OBJECT_STORE", request.param)
    return request.param


@pytest.fixture
def proxy(s3: Endpoint, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultProxy]:
    monkeypatch.setenv("BPERP_NETWORK_PATIENCE_S", "60")
    monkeypatch.setattr(patience, "_FIRST_PAUSE_S", 0.02)
    monkeypatch.setattr(patience, "_LONGEST_PAUSE_S", 0.5)
    with fault_proxy(s3.url, seed=7) as proxy, exported(s3.through(proxy.url).environment):
        yield proxy


class Meddling(SerialExecutor):
    """Does something between two tasks."""

    def __init__(self, after: int, act: object) -> None:
        super().__init__()
        self.after, self.act = after, act

    def run(self, site, orders) -> Iterator[TaskResult]:
        for result in super().run(site, orders):
            self.after -= 1
            if self.after == 0:
                self.act()
            yield result


# Only time ---------------------------------------------------------------------------------------


BAD = Rates(slow_down=0.3, reset=0.1, truncate=0.07)


def require_same_in_the_end(s3: Endpoint, proxy: FaultProxy, undisturbed: Objects) -> None:
    assert vouched(stored(s3, "run/")) == undisturbed
    assert proxy.count(status=503) > 0.15 * proxy.count()
    assert proxy.count(status=0) > 0.03 * proxy.count()


def test_a_bad_network_changes_nothing_but_time(s3, proxy, undisturbed, library):
    proxy.rates = BAD
    assert run(f"{s3.root}/run").tasks_run == TASKS
    require_same_in_the_end(s3, proxy, undisturbed)
    assert run(f"{s3.root}/run").tasks_run == 0


@pytest.mark.cluster
@pytest.mark.slow
def test_a_bad_network_between_workers_and_store(s3, proxy, undisturbed, library):
    proxy.rates = BAD
    assert run(f"{s3.root}/run", DaskExecutor(2)).tasks_run == TASKS
    require_same_in_the_end(s3, proxy, undisturbed)


@pytest.mark.slow
def test_lost_answers_slow_ones_and_wrong_tags(s3, proxy, undisturbed, library):
    proxy.rates, proxy.delay_s = Rates(lost_answer=0.1, wrong_etag=0.2, delay=0.1), 0.2
    assert run(f"{s3.root}/run").tasks_run == TASKS
    assert vouched(stored(s3, "run/")) == undisturbed


@pytest.mark.parametrize(
    "moment", [1, pytest.param(6, marks=pytest.mark.slow)], ids=["first stage", "second stage"]
)
def test_a_long_outage_is_survived(s3, proxy, undisturbed, library, moment):
    def outage() -> None:
        proxy.down = True
        threading.Timer(3.0, setattr, (proxy, "down", False)).start()

    assert run(f"{s3.root}/run", Meddling(moment, outage)).tasks_run == TASKS
    assert vouched(stored(s3, "run/")) == undisturbed
    assert proxy.count(status=0) >= 3


@pytest.mark.cluster
@pytest.mark.slow
def test_workers_survive_a_long_outage_too(s3, proxy, undisturbed):
    """When they reach for the store for the first time, and in the middle of their work."""

    def outage_after(written: str) -> None:
        while not proxy.count("PUT", written):
            time.sleep(0.02)
        before, proxy.down = proxy.count(status=0), True
        time.sleep(6.0)
        while proxy.count(status=0) < before + 4:
            time.sleep(0.1)
        proxy.down = False

    def outages() -> None:
        outage_after("selfcheck/pattern/number/zarr.json")
        outage_after("receipts/")

    thread = threading.Thread(target=outages, daemon=True)
    thread.start()
    assert run(f"{s3.root}/run", DaskExecutor(2), delay_s=0.3).tasks_run == TASKS
    thread.join(30)
    data = {name: item for name, item in undisturbed.items() if name.startswith("selfcheck/")}
    assert stored(s3, "run/").items() >= data.items()
    assert not thread.is_alive()


def test_an_outage_beyond_patience_ends_in_one_line_and_resumes(
    s3, proxy, undisturbed, library, monkeypatch
):
    monkeypatch.setenv("BPERP_NETWORK_PATIENCE_S", "0.5")
    with pytest.raises(NetworkError, match=r"R810 .*within 0.5 s") as caught:
        run(f"{s3.root}/run", Meddling(4, lambda: setattr(proxy, "down", True)))
    assert "\n" not in str(caught.value)
    proxy.down = False
    summary = resumed(s3)
    assert summary.tasks_run <= TASKS - 4
    assert vouched(stored(s3, "run/")) == undisturbed


def resumed(s3: Endpoint) -> RunSummary:
    """Run again; the lock of the run that could not give it back is that of a live process."""
    CubeStore(f"{s3.root}/run").objects.remove(LOCK_NAME)
    return run(f"{s3.root}/run")


@pytest.mark.parametrize("answer", [(403, "ExpiredToken"), (400, "ExpiredToken")])
def test_an_expired_token_ends_in_one_line_and_resumes(s3, proxy, undisturbed, library, answer):
    with pytest.raises(StorageError, match=r"R807 .*expired.*ExpiredToken.*resumes") as caught:
        run(f"{s3.root}/run", Meddling(4, lambda: setattr(proxy, "denied", answer)))
    assert proxy.count(status=answer[0]) <= 10  # once for each thing, not for a minute
    assert "\n" not in str(caught.value)
    proxy.denied = None
    assert resumed(s3).tasks_run <= TASKS - 4
    assert vouched(stored(s3, "run/")) == undisturbed


def test_a_store_that_may_only_be_read_is_refused_before_the_start(s3, proxy, library):
    proxy.denied, proxy.only = (403, "AccessDenied"), "^PUT"
    with pytest.raises(StorageError, match=r"R807 .*refuses access.*403 AccessDenied"):
        run(f"{s3.root}/run")
    assert proxy.count() <= 3
    assert stored(s3, "") == {}


# Damage on the way -------------------------------------------------------------------------------


def test_bits_that_flip_now_and_then_are_read_again(s3, proxy, undisturbed, library):
    proxy.rates, proxy.only = Rates(flip=0.05), r"/c/\d"
    assert run(f"{s3.root}/run").tasks_run == TASKS
    assert vouched(stored(s3, "run/")) == undisturbed
    assert proxy.flipped > 0


def test_bits_that_always_flip_are_told(s3, proxy, library, monkeypatch):
    """By our checksum, or by that of the client library, which asks again in vain."""
    monkeypatch.setenv("BPERP_NETWORK_PATIENCE_S", "1")
    proxy.rates, proxy.only = Rates(flip=1.0), r"/c/\d+/\d"
    with pytest.raises(BperpError, match=r"R803|R810.*[Cc]hecksum"):
        run(f"{s3.root}/run")
    proxy.rates = Rates()
    run(f"{s3.root}/run")
    proxy.rates = Rates(flip=1.0)
    with contextlib.suppress(LastingFaultError):
        faults = verify_store(CubeStore(f"{s3.root}/run")).faults
        assert {fault.code for fault in faults.values()} == {"R803"}


# Listings that lag behind ------------------------------------------------------------------------


def test_what_a_listing_does_not_show_yet_is_at_worst_done_again(s3, proxy, undisturbed, library):
    proxy.hide_s, proxy.hidden = 3600.0, "receipts/|markers/|selfcheck/"
    run(f"{s3.root}/run")
    assert vouched(stored(s3, "run/")) == undisturbed
    again = run(f"{s3.root}/run")
    assert again.tasks_run <= TASKS
    assert vouched(stored(s3, "run/")) == undisturbed
    proxy.hide_s = 0.0
    assert run(f"{s3.root}/run").tasks_run == 0
    assert verify_store(CubeStore(f"{s3.root}/run")).faults == {}


def test_options_changed_to_and_fro_behind_a_late_listing(s3, proxy, undisturbed, library):
    other = {"dates": ["2020-03-01", "2020-03-13"]}
    proxy.hide_s, proxy.hidden = 3600.0, "receipts/|markers/|selfcheck/"
    run(f"{s3.root}/run")
    run(f"{s3.root}/run", **other)
    proxy.hide_s = 0.0
    run(f"{s3.root}/run")
    assert verify_store(CubeStore(f"{s3.root}/run")).faults == {}
    assert vouched(stored(s3, "run/")) == undisturbed


# How often a task is tried -----------------------------------------------------------------------


class Failing:
    """Stands in for ``run_task``: raises a fault a number of times, then returns."""

    def __init__(self, fault: Exception, times: int) -> None:
        self.fault, self.times, self.calls = fault, times, 0

    def __call__(self, _site: str, _order: str) -> dict[str, object]:
        self.calls += 1
        if self.calls <= self.times:
            raise self.fault
        return {"done": True}


def failed(cause: Exception) -> TaskFailedError:
    error = TaskFailedError("stage/key", str(cause), "", transient=isinstance(cause, OSError))
    error.__cause__ = cause
    return error


def outage(kind: type[NetworkError] = NetworkError) -> NetworkError:
    return kind("R810", "no answer", remedy="wait")


DAMAGED = StorageError("R803", "damaged", remedy="repair")


@pytest.mark.parametrize(
    ("fault", "root", "attempts"),
    [
        (outage(), "s3://b", 6),
        (failed(ConnectionResetError()), "s3://b", 6),
        (failed(TimeoutError()), "s3://b", 6),
        (failed(OSError(errno.EIO, "disk")), "/data", 3),
        (failed(FileNotFoundError("gone")), "/data", 1),
        (failed(PermissionError("no")), "/data", 1),
        (failed(ZeroDivisionError()), "s3://b", 1),
        (outage(LastingFaultError), "s3://b", 1),
        (StorageError("R807", "refused", remedy="log in"), "s3://b", 1),
        (DAMAGED, "s3://b", 3),
        (DAMAGED, "/data", 1),
    ],
    ids=lambda value: getattr(value, "code", None) or repr(getattr(value, "__cause__", value)),
)
def test_a_task_is_tried_as_often_as_its_fault_may_pass(monkeypatch, fault, root, attempts):
    monkeypatch.setattr(retrying, "_sleep", lambda _: None)
    site = RunSite(root).as_json()
    enough = Failing(fault, attempts - 1)
    monkeypatch.setattr(retrying, "run_task", enough)
    assert retrying.run_with_retries(site, "{}") == {"done": True}
    if attempts > 3:
        return
    beyond = Failing(fault, attempts)
    monkeypatch.setattr(retrying, "run_task", beyond)
    with pytest.raises(type(fault)):
        retrying.run_with_retries(site, "{}")
    assert beyond.calls == attempts


def test_patience_with_a_task_ends(monkeypatch):
    monkeypatch.setenv("BPERP_NETWORK_PATIENCE_S", "0.5")
    forever = Failing(outage(), 10**6)
    monkeypatch.setattr(retrying, "run_task", forever)
    with pytest.raises(NetworkError, match="R810"):
        retrying.run_with_retries(RunSite("s3://b").as_json(), "{}")
    assert 2 <= forever.calls <= 10


# Two owners --------------------------------------------------------------------------------------


def test_a_paused_run_that_was_taken_over_records_nothing_more(s3, library, monkeypatch):
    """Its next task refuses to start, its end leaves the lock of the other run alone."""
    root = f"{s3.root}/run"
    other = replace(LockOwner.current(), token="other", host="elsewhere")
    taken = json.dumps(asdict(other)).encode()

    def take_over() -> None:
        CubeStore(root).objects.write(LOCK_NAME, taken)

    with pytest.raises(StorageError, match=r"R806.*no longer holds the store.*elsewhere"):
        run(root, Meddling(4, take_over))
    objects = stored(s3, "run/")
    assert objects[LOCK_NAME] == taken
    assert sum(name.startswith("receipts/") for name in objects) == 4
    monkeypatch.setattr(locks, "LEASE_S", -1.0)
    assert run(root).tasks_run == TASKS - 4


# Secrets -----------------------------------------------------------------------------------------


def require_no_secret(*texts: str | bytes) -> None:
    for text in texts:
        data = text.encode() if isinstance(text, str) else text
        for secret in (KEY, SECRET, TOKEN, "hunter2"):
            assert secret.encode() not in data


def everything_told(error: BaseException) -> str:
    """Return what a traceback, a log or a worker's answer may show of an error."""
    import traceback

    return "".join(traceback.format_exception(error)) + repr(getattr(error, "as_dict", dict)())


ODD = pytest.param({"denied": (418, "Odd")}, marks=pytest.mark.slow)


@pytest.mark.parametrize("fault", [{"denied": (403, "SignatureDoesNotMatch")}, {"down": True}, ODD])
def test_credentials_appear_nowhere(s3, proxy, library, monkeypatch, caplog, capfd, fault):
    caplog.set_level("INFO")
    monkeypatch.setenv("AWS_SESSION_TOKEN", TOKEN)
    monkeypatch.setenv("BPERP_NETWORK_PATIENCE_S", "0.3")

    def break_down() -> None:
        for name, value in fault.items():
            setattr(proxy, name, value)

    with pytest.raises(BperpError) as caught:
        run(f"{s3.root}/run", Meddling(4, break_down))
    proxy.denied, proxy.down = None, False
    resumed(s3)
    require_no_secret(everything_told(caught.value), caplog.text, *capfd.readouterr())
    objects = stored(s3, "")
    assert any("logs/run-0001" in name for name in objects)
    require_no_secret(*objects, *objects.values())


@pytest.mark.cluster
@pytest.mark.slow
@pytest.mark.parametrize("options", [["--json"], ["--debug"]])
def test_the_command_line_shows_no_credentials(s3, proxy, monkeypatch, tmp_path, options):
    monkeypatch.setenv("AWS_SESSION_TOKEN", TOKEN)
    proxy.denied = (403, "SignatureDoesNotMatch")
    command = [sys.executable, "-m", "bperp.flows.cli", "doctor", "--root", f"{s3.root}/x"]
    result = subprocess.run(
        [*command, *options], capture_output=True, cwd=tmp_path, check=False, env=os.environ
    )
    assert result.returncode == 4, result.stderr
    assert b"R807" in result.stdout + result.stderr
    require_no_secret(result.stdout, result.stderr)
    with contextlib.ExitStack() as stack:
        for path in (path for path in tmp_path.rglob("*") if path.is_file()):
            require_no_secret(stack.enter_context(Path(path).open("rb")).read())
