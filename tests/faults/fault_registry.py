"""The faults of runtime and storage that have a row in the catalogue, and who proves what happens.

Each row has a test with the decorator ``fault`` in this folder, or a reason in ``ELSEWHERE`` (tests
of another module) or ``NOT_APPLICABLE`` (nothing in the program can suffer it yet).
``tests/house/test_04_faults.py`` sees to it that no row is forgotten.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

Test = TypeVar("Test", bound=Callable[..., Any])

ROWS: Mapping[str, str] = {
    "G01": "killed in the middle of a write",
    "G02": "chunk deleted",
    "G03": "chunk truncated or empty",
    "G04": "bit flip in a chunk",
    "G05": "left-over partial files",
    "G06": "disk full, quota, file size limit",
    "G07": "out of memory, worker killed by its nanny",
    "G08": "two runs on one store, stale lock",
    "G09": "Ctrl-C, SIGTERM",
    "G10": "scheduler or worker lost",
    "G11": "time zone, clock that is wrong or jumps",
    "G12": "store read-only, permission denied",
    "G13": "store of another version, renamed variable",
    "G14": "configuration edited between runs",
    "G15": "Prefect server slow to start",
    "G16": "versions of packages drift",
    "G17": "Prefect database corrupt",
    "G18": "object store slow, failing, cutting connections",
    "G19": "object store lists late, chunk missing there",
    "G20": "flood of logs",
    "G21": "no terminal, no colours, narrow, plain ASCII",
    "G22": "more threads than processors",
    "G23": "third-party solver aborts or prints",
    "G24": "download interrupted or wrong",
    "G25": "port of the dashboard in use",
}

ELSEWHERE: Mapping[str, str] = {
    "G18": "tests/flows/test_56_faulty_network.py",
    "G19": "tests/flows/test_56_faulty_network.py",
}

NOT_APPLICABLE: Mapping[str, str] = {
    "G23": "no solver outside Python is called: nothing can abort or print from C",
    "G24": "nothing is downloaded: products, orbits and elevation models are files of the user",
}


def fault(row: str, *, level: str) -> Callable[[Test], Test]:
    """Declare that a test proves a row of the catalogue.

    Parameters
    ----------
    row : str
        Key of ``ROWS``.
    level : {"U", "T2", "P"}
        Unit, simulated stack, or process.
    """
    if row not in ROWS or level not in {"U", "T2", "P"}:
        raise ValueError(f"row and level must be known, instead got {row} {level}")

    def declare(test: Test) -> Test:
        return test

    return declare
