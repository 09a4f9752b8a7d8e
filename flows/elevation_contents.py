"""What elevation files hold, as opposed to where they lie: this enters the identity of tasks."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import fsspec

from bperp.flows.config import STEPS, StackConfig
from bperp.stores.canonical import digest
from bperp.stores.errors import ElevationError
from bperp.stores.objects import is_local, storage_errors

__all__ = ["content_id", "elevation_contents", "stage_options"]

_STAMPS = ("ETag", "etag", "md5Hash", "content_md5")
"""What object stores say of the contents of an object."""
_BLOCK = 8 << 20


def elevation_contents(config: StackConfig) -> dict[str, dict[str, str | None]]:
    """Return what stands for the elevation files in the options of the steps that read heights.

    Returns
    -------
    dict
        For ``geometry`` and ``geocode``: ``path`` and ``geoid`` as digests. A file that moves is
        the same file, one that is replaced under its name is another.

    Raises
    ------
    ElevationError
        E602 when a file does not exist.
    """
    geoid = None if config.dem.geoid is None else content_id(config.dem.geoid)
    contents = {"path": content_id(config.dem.path), "geoid": geoid}
    return {"geometry": contents, "geocode": contents}


def stage_options(
    config: StackConfig, contents: Mapping[str, Mapping[str, Any]]
) -> dict[str, dict[str, Any]]:
    """Return the options of each step as its tasks see them."""
    return {step: {**config.step_options(step), **contents.get(step, {})} for step in STEPS}


def content_id(url: str) -> str:
    """Return a digest of a file, or of the ``.tif`` files of a folder.

    Parameters
    ----------
    url : str
        Path or fsspec URL. Objects in a store are told apart by the stamp of the store (ETag) and
        their size, everything else by its bytes.

    Returns
    -------
    str
        16 hexadecimal digits.

    Raises
    ------
    ElevationError
        E602 when nothing lies there.
    """
    filesystem, path = fsspec.core.url_to_fs(url)
    with storage_errors(path, remote=not is_local(url)):
        is_there = filesystem.exists(path)
        names = [path]
        if is_there and filesystem.isdir(path):
            names = sorted(name for name in filesystem.find(path) if name.endswith(".tif"))
        found = [_file_id(filesystem, name) for name in names] if is_there else []
    if not found:
        raise ElevationError(
            "E602",
            "the elevation file does not exist",
            where=url,
            expected="a GeoTIFF, or a folder of them",
            found="nothing",
            remedy="correct dem.path or dem.geoid",
        )
    return digest(found)[:16]


def _file_id(filesystem: Any, path: str) -> str:
    details = filesystem.info(path)
    stamp = next((details[name] for name in _STAMPS if details.get(name)), None)
    if stamp is not None:
        return digest([str(stamp), int(details["size"])])
    found = hashlib.sha256()
    with filesystem.open(path, "rb") as stream:
        while block := stream.read(_BLOCK):
            found.update(block)
    return found.hexdigest()
