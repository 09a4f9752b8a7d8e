"""Where files for users go: a folder of this machine, or objects below a root.

Exports are files of other programs, up to many gigabytes each. In an object store they are made in
a temporary folder first and sent from there in parts, so that memory does not grow with a file.
"""

from __future__ import annotations

import contextlib
import os
import queue
import tempfile
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import fsspec

from bperp.stores.cube import CubeStore
from bperp.stores.errors import ConfigurationError, StorageError
from bperp.stores.objects import RemoteObjects, local_path, storage_errors
from bperp.stores.patience import Spell, network_patience_s, patiently

__all__ = ["FolderTarget", "ObjectTarget", "Target", "open_target"]

PART_BYTES = 16 << 20
"""Files are sent and read back in parts of this size: S3 takes 10 000 parts, so up to 160 GB."""
_PARTS_AT_ONCE = 2
_FILES_AT_ONCE = 4


class Target(Protocol):
    """A place that receives files; names are relative to it and use ``/``."""

    @property
    def url(self) -> str:
        """Place without credentials, for messages and results."""
        ...

    def sizes(self, name: str) -> dict[str, int]:
        """Return name and bytes of a file, or of all files below a folder; empty when absent."""
        ...

    def writing(self, name: str) -> contextlib.AbstractContextManager[Path]:
        """Yield a local path for a new file or folder, which is in the target afterwards."""
        ...


def open_target(store: CubeStore, folder: str) -> Target:
    """Return a folder below a root as a target; nothing is created or contacted yet.

    Parameters
    ----------
    store : CubeStore
        The root, local or in an object store.
    folder : str
        Relative name with ``/``.

    Raises
    ------
    ConfigurationError
        C104 when a package is missing.
    """
    if isinstance(store.objects, RemoteObjects):
        return ObjectTarget(store.objects, *_open_filesystem(store), folder)
    return FolderTarget(local_path(store.root) / folder)


