"""Wheel, source distribution, wheel from it, and editable install hold the whole package.

Everything runs without network in the present environment (no build isolation, no dependencies).
"""

import importlib.util
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
LAYERS = ("flows", "kernels", "pipeline", "stores")

pytestmark = [pytest.mark.packaging, pytest.mark.slow]


def run(*arguments, cwd):
    environment = {
        **os.environ,
        "PIP_NO_INDEX": "1",
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "SETUPTOOLS_SCM_PRETEND_VERSION": "9.9.9",
        "PYTHONPATH": "",
    }
    command = [sys.executable, *map(str, arguments)]
    result = subprocess.run(
        command, cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def package_files(folder):
    """Return what a user must get: everything in the four folders and in src/bperp."""
    found = {
        path.relative_to(folder).as_posix()
        for layer in LAYERS
        for path in (folder / layer).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    own = (folder / "src" / "bperp").glob("*.*")
    return found | {path.name for path in own if path.is_file()}


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """Return a copy of the work tree, so that nothing is built in the repository itself."""
    folder = tmp_path_factory.mktemp("checkout") / "bperp"
    listed = ["src", *LAYERS, "deploy", "README.md", "LICENSE", "CHANGELOG.md", "pyproject.toml"]
    folder.mkdir()
    for name in listed:
        if (REPOSITORY / name).is_dir():
            skip = shutil.ignore_patterns("__pycache__")
            shutil.copytree(REPOSITORY / name, folder / name, symlinks=True, ignore=skip)
        else:
            shutil.copy(REPOSITORY / name, folder / name)
    return folder


@pytest.fixture(scope="module")
def distributions(checkout, tmp_path_factory):
    """Return ``(wheel of the tree, source distribution, wheel of that)``."""
    direct, indirect = tmp_path_factory.mktemp("direct"), tmp_path_factory.mktemp("indirect")
    build = ("-m", "build", "--no-isolation", "--outdir")
    run(*build, direct, "--wheel", checkout, cwd=direct)
    run(*build, direct, "--sdist", checkout, cwd=direct)
    (source,) = direct.glob("*.tar.gz")
    with tarfile.open(source) as archive:
        safely = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
        archive.extractall(indirect, **safely)
    (unpacked,) = indirect.iterdir()
    run(*build, indirect / "dist", "--wheel", unpacked, cwd=indirect)
    (wheel,) = direct.glob("*.whl")
    (rebuilt,) = (indirect / "dist").glob("*.whl")
    return wheel, source, rebuilt


def wheel_files(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if ".dist-info/" not in name]
    assert all(name.startswith("bperp/") for name in names), names
    return {name.removeprefix("bperp/") for name in names}


def test_wheel_holds_every_file(checkout, distributions):
    expected = package_files(checkout)
    assert {"py.typed", "__init__.py", "kernels/_jit.py", "flows/cli.py"} <= expected
    assert wheel_files(distributions[0]) == expected


def test_source_distribution_holds_every_file(checkout, distributions):
    with tarfile.open(distributions[1]) as archive:
        names = {"/".join(m.name.split("/")[1:]) for m in archive.getmembers() if m.isfile()}
        links = [member.name for member in archive.getmembers() if not member.isfile()]
    inside = {name.removeprefix("src/bperp/") for name in names if name.startswith("src/bperp/")}
    assert inside == package_files(checkout)
    assert {"LICENSE", "README.md", "pyproject.toml", "deploy/build_guard.py"} <= names
    assert not [name for name in links if "/src/bperp/" in name], (
        "links would not survive unpacking"
    )


def test_wheel_of_the_source_distribution_is_the_same(distributions):
    with zipfile.ZipFile(distributions[0]) as one, zipfile.ZipFile(distributions[2]) as two:
        names = [name for name in one.namelist() if not name.endswith("RECORD")]
        assert sorted(one.namelist()) == sorted(two.namelist())
        assert all(one.read(name) == two.read(name) for name in names)


def test_wheel_carries_licence_and_command(distributions):
    with zipfile.ZipFile(distributions[0]) as archive:
        info = {
            name.split(".dist-info/")[1]: name for name in archive.namelist() if "-info/" in name
        }
        assert "bperp = bperp.flows.cli:main" in archive.read(info["entry_points.txt"]).decode()
        metadata = archive.read(info["METADATA"]).decode()
    assert "licenses/LICENSE" in info
    assert "License-Expression: Apache-2.0" in metadata
    assert "Requires-Python: >=3.11" in metadata


LOCATE = """
import importlib.util, pathlib, site, sys
site.addsitedir(sys.argv[1])
for layer in ("flows", "kernels", "pipeline", "stores"):
    spec = importlib.util.find_spec(f"bperp.{layer}")
    print(pathlib.Path(spec.origin).resolve())
    assert importlib.util.find_spec(layer) is None, f"{layer} must not be importable by itself"
"""


def test_installed_wheel_is_found(distributions, tmp_path):
    target = tmp_path / "target"
    run("-m", "pip", "install", "--no-deps", "--target", target, distributions[0], cwd=tmp_path)
    # -S keeps the present environment, where bperp is installed too, out of the way.
    found = run("-S", "-P", "-c", LOCATE, target, cwd=tmp_path).split()
    assert found == [str(target / "bperp" / layer / "__init__.py") for layer in LAYERS]


def test_install_from_the_folder(checkout, tmp_path):
    target = tmp_path / "target"
    options = ("--no-deps", "--no-build-isolation", "--target", target)
    run("-m", "pip", "install", *options, checkout, cwd=tmp_path)
    installed = {
        path.relative_to(target / "bperp").as_posix()
        for path in (target / "bperp").rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }
    assert installed == package_files(checkout)


def test_editable_install_follows_the_folders(checkout, tmp_path):
    prefix = tmp_path / "prefix"
    options = ("--no-deps", "--no-build-isolation", "--ignore-installed", "--prefix", prefix)
    run("-m", "pip", "install", *options, "-e", checkout, cwd=tmp_path)
    (site_packages,) = prefix.glob("lib/python*/site-packages")
    found = run("-S", "-P", "-c", LOCATE, site_packages, cwd=tmp_path).split()
    assert found == [str(checkout / layer / "__init__.py") for layer in LAYERS]


def test_build_refuses_missing_links(checkout, tmp_path):
    broken = tmp_path / "broken"
    shutil.copytree(checkout, broken, symlinks=True)
    (broken / "src" / "bperp" / "kernels").unlink()
    (broken / "src" / "bperp" / "kernels").write_text("../../kernels")
    result = subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--wheel", "--outdir", tmp_path, broken],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode != 0
    assert "src/bperp lacks kernels" in result.stdout + result.stderr
    assert not list(tmp_path.glob("*.whl"))


def test_this_environment_tests_this_repository():
    for layer in LAYERS:
        origin = Path(importlib.util.find_spec(f"bperp.{layer}").origin)
        assert origin.resolve() == REPOSITORY / layer / "__init__.py"
