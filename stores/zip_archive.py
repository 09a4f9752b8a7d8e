"""Products in zip archives, read in place and never unpacked.

Archives from strangers are refused when a name leaves the archive, when a member is a link or a
device, or when sizes exceed what the format allows.
"""

from __future__ import annotations

import errno
import hashlib
import io
import lzma
import posixpath
import re
import stat
import struct
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import IO, Any, TypeVar, cast

from bperp.stores.byte_source import ByteSource, FileSource, check_size, display_name
from bperp.stores.errors import BperpError, ProductError, SecurityError

__all__ = ["MANIFEST", "ZipArchive", "is_junk", "no_manifest", "open_zip"]

MANIFEST = "manifest.safe"
MEMBER_LIMIT_BYTES = 8 * 2**30
"""The largest measurement file of the mission has 2 GB."""

_MEMBER_LIMIT = 10_000
_JUNK = re.compile(r"(^|/)(__MACOSX/|\.DS_Store$|\._[^/]*$|Thumbs\.db$)")
_UNSAFE = re.compile(r"^[A-Za-z]:|^/|\\|(^|/)\.\.(/|$)|[\x00-\x1f]")
_LOCAL_HEADER = struct.Struct("<4s22xHH")
_BROKEN = (
    zipfile.BadZipFile,
    NotImplementedError,
    RuntimeError,
    ValueError,
    EOFError,
    OverflowError,
    IndexError,
    struct.error,
    zlib.error,
    lzma.LZMAError,
)
T = TypeVar("T")


def is_junk(name: str) -> bool:
    """Tell whether a member is what a desktop computer left behind."""
    return _JUNK.search(name) is not None


@dataclass
class StreamSource:
    """Bytes of a compressed zip member, decompressed only once while reads go forward."""

    open_member: Callable[[], _MemberStream]
    label: str
    size: int
    _stream: _MemberStream | None = field(default=None, init=False)
    _position: int = field(default=0, init=False)

    def read(self, start: int, stop: int) -> bytes:
        """Return a range of bytes; D202 when the member does not decompress."""
        return _unbroken(lambda: self._read(start, min(stop, self.size)), self.label)

    def _read(self, start: int, stop: int) -> bytes:
        if self._stream is None or start < self._position:
            self.close()
            self._stream, self._position = self.open_member(), 0
        while self._position < start:
            skipped = len(self._stream.read(min(start - self._position, 2**22)))
            if not skipped:
                return b""
            self._position += skipped
        data = self._stream.read(max(stop - start, 0))
        self._position += len(data)
        return data

    def close(self) -> None:
        """Close the archive."""
        if self._stream is not None:
            self._stream.close()
        self._stream = None


class _MemberStream:
    """A zip member that is open together with its archive."""

    def __init__(self, filesystem: Any, path: str, name: str) -> None:
        with ExitStack() as stack:
            handle = stack.enter_context(_open_handle(filesystem, path))
            archive = stack.enter_context(zipfile.ZipFile(handle))
            self._stream = stack.enter_context(archive.open(name))
            self._stack = stack.pop_all()

    def read(self, count: int) -> bytes:
        return self._stream.read(count)

    def close(self) -> None:
        self._stack.close()


def _open_handle(filesystem: Any, path: str) -> IO[bytes]:
    if "memory" in filesystem.protocol:
        # A memory file system gives every reader the same object with the same position.
        return io.BytesIO(filesystem.cat_file(path))
    return cast(IO[bytes], filesystem.open(path, "rb", block_size=2**20))


def _unbroken(action: Callable[[], T], label: str) -> T:
    """Run a zip operation and turn what zipfile may raise on damaged archives into D202."""
    try:
        return action()
    except BperpError:
        raise
    except OSError as error:
        # A damaged directory makes zipfile seek to nowhere; other OSErrors are not about the data.
        if error.errno not in {errno.EINVAL, None}:
            raise
        raise _damaged(label, error) from error
    except _BROKEN as error:
        raise _damaged(label, error) from error


def _damaged(label: str, error: Exception) -> ProductError:
    return ProductError(
        "D202",
        "member of the archive is damaged",
        where=label,
        expected="data that decompress to the recorded checksum",
        found=str(error)[:100] or type(error).__name__,
        remedy="fetch the product again",
    )


