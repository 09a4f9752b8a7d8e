"""Is this installation fit to run: versions, threads, memory, disk, ports, clusters, grids."""

from __future__ import annotations

import os
import platform
import shutil
import socket
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from bperp.flows.machine import (
    available_memory_bytes,
    free_disk_bytes,
    total_memory_bytes,
    usable_processors,
)

__all__ = ["Diagnosis", "Symptom", "examine", "installed_grid"]

Level = Literal["ok", "warning", "error"]
_MIN_MEMORY = 2_000_000_000
_MIN_DISK = 5_000_000_000
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
CLUSTER_PACKAGES = {"slurm": "dask-jobqueue>=0.9", "kubernetes": "dask-kubernetes>=2026.3"}
GEOID_GRIDS = {"egm96": "us_nga_egm96_15.tif", "egm2008": "us_nga_egm08_25.tif"}


@dataclass(frozen=True)
class Symptom:
    """One thing that was looked at.

    ``level`` is ok, warning (works, with a limit) or error (will fail).
    """

    name: str
    level: Level
    found: str
    expected: str = ""
    remedy: str = ""


@dataclass(frozen=True)
class Diagnosis:
    """All that was looked at."""

    symptoms: tuple[Symptom, ...]

    @property
    def exit_code(self) -> int:
        """0 if nothing will fail, else 4."""
        return 4 if any(symptom.level == "error" for symptom in self.symptoms) else 0

    def as_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        return {"symptoms": [asdict(symptom) for symptom in self.symptoms]}


def examine(root: str | None = None, *, thorough: bool = True) -> Diagnosis:
    """Look at the installation and the machine.

    Parameters
    ----------
    root : str, optional
        Folder or URL where products will be written; default a temporary folder.
    thorough : bool
        Also compile a kernel, start a worker and let it write and read a small product (ten
        seconds).

    Returns
    -------
    Diagnosis
        Never raises: a check that fails to run is an error symptom.
    """
    folder = Path.cwd() if root is None or "://" in root else Path(root)
    checks: list[tuple[str, Callable[[], Iterator[Symptom]]]] = [
        ("python", _python),
        ("packages", _packages),
        ("processors", _processors),
        ("memory", _memory),
        ("disk", lambda: _disk(folder)),
        ("temporary folder", lambda: _writable(Path(tempfile.gettempdir()))),
        ("loopback port", _loopback),
        ("clusters", _clusters),
        ("geoid grids", _grids),
    ]
    if thorough:
        checks += [("compiler", _compiler), ("storage and workers", lambda: _storage(root))]
    symptoms: list[Symptom] = []
    for name, check in checks:
        try:
            symptoms.extend(check())
        except Exception as error:
            symptoms.append(Symptom(name, "error", f"{type(error).__name__}: {error}"))
    return Diagnosis(tuple(symptoms))


def _python() -> Iterator[Symptom]:
    found = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    is_new = sys.version_info >= (3, 11)
    yield Symptom("python", "ok" if is_new else "error", found, "3.11 or newer")


def _packages() -> Iterator[Symptom]:
    """Compare what is installed with what this package declares: pip check does not notice all."""
    from packaging.requirements import Requirement

    try:
        yield Symptom("bperp", "ok", metadata.version("bperp"))
        declared = metadata.requires("bperp") or []
    except metadata.PackageNotFoundError:
        yield Symptom("bperp", "warning", "not installed", remedy="run 'pip install .'")
        return
    for text in sorted(declared, key=str.lower):
        requirement = Requirement(text)
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        yield _package(requirement.name, requirement)


def _package(name: str, requirement: Any) -> Symptom:
    expected = str(requirement.specifier) or "any"
    remedy = f"pip install '{requirement}'"
    try:
        found = metadata.version(name)
    except metadata.PackageNotFoundError:
        return Symptom(name, "error", "not installed", expected, remedy)
    fits = requirement.specifier.contains(found, prereleases=True)
    return Symptom(name, "ok" if fits else "error", found, expected, "" if fits else remedy)


def _processors() -> Iterator[Symptom]:
    count = usable_processors()
    yield Symptom("processors", "ok", str(count), "1 or more")
    for variable in _THREAD_VARIABLES:
        value = os.environ.get(variable)
        is_number = value is None or value.isdigit()
        level: Level = "ok" if is_number else "warning"
        remedy = "" if is_number else f"unset {variable} or set it to 1"
        yield Symptom(variable, level, value or "not set (workers set it to 1)", "1", remedy)


def _memory() -> Iterator[Symptom]:
    total, available = total_memory_bytes(), available_memory_bytes()
    if total is None or available is None:
        yield Symptom("memory", "warning", "unknown", remedy="set compute.workers yourself")
        return
    level: Level = "ok" if available >= _MIN_MEMORY else "warning"
    found = f"{available / 1e9:.1f} GB available of {total / 1e9:.1f} GB"
    remedy = "" if level == "ok" else "close other programs or use a larger machine"
    yield Symptom("memory", level, found, f"{_MIN_MEMORY / 1e9:g} GB or more", remedy)


