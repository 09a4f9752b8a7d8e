"""Write a file beside its final place and rename it when it is whole."""

from __future__ import annotations

import errno
import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from bperp.stores.errors import StorageError


@contextmanager
def replacing(path: Path | str) -> Generator[Path, None, None]:
    """Yield a temporary path that becomes ``path`` when the block ends without an exception.

    Parameters
    ----------
    path : Path or str
        Final file; missing parent folders are created, an existing file is replaced.

    Yields
    ------
    Path
        File name in the same folder and with the same suffix, for any writer that takes a path.

    Raises
    ------
    StorageError
        ``R804`` disk full or quota reached, ``R807`` not writable.

    Notes
    -----
    Readers see the old file or the new one, never half of either; a failed write leaves the old
    file and no temporary one.
    """
    final = Path(path)
    # The process id keeps two writers of one report apart; the last rename wins.
    partial = final.with_name(f".{final.stem}.{os.getpid()}.partial{final.suffix}")
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield partial
            with partial.open("rb") as stream:
                os.fsync(stream.fileno())
            partial.replace(final)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        raise storage_error(error, final) from error


def storage_error(error: OSError, path: Path) -> StorageError:
    """Return the typed error for an operating system error met while writing.

    Parameters
    ----------
    error : OSError
        What the operating system reported.
    path : Path
        File or folder that was being written.

    Returns
    -------
    StorageError
        ``R804`` for a full disk or quota, ``R807`` for everything else.
    """
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        remedy = "free space or choose another output folder, then run the same command again"
        return StorageError("R804", "the disk or quota is full", where=str(path), remedy=remedy)
    return StorageError(
        "R807",
        "the output cannot be written",
        where=str(path),
        found=error.strerror or type(error).__name__,
        remedy="check the owner and permissions of the folder or choose another one",
    )
