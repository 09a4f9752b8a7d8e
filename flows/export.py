"""Step 9, export: files for users from the finished products of a root."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bperp.flows.root import Root
from bperp.flows.stamps_export import export_stamps
from bperp.pipeline.timeseries import PRODUCT as TIMESERIES
from bperp.stores.canonical import canonical_json, digest
from bperp.stores.csv_export import write_velocity_csv
from bperp.stores.errors import ConfigurationError, StorageError
from bperp.stores.objects import is_local, local_path

Export = Callable[[Root, Path], dict[str, Any]]


def export_product(root: str, file_format: str, out: Path | None = None) -> dict[str, Any]:
    """Write one format from a finished root.

    Parameters
    ----------
    root : str
        Folder or URL of the root.
    file_format : {"stamps", "csv"}
        StaMPS input tree, or the table of velocities.
    out : Path, optional
        Target folder; default ``<root>/export``.

    Returns
    -------
    dict
        ``format``, ``path``, and what the format has to tell; ``unchanged`` is true when the
        files are already those of the present products.

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
    opened = Root.open(root)
    folder = out if out is not None else default_folder(opened)
    write, stages = _EXPORTS[file_format]
    identity = _identity(opened, file_format, stages, folder)
    record = f"receipts/export/{file_format}.{identity[:12]}.json"
    done = opened.store.objects.read(record)
    import json

    if done is not None and Path(json.loads(done)["path"]).exists():
        return {**json.loads(done), "unchanged": True}
    folder.mkdir(parents=True, exist_ok=True)
    result = {"format": file_format, **write(opened, folder)}
    opened.store.objects.write(record, canonical_json(result))
    return {**result, "unchanged": False}


def default_folder(root: Root) -> Path:
    """Return ``<root>/<export.folder>``; a root in an object store needs an explicit folder."""
    if not is_local(root.store.root):
        raise ConfigurationError(
            "C104",
            "exports are written to a local folder",
            where=root.store.objects.url,
            expected="--out FOLDER for a root in an object store",
            remedy="give --out",
        )
    folder: str = root.config["export"]["folder"]
    return local_path(root.store.root) / folder


def _identity(root: Root, file_format: str, stages: tuple[str, ...], folder: Path) -> str:
    """Hash what the files depend on: the receipts of the stages they are made from."""
    markers = root.ledger.markers()
    missing = [stage for stage in stages if stage not in markers]
    if missing:
        raise StorageError(
            "R801",
            "the products to be exported are not finished",
            where=root.store.objects.url,
            expected=f"finished steps {', '.join(stages)}",
            found=f"no {', '.join(missing)}",
            remedy="run the steps first",
        )
    receipts = {stage: dict(markers[stage].receipts) for stage in stages}
    return digest({"format": file_format, "folder": str(folder.resolve()), "receipts": receipts})


def _write_stamps(root: Root, folder: Path) -> dict[str, Any]:
    name = f"INSAR_{root.stack.reference_date.replace('-', '')}"
    return export_stamps(root.stack, root.source, folder / name, replace=True)


def _write_csv(root: Root, folder: Path) -> dict[str, Any]:
    def read(name: str) -> NDArray[Any]:
        return np.asarray(root.source.read(TIMESERIES, name, (slice(None),)), np.float64)

    path = folder / "velocity.csv"
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
    return {
        "path": str(path),
        "scatterers": int(solved.sum()),
        "not_connected": int((~solved).sum()),
    }


_EXPORTS: dict[str, tuple[Export, tuple[str, ...]]] = {
    "stamps": (_write_stamps, ("coregister", "geometry")),
    "csv": (_write_csv, ("timeseries",)),
}
