"""Random access to the bytes of files on any fsspec file system."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, cast

import fsspec

from bperp.stores.errors import SecurityError

__all__ = [
    "ByteSource",
    "BytesSource",
    "FileSource",
    "StorageOptions",
    "check_size",
    "display_name",
    "open_source",
    "read_file",
    "read_whole",
]

StorageOptions = Mapping[str, Any] | None


class ByteSource(Protocol):
    """Random access to the bytes of one file or member."""

    @property
    def size(self) -> int:
        """Length in bytes."""

    def read(self, start: int, stop: int) -> bytes:
        """Return the bytes ``start <= i < stop``; fewer at the end of the file."""

    def close(self) -> None:
        """Give back open files."""


def display_name(url: str) -> str:
    """Return the last part of a path or URL without query, so that no token is ever shown."""
    bare = url.split("?", 1)[0]
    return bare.rstrip("/").rsplit("/", 1)[-1] or bare


@dataclass
class FileSource:
    """Bytes of a file, or of a part of one: every read is one range request."""

    filesystem: Any
    path: str
    size: int
    offset: int = 0

    def read(self, start: int, stop: int) -> bytes:
        """Return a range of bytes."""
        stop = min(stop, self.size)
        if start >= stop:
            return b""
        begin, end = self.offset + start, self.offset + stop
        return cast(bytes, self.filesystem.cat_file(self.path, start=begin, end=end))

    def close(self) -> None:
        """Do nothing: no file stays open."""


@dataclass
class BytesSource:
    """Bytes that are in memory already."""

    data: bytes

    @property
    def size(self) -> int:
        """Length in bytes."""
        return len(self.data)

    def read(self, start: int, stop: int) -> bytes:
        """Return a range of bytes."""
        return self.data[start:stop]

    def close(self) -> None:
        """Do nothing."""


def check_size(label: str, size: int, limit_bytes: int) -> None:
    """Raise X902 when a file is larger than its format allows."""
    if size > limit_bytes:
        raise SecurityError(
            "X902",
            "file exceeds the size limit",
            where=label,
            expected=f"at most {limit_bytes} bytes",
            found=f"{size} bytes",
            remedy="fetch the file again from its archive",
        )


def read_whole(filesystem: Any, path: str, label: str, limit_bytes: int) -> bytes:
    """Return a whole file of a file system (FileNotFoundError, X902)."""
    check_size(label, int(filesystem.size(path) or 0), limit_bytes)
    return cast(bytes, filesystem.cat_file(path))


def read_file(url: str, limit_bytes: int, storage_options: StorageOptions = None) -> bytes:
    """Return a whole file from a path or fsspec URL (FileNotFoundError, X902)."""
    filesystem, path = fsspec.url_to_fs(url, **(storage_options or {}))
    return read_whole(filesystem, path, display_name(url), limit_bytes)


def open_source(url: str, storage_options: StorageOptions = None) -> FileSource:
    """Return random access to a file at a path or fsspec URL (FileNotFoundError)."""
    filesystem, path = fsspec.url_to_fs(url, **(storage_options or {}))
    return FileSource(filesystem, path, int(filesystem.size(path) or 0))