def _disk(folder: Path) -> Iterator[Symptom]:
    free = free_disk_bytes(folder)
    level: Level = "ok" if free >= _MIN_DISK else "warning"
    remedy = "" if level == "ok" else "free space, or choose another root"
    found = f"{free / 1e9:.1f} GB free at {folder}"
    yield Symptom("disk", level, found, f"{_MIN_DISK / 1e9:g} GB or more", remedy)


def _writable(folder: Path) -> Iterator[Symptom]:
    try:
        with tempfile.NamedTemporaryFile(dir=folder) as stream:
            stream.write(b"bperp")
            stream.flush()
    except OSError as error:
        remedy = "set TMPDIR to a writable folder"
        yield Symptom(
            "temporary folder", "error", f"{folder}: {error.strerror}", "writable", remedy
        )
        return
    yield Symptom("temporary folder", "ok", str(folder), "writable")


def _loopback() -> Iterator[Symptom]:
    """Connect to ourselves: workers and scheduler talk over the loopback address."""
    try:
        with socket.create_server(("127.0.0.1", 0)) as server:
            server.settimeout(2)
            port = server.getsockname()[1]
            with socket.create_connection(("127.0.0.1", port), timeout=2):
                connection, _ = server.accept()
                connection.close()
    except OSError as error:
        remedy = "allow connections to 127.0.0.1, or run with --engine serial"
        yield Symptom("loopback port", "error", str(error), "a connection to 127.0.0.1", remedy)
        return
    yield Symptom("loopback port", "ok", f"127.0.0.1:{port}", "a connection to 127.0.0.1")


def _clusters() -> Iterator[Symptom]:
    """Tell which kinds of cluster can be chosen; only local ones have to be there."""
    own = metadata.version("distributed")
    yield Symptom("cluster local, address", "ok", f"distributed {own}", "distributed")
    surroundings = {
        "slurm": ("sbatch", shutil.which("sbatch") is not None),
        "kubernetes": ("kubeconfig or pod", _is_kubernetes_known()),
    }
    for kind, (what, is_there) in surroundings.items():
        found = f"{_optional_package(CLUSTER_PACKAGES[kind])}, {'' if is_there else 'no '}{what}"
        expected = f"if wanted: {CLUSTER_PACKAGES[kind]}, {what}"
        yield Symptom(f"cluster {kind}", "ok", found, expected)


def _optional_package(text: str) -> str:
    from packaging.requirements import Requirement

    requirement = Requirement(text)
    try:
        found = metadata.version(requirement.name)
    except metadata.PackageNotFoundError:
        return f"no {requirement.name}"
    fits = requirement.specifier.contains(found, prereleases=True)
    return f"{requirement.name} {found}{'' if fits else ' (too old)'}"


def _is_kubernetes_known() -> bool:
    file = Path(os.environ.get("KUBECONFIG", "~/.kube/config")).expanduser()
    return "KUBERNETES_SERVICE_HOST" in os.environ or file.is_file()


def _grids() -> Iterator[Symptom]:
    """Without a grid EGM heights need dem.geoid; PROJ itself would skip the shift silently."""
    for name, file in GEOID_GRIDS.items():
        place = installed_grid(name)
        if place is not None:
            yield Symptom(f"geoid grid {name}", "ok", str(place), file)
            continue
        remedy = f"for {name} heights give dem.geoid, or put {file} into PROJ's data folder"
        yield Symptom(f"geoid grid {name}", "warning", "not installed", file, remedy)


def installed_grid(datum: str) -> Path | None:
    """Return the geoid grid of ``egm96`` or ``egm2008`` in PROJ's data folders, if any."""
    import pyproj

    file = GEOID_GRIDS[datum]
    # The function is documented but not listed among the module's exports.
    user_folder = str(pyproj.datadir.get_user_data_dir())  # type: ignore[attr-defined]
    folders = [*pyproj.datadir.get_data_dir().split(os.pathsep), user_folder]
    places = (Path(folder, file) for folder in folders)
    return next((place for place in places if place.is_file()), None)


def _compiler() -> Iterator[Symptom]:
    import numpy as np

    from bperp.kernels._jit import njit

    def accumulate(values: Any) -> float:
        total = 0.0
        for index in range(values.size):
            total += values[index]
        return total

    start = time.perf_counter()
    total = njit(accumulate)(np.arange(5.0))
    seconds = time.perf_counter() - start
    level: Level = "ok" if total == 10.0 else "error"
    found = f"compiled and ran in {seconds:.1f} s" if level == "ok" else f"wrong sum {total}"
    yield Symptom("compiler", level, found, "numba compiles a kernel")


def _storage(root: str | None) -> Iterator[Symptom]:
    """Let a worker process write, read back and verify a small product where a run would."""
    from bperp.flows.executors import DaskExecutor
    from bperp.flows.selfcheck import run_selfcheck

    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        # Another cluster of the same user is no fault: the next free port is taken.
        warnings.filterwarnings("ignore", message="Port .* is already in use")
        result = run_selfcheck(root or folder, DaskExecutor(1))
    level: Level = "ok" if result["wrong"] == 0 else "error"
    found = (
        f"{result['tasks']} tasks, {result['wrong']} wrong pixels in {root or 'temporary folder'}"
    )
    yield Symptom("storage and workers", level, found, "what is written is read back")
