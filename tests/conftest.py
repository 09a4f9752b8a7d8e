"""Shared fixtures: where the real products are, and an S3 endpoint.

The folder ``tests/endpoints`` is put on ``sys.path``: see ``endpoints/moto_endpoint.py``.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

_REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(Path(__file__).resolve().parent / "endpoints"))

# Faults that last must not take the five minutes that a user would give them.
os.environ.setdefault("BPERP_NETWORK_PATIENCE_S", "5")

from moto_endpoint import Endpoint, exported, serve  # noqa: E402 (needs the line above)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder with real products; tests that need it skip when it is absent."""
    folder = Path(os.environ.get("BPERP_TESTDATA", _REPOSITORY.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"real products not found in {folder}: set BPERP_TESTDATA to the folder")
    return folder


@pytest.fixture(scope="session")
def moto_url() -> Iterator[str]:
    """Address of an S3 endpoint that lives as long as the test session."""
    pytest.importorskip("moto")
    with serve() as url:
        yield url


@pytest.fixture
def s3(moto_url: str) -> Iterator[Endpoint]:
    """An S3 endpoint with an empty bucket; the environment leads to it."""
    endpoint = Endpoint(moto_url, "").with_bucket()
    with exported(endpoint.environment):
        yield endpoint
