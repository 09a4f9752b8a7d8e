"""Step 9, export: files for users from the finished products of a root."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bperp.flows.root import Root
from bperp.flows.stamps_export import export_stamps
from bperp.flows.upload import FolderTarget, Target, open_target
from bperp.pipeline.timeseries import PRODUCT as TIMESERIES
from bperp.stores.canonical import canonical_json, digest
from bperp.stores.csv_export import write_velocity_csv
from bperp.stores.errors import ConfigurationError, StorageError
from bperp.stores.objects import local_path
from bperp.stores.stamps_target import FOLDERS


@dataclass(frozen=True)
class Format:
    """How a format is written.

    Attributes
    ----------
    name : callable
        Name of the file or folder that receives it.
    write : callable
        Writes to a path of that name; returns what the format has to tell.
    stages : tuple of str
        Finished stages that it is made from.
    folders : tuple of str
        Folders that a former version may hold: anything else in it is the user's.
    """

    name: Callable[[Root], str]
    write: Callable[[Root, Path], dict[str, Any]]
    stages: tuple[str, ...]
    folders: tuple[str, ...] = ()


def export_product(root: str, file_format: str, out: Path | None = None) -> dict[str, Any]:
    """Write one format from a finished root.

    Parameters
    ----------
    root : str
        Folder or URL of the root.
    file_format : {"stamps", "csv"}
        StaMPS input tree, or the table of velocities.
    out : Path, optional
        Target folder on this machine; default ``export`` below the root, also in an object store.

    Returns
    -------
    dict
        ``format``, ``path`` (a URL in an object store), and what the format has to tell;
        ``unchanged`` is true when the files are already those of the present products.

    Raises
    ------
    BperpError
        Unknown format, unfinished products, a target that cannot be written.
    """
    if file_format not in _EXPORTS:
        raise ConfigurationError(
            "C102",
            "unknown export format",
            where="--format",
            expected=", ".join(_EXPORTS),
            found=file_format,
            remedy="choose one of these",
        )
    opened, chosen = Root.open(root), _EXPORTS[file_format]
    target = open_target(opened.store, opened.config["export"]["folder"])
    if out is not None:
        target = FolderTarget(_local_folder(out))
    name, identity = chosen.name(opened), _identity(opened, chosen.stages)
    objects = opened.store.objects
    receipt = f"receipts/export/{file_format}.{digest(target.url)[:12]}.json"
    done = json.loads(objects.read(receipt) or b"{}")
    present = target.sizes(name)
    if done.get("identity") == identity and done["files"].items() <= present.items():
        return {**done["result"], "unchanged": True}
    _refuse_foreign(target, name, present, chosen.folders)
    # From here on the files are neither the old ones nor the new ones.
    objects.remove(receipt)
    with target.writing(name) as path:
        facts = chosen.write(opened, path)
    result = {"format": file_format, "path": f"{target.url}/{name}", **facts}
    done = {"identity": identity, "files": target.sizes(name), "result": result}
    objects.write(receipt, canonical_json(done))
    return {**result, "unchanged": False}


def _local_folder(out: Path) -> Path:
    # As a path, s3://bucket has lost a slash.
    if re.match(r"[A-Za-z0-9+.-]{2,}:/", str(out)):
        raise ConfigurationError(
            "C104",
            "exports go to a folder of this machine or below their root",
            where="--out",
            found=str(out),
            remedy="leave out --out for a root in an object store, or give a folder",
        )
    return local_path(str(out))


def _identity(root: Root, stages: tuple[str, ...]) -> str:
    """Hash what the files depend on: the receipts of the stages they are made from."""
    markers = {stage: root.ledger.marker(stage) for stage in stages}
    missing = [stage for stage, marker in markers.items() if marker is None]
    if missing:
        raise StorageError(
            "R801",
            "the products to be exported are not finished",
            where=root.store.objects.url,
            expected=f"finished steps {', '.join(stages)}",
            found=f"no {', '.join(missing)}",
            remedy="run the steps first",
        )
    return digest({stage: dict(m.receipts) for stage, m in markers.items() if m is not None})


def _refuse_foreign(
    target: Target, name: str, present: dict[str, int], folders: tuple[str, ...]
) -> None:
    """Refuse to replace a folder that holds anything but a former version."""
    known = tuple(f"{name}/{folder}/" for folder in folders)
    foreign = sorted(file for file in present if file != name and not file.startswith(known))
    if foreign:
        raise ConfigurationError(
            "C111",
            "the output folder exists and is not replaced",
            where=f"{target.url}/{name}",
            expected="nothing, or a former export and nothing else",
            found=f"also {', '.join(foreign[:3])}",
            remedy="move these files away or choose another folder with --out",
        )


def _stamps_name(root: Root) -> str:
    return f"INSAR_{root.stack.reference_date.replace('-', '')}"


def _write_stamps(root: Root, path: Path) -> dict[str, Any]:
    return export_stamps(root.stack, root.source, path, replace=True)


def _write_csv(root: Root, path: Path) -> dict[str, Any]:
    def read(name: str) -> NDArray[Any]:
        return np.asarray(root.source.read(TIMESERIES, name, (slice(None),)), np.float64)

    velocity = read("velocity_los")
    solved = np.isfinite(velocity)
    write_velocity_csv(
        path,
        read("longitude")[solved],
        read("latitude")[solved],
        (read("height") + read("dem_error"))[solved],
        1000 * velocity[solved],
        1000 * read("velocity_sigma")[solved],
        read("phase_noise")[solved],
    )
    return {"scatterers": int(solved.sum()), "not_connected": int((~solved).sum())}


_EXPORTS = {
    "stamps": Format(_stamps_name, _write_stamps, ("coregister", "geometry"), FOLDERS),
    "csv": Format(lambda _: "velocity.csv", _write_csv, ("timeseries",)),
}
