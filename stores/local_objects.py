"""Small whole objects as files of a folder."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

from bperp.stores.errors import StorageError
from bperp.stores.storage_faults import storage_errors

_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EMLINK, errno.ENOSYS}


class LocalObjects:
    """Objects are files; writes go to a temporary name first.

    Parameters
    ----------
    folder : pathlib.Path
        Root; created with the first write.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def url(self) -> str:
        """Root folder."""
        return str(self.folder)

    def read(self, name: str) -> bytes | None:
        """Return the bytes of an object, ``None`` when there is none."""
        with storage_errors(name):
            try:
                return self._path(name).read_bytes()
            except (FileNotFoundError, NotADirectoryError):
                return None

    def write(self, name: str, data: bytes) -> None:
        """Create or replace an object in one step."""
        target = self._path(name)
        with storage_errors(name), self._partial(target, _writer(data)) as partial:
            partial.replace(target)

    def create(self, name: str, data: bytes) -> bool:
        """Create an object unless it exists; ``False`` when somebody else was first."""
        target = self._path(name)
        with storage_errors(name), self._partial(target, _writer(data)) as partial:
            try:
                # A link fails when the name exists, and the name never shows half a file.
                os.link(partial, target)
            except FileExistsError:
                return False
            except OSError as error:
                if error.errno not in _NO_LINKS:
                    raise
                return _create_without_links(target, data)
            return True

    def copy(self, source: str, target: str) -> None:
        """Copy a whole object; R802 when there is none."""
        origin, destination = self._path(source), self._path(target)
        with storage_errors(target):
            try:
                with self._partial(destination, _copier(origin)) as partial:
                    partial.replace(destination)
            except (FileNotFoundError, NotADirectoryError) as error:
                raise nothing_to_copy(source) from error

    def modified(self, name: str) -> float | None:
        """Return when an object was written, ``None`` when there is none."""
        with storage_errors(name):
            try:
                return self._path(name).stat().st_mtime
            except (FileNotFoundError, NotADirectoryError):
                return None

    def names(self, prefix: str) -> list[str]:
        """Return the sorted names of all objects below a folder, without partial writes."""
        base = self._path(prefix)
        found = []
        for folder, _, files in os.walk(base):
            relative = Path(folder).relative_to(self.folder)
            found += [str(relative / file) for file in files if not file.endswith(".partial")]
        return sorted(found)

    def children(self, prefix: str) -> list[str]:
        """Return the sorted names of the folders directly below a folder."""
        base = self._path(prefix)
        return (
            sorted(entry.name for entry in base.iterdir() if entry.is_dir())
            if base.exists()
            else []
        )

    def remove(self, name: str) -> None:
        """Remove an object; a missing one is fine."""
        with storage_errors(name):
            self._path(name).unlink(missing_ok=True)

    def remove_tree(self, prefix: str) -> None:
        """Remove a folder and everything in it; a missing one is fine."""
        with storage_errors(prefix), contextlib.suppress(FileNotFoundError):
            shutil.rmtree(self._path(prefix))

    def remove_partials(self, prefix: str) -> int:
        """Remove what killed writers left behind below a folder; return how many files."""
        leftovers = list(self._path(prefix).rglob("*.partial"))
        with storage_errors(prefix):
            for path in leftovers:
                path.unlink(missing_ok=True)
        return len(leftovers)

    def _path(self, name: str) -> Path:
        return self.folder / checked_name(name)

    @contextlib.contextmanager
    def _partial(self, target: Path, fill: Callable[[Path], None]) -> Iterator[Path]:
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f".{target.name[:80]}.{uuid.uuid4().hex}.partial")
        try:
            fill(partial)
            yield partial
        finally:
            partial.unlink(missing_ok=True)


def checked_name(name: str) -> str:
    """Return the name of an object if it stays below the root (ValueError)."""
    if name.startswith("/") or ".." in name.split("/"):
        raise ValueError(f"name must stay below the root, instead got {name!r}")
    return name


def nothing_to_copy(name: str) -> StorageError:
    """Return the error for a source that does not exist."""
    return StorageError(
        "R802",
        "the object to be copied is missing",
        where=name,
        remedy="run 'bperp repair ROOT', then the same run again",
    )


def _writer(data: bytes) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        with path.open("xb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())

    return write


def _copier(source: Path) -> Callable[[Path], None]:
    def copy(path: Path) -> None:
        with source.open("rb") as origin, path.open("xb") as stream:
            shutil.copyfileobj(origin, stream, 1 << 20)
            stream.flush()
            os.fsync(stream.fileno())

    return copy


def _create_without_links(target: Path, data: bytes) -> bool:
    # exFAT and some network file systems have no hard links: a reader may then meet a half-written
    # object, which the ledger takes for a missing one.
    try:
        _writer(data)(target)
    except FileExistsError:
        return False
    return True