@dataclass(frozen=True)
class ZipArchive:
    """A product in a zip archive, read in place."""

    filesystem: Any
    path: str
    label: str
    root: str
    sizes: Mapping[str, int]

    def members(self) -> Mapping[str, int]:
        """Return the unpacked size in bytes of every member."""
        return self.sizes

    def _open(self, member: str) -> _MemberStream:
        return _MemberStream(self.filesystem, self.path, self.root + member)

    def read(self, member: str, limit_bytes: int) -> bytes:
        """Return a whole member; D202 when damaged, X902 above the limit."""
        label = f"{self.label}/{member}"
        check_size(label, self._size(member), limit_bytes)

        def whole() -> bytes:
            stream = self._open(member)
            try:  # Reading past the end makes zipfile compare the checksum.
                return stream.read(limit_bytes) + stream.read(1)
            finally:
                stream.close()

        return _unbroken(whole, label)

    def md5(self, member: str) -> str:
        """Return the MD5 of a member; D202 when its own checksum is wrong already."""

        def digest() -> str:
            result, stream = hashlib.md5(usedforsecurity=False), self._open(member)
            try:
                while data := stream.read(2**24):
                    result.update(data)
            finally:
                stream.close()
            return result.hexdigest()

        return _unbroken(digest, f"{self.label}/{member}")

    def source(self, member: str) -> ByteSource:
        """Return random access: a range of the archive when stored, a stream when compressed."""
        self._size(member)
        label = f"{self.label}/{member}"
        return _unbroken(lambda: self._source(member, label), label)

    def _size(self, member: str) -> int:
        if member not in self.sizes:
            raise FileNotFoundError(errno.ENOENT, "no such member", f"{self.label}/{member}")
        return self.sizes[member]

    def _source(self, member: str, label: str) -> ByteSource:
        with _open_handle(self.filesystem, self.path) as handle, zipfile.ZipFile(handle) as archive:
            entry = archive.getinfo(self.root + member)
        if entry.compress_type != zipfile.ZIP_STORED:
            return StreamSource(lambda: self._open(member), label, entry.file_size)
        whole = FileSource(self.filesystem, self.path, int(self.filesystem.size(self.path) or 0))
        header = whole.read(entry.header_offset, entry.header_offset + _LOCAL_HEADER.size)
        magic, name_length, extra_length = _LOCAL_HEADER.unpack(header)
        if magic != b"PK\x03\x04":
            raise zipfile.BadZipFile("local header is not where the directory says")
        offset = entry.header_offset + _LOCAL_HEADER.size + name_length + extra_length
        return FileSource(self.filesystem, self.path, entry.file_size, offset)


def open_zip(filesystem: Any, path: str, label: str) -> ZipArchive:
    """Open a zip archive that holds one product (D201, D203, D204, D207, X902, X903)."""
    size = int(filesystem.size(path) or 0)
    head = filesystem.cat_file(path, start=0, end=min(size, 64)) if size else b""
    if size and not head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        shown = head[:15].decode("ascii", "replace").split("\n")[0]
        raise ProductError(
            "D203",
            "not a zip archive",
            where=label,
            expected="a SAFE folder or zip",
            found=f"a file that starts with {shown!r}",
            remedy="check the credentials of the download and fetch it again",
        )
    try:
        with _open_handle(filesystem, path) as handle, zipfile.ZipFile(handle) as archive:
            entries = archive.infolist()
    except _BROKEN as error:
        raise ProductError(
            "D201",
            "archive has no central directory; the download is incomplete",
            where=label,
            found=f"{size} bytes",
            remedy="fetch the product again",
        ) from error
    _check_entries(entries, label)
    sizes = {entry.filename: entry.file_size for entry in entries if not entry.is_dir()}
    root = _zip_root(sizes, label)
    inside = {
        name[len(root) :]: length
        for name, length in sizes.items()
        if name.startswith(root) and not is_junk(name)
    }
    return ZipArchive(filesystem, path, label, root, inside)


def _zip_root(sizes: Mapping[str, int], label: str) -> str:
    manifests = [
        name for name in sizes if posixpath.basename(name).lower() == MANIFEST and not is_junk(name)
    ]
    if len(manifests) == 1:
        return manifests[0][: -len(MANIFEST)]
    if any(name.lower().endswith(".zip") for name in sizes):
        raise no_manifest(label, "a zip archive inside the zip archive", "unpack the outer one")
    found = f"{len(manifests)} manifests" if manifests else "none"
    raise no_manifest(label, found, "fetch the product again, one product per archive")


def _check_entries(entries: list[zipfile.ZipInfo], label: str) -> None:
    def refuse(cause: str, name: str) -> SecurityError:
        return SecurityError(
            "X903",
            cause,
            where=label,
            expected="an archive as the agency writes it",
            found=repr(name[:60]),
            remedy="do not use this archive; fetch the product from the agency",
        )

    if len(entries) > _MEMBER_LIMIT:
        raise refuse("archive has too many members", f"{len(entries)} members")
    for entry in entries:
        kind = stat.S_IFMT(entry.external_attr >> 16)
        if _UNSAFE.search(entry.orig_filename):
            raise refuse("archive has a member whose name leaves the archive", entry.orig_filename)
        if kind not in {0, stat.S_IFREG, stat.S_IFDIR}:
            raise refuse("archive has a link or device as member", entry.filename)
        if entry.flag_bits & 1:
            raise refuse("archive has an encrypted member", entry.filename)
        check_size(f"{label}/{display_name(entry.filename)}", entry.file_size, MEMBER_LIMIT_BYTES)
    name, count = (
        Counter(entry.filename for entry in entries).most_common(1)[0] if entries else ("", 0)
    )
    if count > 1:
        raise ProductError(
            "D207",
            "archive holds a member twice",
            where=label,
            found=repr(name[:100]),
            remedy="fetch the product again",
        )


def no_manifest(label: str, found: str, remedy: str) -> ProductError:
    """Return the error D204."""
    return ProductError(
        "D204",
        "no SAFE product",
        where=label,
        expected=f"one {MANIFEST}",
        found=found,
        remedy=remedy,
    )