class FolderTarget:
    """A folder of this machine: files are written where they belong.

    Parameters
    ----------
    folder : pathlib.Path
        Absolute path; created with the first write.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def url(self) -> str:
        """The folder."""
        return str(self.folder)

    def sizes(self, name: str) -> dict[str, int]:
        """Return name and bytes of a file, or of all files below a folder; empty when absent."""
        path = self.folder / name
        files = [path] if path.is_file() else _files(path)
        return {file.relative_to(self.folder).as_posix(): file.stat().st_size for file in files}

    @contextlib.contextmanager
    def writing(self, name: str) -> Iterator[Path]:
        """Yield the final path: what writes there replaces whole files or folders by itself."""
        yield self.folder / name


class ObjectTarget:
    """Objects below a root, sent file by file and compared with what the store gives back.

    Parameters
    ----------
    objects : RemoteObjects
        The root.
    filesystem : fsspec.AbstractFileSystem
        Synchronous file system that holds it.
    base : str
        The root in the file system's own spelling.
    folder : str
        Folder below the root, with ``/``.
    """

    def __init__(self, objects: RemoteObjects, filesystem: Any, base: str, folder: str) -> None:
        self.objects, self.filesystem, self.folder = objects, filesystem, folder
        self._base = f"{base.rstrip('/')}/{folder}"

    @property
    def url(self) -> str:
        """URL without credentials."""
        return f"{self.objects.url}/{self.folder}"

    def sizes(self, name: str) -> dict[str, int]:
        """Return name and bytes of an object, or of all objects below a prefix, by one listing."""

        def list_all() -> dict[str, int]:
            with storage_errors(f"{self.url}/{name}", remote=True):
                self.filesystem.invalidate_cache()
                found = self.filesystem.find(f"{self._base}/{name}", detail=True)
            return {path[len(self._base) + 1 :]: int(item["size"]) for path, item in found.items()}

        return patiently(list_all, Spell(network_patience_s()))

    @contextlib.contextmanager
    def writing(self, name: str) -> Iterator[Path]:
        """Yield a temporary path; what is there at the end replaces all objects of that name.

        Raises
        ------
        StorageError
            R803 when the store gives back other bytes, R804 when the temporary folder is too small.
        NetworkError
            R810.
        """
        with tempfile.TemporaryDirectory(prefix="bperp-upload-") as place:
            folder = Path(place)
            with _room_for(folder):
                yield folder / name
            path = folder / name
            files = [path] if path.is_file() else _files(path)
            self._replace({file.relative_to(folder).as_posix(): file for file in files}, name)

    def _replace(self, files: Mapping[str, Path], name: str) -> None:
        """Upload files, then remove the objects of an earlier version that are not among them."""
        before = self.sizes(name)
        self._upload_all(files)
        stored = self.sizes(name)
        for key, file in files.items():
            if stored.get(key) != file.stat().st_size:
                raise self._damaged(key, f"{stored.get(key, 0)} of {file.stat().st_size} bytes")
        for key in before.keys() - files.keys():
            self.objects.remove(f"{self.folder}/{key}")

    def _upload_all(self, files: Mapping[str, Path]) -> None:
        """Upload some files at a time; the first fault stops the others after their file.

        The threads are daemons, unlike those of a pool: Ctrl-C need not wait for gigabytes.
        """
        waiting: queue.SimpleQueue[tuple[str, Path]] = queue.SimpleQueue()
        for item in files.items():
            waiting.put(item)
        faults: list[BaseException] = []
        stop = threading.Event()

        def work() -> None:
            with contextlib.suppress(queue.Empty):
                while not stop.is_set():
                    key, file = waiting.get_nowait()
                    try:
                        self._upload(file, key)
                    except BaseException as fault:
                        faults.append(fault)
                        stop.set()

        threads = [threading.Thread(target=work, daemon=True) for _ in range(_FILES_AT_ONCE)]
        try:
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        finally:
            stop.set()
        if faults:
            raise faults[0]

    def _upload(self, file: Path, key: str) -> None:
        """Send a file in parts, read it back part by part and compare."""
        is_s3 = "s3" in self.filesystem.protocol
        # Other file systems have parts of their own size.
        options = {"chunksize": PART_BYTES, "max_concurrency": _PARTS_AT_ONCE} if is_s3 else {}

        def send() -> None:
            with storage_errors(f"{self.url}/{key}", remote=True):
                self.filesystem.put_file(str(file), f"{self._base}/{key}", **options)

        patiently(send, Spell(network_patience_s()))
        size = file.stat().st_size
        with file.open("rb") as stream:
            for start in range(0, size, PART_BYTES):
                stop = min(start + PART_BYTES, size)
                stored = self.objects.read_range(f"{self.folder}/{key}", start, stop)
                if stored != stream.read(stop - start):
                    raise self._damaged(key, f"a difference after byte {start}")

    def _damaged(self, key: str, found: str) -> StorageError:
        return StorageError(
            "R803",
            "the object store gives back other bytes than were sent",
            where=f"{self.url}/{key}",
            found=found,
            remedy="run the same command again; if it happens again, check the store",
        )


def _open_filesystem(store: CubeStore) -> tuple[Any, str]:
    # Not the file system of the store's client, which makes single attempts: a file of hundreds of
    # parts needs the library to send a part again, not us the whole file.
    try:
        filesystem, base = fsspec.core.url_to_fs(store.root, **store.storage_options)
    except ImportError as error:
        raise ConfigurationError(
            "C104",
            "a package that can upload files to this root is not installed",
            where=store.objects.url,
            found=str(error),
            remedy="install it (extras: gcs, azure), or export to a folder with --out",
        ) from error
    return filesystem, str(base)


def _files(folder: Path) -> list[Path]:
    """Return all files below a folder in the order of their names."""
    return sorted(Path(place, name) for place, _, names in os.walk(folder) for name in names)


@contextlib.contextmanager
def _room_for(folder: Path) -> Iterator[None]:
    """Say of a full disk that it is the temporary folder's."""
    try:
        yield
    except StorageError as error:
        if error.code != "R804":
            raise
        raise StorageError(
            "R804",
            "the temporary folder cannot hold the files that are to be uploaded",
            where=str(folder.parent),
            expected=error.expected,
            found=error.found,
            remedy="set TMPDIR to a folder with more room, or export to one with --out",
        ) from error
