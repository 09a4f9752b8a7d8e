"""The verb ``init``: from a few paths or a project.conf to a complete configuration file."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bperp.flows.config import StackConfig, commented_yaml, write_config
from bperp.flows.config_types import is_url
from bperp.flows.console import Console, Outcome
from bperp.flows.project_conf import ProjectConf, read_project_conf

__all__ = ["InitRequest", "init"]

_PLACEHOLDERS = {"root": "out", "slc": ["*.zip"], "dem": {"path": "dem.tif"}}


@dataclass(frozen=True)
class InitRequest:
    """Arguments of ``bperp init``; paths are relative to the working folder."""

    slc: tuple[str, ...]
    orbits: tuple[str, ...]
    dem: str | None
    root: str | None
    project_conf: Path | None
    output: Path
    force: bool


def init(console: Console, request: InitRequest) -> Outcome:
    """Write the configuration file.

    Raises
    ------
    BperpError
        C101 to C104 for arguments or a project.conf that cannot be used, C111 if the file exists.
    """
    imported = ProjectConf() if request.project_conf is None else _imported(request.project_conf)
    values = _with_arguments(imported.values, request)
    # Placeholders stand in for what the user has not given yet, so that the rest is checked now.
    StackConfig.from_values({**_PLACEHOLDERS, **values}, folder=Path.cwd(), source="bperp init")
    missing = [name for name in _PLACEHOLDERS if name not in values]
    to_stdout = str(request.output) == "-"
    if not to_stdout:
        write_config(values, request.output, overwrite=request.force)
    payload = {
        "path": None if to_stdout else str(request.output),
        "notes": imported.notes,
        "missing": missing,
    }
    if to_stdout:
        payload["yaml"] = commented_yaml(values)

    def text(console: Console) -> None:
        if to_stdout:
            console.line(commented_yaml(values))
            return
        for note in imported.notes:
            console.line(f"note: {note}")
        console.line(f"wrote {request.output}")
        if missing:
            console.line(f"fill in: {', '.join(missing)}")
        console.line(f"next: bperp check {request.output}")

    return Outcome(payload, text)


def _imported(path: Path) -> ProjectConf:
    return read_project_conf(path)


def _with_arguments(imported: dict[str, Any], request: InitRequest) -> dict[str, Any]:
    values = {name: dict(v) if isinstance(v, dict) else v for name, v in imported.items()}
    if request.slc:
        values["slc"] = [_absolute(text) for text in request.slc]
    if request.orbits:
        values["orbits"] = {"folders": [_absolute(text) for text in request.orbits]}
    if request.dem is not None:
        values["dem"] = {**values.get("dem", {}), "path": _absolute(request.dem)}
    if request.root is not None:
        values["root"] = _absolute(request.root)
    return values


def _absolute(text: str) -> str:
    """Make a path independent of where the configuration file is put."""
    if is_url(text):
        return text
    return os.path.abspath(os.path.expanduser(text))  # noqa: PTH100, PTH111 (patterns are text)
