"""What a StaMPS input tree may be called, hold and replace: checks before the first byte."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from bperp.stores.errors import ConfigurationError
from bperp.stores.stamps_scene import MAXIMUM_PIXELS, check_date

FOLDERS = ("rslc", "diff0", "geo", "dem")
MAXIMUM_PATH_BYTES = 255
SHELL_CHARACTERS = re.compile(r"[\s\"'$&()*;<>?\[\\\]`{|}~!#]")


def check_stamps_path(root: Path, longest: str) -> None:
    """Refuse folders whose files the StaMPS tools cannot open.

    Parameters
    ----------
    root : Path
        Absolute folder of the tree.
    longest : str
        Longest file name in it, relative to the folder.

    Raises
    ------
    ConfigurationError
        ``C112``: more than 255 bytes (the C++ tools keep paths in buffers of 256), blanks or
        characters that the csh scripts would interpret.
    """
    length = len(os.fsencode(str(root / longest)))
    if length > MAXIMUM_PATH_BYTES:
        raise ConfigurationError(
            "C112",
            "paths of this length overflow the buffers of the StaMPS tools",
            where=str(root),
            expected=f"at most {MAXIMUM_PATH_BYTES} bytes",
            found=f"{length} bytes with {longest}",
            remedy="choose an output folder with a shorter path",
        )
    if not str(root).isprintable() or SHELL_CHARACTERS.search(str(root)):
        raise ConfigurationError(
            "C112",
            "the StaMPS scripts cannot read paths with blanks or shell characters",
            where=str(root),
            expected="letters, digits and . _ - + = @ % , : /",
            found=repr(str(root)),
            remedy="choose an output folder without them",
        )


def check_stamps_size(root: Path, lines: int, samples: int) -> None:
    """Refuse ``C113`` more pixels than the 32-bit integers of the StaMPS tools can count."""
    if lines * samples > MAXIMUM_PIXELS:
        raise ConfigurationError(
            "C113",
            "StaMPS addresses pixels with 32-bit integers and would read wrong heights",
            where=str(root),
            expected=f"at most {MAXIMUM_PIXELS} pixels",
            found=f"{lines} x {samples}",
            remedy="export a smaller area",
        )


def check_stamps_target(root: Path, *, replace: bool) -> None:
    """Refuse ``C111`` to write over anything but, if asked, an input tree and nothing else.

    Parameters
    ----------
    root : Path
        Folder of the tree; absent or empty is always fine.
    replace : bool
        Whether an existing tree may be replaced. Results that StaMPS wrote beside the input
        (``PATCH_1``, ``parms.mat``) are never given up.
    """
    names = {entry.name for entry in root.iterdir()} if root.is_dir() else set()
    if not names and (root.is_dir() or not os.path.lexists(root)):
        return
    foreign = sorted(names - set(FOLDERS)) if root.is_dir() else [root.name]
    if replace and not foreign:
        return
    raise ConfigurationError(
        "C111",
        "the output folder exists and is not replaced",
        where=str(root),
        expected="a new folder" + (" or a StaMPS input tree and nothing else" if replace else ""),
        found=f"also {', '.join(foreign[:3])}" if foreign else "an existing tree",
        remedy="choose another folder" + ("" if foreign else " or ask for replacement"),
    )


def checked_secondaries(reference: str, secondaries: Sequence[str]) -> tuple[str, ...]:
    """Return the secondary dates in ascending order.

    Raises
    ------
    ConfigurationError
        ``C114``: none, repeated, or the reference among them.
    ValueError
        Not ``YYYYMMDD``.
    """
    for date in secondaries:
        check_date(date)
    dates = tuple(sorted(secondaries))
    if not dates or reference in dates or len(set(dates)) != len(dates):
        raise ConfigurationError(
            "C114",
            "the dates do not form a single-reference stack",
            where=reference,
            expected="one or more different secondary dates, none equal to the reference",
            found=", ".join(dates) or "no secondary",
            remedy="choose another list of dates",
        )
    return dates
