"""The dependency direction of the layers, and their only import name."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
PACKAGES = ("flows", "kernels", "pipeline", "stores")


def run(arguments, **options):
    environment = {**os.environ, **options.pop("env", {})}
    return subprocess.run(
        arguments, capture_output=True, text=True, check=False, env=environment, **options
    )


def test_import_contracts_hold():
    code = "from importlinter.cli import lint_imports_command as f; f()"
    result = run(
        [sys.executable, "-c", code, "--config", "pyproject.toml", "--no-cache"], cwd=REPOSITORY
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert "0 broken" in result.stdout


@pytest.mark.parametrize("package", PACKAGES)
def test_bare_import_is_refused(package):
    result = run(
        [sys.executable, "-P", "-c", f"import sys; sys.path.insert(0, '.'); import {package}"],
        cwd=REPOSITORY,
    )
    assert result.returncode != 0
    last = result.stderr.strip().splitlines()[-1]
    assert last.startswith("ImportError")
    assert f"this package is bperp.{package} but was imported as '{package}'" in last
    assert f"import bperp.{package}" in last


@pytest.mark.parametrize("package", PACKAGES)
def test_links_lead_to_the_folders(package):
    link = REPOSITORY / "src" / "bperp" / package
    assert link.is_symlink()
    assert os.readlink(link) == f"../../{package}"  # noqa: PTH115 (the text itself is meant)
    spec = importlib.util.find_spec(f"bperp.{package}")
    assert Path(spec.origin).resolve() == REPOSITORY / package / "__init__.py"


def test_kernels_and_stores_do_without_the_orchestrators():
    # A worker that only computes must not pay for Prefect (2 s) or find it missing.
    code = (
        "import sys, pkgutil, importlib, bperp.kernels, bperp.stores, bperp.pipeline\n"
        "for p in (bperp.kernels, bperp.stores, bperp.pipeline):\n"
        "    for m in pkgutil.walk_packages(p.__path__, p.__name__ + '.'):\n"
        "        importlib.import_module(m.name)\n"
        "print(sorted({'prefect', 'distributed', 'typer', 'matplotlib'} & set(sys.modules)))"
    )
    result = run([sys.executable, "-W", "error", "-c", code], cwd=REPOSITORY / "tests")
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == "[]"
