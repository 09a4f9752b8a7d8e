"""Read-only containers of products: a folder or a zip archive, on any fsspec file system."""

from __future__ import annotations

import hashlib
import posixpath
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import fsspec

from bperp.stores.byte_source import (
    ByteSource,
    FileSource,
    StorageOptions,
    display_name,
    read_whole,
)
from bperp.stores.errors import StorageError
from bperp.stores.zip_archive import MANIFEST, is_junk, no_manifest, open_zip

__all__ = ["Archive", "FolderArchive", "StorageOptions", "display_name", "open_archive"]


class Archive(Protocol):
    """Members of one product by their name below the folder of ``manifest.safe``."""

    @property
    def label(self) -> str:
        """Name for error messages, free of credentials."""

    @property
    def root(self) -> str:
        """Folder that holds the manifest."""

    def members(self) -> Mapping[str, int]:
        """Return the size in bytes of every member."""

    def read(self, member: str, limit_bytes: int) -> bytes:
        """Return a whole member; X902 above the limit."""

    def md5(self, member: str) -> str:
        """Return the MD5 of a member's bytes, as manifests hold it."""

    def source(self, member: str) -> ByteSource:
        """Return random access to a member."""


@dataclass(frozen=True)
class FolderArchive:
    """A product in a folder or under an object prefix."""

    filesystem: Any
    root: str
    label: str

    def members(self) -> Mapping[str, int]:
        """Return the size in bytes of every file below the folder."""
        found = self.filesystem.find(self.root, detail=True)
        prefix = len(self.root.rstrip("/")) + 1
        return {
            path[prefix:]: int(entry["size"] or 0)
            for path, entry in found.items()
            if not is_junk(path[prefix:])
        }

    def _path(self, member: str) -> str:
        return f"{self.root.rstrip('/')}/{member}"

    def read(self, member: str, limit_bytes: int) -> bytes:
        """Return a whole file; X902 above the limit."""
        return read_whole(
            self.filesystem, self._path(member), f"{self.label}/{member}", limit_bytes
        )

    def md5(self, member: str) -> str:
        """Return the MD5 of a file."""
        digest = hashlib.md5(usedforsecurity=False)
        source = self.source(member)
        for start in range(0, source.size, 2**24):
            digest.update(source.read(start, start + 2**24))
        return digest.hexdigest()

    def source(self, member: str) -> ByteSource:
        """Return random access to a file; every read is one range request."""
        path = self._path(member)
        return FileSource(self.filesystem, path, int(self.filesystem.size(path) or 0))


def open_archive(url: str, storage_options: StorageOptions = None) -> Archive:
    """Open a SAFE folder, its ``manifest.safe``, or a zip archive that holds one.

    Parameters
    ----------
    url : str
        Local path or fsspec URL (``file://``, ``memory://``, ``s3://`` ...).
    storage_options : mapping, optional
        For the fsspec file system.

    Raises
    ------
    ProductError
        D201 incomplete archive, D203 no archive at all, D204 no or several manifests, D207
        duplicate members.
    SecurityError
        X902, X903 for archives that no agency writes.
    StorageError
        R807 without permission to read.
    """
    filesystem, path = fsspec.url_to_fs(url, **(storage_options or {}))
    if posixpath.basename(path).lower() == MANIFEST:
        path = posixpath.dirname(path)
    label = display_name(path)
    try:
        if filesystem.isdir(path):
            return _open_folder(filesystem, path, label)
        if not filesystem.exists(path):
            raise no_manifest(label, "no such file or folder", "check the path")
        return open_zip(filesystem, path, label)
    except PermissionError as error:
        raise StorageError(
            "R807",
            "no permission to read the product",
            where=label,
            remedy="change the permissions or the credentials",
        ) from error


def _open_folder(filesystem: Any, path: str, label: str) -> FolderArchive:
    def has_manifest(folder: str) -> bool:
        names = filesystem.ls(folder, detail=False)
        return any(posixpath.basename(name).lower() == MANIFEST for name in names)

    if has_manifest(path):
        return FolderArchive(filesystem, path, label)
    inner = [
        entry["name"]
        for entry in filesystem.ls(path, detail=True)
        if entry["name"].rstrip("/").upper().endswith(".SAFE") and filesystem.isdir(entry["name"])
    ]
    if len(inner) == 1 and has_manifest(inner[0]):
        return FolderArchive(filesystem, inner[0], display_name(inner[0]))
    found = f"{len(inner)} SAFE folders" if inner else "none"
    raise no_manifest(label, found, "fetch the product again, or name one SAFE folder")
