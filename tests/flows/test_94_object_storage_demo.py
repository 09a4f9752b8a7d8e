"""Everything of a run with ``root: s3://...``: products, pictures, report, exports, messages."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import tracemalloc
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from moto_endpoint import KEY, SECRET, Endpoint, exported, forget_clients
from typer.testing import CliRunner

from bperp.flows import upload
from bperp.flows.cli import app
from bperp.flows.config import StackConfig, load_config
from bperp.flows.demo import run_demo
from bperp.flows.export import export_product
from bperp.flows.run import run_stack
from bperp.flows.upload import ObjectTarget, open_target
from bperp.stores.cube import CubeStore
from bperp.stores.errors import BperpError
from bperp.stores.storage_faults import without_credentials

PART = 5 << 20
"""The smallest part that S3 takes, so that small files have many."""


@dataclass(frozen=True)
class Bucket:
    """A bucket as boto3 sees it, from outside bperp; names are relative to ``prefix``."""

    client: Any
    name: str
    prefix: str

    def objects(self) -> dict[str, dict[str, Any]]:
        """Return name to entry of the listing."""
        pages = self.client.get_paginator("list_objects_v2")
        return {
            entry["Key"].removeprefix(self.prefix): entry
            for page in pages.paginate(Bucket=self.name, Prefix=self.prefix)
            for entry in page.get("Contents", [])
        }

    def body(self, name: str) -> bytes:
        """Return an object."""
        answer = self.client.get_object(Bucket=self.name, Key=self.prefix + name)
        data: bytes = answer["Body"].read()
        return data

    def put(self, name: str, data: bytes) -> None:
        """Write an object."""
        self.client.put_object(Bucket=self.name, Key=self.prefix + name, Body=data)

    def delete(self, name: str) -> None:
        """Remove an object."""
        self.client.delete_object(Bucket=self.name, Key=self.prefix + name)


@contextlib.contextmanager
def bucket_of(endpoint: Endpoint, prefix: str) -> Iterator[Bucket]:
    with endpoint.session() as client:
        yield Bucket(client, endpoint.bucket, prefix)


def files_of(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


# Uploads -----------------------------------------------------------------------------------------


@pytest.fixture(name="bucket")
def fixture_bucket(s3: Endpoint) -> Iterator[Bucket]:
    with bucket_of(s3, "run/export/") as bucket:
        yield bucket


@pytest.fixture(name="target")
def fixture_target(s3: Endpoint, monkeypatch: pytest.MonkeyPatch) -> ObjectTarget:
    monkeypatch.setattr(upload, "PART_BYTES", PART)
    target = open_target(CubeStore(f"{s3.root}/run"), "export")
    assert isinstance(target, ObjectTarget)
    return target


def write_large(path: Path, size: int) -> None:
    """Write a file whose parts differ from each other, without holding it in memory."""
    with path.open("wb") as stream:
        for number in range(0, size, 1 << 20):
            block = bytes([number >> 20 & 255]) * (1 << 20)
            stream.write(block[: min(1 << 20, size - number)])


def test_large_files_go_in_parts_through_little_memory(
    target: ObjectTarget, bucket: Bucket
) -> None:
    size = 14 * PART + 5
    with target.writing("tree") as folder:
        folder.mkdir()
        write_large(folder / "large.rslc", size)
        tracemalloc.start()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # Two parts on their way, then two that are compared, and what the network layers copy of them.
    assert peak < 9 * PART, f"{peak / 1e6:.0f} MB for a file of {size / 1e6:.0f} MB"
    entry = bucket.objects()["tree/large.rslc"]
    assert entry["Size"] == size
    assert entry["ETag"].endswith('-15"'), "one object made of 15 parts"
    body = bucket.body("tree/large.rslc")
    assert body[5 * PART] == 5 * PART >> 20
    assert body[-1] == (size - 1) >> 20
    assert target.sizes("tree") == {"tree/large.rslc": size}


def test_a_new_version_replaces_the_old_one_whole(target: ObjectTarget, bucket: Bucket) -> None:
    for names in (("a", "b/c"), ("b/c", "b/d")):
        with target.writing("tree") as folder:
            for name in names:
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                (folder / name).write_bytes(" ".join(names).encode())
    with target.writing("tree.csv") as path:
        path.write_bytes(b"")
    assert list(bucket.objects()) == ["tree.csv", "tree/b/c", "tree/b/d"]
    assert bucket.body("tree/b/c") == b"b/c b/d"
    assert target.sizes("tree") == {"tree/b/c": 7, "tree/b/d": 7}
    assert target.sizes("tree.csv") == {"tree.csv": 0}
    assert target.sizes("nothing") == {}


@pytest.mark.parametrize("kept", [PART + 100, PART + 99])
def test_a_store_that_keeps_other_bytes_is_found_out(
    target: ObjectTarget, bucket: Bucket, kept: int
) -> None:
    send = target.filesystem.put_file

    def falsify(*arguments: Any, **options: Any) -> None:
        send(*arguments, **options)
        body = bytearray(PART + 100)
        body[PART + 50] = 1
        bucket.put("file", bytes(body[:kept]))

    target.filesystem.put_file = falsify
    try:
        with pytest.raises(BperpError, match="R803") as caught, target.writing("file") as path:
            path.write_bytes(bytes(PART + 100))
    finally:
        del target.filesystem.put_file
    assert caught.value.where == f"s3://{bucket.name}/run/export/file"


def test_a_full_temporary_folder_is_named(target: ObjectTarget, bucket: Bucket) -> None:
    from bperp.stores.replace_file import storage_error

    with pytest.raises(BperpError, match="R804") as caught, target.writing("file") as path:
        raise storage_error(OSError(28, "full"), path)
    assert "TMPDIR" in caught.value.remedy
    assert bucket.objects() == {}


def test_an_interruption_does_not_wait_for_the_file(target: ObjectTarget, bucket: Bucket) -> None:
    seen, released = threading.Event(), threading.Event()
    main = threading.get_ident()

    def take_forever(*_: Any, **__: Any) -> None:
        signal.pthread_kill(main, signal.SIGINT)
        if not released.wait(60):
            seen.set()

    target.filesystem.put_file = take_forever
    try:
        with pytest.raises(KeyboardInterrupt), target.writing("file") as path:
            path.write_bytes(b"x")
        assert not seen.is_set(), "the upload was waited for"
    finally:
        released.set()
        del target.filesystem.put_file
    assert bucket.objects() == {}


# The demonstration -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Demo:
    """A finished demonstration in a bucket and the same inputs processed on a local disk."""

    bucket: Bucket
    root: str
    folder: Path
    result: dict[str, Any]
    printed: str
    local: Path

    @property
    def config(self) -> StackConfig:
        """Configuration of the run in the bucket."""
        return load_config(self.folder / "stack.yaml")


@pytest.fixture(name="demo", scope="module")
def fixture_demo(moto_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    """Run ``bperp demo`` against the endpoint with two workers, then the same on a local disk."""
    folder = tmp_path_factory.mktemp("demo")
    endpoint = Endpoint(moto_url, "").with_bucket()
    root = f"{endpoint.root}/runs/demo"
    processors = sorted(os.sched_getaffinity(0))
    with exported(endpoint.environment), bucket_of(endpoint, "runs/demo/") as bucket:
        os.sched_setaffinity(0, processors[:2])  # one worker per processor
        try:
            command = [sys.executable, "-m", "bperp.flows.cli", "demo", str(folder / "out"),
                       "--preset", "tiny", "--seed", "5", "--root", root,
                       "--json"]  # fmt: skip
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        finally:
            os.sched_setaffinity(0, processors)
        assert done.returncode == 0, done.stderr
        values = load_config(folder / "out" / "stack.yaml").as_values()
        config = StackConfig.from_values({**values, "root": str(folder / "local")})
        run_stack(config, engine="serial")
        printed, result = done.stdout + done.stderr, json.loads(done.stdout)
        yield Demo(bucket, root, folder / "out", result, printed, folder / "local")


@pytest.mark.slow
@pytest.mark.cluster
def test_products_are_those_of_a_local_run(demo: Demo) -> None:
    # Markers hold the digests of all blocks: equal markers, equal bytes.
    markers = {
        name: demo.bucket.body(name)
        for name in demo.bucket.objects()
        if name.startswith("markers/")
    }
    expected = files_of(demo.local / "markers")
    assert markers == {f"markers/{name}": text for name, text in expected.items()}
    assert len(markers) >= 12
    assert demo.result["matched_scatterers"] > 300
    assert demo.result["rmse_mm_yr"] < 1.1 * demo.result["implied_floor_mm_yr"]


@pytest.mark.slow
@pytest.mark.cluster
def test_pictures_and_report_are_in_the_bucket(demo: Demo) -> None:
    found = demo.bucket.objects()
    pictures = {name for name in found if name.startswith("pictures/")}
    expected = files_of(demo.local / "pictures")
    assert pictures == {f"pictures/{name}" for name in expected}
    assert all(demo.bucket.body(f"pictures/{name}") == data for name, data in expected.items())
    assert demo.result["report"] == f"{demo.root}/report.html"
    report = demo.bucket.body("report.html").decode()
    assert report.count("<img ") == len(pictures) >= 12
    assert demo.root in report
    # The report after its pictures, and last what vouches for both.
    written = [found[name]["LastModified"] for name in sorted(pictures)]
    assert max(written) <= found["report.html"]["LastModified"]
    assert found["report.html"]["LastModified"] <= found["receipts/report.json"]["LastModified"]


@pytest.mark.slow
@pytest.mark.cluster
def test_exports_are_those_of_a_local_run(demo: Demo, tmp_path: Path) -> None:
    exported_files = {name for name in demo.bucket.objects() if name.startswith("export/")}
    expected = files_of(demo.local / "export")
    assert exported_files == {f"export/{name}" for name in expected}
    assert sum("rslc/" in name for name in expected) == 12, "six dates and their parameters"
    assert all(demo.bucket.body(f"export/{name}") == data for name, data in expected.items())
    assert demo.result["csv"] == f"{demo.root}/export/velocity.csv"
    tree = demo.result["stamps"].removeprefix(f"{demo.root}/export/")
    assert f"export/{tree}/dem/projected_dem.par" in exported_files
    # To a folder of this machine as well.
    result = export_product(demo.root, "csv", tmp_path / "here")
    assert result["path"] == str(tmp_path / "here" / "velocity.csv")
    assert files_of(tmp_path / "here") == {"velocity.csv": expected["velocity.csv"]}
    assert export_product(demo.root, "csv", tmp_path / "here")["unchanged"]
    with pytest.raises(BperpError, match="C104"):
        export_product(demo.root, "csv", Path(f"{demo.root}/elsewhere"))


@pytest.mark.slow
@pytest.mark.cluster
def test_a_second_run_does_nothing(demo: Demo) -> None:
    before = demo.bucket.objects()
    summary = run_stack(demo.config, engine="serial")
    assert summary["tasks_run"] == 0
    assert all(item["unchanged"] for item in summary["exports"])
    after = demo.bucket.objects()
    assert all(name.startswith("logs/") for name in after if name not in before)
    assert [name for name in before if before[name] != after[name]] == []


@pytest.mark.slow
@pytest.mark.cluster
def test_what_was_lost_is_made_again_and_nothing_else(demo: Demo) -> None:
    before = demo.bucket.objects()
    lost = ["pictures/04-alignment.png", next(name for name in before if name.endswith(".base"))]
    bodies = [demo.bucket.body(name) for name in lost]
    for name in lost:
        demo.bucket.delete(name)
    assert run_stack(demo.config, engine="serial")["tasks_run"] == 0
    assert [demo.bucket.body(name) for name in lost] == bodies
    after = demo.bucket.objects()
    parts = ("export/", "logs/", "pictures/04", "receipts/export/")
    untouched = [name for name in before if not name.startswith(parts)]
    assert [name for name in untouched if before[name] != after[name]] == []
    assert after["export/velocity.csv"] == before["export/velocity.csv"]


@pytest.mark.slow
@pytest.mark.cluster
def test_an_upload_that_was_killed_is_not_taken_for_an_export(
    demo: Demo, monkeypatch: pytest.MonkeyPatch
) -> None:
    send = upload.ObjectTarget._upload
    (base,) = [name for name in demo.bucket.objects() if name.endswith("projected_dem.par")]
    text = demo.bucket.body(base)
    demo.bucket.delete(base)

    def stop(self: ObjectTarget, file: Path, key: str) -> None:
        if key.endswith(".diff_par"):
            raise KeyboardInterrupt
        send(self, file, key)

    monkeypatch.setattr(upload.ObjectTarget, "_upload", stop)
    with pytest.raises(KeyboardInterrupt):
        export_product(demo.root, "stamps")
    monkeypatch.undo()
    assert not any(name.startswith("receipts/export/stamps") for name in demo.bucket.objects())
    assert not export_product(demo.root, "stamps")["unchanged"]
    assert demo.bucket.body(base) == text
    assert export_product(demo.root, "stamps")["unchanged"]


@pytest.mark.slow
@pytest.mark.cluster
def test_results_of_other_programs_are_not_overwritten(demo: Demo) -> None:
    tree = demo.result["stamps"].removeprefix(f"{demo.root}/")
    demo.bucket.put(f"{tree}/PATCH_1/ps1.mat", b"x")
    assert export_product(demo.root, "stamps")["unchanged"]
    demo.bucket.delete(f"{tree}/dem/projected_dem.par")
    with pytest.raises(BperpError, match="C111") as caught:
        export_product(demo.root, "stamps")
    assert "PATCH_1" in str(caught.value)
    demo.bucket.delete(f"{tree}/PATCH_1/ps1.mat")
    assert not export_product(demo.root, "stamps")["unchanged"]


@pytest.mark.slow
@pytest.mark.cluster
def test_credentials_are_nowhere(demo: Demo) -> None:
    texts = {name: demo.bucket.body(name) for name in demo.bucket.objects()}
    texts |= {str(path): data for path, data in files_of(demo.folder).items()}
    texts["printed"] = demo.printed.encode()
    assert "stack.yaml" in texts
    assert "run.lock" not in texts
    secrets = (SECRET.encode(), KEY.encode())
    assert [name for name, text in texts.items() if any(s in text for s in secrets)] == []


@pytest.mark.parametrize(
    ("root", "code"),
    [
        ("s3://bucket/x?token=S3cr3tTok3n", "X907"),
        ("s3://me:S3cr3tTok3n@bucket/x", "X907"),
        ("s3://bperp-no-such-bucket/x", "R807"),
    ],
)
def test_a_root_that_cannot_be_is_refused_before_anything_is_written(
    s3: Endpoint, tmp_path: Path, root: str, code: str
) -> None:
    with pytest.raises(BperpError, match=code) as caught:
        run_demo(tmp_path / "out", "tiny", root=root)
    assert "S3cr3t" not in str(caught.value)
    assert not (tmp_path / "out").exists()


# Messages ----------------------------------------------------------------------------------------


def speak(*arguments: object) -> tuple[int, str]:
    """Run a verb in this process; return exit code and everything printed."""
    forget_clients()
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert "Traceback" not in result.output
    assert SECRET not in result.output
    return result.exit_code, result.output


@pytest.mark.slow
@pytest.mark.cluster
def test_check_and_status_look_at_the_bucket(demo: Demo) -> None:
    before = demo.bucket.objects()
    code, text = speak("check", demo.folder / "stack.yaml")
    assert code == 0, text
    assert f"ok root: {demo.root} can be written; conditional writes are kept" in text
    assert "needed in the temporary folder" in text
    assert " free in" not in text, "there is no disk to speak of"
    code, text = speak("status", demo.folder / "stack.yaml", "--json")
    status = json.loads(text)
    assert code == 0
    assert status["root"] == demo.root
    assert all(step["finished"] for step in status["steps"].values())
    assert demo.bucket.objects() == before


FAULTS: dict[str, tuple[dict[str, str], str, int]] = {
    "credentials": ({"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}, "R807", 4),
    "endpoint": ({"AWS_ENDPOINT_URL": "http://127.0.0.1:9"}, "R810", 5),
}


@pytest.mark.slow
@pytest.mark.cluster
@pytest.mark.parametrize("fault", ["bucket", "credentials", "endpoint"])
@pytest.mark.parametrize("verb", ["check", "status", "run"])
def test_faults_of_the_store_are_one_line(
    demo: Demo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verb: str, fault: str
) -> None:
    changes, expected, exit_code = FAULTS.get(fault, ({}, "R807", 4))
    monkeypatch.setenv("BPERP_NETWORK_PATIENCE_S", "0.5")
    for name, value in changes.items():
        monkeypatch.setenv(name, value)
        if not value:
            monkeypatch.delenv(name)
    values = demo.config.as_values()
    values["root"] = "s3://bperp-no-such-bucket/run" if fault == "bucket" else demo.root
    file = tmp_path / "stack.yaml"
    file.write_text(json.dumps(values))
    code, text = speak(verb, file)
    assert code == exit_code, text
    (line,) = [line for line in text.splitlines() if line.startswith("error ")]
    assert line.startswith(f"error {expected} ")
    assert "; fix: " in line
    assert without_credentials(line) == line
