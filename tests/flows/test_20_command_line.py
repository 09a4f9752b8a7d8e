"""The command line: exit codes, one-line errors, JSON, help without heavy imports, signals."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import types
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from bperp.flows.cli import app
from bperp.flows.config import STEPS, load_config
from bperp.flows.console import Console, as_json_value, plain_table, storage_fault
from bperp.stores.errors import (
    BperpError,
    ConfigurationError,
    NetworkError,
    ProductError,
    SecurityError,
    StorageError,
)

VERBS = (
    *("simulate", "init", "check", "run", "add", "status", "verify", "repair", "cost", "export"),
    *("demo", "doctor"),
)
TOKEN = "fake-token-9f8e7d"


def invoke(*arguments: str | Path) -> Any:
    return CliRunner().invoke(app, [str(item) for item in arguments])


@pytest.fixture(autouse=True)
def _logs_stay_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


@pytest.fixture
def stack(tmp_path: Path) -> Path:
    path = tmp_path / "stack.yaml"
    path.write_text(f"root: {tmp_path}/root\nslc: ['*.zip']\ndem: {{path: dem.tif}}\n")
    return path


def stub(monkeypatch: pytest.MonkeyPatch, module: str, **functions: Any) -> None:
    """Stand in for a worker module, whether or not it exists."""
    fake = types.ModuleType(f"bperp.flows.{module}")
    for name, function in functions.items():
        setattr(fake, name, function)
    monkeypatch.setitem(sys.modules, fake.__name__, fake)


# --- exit codes and messages -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "exit_code"),
    [
        (ConfigurationError("C104", "no product", where="slc", remedy="look"), 2),
        (ProductError("D302", "element is empty", where="a.xml", expected="x", remedy="y"), 3),
        (StorageError("R804", "disk full", remedy="free space"), 4),
        (NetworkError("R810", "no answer", remedy="retry"), 5),
        (SecurityError("X901", "doctype", remedy="refuse"), 6),
        (OSError(28, "No space left on device"), 4),
        (PermissionError(13, "Permission denied", "/root/x"), 4),
        (MemoryError(), 4),
        (KeyboardInterrupt(), 130),
        (ZeroDivisionError("oops"), 1),
        (FileNotFoundError(2, "No such file", "x"), 1),
    ],
)
@pytest.mark.parametrize("as_json", [False, True])
def test_every_failure_is_one_line_and_an_exit_code(
    stack: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: BaseException,
    exit_code: int,
    as_json: bool,
) -> None:
    def fail(*arguments: Any, **options: Any) -> None:
        raise error

    stub(monkeypatch, "run", run_stack=fail)
    result = invoke("run", stack, *(["--json"] if as_json else []))
    assert result.exit_code == exit_code
    assert "Traceback" not in result.stdout + result.stderr
    if not as_json:
        assert result.stdout == ""
        assert len(result.stderr.strip().splitlines()) == 1
        if isinstance(error, BperpError):
            assert result.stderr.startswith(f"error {error.code} ")
        return
    document = json.loads(result.stdout)
    assert (document["verb"], document["status"]) == ("run", "error")
    assert document["exit_code"] == exit_code
    if isinstance(error, BperpError):
        assert document["error"] == {**error.as_dict()}


def test_internal_errors_name_a_private_log(stack: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: Any, **options: Any) -> None:
        raise RuntimeError(f"password={TOKEN}")

    stub(monkeypatch, "run", run_stack=fail)
    result = invoke("run", stack)
    assert result.exit_code == 1
    log = Path(re.findall(r"report it with (\S+)", result.stderr)[0])
    try:
        assert "Traceback" in log.read_text()
        assert TOKEN not in log.read_text() + result.stderr
        assert log.stat().st_mode & 0o077 == 0
    finally:
        log.unlink()


def test_debug_shows_the_traceback_of_expected_faults_too(
    stack: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stack.write_text("name: 3\n")
    assert "Traceback" not in invoke("check", stack).stderr
    assert "Traceback" in invoke("check", stack, "--debug").stderr


def test_secrets_never_reach_the_output(stack: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EARTHDATA_TOKEN", TOKEN)

    def leak(*arguments: Any, **options: Any) -> dict[str, Any]:
        return {"url": f"https://u:{TOKEN}@host/x", "text": f"odd {TOKEN}", "list": [TOKEN]}

    stub(monkeypatch, "run", run_stack=leak, stack_status=leak)
    for arguments in (("run", stack), ("status", stack)):
        for flags in ((), ("--json",)):
            result = invoke(*arguments, *flags)
            assert result.exit_code == 0
            assert TOKEN not in result.stdout + result.stderr


# --- verbs -----------------------------------------------------------------------------------


def test_run_hands_over_the_options(stack: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, Any] = {}

    def run_stack(config: Any, **options: Any) -> dict[str, Any]:
        seen.update(options, root=config.root)
        options["progress"].note("hello")
        return {"stages": [{"name": "ingest", "status": "done", "reasons": {"a": "new"}}]}

    stub(monkeypatch, "run", run_stack=run_stack)
    result = invoke(
        "run", stack, "--from", "ingest", "--to", "coregister", "--dry-run", "--engine", "serial",
        "--workers", "3", "--json",
    )  # fmt: skip
    assert result.exit_code == 0, result.stderr
    seen.pop("progress")
    assert seen == {
        "first": "ingest", "last": "coregister", "only": None, "dry_run": True,
        "engine": "serial", "workers": 3, "root": f"{stack.parent}/root",
    }  # fmt: skip
    assert json.loads(result.stdout)["stages"][0]["reasons"] == {"a": "new"}
    assert json.loads(result.stderr) == {"event": "note", "text": "hello"}
    text = invoke("run", stack)
    assert "ingest" in text.stdout
    assert text.stderr == "hello\n"


def test_run_takes_the_rest_from_the_configuration(
    stack: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, Any] = {}

    def run_stack(config: Any, **options: Any) -> dict[str, Any]:
        seen.update(options)
        return {}

    stub(monkeypatch, "run", run_stack=run_stack)
    stack.write_text(stack.read_text() + "compute: {engine: serial, workers: 2}\n")
    assert invoke("run", stack).exit_code == 0
    assert (seen["engine"], seen["workers"], seen["first"]) == ("serial", 2, None)
    stack.write_text(stack.read_text().replace("workers: 2", "workers: auto"))
    assert invoke("run", stack).exit_code == 0
    assert seen["workers"] is None


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--only", "coregistre"), "did you mean 'coregister'"),
        (("--from", "export", "--to", "ingest"), "export comes after ingest"),
        (("--only", "ingest", "--from", "ingest"), "cannot be combined"),
        (("--engine", "slurm"), "local, serial, prefect"),
    ],
)
def test_wrong_steps_and_engines(stack: Path, arguments: tuple[str, ...], words: str) -> None:
    result = invoke("run", stack, *arguments)
    assert result.exit_code == 2
    assert result.stderr.startswith("error C102 ")
    assert words in result.stderr


def test_status_and_export_take_a_root_or_a_configuration(
    stack: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[Any, ...]] = []

    def stack_status(root: str) -> dict[str, Any]:
        asked.append((root,))
        return {"steps": {"ingest": {"finished": True, "tasks": 3}}, "notes": []}

    def export_product(root: str, file_format: str, out: Path | None) -> dict[str, Any]:
        asked.append((root, file_format, out))
        return {"files": ["a", "b"]}

    stub(monkeypatch, "run", stack_status=stack_status)
    stub(monkeypatch, "export", export_product=export_product)
    root = f"{stack.parent}/root"
    result = invoke("status", stack)
    assert re.search(r"ingest +yes +3", result.stdout)
    assert invoke("status", "s3://bucket/x", "--json").exit_code == 0
    assert invoke("export", root, "--format", "csv", "--out", "o").exit_code == 0
    assert invoke("export", stack, "--format", "stamps").exit_code == 0
    assert asked == [(root,), ("s3://bucket/x",), (root, "csv", Path("o")), (root, "stamps", None)]
    wrong = invoke("export", root, "--format", "stampz")
    assert wrong.exit_code == 2
    assert "did you mean 'stamps'" in wrong.stderr


def test_demo_hands_over(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []

    def run_demo(
        out: Path, preset: str, seed: int, progress: Any, *, root: str | None
    ) -> dict[str, Any]:
        seen.extend([out, preset, seed, root])
        return {"velocity_rms_mm_yr": 0.4}

    stub(monkeypatch, "demo", run_demo=run_demo)
    options = ("--preset", "tiny", "--seed", "7", "--root", "s3://bucket/x", "--json")
    result = invoke("demo", "folder", *options)
    assert seen == [Path("folder"), "tiny", 7, "s3://bucket/x"]
    assert json.loads(result.stdout)["velocity_rms_mm_yr"] == 0.4


def test_check_reports_and_exits_with_the_family(stack: Path) -> None:
    result = invoke("check", stack)
    assert result.exit_code == 2
    assert "error C104 slc[0]: nothing matches" in result.stdout
    document = json.loads(invoke("check", stack, "--json").stdout)
    assert document["status"] == "failed"
    assert document["exit_code"] == 2
    assert {"level", "code", "where", "message", "remedy"} == set(document["findings"][0])


# --- init ------------------------------------------------------------------------------------


def test_init_writes_a_complete_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "conf").mkdir()
    result = invoke(
        "init", "--slc", "a/1.zip", "a/2.zip", "--slc", "b/*.zip", "--orbits", "orbits", "--dem",
        "dem.tif", "--root", "s3://bucket/stack", "-o", "conf/stack.yaml",
    )  # fmt: skip
    assert result.exit_code == 0, result.stderr
    config = load_config(tmp_path / "conf/stack.yaml")
    # Arguments are relative to the working folder, not to the folder of the file.
    assert set(config.slc) == {f"{tmp_path}/{name}" for name in ("a/1.zip", "a/2.zip", "b/*.zip")}
    assert config.orbits.folders == (f"{tmp_path}/orbits",)
    assert config.dem.path == f"{tmp_path}/dem.tif"
    assert config.root == "s3://bucket/stack"
    again = invoke("init", "-o", "conf/stack.yaml")
    assert again.exit_code == 2
    assert "C111" in again.stderr
    assert invoke("init", "-o", "conf/stack.yaml", "--force").exit_code == 0


def test_init_from_project_conf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("project.conf").write_text("PROJECTFOLDER=work\nIW1=IW2\nNATMIN=41\nLATMAX=42\n"
                                    "LONMIN=12\nLONMAX=13\nGPTBIN_PATH=/x\n")  # fmt: skip
    result = invoke("init", "--project-conf", "project.conf", "--dem", "dem.tif", "--json")
    document = json.loads(result.stdout)
    assert document["missing"] == []
    assert any("GPTBIN_PATH" in note for note in document["notes"])
    config = load_config("stack.yaml")
    assert config.swaths == ("IW2",)
    assert config.aoi is not None
    assert config.aoi.lat_min == 41
    assert config.root == f"{tmp_path}/work/bperp"


def test_init_refuses_values_that_the_file_would_not_allow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("project.conf").write_text("LONMIN=12\nLATMIN=95\nLONMAX=13\nLATMAX=99\n")
    result = invoke("init", "--project-conf", "project.conf")
    assert result.exit_code == 2
    assert "C103" in result.stderr
    assert not Path("stack.yaml").exists()


def test_init_to_stdout_is_the_file_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = invoke("init", "-o", "-", "--slc", "x*.zip", "--dem", "d.tif", "--root", "r").stdout
    Path("stack.yaml").write_text(text)
    assert load_config("stack.yaml").root == f"{tmp_path}/r"
    assert list(tmp_path.iterdir()) == [tmp_path / "stack.yaml"]


# --- help, usage, speed ----------------------------------------------------------------------


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help_json_and_debug(verb: str) -> None:
    result = invoke(verb, "--help")
    assert result.exit_code == 0
    assert "--json" in result.stdout
    assert "--debug" in result.stdout


def test_help_names_the_steps_that_exist() -> None:
    text = " ".join(invoke("run", "--help").stdout.split())
    assert ", ".join(STEPS) in text


def python(code: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        **options,
    )


def cli(*arguments: str) -> str:
    argv = ["bperp", *arguments]
    return f"import sys; sys.argv = {argv!r}\nfrom bperp.flows.cli import main\n"


def test_help_imports_nothing_heavy() -> None:
    result = python(
        cli("--help")
        + "try: main()\nexcept SystemExit: pass\n"
        + "print('\\nMODULES', *sys.modules)"
    )
    modules = set(result.stdout.split("MODULES")[1].split())
    heavy = {"numpy", "numba", "scipy", "xarray", "zarr", "dask", "distributed", "pydantic", "yaml",
             "rich", "prefect", "pyproj", "matplotlib", "lxml", "fsspec"}  # fmt: skip
    assert modules & heavy == set()


def cpu_seconds(code: str) -> float:
    """Return user and system time of the fastest of three processes."""
    times = []
    for _ in range(3):
        process = subprocess.Popen(
            [sys.executable, "-c", code], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        times.append(usage.ru_utime + usage.ru_stime)
    return min(times)


def test_help_is_fast() -> None:
    baseline = cpu_seconds("import typer")
    helping = cpu_seconds(cli("--help") + "main()")
    # Processor time and its ratio to the bare import: wall time depends on what else runs here.
    assert helping < 0.7
    assert helping < 2.5 * baseline


@pytest.mark.parametrize(
    ("arguments", "exit_code"),
    [
        (("--version",), 0),
        (("--help",), 0),
        ((), 2),
        (("nonsense",), 2),
        (("run",), 2),
        (("run", "--workers", "0", "x"), 2),
        (("check", "/absent.yaml"), 2),
    ],
)
def test_exit_codes_of_the_process(arguments: tuple[str, ...], exit_code: int) -> None:
    result = python(cli(*arguments) + "main()")
    assert result.returncode == exit_code
    assert "Traceback" not in result.stderr


def test_security_refusal_is_six(tmp_path: Path) -> None:
    path = tmp_path / "stack.yaml"
    path.write_text("a: !!python/object/apply:os.system ['true']\n")
    assert python(cli("check", str(path)) + "main()").returncode == 6


def test_usage_errors_are_json_too() -> None:
    result = python(cli("run", "--json") + "main()")
    document = json.loads(result.stdout)
    assert result.returncode == document["exit_code"] == 2
    assert document["error"]["code"] == "C100"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_end_with_130(stack: Path, number: signal.Signals) -> None:
    code = (
        "import sys, time, types\n"
        "fake = types.ModuleType('bperp.flows.run')\n"
        "def run_stack(*arguments, **options):\n"
        "    print('ready', flush=True)\n"
        "    time.sleep(60)\n"
        "fake.run_stack = run_stack\n"
        "sys.modules[fake.__name__] = fake\n" + cli("run", str(stack)) + "main()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(number)
    _, error = process.communicate(timeout=10)
    assert process.returncode == 130
    assert "resume" in error
    assert "Traceback" not in error


def test_a_reader_that_leaves_is_no_error(stack: Path) -> None:
    code = (
        "import sys, types\n"
        "fake = types.ModuleType('bperp.flows.run')\n"
        "fake.stack_status = lambda root: {f'line {i}': 'x' * 80 for i in range(5000)}\n"
        "sys.modules[fake.__name__] = fake\n" + cli("status", str(stack)) + "main()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.readline()
    process.stdout.close()
    error = process.stderr.read()
    process.stderr.close()
    assert process.wait(timeout=20) == 0
    assert error == ""


def test_output_survives_an_ascii_terminal(tmp_path: Path) -> None:
    path = tmp_path / "stack.yaml"
    path.write_text("nämé: 1\n", encoding="utf-8")
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "LC_ALL": "C", "PYTHONUTF8": "0"}
    result = python(cli("check", str(path)) + "main()", env=environment)
    assert result.returncode == 2
    assert "C101" in result.stderr


# --- printing --------------------------------------------------------------------------------


def test_terminal_control_characters_are_not_printed(capsys: pytest.CaptureFixture[str]) -> None:
    Console("x").line("a\x1b[2Jb\x07")
    assert capsys.readouterr().out == "a?[2Jb?\n"


def test_json_values_are_plain_and_finite(tmp_path: Path) -> None:
    import numpy as np

    value = as_json_value(
        {
            "a": float("nan"),
            "b": np.float32(0.5),
            "c": np.arange(2),
            3: (tmp_path, {1.5}),
            "e": True,
        }
    )
    assert value == {"a": None, "b": 0.5, "c": [0, 1], "3": [str(tmp_path), [1.5]], "e": True}
    json.dumps(value, allow_nan=False)


def test_plain_table_is_aligned() -> None:
    assert plain_table("t", ["a", "bb"], [["1", "2"], ["333", "4"]]) == (
        "t:\n  a    bb\n  1    2\n  333  4"
    )


def test_tables_on_a_terminal_are_drawn_without_markup(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from bperp.flows import console

    monkeypatch.setattr(console, "is_terminal", lambda stream: True)
    Console("x").table("bursts", ["burst"], [["[red]t052[/red]"]])
    assert "[red]t052[/red]" in capsys.readouterr().out


def test_other_operating_system_errors_are_not_explained_away() -> None:
    assert storage_fault(FileNotFoundError(2, "no such file", "x")) is None
    known = storage_fault(OSError(122, "Disk quota exceeded"))
    assert known is not None
    assert known.code == "R804"
